# Six backups of which two are left and one is held: condemned, swept after the grace period, and one more backup on top.
db db.sqlite "PRAGMA journal_mode = wal; CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT, b BLOB);
  INSERT INTO t (v, b) $ROWS SELECT 'row ' || i, printf('%040d', i * i) FROM n;"
identity
COMPONENT="db: { sqlite: { path: db.sqlite }, backup: { to: [disk], encrypt: main"
configure "$COMPONENT } }"
for round in 1 2 3 4 5 6; do
    lifeboat backup
    db db.sqlite "UPDATE t SET v = 'round $round' WHERE id % 200 = $round;"
done
lifeboat hold add golden/db --backup 2 --reason golden
MORE="retention: { two: { keep: { last: 2 }, never_below: 2, after_backup: false } }"
configure "$COMPONENT, retention: two } }"
older store
lifeboat prune
older store
lifeboat prune
test "$(find store -path '*/backups/*' -type f | wc -l)" -eq 3
test "$(find store -name 'sweep-*' | wc -l)" -eq 0
lifeboat backup
