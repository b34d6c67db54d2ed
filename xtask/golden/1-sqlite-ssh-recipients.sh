# Two SSH keys may read, and nobody else.
db db.sqlite "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t (v) $ROWS SELECT 'row ' || i FROM n;"
ssh-keygen -q -t ed25519 -N '' -C one -f keys/identity.txt
ssh-keygen -q -t rsa -b 3072 -N '' -C two -f keys/rsa
KEYS="keys: { main: { age: { recipients: ['$(cat keys/identity.txt.pub)', '$(cat keys/rsa.pub)'], identity: { file: keys/identity.txt } } } }"
configure "db: { sqlite: { path: db.sqlite }, backup: { to: [disk], encrypt: main } }"
lifeboat backup
db db.sqlite "UPDATE t SET v = 'changed' WHERE id = 5;"
lifeboat backup
