# The private key lies under a passphrase.
db db.sqlite "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t (v) $ROWS SELECT 'row ' || i FROM n;"
printf 'a golden passphrase' > keys/passphrase.txt
LIFEBOAT_PASSPHRASE=$(cat keys/passphrase.txt)
export LIFEBOAT_PASSPHRASE
PUBLIC=$(on_terminal "$LIFEBOAT_PASSPHRASE" lifeboat key new --passphrase keys/protected.age | grep -o 'age1[a-z0-9]*' | head -n 1)
KEYS="keys: { main: { age: { recipients: [$PUBLIC], identity: { file: keys/protected.age }, passphrase: { env: LIFEBOAT_PASSPHRASE } } } }"
configure "db: { sqlite: { path: db.sqlite }, backup: { to: [disk], encrypt: main } }"
lifeboat backup
