# A WAL database for one age recipient: rows that change, rows that go, a table and an index that come.
db db.sqlite "PRAGMA journal_mode = wal; CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT, b BLOB);
  INSERT INTO t (v, b) $ROWS SELECT 'row ' || i, printf('%040d', i * i) FROM n;"
identity
configure "db: { sqlite: { path: db.sqlite }, backup: { to: [disk], encrypt: main } }"
lifeboat backup
db db.sqlite "UPDATE t SET v = 'changed' WHERE id % 300 = 7;"
lifeboat backup
db db.sqlite "UPDATE t SET v = 'again' WHERE id % 300 = 8; DELETE FROM t WHERE id > 1450;"
lifeboat backup
db db.sqlite "CREATE TABLE more (x); INSERT INTO more $ROWS SELECT 'more ' || i FROM n; CREATE INDEX i ON t (v);"
lifeboat backup
