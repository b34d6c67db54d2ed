# One repository in two stores: what the second had missed was copied, then both were written.
db db.sqlite "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t (v) $ROWS SELECT 'row ' || i FROM n;"
identity
SECOND="second: { fs: { path: second } }"
configure "db: { sqlite: { path: db.sqlite }, backup: { to: [disk], encrypt: main } }"
lifeboat backup
db db.sqlite "UPDATE t SET v = 'changed' WHERE id = 5;"
lifeboat backup
configure "db: { sqlite: { path: db.sqlite }, backup: { to: [disk, second], encrypt: main } }"
lifeboat copy --to second --backup all
db db.sqlite "UPDATE t SET v = 'and again' WHERE id = 6;"
lifeboat backup
