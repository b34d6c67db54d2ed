"""Writes small transactions to a SQLite database until standard input closes; prints for each when it began and ended, in seconds.

usage: sqlite_writer.py PATH

A transaction is timed from BEGIN IMMEDIATE to the end of COMMIT: what an application waits. Between two it rests two milliseconds,
as one with some traffic does. "ready" is printed after the first commit.
"""

import random
import sqlite3
import sys
import threading
import time


def main():
    stop = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
    generator = random.Random(7)
    database = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
    database.execute("pragma synchronous = normal")
    highest = database.execute("select max(rowid) from applications").fetchone()[0]
    first = True
    while not stop.is_set():
        chosen = [(f"note {generator.random()}", generator.randint(1, highest)) for _ in range(3)]
        began = time.time()
        database.execute("begin immediate")
        database.executemany("update applications set note = ? where rowid = ?", chosen)
        database.execute("commit")
        ended = time.time()
        if first:
            print("ready", flush=True)
            first = False
        print(f"{began:.6f} {ended:.6f}", flush=True)
        time.sleep(0.002)
    database.close()


main()
