"""Prints what lies in a folder, one line each, in order: what a golden repository must restore to.

`tree.py FOLDER`: names, contents, modes, times, links and extended attributes; the folder itself is not part of it.
`tree.py --contents FOLDER`: SHA-256 and name of every regular file.
"""

import hashlib
import os
import stat
import sys


def sha256(path: bytes) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def line(path: bytes, name: bytes, inodes: dict) -> str:
    meta = os.lstat(path)
    # A name that is not UTF-8, or holds a backslash or a line feed, is shown with escapes.
    shown = name.decode("utf-8", "backslashreplace").replace("\n", "\\n")
    when = f"{meta.st_mtime_ns // 10**9}.{meta.st_mtime_ns % 10**9:09}"
    mode = f"{stat.S_IMODE(meta.st_mode):04o}"
    if stat.S_ISLNK(meta.st_mode):
        return f"link {when} {shown} -> {os.readlink(path).decode('utf-8', 'backslashreplace')}"
    attributes = "".join(f" {key}={os.getxattr(path, key).hex()}" for key in sorted(os.listxattr(path)) if key.startswith("user."))
    if stat.S_ISDIR(meta.st_mode):
        return f"dir {mode} {when} {shown}{attributes}"
    if stat.S_ISREG(meta.st_mode):
        first = inodes.setdefault(meta.st_ino, shown)
        same = "" if first == shown else f" same as {first}"
        return f"file {mode} {when} {meta.st_size} {sha256(path)} {shown}{attributes}{same}"
    return f"{stat.filemode(meta.st_mode)[0]} {mode} {when} {shown}{attributes}"


def main(words: list) -> None:
    contents = words[0] == "--contents"
    root = os.fsencode(words[-1])
    found = []
    for folder, folders, files in os.walk(root):
        found += [os.path.relpath(os.path.join(folder, name), root) for name in folders + files]
    inodes: dict = {}
    for name in sorted(found):
        path = os.path.join(root, name)
        if not contents:
            print(line(path, name, inodes))
        elif stat.S_ISREG(os.lstat(path).st_mode):
            print(f"{sha256(path)} {name.decode('utf-8', 'backslashreplace')}")


main(sys.argv[1:])
