# A rollback-journal database in the clear: small pages, UTF-16, without rowids.
db db.sqlite "PRAGMA page_size = 1024; PRAGMA encoding = 'UTF-16le'; PRAGMA user_version = 7;
  CREATE TABLE t (k TEXT PRIMARY KEY, v) WITHOUT ROWID; INSERT INTO t $ROWS SELECT 'key ' || i, i * 0.5 FROM n;"
configure "db: { sqlite: { path: db.sqlite }, backup: { to: [disk], encrypt: none } }"
lifeboat backup
db db.sqlite "UPDATE t SET v = -1 WHERE k = 'key 700';"
lifeboat backup --tag release --reason 'before the change' --keep-for 90d
