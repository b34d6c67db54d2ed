# There is nothing but a passphrase in the environment.
db db.sqlite "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t (v) $ROWS SELECT 'row ' || i FROM n;"
printf 'a golden passphrase' > keys/derived.txt
BACKUP_ENCRYPTION_KEY=$(cat keys/derived.txt)
export BACKUP_ENCRYPTION_KEY
KEYS="keys: { main: { passphrase: { env: BACKUP_ENCRYPTION_KEY } } }"
configure "db: { sqlite: { path: db.sqlite }, backup: { to: [disk], encrypt: main } }"
lifeboat backup
