# Two could read; one was taken out, and opens nothing any more. The last backup is a full one under new keys.
db db.sqlite "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t (v) $ROWS SELECT 'row ' || i FROM n;"
STAYS=$(new_key keys/identity.txt)
GOES=$(new_key keys/removed.txt)
KEYS="keys: { main: { age: { recipients: [$STAYS, $GOES], identity: { file: keys/identity.txt } } } }"
configure "db: { sqlite: { path: db.sqlite }, backup: { to: [disk], encrypt: main } }"
lifeboat backup
db db.sqlite "UPDATE t SET v = 'changed' WHERE id = 5;"
lifeboat backup
KEYS="keys: { main: { age: { recipients: [$STAYS], identity: { file: keys/identity.txt } } } }"
configure "db: { sqlite: { path: db.sqlite }, backup: { to: [disk], encrypt: main } }"
lifeboat key remove "$GOES"
db db.sqlite "UPDATE t SET v = 'and again' WHERE id = 6;"
lifeboat backup
