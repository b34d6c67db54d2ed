# A database with its dump as SQL text and the results of two queries beside it.
db db.sqlite "CREATE TABLE keys (id INTEGER PRIMARY KEY, name TEXT, secret BLOB, created REAL);
  INSERT INTO keys (name, secret, created) $ROWS SELECT 'key, \"' || i || '\"', randomblob(30), i / 3.0 FROM n LIMIT 200;"
db db.sqlite "CREATE TABLE odd (a TEXT PRIMARY KEY, b) WITHOUT ROWID; INSERT INTO odd VALUES ('nul' || char(0) || 'inside', NULL), ('x', 1e300);"
identity
configure "db:
        sqlite:
          path: db.sqlite
          sql_dump: true
          extract:
            - { file: api_keys_metadata.csv, query: 'SELECT id, name, created FROM keys', columns: [id, name, created] }
            - { file: nothing.csv, query: 'SELECT id FROM keys WHERE id < 0', columns: [id] }
        backup: { to: [disk], encrypt: main }"
lifeboat backup
db db.sqlite "DELETE FROM keys WHERE id % 3 = 0;"
lifeboat backup
