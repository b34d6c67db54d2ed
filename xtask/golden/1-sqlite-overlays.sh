# Ten backups of a database in which single pages change each time: overlays on overlays, more than eight of them, and extents stored anew.
db db.sqlite "PRAGMA journal_mode = wal; CREATE TABLE t (id INTEGER PRIMARY KEY, v INTEGER, b BLOB);
  INSERT INTO t (v, b) $ROWS SELECT 0, printf('%0150d', i * i) FROM n;"
identity
configure "db: { sqlite: { path: db.sqlite }, backup: { to: [disk], encrypt: main } }"
lifeboat backup
for round in 1 2 3 4 5 6 7 8 9; do
    db db.sqlite "UPDATE t SET v = $round WHERE id IN ($round * 40, $round * 40 + 700, 1000);"
    lifeboat backup
done
