"""Makes a seeded SQLite database of about the given size: rows of words, JSON documents and identifiers, with indexes.

usage: sqlite_make.py PATH BYTES JOURNAL_MODE
"""

import json
import random
import sqlite3
import sys
import uuid

WORDS = (
    "interview offer salary remote berlin lisbon engineer manager follow up call letter portfolio reference contract "
    "feedback rejected accepted pending draft company recruiter agency start date notice period relocation bonus"
).split()


def rows(generator, first, count):
    for number in range(first, first + count):
        note = " ".join(generator.choices(WORDS, k=generator.randint(10, 120)))
        body = json.dumps(
            {
                "company": generator.choice(WORDS) + str(generator.randint(1, 5000)),
                "salary": generator.randint(30_000, 150_000),
                "tags": generator.choices(WORDS, k=generator.randint(0, 6)),
                "contact": {"mail": f"person{generator.randint(1, 10**6)}@example.org", "phone": str(generator.randint(10**9, 10**10))},
            }
        )
        yield (
            str(uuid.UUID(int=generator.getrandbits(128), version=4)),
            number,
            generator.choice(("open", "applied", "interview", "closed")),
            body,
            note,
        )


def main():
    path, size_bytes, mode = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    generator = random.Random(20261121)
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("pragma synchronous = off")
    database.execute(f"pragma journal_mode = {mode}")
    database.execute("create table applications (id text primary key, number integer, state text, body text, note text)")
    page_size = database.execute("pragma page_size").fetchone()[0]
    first = 0
    while database.execute("pragma page_count").fetchone()[0] * page_size < size_bytes * 0.95:
        database.execute("begin")
        database.executemany("insert into applications values (?, ?, ?, ?, ?)", rows(generator, first, 20_000))
        database.execute("commit")
        first += 20_000
    database.execute("create index by_state on applications (state, number)")
    database.execute("pragma wal_checkpoint(truncate)")
    database.close()


main()
