#!/usr/bin/env python3
"""Restore a Lifeboat repository without Lifeboat.

Written from docs/format.md alone, as proof that the page is enough and as a way out when the program is not at hand.
It only reads the store. It needs Python 3.9 or newer, the packages `zstandard`, `cryptography` and `blake3`, and the
stock `age` program for the keys. How to use it: docs/recover-without-lifeboat.md. Section numbers below are those of format.md.

Exit codes: 0 ok · 1 the machine failed (disk, missing program) · 2 usage · 5 damaged data · 9 no such backup
· 10 no repository · 12 the key does not fit.
"""
from __future__ import annotations

import argparse
import base64
import binascii
import getpass
import hashlib
import json
import os
import re
import shutil
import sqlite3
import struct
import subprocess
import sys
import tempfile
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Callable, Dict, Generic, Iterator, List, Optional, Set, Tuple, TypeVar

try:
    import zstandard
    from blake3 import blake3
    from cryptography.exceptions import InvalidSignature, InvalidTag
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
except ImportError as missing:
    sys.exit(f"recover: {missing}. Run: python3 -m pip install zstandard cryptography blake3")

EXTENT = 131_072
TRAILER = 104
ZERO, RAW, ZSTD = 1, 2, 3  # forms of a blob
CLASS_EXTENT, CLASS_GROUP, CLASS_CHUNK, CLASS_SPACE = 1, 2, 3, 4
MAX_RAW = 64 << 20  # no blob decompresses to more: a pack has at most 40 MiB, a sane group or chunk far less
MAX_KEY_FILE = 1 << 20
MAX_LINE = 64 << 20  # one line of the file table
SIGNED_NAME = re.compile(r"[0-9a-f]{16}-[0-9a-f]{64}")


class Trouble(Exception):
    """A reason to stop, told to the person in front of the screen. `code` is the exit code."""

    code = 1


class Usage(Trouble):
    """The command line asks for something that cannot be done."""

    code = 2


class Damaged(Trouble):
    """Stored or restored bytes are not what they must be."""

    code = 5


class NoBackup(Trouble):
    """No backup fits the question, or the one named may not be used."""

    code = 9


class NoRepository(Trouble):
    """The folder is not a repository that this reader knows."""

    code = 10


class WrongKey(Trouble):
    """The identity opens none of the key files: another identity is needed; the data may be sound."""

    code = 12


# --- small words of the format ---------------------------------------------------------------------------------------


def b3(data: bytes) -> bytes:
    """`B3(x)`."""
    return blake3(data).digest()


def b3k(key: bytes, data: bytes) -> bytes:
    """`B3K(k, x)`."""
    return blake3(data, key=key).digest()


def kdf(context: str, data: bytes) -> bytes:
    """`KDF(c, x)`."""
    return blake3(data, derive_key_context=context).digest()


def escape(component: str) -> str:
    """Component name to path segment (1)."""
    keep = b"abcdefghijklmnopqrstuvwxyz0123456789-_"
    raw = component.encode()
    return "".join(chr(c) if c in keep or (c == 0x2E and i > 0) else f"~{c:02X}" for i, c in enumerate(raw))


def unescape(segment: str) -> Optional[str]:
    """Path segment to component name, or None where the segment is not one that `escape` writes."""
    try:
        name = re.sub(rb"~([0-9A-F]{2})", lambda m: bytes([int(m.group(1), 16)]), segment.encode()).decode()
    except UnicodeError:
        return None
    return name if name and escape(name) == segment else None


def parse_json(data: bytes, what: str) -> Dict[str, Any]:
    """A JSON object; anything else is damage."""
    try:
        value = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{what} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise Damaged(f"{what} is not a JSON object")
    return value


def whole(value: Any, what: str) -> int:
    """A number that is an integer and not negative."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 63:
        raise Damaged(f"{what} is {value!r}, which is not a whole number")
    return value


def unhex(value: Any, size: int, what: str) -> bytes:
    """Lower-case hex of exactly `size` bytes."""
    if not isinstance(value, str) or not re.fullmatch(r"[0-9a-f]{%d}" % (2 * size), value):
        raise Damaged(f"{what} is not {2 * size} hex digits")
    return bytes.fromhex(value)


def inflate(form: int, data: bytes, raw_length: int, what: str) -> bytes:
    """Opened bytes to raw bytes; the length must be exactly what was promised."""
    if form == ZSTD:
        try:
            promised = zstandard.get_frame_parameters(data).content_size
            if promised not in (zstandard.CONTENTSIZE_UNKNOWN, raw_length):
                raise Damaged(f"{what} would decompress to {promised} bytes instead of {raw_length}")
            data = zstandard.ZstdDecompressor().decompress(data, max_output_size=raw_length)
        except zstandard.ZstdError as error:
            raise Damaged(f"{what} does not decompress: {error}") from None
    elif form != RAW:
        raise Damaged(f"{what} has the unknown form {form}")
    if len(data) != raw_length:
        raise Damaged(f"{what} has {len(data)} bytes instead of {raw_length}")
    return data


def check_signature(data: bytes, kind: str, what: str) -> Tuple[bytes, bytes]:
    """Body and public key of a signed file (3)."""
    if len(data) < TRAILER or data[-8:] != b"LBSIGN01":
        raise Damaged(f"{what} has no signature")
    body, public, signature = data[:-TRAILER], data[-TRAILER:-72], data[-72:-8]
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, b"lifeboat v1 " + kind.encode() + b"\0" + b3(body))
    except (InvalidSignature, ValueError):
        raise Damaged(f"{what} has a signature that does not fit its content") from None
    return body, public


def hash_file(path: Path) -> str:
    """Hex of `B3` over a file, read in pieces."""
    hasher = blake3()
    with open(path, "rb") as file:
        for piece in iter(lambda: file.read(1 << 20), b""):
            hasher.update(piece)
    return hasher.hexdigest()


def listing(folder: Path) -> List[str]:
    """Sorted names in a folder; none where it does not exist. Any other failure is an error, never an empty list (INV-13)."""
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []


T = TypeVar("T")


class Lru(Generic[T]):
    """The last few things that were used, weighed; `drop` is called with what leaves."""

    def __init__(self, limit: int, drop: Callable[[T], None] = lambda _: None) -> None:
        self.limit, self.weight, self.drop = limit, 0, drop
        self.items: "OrderedDict[Any, Tuple[T, int]]" = OrderedDict()

    def get(self, key: Any, make: Callable[[], T], weigh: Callable[[T], int] = lambda _: 1) -> T:
        """The kept value, or a new one."""
        if key in self.items:
            self.items.move_to_end(key)
            return self.items[key][0]
        value = make()
        self.items[key] = (value, weigh(value))
        self.weight += self.items[key][1]
        while self.weight > self.limit and len(self.items) > 1:
            old, weight = self.items.popitem(last=False)[1]
            self.weight -= weight
            self.drop(old)
        return value


# --- repository and backups ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Session:
    """A session as the closure names it (8.3). Its keys are in any of its key files."""

    id: bytes
    check: bytes
    form: int

    @property
    def label(self) -> str:
        """What to call it in messages."""
        return f"session {self.id.hex()}"

    def key_files(self, folder: Path) -> List[Path]:
        """Its key files in a component's folder, whatever they hold."""
        name = re.compile(self.id.hex() + r"-[0-9a-f]{64}" + (r"\.clear" if self.form == 1 else r"\.age"))
        return [folder / "keys" / file for file in listing(folder / "keys") if name.fullmatch(file)]


@dataclass(frozen=True)
class Pack:
    """A pack or map file as the closure names it (8.3)."""

    number: int
    session: Session
    size: int
    kind: int
    hash: bytes

    @property
    def name(self) -> str:
        """Path below the component. A pack lies in the folder of the session whose key seals it."""
        return f"{'maps' if self.kind == 2 else 'packs'}/{self.session.id.hex()}/{self.hash.hex()}"


@dataclass(frozen=True)
class Backup:
    """A backup file whose name, signature, header and closure are sound."""

    folder: Path
    name: str
    header: Dict[str, Any]
    public: bytes
    sessions: List[Session]
    packs: Dict[int, Pack]
    bound: bytes  # B3 over everything before the manifest: its associated data
    manifest: bytes


class Repository:
    """A store on disk. Only read."""

    def __init__(self, root: str, trust: List[bytes]) -> None:
        self.root, self.trust = Path(root), trust
        try:
            data = (self.root / "lifeboat.json").read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise NoRepository(f"{root} holds no lifeboat.json: this is not a repository, or not its top folder") from None
        about = parse_json(data, "lifeboat.json")
        if about.get("format") != "lifeboat-repository" or about.get("version") != 1:
            raise NoRepository(f"{root}/lifeboat.json is not of format version 1: a newer reader is needed")
        self.id = unhex(about.get("repository"), 16, "repository in lifeboat.json")
        told = "\0".join(str(about.get(field)) for field in ("format", "version", "repository", "created_at"))
        if about.get("check") != b3(told.encode()).hex():
            raise Damaged(f"{root}/lifeboat.json does not fit its own check value: take it from another store or copy")

    def components(self, only: Optional[str] = None) -> List[str]:
        """Names of all components, or the one asked for. A folder that cannot be listed is an error, never empty."""
        found = sorted(n for n in map(unescape, listing(self.root / "c")) if n is not None)
        if only is None:
            return found
        if only not in found:
            raise NoBackup(f"there is no component {only}; there are: {', '.join(found) or 'none'}")
        return [only]

    def folder(self, component: str) -> Path:
        """Where a component lies."""
        return self.root / "c" / escape(component)

    def judge(self, component: str) -> Iterator[Tuple[str, Optional[Backup], Optional[Trouble]]]:
        """Every backup file, newest first, with the reason why it does not count (INV-09). One at a time is in memory."""
        folder = self.folder(component) / "backups"
        names = [n for n in reversed(listing(folder)) if SIGNED_NAME.fullmatch(n)]
        going = self.swept(component)
        for name in names:
            backup: Optional[Backup] = None
            try:
                backup = self.load(component, name)
                if self.trust and backup.public not in self.trust:
                    raise NoBackup(f"signed by ed25519:{backup.public.hex()}, which is not a trusted key")
                if backup.header.get("features"):
                    raise NoBackup(f"needs features that this reader does not know: {backup.header['features']}")
                needed = {name, *(file.name for file in backup.packs.values())}
                needed |= {f"keys/{session.id.hex()}" for session in backup.sessions}
                if not going.isdisjoint(needed):
                    raise NoBackup("a pruner is deleting it")
                for session in backup.sessions:
                    if not any(read_key_file(path) is not None for path in session.key_files(backup.folder)):
                        raise Damaged(f"no whole key file of {session.label} is there")
                for file in backup.packs.values():
                    path = backup.folder / file.name
                    try:
                        size = os.stat(path).st_size
                    except FileNotFoundError:
                        raise Damaged(f"{file.name} is missing") from None
                    if size != file.size:
                        raise Damaged(f"{file.name} has {size} bytes instead of {file.size}")
            except Trouble as reason:
                yield name, backup, reason
                continue
            except OSError as error:
                yield name, backup, Trouble(f"the machine cannot read it: {error}")
                continue
            yield name, backup, None

    def swept(self, component: str) -> Set[str]:
        """Names of backups and files that sweep lists name (9): a backup that needs one counts nowhere (INV-15)."""
        folder, going = self.folder(component) / "prune", set()
        names = set(listing(folder))
        for name in sorted(names):
            if not re.fullmatch(r"sweep-[0-9a-f]{32}-[0-9a-f]{64}", name):
                continue
            data = (folder / name).read_bytes()
            try:
                if b3(data).hex() != name[-64:]:
                    raise Damaged("its bytes do not hash to its name")
                body, public = check_signature(data, "sweep", "it")
                if self.trust and public not in self.trust:
                    raise Damaged(f"signed by ed25519:{public.hex()}, which is not a trusted key")
                said = parse_json(body, "it")
                if (said.get("repository"), said.get("component")) != (self.id.hex(), component):
                    raise Damaged("it belongs elsewhere")
            except Damaged as reason:
                warn(f"{component} prune/{name} is left aside: {reason}")
                continue
            if said.get("census") not in names:
                continue  # It landed when its sweep was over.
            going.update(said.get("backups", []), said.get("files", []))
            # Key files come and go: a backup needs the sessions that they belong to.
            going.update(file.split("-")[0] for file in said.get("files", []) if file.startswith("keys/"))
        return going

    def load(self, component: str, name: str) -> Backup:
        """Read one backup file (8): name hash, signature, header, closure."""
        folder = self.folder(component)
        data = (folder / "backups" / name).read_bytes()
        if b3(data).hex() != name[17:]:
            raise Damaged("its bytes do not hash to its name")
        body, public = check_signature(data, "backup", "it")
        if len(body) < 4096 or body[:8] != b"LBBACK01":
            raise Damaged("it is not a backup file")
        json_length, closure_length, manifest_length = struct.unpack_from("<I4xQQ", body, 8)
        if json_length > 4048 or 4096 + closure_length + manifest_length != len(body):
            raise Damaged("its lengths do not add up")
        header = parse_json(body[48 : 48 + json_length], "its header")
        expected = {"version": 1, "repository": self.id.hex(), "component": component, "seq": int(name[:16], 16)}
        for field, value in expected.items():
            if header.get(field) != value:
                raise Damaged(f"its header says {field} {header.get(field)!r}, but it lies at {value!r}")
        sessions, packs = parse_closure(body[4096 : 4096 + closure_length])
        if sessions[0].id != unhex(header.get("session"), 16, "session in the header"):
            raise Damaged("the first session of its closure is not its own")
        end = 4096 + closure_length
        return Backup(folder, name, header, public, sessions, packs, b3(body[:end]), body[end:])

    def choose(self, component: str, wanted: str) -> Backup:
        """The backup somebody asked for: `latest`, a sequence number, or a full name."""
        self.components(component)
        # A sequence of 16 digits is read as in file names (hex), a shorter one as a decimal number.
        name = f"{int(wanted):016x}" if wanted.isdecimal() and len(wanted) < 16 else wanted
        good: List[Backup] = []
        imported: List[Backup] = []
        reasons: List[Trouble] = []
        for file, backup, why in self.judge(component):
            if good and file[:16] != good[0].name[:16]:
                break
            if wanted != "latest" and file != name and file[:16] != name:
                continue
            if why:
                warn(f"{file} is not used: {why}")
                reasons.append(why)
            elif backup and wanted == "latest" and (backup.header.get("incomplete") or backup.header.get("extract")):
                # 8.2 and natural reading: a backup marked incomplete or extract is taken only when it is named.
                warn(f"{file} is not used: it is incomplete or an extract; name it with --backup if you want it")
            elif backup and wanted == "latest" and backup.header.get("method") == "imported":
                imported.append(backup)
            elif backup:
                good.append(backup)
        if not good and imported:
            # 8.2: an old file of another program was stored late; it is "latest" only where there is nothing else.
            good = [max(imported, key=lambda backup: (str(backup.header.get("moment")), backup.name))]
        if not good:
            kinds = [kind for kind in (Damaged, NoBackup, Trouble) if any(type(why) is kind for why in reasons)]
            raise (kinds[0] if kinds else NoBackup)(f"{component}: no backup that counts for {wanted!r}; ask `recover.py list`")
        if len(good) > 1:
            names = "\n  ".join(b.name for b in good)
            raise Usage(f"several backups have this sequence number; name one of them with --backup:\n  {names}")
        return good[0]


def parse_closure(data: bytes) -> Tuple[List[Session], Dict[int, Pack]]:
    """Sessions and packs of a backup (8.3)."""
    if len(data) < 16:
        raise Damaged("its closure is cut short")
    session_count, pack_count, log_ranges = struct.unpack_from("<IIQ", data)
    if log_ranges or len(data) != 16 + 56 * session_count + 48 * pack_count or session_count == 0:
        raise Damaged("its closure does not add up")
    sessions = [Session(*struct.unpack_from("<16s32sB7x", data, 16 + 56 * i)) for i in range(session_count)]
    packs: Dict[int, Pack] = {}
    last = 0
    for i in range(pack_count):
        number, session, size, kind, digest = struct.unpack_from("<IIIB3x32s", data, 16 + 56 * session_count + 48 * i)
        if number <= last or session >= session_count or kind not in (1, 2):
            raise Damaged(f"its closure has a bad entry for pack {number}")
        packs[number], last = Pack(number, sessions[session], size, kind, digest), number
    if any(s.form not in (0, 1) for s in sessions) or len({s.id for s in sessions}) != len(sessions):
        raise Damaged("its closure names a session twice, or in an unknown form")
    return sessions, packs


# --- keys ------------------------------------------------------------------------------------------------------------


def run_age(data: bytes, identity: Optional[str], name: str) -> bytes:
    """Open a key file with the stock age program."""
    if identity is None:
        raise WrongKey(f"{name} is encrypted: give the identity file with --identity")
    if not os.path.isfile(identity):
        raise Usage(f"the identity file {identity} does not exist")
    try:
        # The bytes go in by stdin: they are the ones whose hash was just checked. Passphrases are asked on the terminal.
        done = subprocess.run(["age", "-d", "-i", identity], input=data, capture_output=True, check=False)
    except FileNotFoundError:
        raise Trouble("the program `age` is not installed; see docs/recover-without-lifeboat.md") from None
    said = done.stderr.decode(errors="replace").strip()
    if done.returncode == 0:
        return done.stdout
    if "no identity matched" in said or "incorrect passphrase" in said:
        raise WrongKey(f"{identity} does not open {name}: {said}")
    if "identity" in said or "identities" in said or "passphrase" in said:
        raise Usage(f"age cannot use {identity}: {said}")
    raise Damaged(f"age cannot open {name}: {said}")


def read_key_file(path: Path) -> Optional[bytes]:
    """The bytes of a key file, or None where they do not hash to its name (5)."""
    try:
        if path.stat().st_size > MAX_KEY_FILE:
            return None
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    return data if b3(data).hex() == path.name[33:97] else None


class Keyring:
    """Data keys of sessions, opened when needed."""

    def __init__(self, backup: Backup, identity: Optional[str]) -> None:
        self.backup, self.identity = backup, identity
        self.opened: Dict[Session, Dict[str, Any]] = {}
        header = backup.header
        self.scope = bytes.fromhex(header["repository"]) + b3(header["component"].encode())

    def open(self, session: Session) -> Dict[str, Any]:
        """The keys of a session, from the first key file that opens and fits the check (5)."""
        if session not in self.opened:
            content = self.find(session)
            first = self.backup.sessions[0]
            if session != first and content["id_key"] != self.open(first)["id_key"]:
                raise Damaged(f"{session.label} is of another lineage than the backup")
            self.opened[session] = content
        return self.opened[session]

    def find(self, session: Session) -> Dict[str, Any]:
        """Try all key files. Damage is told before a key that does not fit, and that before content that somebody forged."""
        damaged: List[Trouble] = []
        foreign: List[Trouble] = []
        forged: List[Trouble] = []
        for path in session.key_files(self.backup.folder):
            data = read_key_file(path)
            if data is None:
                damaged.append(Damaged(f"keys/{path.name}: its bytes do not hash to its name"))
                continue
            try:
                plain = data if session.form == 1 else run_age(data, self.identity, path.name)
                return self.check(session, plain, path.name)
            except WrongKey as reason:
                foreign.append(reason)
            except Damaged as reason:
                forged.append(reason)
        raise [*damaged, *foreign, *forged, Damaged(f"{session.label}: no key file of it is in the store")][0]

    def check(self, session: Session, plain: bytes, name: str) -> Dict[str, Any]:
        """Parse and compare."""
        content = parse_json(plain, name)
        header = self.backup.header
        wanted: Dict[str, Any] = {"version": 1, "session": session.id.hex()}
        wanted.update((field, header[field]) for field in ("repository", "component", "lineage"))
        for field, value in wanted.items():
            if content.get(field) != value:
                raise Damaged(f"{name} says {field} {content.get(field)!r}, but lies at {value!r}")
        for field in ("data_key", "id_key"):
            content[field] = unhex(content.get(field), 32, f"{field} in {name}")
        if kdf("lifeboat 2026 v1 key check", content["data_key"] + content["id_key"] + self.scope) != session.check:
            raise Damaged(f"{name} opens, but holds other keys than the backup was sealed with: somebody else put it there")
        return content

    def cipher(self, session: Session, salt: bytes) -> AESGCM:
        """The file key of a sealed file."""
        return AESGCM(kdf("lifeboat 2026 v1 file key", self.open(session)["data_key"] + salt + self.scope))


# --- reading data ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """Where one extent or chunk is (7)."""

    pack: int
    offset: int
    stored: int
    form: int
    extra: int  # page file: first overlay slot; stream: raw length
    id: bytes

    @staticmethod
    def parse(data: bytes) -> Iterator["Row"]:
        """All rows of an array."""
        for pack, offset, length, extra, ident in struct.iter_unpack("<IIII16s", data):
            yield Row(pack, offset, length & 0xFFFFFF, length >> 24, extra, ident)


@dataclass(frozen=True)
class Entry:
    """A line of the file table (8.4)."""

    path: str
    page_size: int  # 0 for a stream
    size: int
    root: bytes
    ranges: List[Tuple[int, int]]
    mode: Optional[int]
    modified: Optional[str]
    kind: str = "stream"

    @staticmethod
    def parse(line: bytes) -> "Entry":
        """Read a line; whatever could lead outside the destination is damage."""
        value = parse_json(line, "a line of the file table")
        path = value.get("path")
        if not isinstance(path, str):
            raise Damaged("a line of the file table has no path")
        bad = "\0" in path or any(p in ("", ".", "..") for p in path.split("/"))
        if bad or (os.name == "nt" and re.search(r'[\\:*?"<>|]', path)):
            raise Damaged(f"the file table has the forbidden path {path!r}")
        page_size = whole(value.get("page_size"), f"{path}: page_size")
        kind = value.get("type")
        if kind not in ("pages", "stream", "segment", "tree") or (kind != "pages") != (page_size == 0):
            raise Damaged(f"{path}: type {kind!r} with page size {page_size}")
        if page_size and (page_size & (page_size - 1) or not 512 <= page_size <= 65536):
            raise Damaged(f"{path}: page size {page_size}")
        size = whole(value.get("size_bytes"), f"{path}: size_bytes")
        ranges = value.get("ranges")
        if not isinstance(ranges, list) or not all(isinstance(r, list) and len(r) == 2 for r in ranges):
            raise Damaged(f"{path}: ranges are not pairs")
        pairs = [(whole(a, f"{path}: range"), whole(b, f"{path}: range")) for a, b in ranges]
        if any(first % 128 for first, _ in pairs) or (page_size and sum(n for _, n in pairs) != -(-size // EXTENT)):
            raise Damaged(f"{path}: its ranges do not fit its size")
        mode, modified = value.get("mode"), value.get("modified_at")
        root = unhex(value.get("root"), 32, f"{path}: root")
        return Entry(path, page_size, size, root, pairs, mode if isinstance(mode, int) else None, modified, kind)


def tree_name(value: Dict[str, Any], field: str, what: str) -> bytes:
    """A name of a tree: text, or its exact bytes where there are any (8.5)."""
    raw, text = value.get("raw_" + field), value.get(field)
    try:
        data = text.encode() if raw is None and isinstance(text, str) else base64.b64decode(raw, validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise Damaged(f"{what} has no sound {field}") from None
    if not data or b"\0" in data:
        raise Damaged(f"{what} has no sound {field}")
    return data


@dataclass(frozen=True)
class Leaf:
    """A line of a tree (8.5)."""

    path: bytes
    kind: str
    mode: int
    owner: Tuple[int, int]
    mtime_ns: int
    xattrs: List[Tuple[str, bytes]]
    size: int
    data: List[Tuple[int, int]]  # what is not a hole
    at: Optional[Tuple[str, int]]
    hash: bytes
    target: bytes  # of links
    device: Tuple[int, int]

    @property
    def stored(self) -> int:
        """How many bytes of it are stored."""
        return sum(length for _, length in self.data)

    @staticmethod
    def parse(line: bytes) -> "Leaf":
        """Read a line; whatever could lead outside the destination is damage."""
        value = parse_json(line, "a line of the tree")
        path = tree_name(value, "path", "a line of the tree")
        what = repr(path)
        if any(part in (b"", b".", b"..") for part in path.split(b"/")):
            raise Damaged(f"the tree has the forbidden path {what}")
        kind = value.get("type")
        if kind not in ("dir", "file", "symlink", "hardlink", "fifo", "socket", "char", "block"):
            raise Damaged(f"{what} has the unknown type {kind!r}")
        mtime, size, at, ranges = value.get("mtime"), 0, None, []
        target, digest, device = b"", b"", (0, 0)
        if not isinstance(mtime, list) or len(mtime) != 2 or not all(isinstance(n, int) for n in mtime):
            raise Damaged(f"{what} has no time")
        if kind == "file":
            size = whole(value.get("size"), f"{what}: size")
            digest = unhex(value.get("hash"), 32, f"{what}: hash")
            ranges = [(0, size)] if size else []
            if value.get("data") is not None:
                ranges = [(whole(a, what), whole(b, what)) for a, b in value["data"]]
            end = -1
            for offset, length in ranges:
                if offset <= end or length == 0 or offset + length > size:
                    raise Damaged(f"{what} has impossible holes")
                end = offset + length
            if ranges:
                place = value.get("at")
                if not isinstance(place, list) or len(place) != 2 or not isinstance(place[0], str):
                    raise Damaged(f"{what} has content and no place for it")
                at = (place[0], whole(place[1], f"{what}: at"))
        elif kind == "symlink":
            target = tree_name(value, "target", what)
        elif kind == "hardlink":
            target = tree_name(value, "to", what)
            if any(part in (b"", b".", b"..") for part in target.split(b"/")):
                raise Damaged(f"{what} is a hard link that leads out")
        elif kind in ("char", "block"):
            pair = value.get("device")
            if not isinstance(pair, list) or len(pair) != 2:
                raise Damaged(f"{what} has no device")
            device = (whole(pair[0], what), whole(pair[1], what))
        xattrs = [(name, base64.b64decode(data)) for name, data in value.get("xattrs", [])]
        owner = (whole(value.get("uid"), f"{what}: uid"), whole(value.get("gid"), f"{what}: gid"))
        mode = whole(value.get("mode"), f"{what}: mode") & 0o7777
        return Leaf(path, kind, mode, owner, mtime[0] * 10**9 + mtime[1], xattrs, size, ranges, at, digest, target, device)


class Reader:
    """Everything one backup holds, read piece by piece; nothing leaves it unverified (INV-10)."""

    def __init__(self, backup: Backup, identity: Optional[str]) -> None:
        self.backup, self.keyring = backup, Keyring(backup, identity)
        self.tree: Optional[Entry] = None
        id_key = self.keyring.open(backup.sessions[0])["id_key"]
        derived = {n: kdf(f"lifeboat 2026 v1 {n} key", id_key) for n in ("page", "extent", "chunk", "group", "root")}
        self.page_key, self.extent_key, self.chunk_key = derived["page"], derived["extent"], derived["chunk"]
        self.group_key, self.root_key = derived["group"], derived["root"]
        self.open_packs: Lru[Tuple[BinaryIO, AESGCM, Pack]] = Lru(32, lambda opened: opened[0].close())
        self.groups: Lru[bytes] = Lru(48 << 20)
        self.reached: Set[int] = set()
        manifest = self.open_manifest()
        self.row_space = Space(self, manifest, "row_space")
        self.overlay_space = Space(self, manifest, "overlay_space")
        table = manifest["file_table"]
        self.table_size = whole(table.get("size_bytes"), "size of the file table")
        self.table_rows = rows_of(table, "file_table")
        self.facts: Dict[str, Any] = manifest["facts"] if isinstance(manifest.get("facts"), dict) else {}

    def close(self) -> None:
        """Close the open packs."""
        for opened, _ in self.open_packs.items.values():
            opened[0].close()
        self.open_packs.items.clear()

    def open_manifest(self) -> Dict[str, Any]:
        """Decrypt the manifest (8.4)."""
        sealed = self.backup.manifest
        if len(sealed) < 40 + 16:
            raise Damaged("the manifest is cut short")
        salt, raw_length, form = struct.unpack_from("<32sIB3x", sealed)
        try:
            cipher = self.keyring.cipher(self.backup.sessions[0], salt)
            data = cipher.decrypt(bytes(12), sealed[40:], b"LBv1 manifest" + self.backup.bound)
        except InvalidTag:
            raise Damaged("the manifest does not open: it, the header or the key file is damaged or exchanged") from None
        manifest = parse_json(inflate(form, data, raw_length, "the manifest"), "the manifest")
        if manifest.get("version") != 1:
            raise Damaged(f"the manifest has version {manifest.get('version')!r}")
        for part in ("row_space", "overlay_space", "file_table"):
            if not isinstance(manifest.get(part), dict):
                raise Damaged(f"the manifest has no {part}")
        return manifest

    def pack(self, number: int) -> Tuple[BinaryIO, AESGCM, Pack]:
        """An open pack and its cipher."""
        pack = self.backup.packs.get(number)
        if pack is None:
            raise Damaged(f"a row names pack {number}, which the closure does not name")
        self.reached.add(number)

        def make() -> Tuple[BinaryIO, AESGCM, Pack]:
            file: BinaryIO = open(self.backup.folder / pack.name, "rb", buffering=0)
            head = file.read(64)
            if head[:24] != (b"LBMAPS01" if pack.kind == 2 else b"LBPACK01") + pack.session.id or len(head) != 64:
                file.close()
                raise Damaged(f"{pack.name} does not begin like a pack of its session")
            return file, self.keyring.cipher(pack.session, head[24:56]), pack

        return self.open_packs.get(number, make)

    def blob(self, place: Tuple[int, int, int, int], kind: int, ident: bytes, raw_length: int) -> bytes:
        """Raw bytes of a sealed blob at (pack, offset, stored length, form); tag and length are checked, the id by the caller."""
        number, offset, stored, form = place
        file, cipher, pack = self.pack(number)
        what = f"{pack.name} at {offset}"
        if form not in (RAW, ZSTD) or offset < 64 or stored < 16 or offset + stored > pack.size or raw_length > MAX_RAW:
            raise Damaged(f"{what}: a row names an impossible place (length {stored}, form {form}, raw length {raw_length})")
        try:
            file.seek(offset)
            data = file.read(stored)
        except OSError as error:
            raise Trouble(f"{what}: the machine cannot read it: {error}") from None
        aad = b"LBv1" + struct.pack("<BBHI", kind, form, 0, raw_length) + ident
        try:
            data = cipher.decrypt(struct.pack("<I", offset) + ident[:8], data, aad)
        except InvalidTag:
            raise Damaged(f"{what}: the stored bytes are damaged") from None
        return inflate(form, data, raw_length, what)

    def extent_id(self, data: bytes, page_size: int) -> bytes:
        """Id of an extent: the keyed hash of its keyed page hashes (6). A last page may be shorter."""
        pages = (b3k(self.page_key, data[i : i + page_size])[:16] for i in range(0, len(data), page_size))
        return b3k(self.extent_key, b"".join(pages))[:16]

    def chunk(self, row: Row, what: str) -> bytes:
        """One verified chunk of a stream."""
        if row.extra > MAX_RAW:
            raise Damaged(f"{what}: a chunk of {row.extra} bytes")
        if row.form == ZERO:
            data = bytes(row.extra)
        else:
            data = self.blob((row.pack, row.offset, row.stored, row.form), CLASS_CHUNK, row.id, row.extra)
        if b3k(self.chunk_key, data)[:16] != row.id:
            raise Damaged(f"{what}: a chunk is not what its row says")
        return data

    def extent(self, row: Row, length: int, page_size: int, kind: int, what: str) -> bytes:
        """One verified extent: its base, with at most eight overlays laid over it (7)."""
        slots = self.overlays(row.extra, what) if row.extra else []
        if slots and (kind != CLASS_EXTENT or page_size < 1024):
            raise Damaged(f"{what}: overlays where none are allowed")
        base_id = slots[-1][7] if slots else row.id
        if row.form == ZERO:
            data = bytes(length)  # natural reading: a base of zeros needs no base id
        else:
            # Natural reading: a base is as long as the extent is now; where a file's end moved, the extent is stored whole.
            data = self.blob((row.pack, row.offset, row.stored, row.form), kind, base_id, length)
            if slots and self.extent_id(data, page_size) != base_id:
                raise Damaged(f"{what}: a base is not what its overlay slot says")
        if slots:
            data = self.overlay(bytearray(data), slots, page_size, what)
        if self.extent_id(data, page_size) != row.id:
            raise Damaged(f"{what}: an extent is not what its row says")
        return data

    def overlays(self, slot: int, what: str) -> List[Tuple[Any, ...]]:
        """The slots of a row, newest first: next, pack, offset, length|form, raw length, index, group id, base id, bitmap."""
        found: List[Tuple[Any, ...]] = []
        while slot:
            if len(found) == 8:
                raise Damaged(f"{what}: more than eight overlays on one row")
            fields = struct.unpack("<IIIIIHxx8s16s16s", self.overlay_space.read(slot * 64, 64))
            following, pack, offset, length, raw, index, group, bitmap, base = fields
            found.append((pack, offset, length & 0xFFFFFF, length >> 24, raw, index, group + bytes(8), base, bitmap))
            slot = following
        return found

    def overlay(self, data: bytearray, slots: List[Tuple[Any, ...]], page_size: int, what: str) -> bytes:
        """Lay the pages of overlays over a base, oldest first, so that the one nearest the row's head wins."""
        for pack, offset, stored, form, raw, index, ident, _, bitmap in reversed(slots):
            group = self.group((pack, offset, stored, form), ident, raw, what)
            bits = int.from_bytes(bitmap, "little")
            source = index * page_size
            for page in (p for p in range(128) if bits >> p & 1):
                at = page * page_size
                size = min(page_size, len(data) - at)
                if size <= 0 or source + size > len(group):
                    raise Damaged(f"{what}: an overlay names a page outside its extent or group")
                data[at : at + size] = group[source : source + size]
                source += page_size
        return bytes(data)

    def group(self, place: Tuple[int, int, int, int], ident: bytes, raw: int, what: str) -> bytes:
        """A verified overlay group; groups serve many extents, so the last ones are kept."""

        def make() -> bytes:
            data = bytes(raw) if place[3] == ZERO and raw <= MAX_RAW else self.blob(place, CLASS_GROUP, ident, raw)
            if b3k(self.group_key, data)[:8] != ident[:8]:
                raise Damaged(f"{what}: an overlay group is not what its slot says")
            return data

        return self.groups.get((place, ident, raw), make, len)

    def rows(self, entry: Entry) -> Iterator[Row]:
        """The rows of a file, in order."""
        for first, count in entry.ranges:
            for start in range(first, first + count, 4096):
                yield from Row.parse(self.row_space.read(32 * start, 32 * min(4096, first + count - start)))

    def pieces(self, entry: Entry) -> Iterator[Tuple[bool, bytes]]:
        """The verified content of a file, with a mark for pieces of zeros. Ends with damage if the root does not fit."""
        root = blake3(struct.pack("<QI", entry.size, entry.page_size), key=self.root_key)
        done = 0
        for row in self.rows(entry):
            what = f"{entry.path} at byte {done}"
            if entry.page_size:
                data = self.extent(row, min(EXTENT, entry.size - done), entry.page_size, CLASS_EXTENT, what)
            else:
                data = self.chunk(row, what)
            root.update(row.id)
            done += len(data)
            yield row.form == ZERO and not (entry.page_size and row.extra), data
        if done != entry.size or root.digest() != entry.root:
            raise Damaged(f"{entry.path}: size or root is not what the file table says")

    def leaves(self) -> Iterator[Leaf]:
        """The lines of the tree, in order, each in a folder that stands before it (8.5)."""
        assert self.tree is not None
        rest, first, last, folders = b"", True, b"", {b""}
        files, size = 0, 0
        for _, data in self.pieces(self.tree):
            *lines, rest = (rest + data).split(b"\n")
            if len(rest) > MAX_LINE:
                raise Damaged("the tree has a line without an end")
            for line in lines:
                if first:
                    if parse_json(line, "the first line of the tree").get("tree") != 1:
                        raise Damaged("the tree is of another version: a newer reader is needed")
                    first = False
                    continue
                leaf = Leaf.parse(line)
                key = leaf.path.replace(b"/", b"\0")
                if key <= last or leaf.path.rpartition(b"/")[0] not in folders:
                    raise Damaged(f"the tree has {leaf.path!r} out of order")
                last = key
                if leaf.kind == "dir":
                    folders.add(leaf.path)
                files += leaf.kind in ("file", "hardlink")
                size += leaf.stored
                yield leaf
        header = self.backup.header
        if rest or first or (files, size) != (header.get("files"), header.get("size_bytes")):
            raise Damaged(f"the tree has {files} files with {size} bytes, which is not what the header says")

    def entries(self) -> Iterator[Entry]:
        """The lines of the file table, one by one."""
        rest, done, files, size = b"", 0, 0, 0
        for row in self.table_rows:
            data = self.chunk(row, "file table")
            done += len(data)
            *lines, rest = (rest + data).split(b"\n")
            if len(rest) > MAX_LINE:
                raise Damaged("the file table has a line without an end")
            for entry in (Entry.parse(line) for line in lines if line):
                files, size = files + 1, size + entry.size
                self.tree = entry if entry.kind == "tree" else self.tree
                yield entry
        if rest:  # the page does not say whether the last line ends with a line feed
            entry = Entry.parse(rest)
            files, size = files + 1, size + entry.size
            yield entry
        header = self.backup.header
        if self.tree is not None:  # 8.1: there, the tree is what counts
            files, size = header.get("files", 0), header.get("size_bytes", 0)
        if done != self.table_size or (files, size) != (header.get("files"), header.get("size_bytes")):
            raise Damaged(f"the file table has {files} files with {size} bytes, which is not what header and manifest say")


def rows_of(part: Dict[str, Any], what: str) -> List[Row]:
    """Rows written in the manifest."""
    try:
        data = base64.b64decode(part.get("rows", ""), validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise Damaged(f"the rows of {what} are not base64") from None
    if len(data) % 32:
        raise Damaged(f"the rows of {what} are cut short")
    return list(Row.parse(data))


class Space:
    """The row space or the overlay space: an array stored as a page file of 4,096-byte pages (7)."""

    def __init__(self, reader: Reader, manifest: Dict[str, Any], name: str) -> None:
        self.reader, self.name = reader, name
        self.cache: Lru[bytes] = Lru(16)
        self.size = whole(manifest[name].get("size_bytes"), f"size of {name}")
        self.rows = rows_of(manifest[name], name)
        if self.size % 4096 or len(self.rows) != -(-self.size // EXTENT):
            raise Damaged(f"the rows of {name} do not fit its size")

    def extent(self, index: int) -> bytes:
        """One verified extent of the space."""
        length = min(EXTENT, self.size - index * EXTENT)
        what = f"{self.name}, extent {index}"
        return self.cache.get(index, lambda: self.reader.extent(self.rows[index], length, 4096, CLASS_SPACE, what))

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of the array."""
        if offset + length > self.size:
            raise Damaged(f"something lies behind the end of the {self.name} (byte {offset})")
        out = bytearray()
        while len(out) < length:
            index, begin = divmod(offset + len(out), EXTENT)
            out += self.extent(index)[begin : begin + length - len(out)]
        return bytes(out)


# --- SQLite ----------------------------------------------------------------------------------------------------------


def sqlite_problems(path: Path, facts: Dict[str, Any]) -> List[str]:
    """What SQLite itself finds wrong in a restored database, and where it differs from what was counted at backup time."""
    with open(path, "rb") as file:
        head = file.read(20)
    if head == b"" and not facts.get("page_count"):
        return []
    problems: List[str] = []
    # immutable: no journal, lock or shared-memory file appears beside the copy.
    db = sqlite3.connect(path.resolve().as_uri() + "?mode=ro&immutable=1", uri=True)
    db.text_factory = bytes
    try:
        problems += [row[0].decode(errors="replace") for row in db.execute("PRAGMA integrity_check") if row[0] != b"ok"]
        for pragma in ("page_size", "page_count", "encoding", "user_version", "application_id"):
            found = db.execute(f"PRAGMA {pragma}").fetchone()[0]
            found = found.decode() if isinstance(found, bytes) else found
            if pragma in facts and facts[pragma] != found:
                problems.append(f"{pragma} is {found!r}, at backup time it was {facts[pragma]!r}")
        # Only "wal or not" is in the file: the other journal modes belong to a connection.
        if "journal_mode" in facts and (facts["journal_mode"] == "wal") != (head[18:20] == b"\2\2"):
            problems.append(f"journal mode differs; at backup time it was {facts['journal_mode']}")
        hasher = blake3()
        for row in db.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name"):
            for field in row:
                hasher.update(struct.pack("<Q", len(field or b"")) + (field or b""))
        if "schema_hash" in facts and facts["schema_hash"] != hasher.hexdigest():
            problems.append("the schema differs from the one at backup time")
        for table, rows in (facts.get("tables") or {}).items():
            quoted = table.replace('"', '""')
            try:
                found = db.execute(f'SELECT count(*) FROM "{quoted}"').fetchone()[0]
            except sqlite3.OperationalError as error:
                if "no such module" in str(error) or "unknown tokenizer" in str(error):
                    warn(f"table {table} was not counted: this Python's SQLite lacks its extension ({error})")
                    continue
                raise
            if found != rows:
                problems.append(f"table {table} has {found} rows, at backup time it had {rows}")
    except (sqlite3.Error, UnicodeError) as error:
        problems.append(str(error))
    finally:
        db.close()
    return problems


# --- commands --------------------------------------------------------------------------------------------------------


def warn(text: str) -> None:
    """A line for the person, beside the output."""
    print(f"recover: {text}", file=sys.stderr)


def list_backups(repository: Repository, component: Optional[str]) -> int:
    """`list`: backups that count, and why others do not."""
    worst, keys = 0, set()
    for name in repository.components(component):
        print(name)
        for file, backup, why in repository.judge(name):
            if why and not isinstance(why, NoBackup):
                worst = max(worst, why.code)
            if backup is None:
                print(f"  {file}  DOES NOT COUNT: {why}")
                continue
            h, marks = backup.header, [m for m in ("incomplete", "extract") if backup.header.get(m)]
            facts = [h.get("kind"), h.get("moment"), f"{h.get('size_bytes')} bytes", f"{h.get('files')} files"]
            facts.append(f"by {h.get('instance')}")
            print(f"  {file}\n    {'  '.join(str(f) for f in facts + marks)}")
            print(f"    DOES NOT COUNT: {why}" if why else "    counts")
            keys.add(backup.public.hex())
    if not repository.trust and keys:
        warn("no --trust given: signatures fit, but whose keys these are was not checked:")
        for key in sorted(keys):
            warn(f"  ed25519:{key}")
    return worst


def refuse_existing(to: Path, path: str) -> None:
    """A destination may not exist, and no folder on the way to it may be a link that leads elsewhere."""
    at = to
    for part in path.split("/")[:-1]:
        at = at / part
        if at.is_symlink() or (at.exists() and not at.is_dir()):
            raise Usage(f"{at} is not a folder; choose an empty folder for --to")
    if os.path.lexists(to / path):
        raise Usage(f"{to / path} exists already and is never overwritten; choose an empty folder for --to")


def sync_folder(path: Path) -> None:
    """Make names in a folder durable, where the system can."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_file(reader: Reader, entry: Entry, path: Path) -> None:
    """Write one verified file under its temporary name, flush it, and read it back (INV-12)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    hasher = blake3()
    try:
        file = open(path, "xb")
    except FileExistsError:
        raise Damaged(f"the file table names {entry.path} twice (or twice for a disk that ignores case)") from None
    with file:
        for zeros, data in reader.pieces(entry):
            hasher.update(data)
            if zeros:
                file.seek(len(data), os.SEEK_CUR)  # stays a hole
            else:
                file.write(data)
        file.truncate(entry.size)
        file.flush()
        os.fsync(file.fileno())
    if hash_file(path) != hasher.hexdigest():
        raise Damaged(f"{entry.path}: the disk gives back other bytes than were written; use another disk")


def finish_file(entry: Entry, path: Path) -> None:
    """Permissions and time. Owners are not set: on another machine the numbers mean other people."""
    if entry.modified:
        try:
            stamp = datetime.fromisoformat(entry.modified.replace("Z", "+00:00")).timestamp()
            os.utime(path, (stamp, stamp))
        except (ValueError, OverflowError, OSError) as error:
            warn(f"{entry.path}: time not set: {error}")
    if entry.mode is not None:
        os.chmod(path, entry.mode & 0o777)


def name_file(source: Path, target: Path) -> None:
    """Give a file its name without ever replacing one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except FileExistsError:
        raise Usage(f"{target} appeared meanwhile and is never overwritten") from None
    except OSError:  # no hard links here
        if os.path.lexists(target):
            raise Usage(f"{target} appeared meanwhile and is never overwritten") from None
        os.rename(source, target)
    sync_folder(target.parent)


def restore(repository: Repository, component: str, wanted: str, identity: Optional[str], to: Path) -> int:
    """`restore`: write all files of one backup below `to`."""
    backup = repository.choose(component, wanted)
    warn(f"restoring {backup.name}: {component} as of {backup.header.get('moment')}, {backup.header.get('size_bytes')} bytes")
    if not repository.trust:
        warn(f"no --trust given; signed by ed25519:{backup.public.hex()}")
    reader = Reader(backup, identity)
    to.mkdir(parents=True, exist_ok=True)
    to = to.resolve()
    for entry in reader.entries():
        if entry.kind in ("pages", "stream"):
            refuse_existing(to, entry.path)
    staging = Path(tempfile.mkdtemp(prefix=".recover-", suffix=".part", dir=to))
    try:
        if reader.tree is not None:
            return restore_tree(reader, staging, to)
        pages: List[str] = []
        files, size = 0, 0
        for entry in reader.entries():
            write_file(reader, entry, staging / entry.path)
            files, size = files + 1, size + entry.size
            if entry.page_size:
                pages = (pages + [entry.path])[:2]
        if backup.header.get("kind") == "sqlite":
            check_sqlite(reader, staging, pages)
        if backup.header.get("method") == "logical":
            # Which columns the rows have, where sequences stood: whoever loads them needs that.
            refuse_existing(to, "facts.json")
            (staging / "facts.json").write_text(json.dumps(reader.facts, indent=1), encoding="utf-8")
            name_file(staging / "facts.json", to / "facts.json")
        for entry in reader.entries():
            finish_file(entry, staging / entry.path)
            refuse_existing(to, entry.path)
            name_file(staging / entry.path, to / entry.path)
            print(to / entry.path)
        sync_folder(to)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        reader.close()
    warn(f"done: {files} files, {size} bytes, every id and root compared")
    return 0


def restore_tree(reader: Reader, staging: Path, to: Path) -> int:
    """Write the files of a tree: folders, content, hashes compared, links last, then times; published name by name at the top."""
    wanted: Dict[str, List[Leaf]] = {}
    base, top, links, folders = os.fsencode(staging), [], [], []
    done, size = 0, 0
    for leaf in reader.leaves():
        path = os.path.join(base, leaf.path)
        if b"/" not in leaf.path:
            top.append(leaf.path)
            if os.path.lexists(os.path.join(os.fsencode(to), leaf.path)):
                raise Usage(f"{to}/{os.fsdecode(leaf.path)} exists already and is never overwritten; choose an empty folder for --to")
        if leaf.kind == "dir":
            os.mkdir(path, 0o700)
            folders.append(leaf)
        elif leaf.kind == "file":
            with open(path, "xb") as file:
                file.truncate(leaf.size)
            done, size = done + 1, size + leaf.stored
            if leaf.at:
                wanted.setdefault(leaf.at[0], []).append(leaf)
            elif leaf.hash != b3(b""):
                raise Damaged(f"{leaf.path!r} is empty, and its hash is not")
        else:
            links.append(leaf)
    for entry in reader.entries():
        if entry.kind == "segment" and entry.path in wanted:
            fill(reader, entry, sorted(wanted.pop(entry.path), key=lambda leaf: leaf.at or ("", 0)), base)
    if wanted:
        raise Damaged(f"the file table lacks segments that the tree names: {sorted(wanted)}")
    for leaf in reader.leaves():
        if leaf.kind == "file":
            check_leaf(leaf, os.path.join(base, leaf.path))
            dress_leaf(leaf, os.path.join(base, leaf.path))
    done += make_links(links, base)
    for leaf in reversed(folders):
        dress_leaf(leaf, os.path.join(base, leaf.path))
    for name in top:
        target = os.path.join(os.fsencode(to), name)
        if os.path.lexists(target):
            raise Usage(f"{os.fsdecode(target)} appeared meanwhile and is never overwritten")
        os.rename(os.path.join(base, name), target)
        print(os.fsdecode(target))
    sync_folder(to)
    warn(f"done: {done} files, {size} bytes, every id, root and hash compared")
    return 0


def fill(reader: Reader, entry: Entry, leaves: List[Leaf], base: bytes) -> None:
    """Distribute a segment to its files; the part of a file before the current piece is written already."""
    at, waiting = 0, leaves
    for _, data in reader.pieces(entry):
        end, later = at + len(data), []
        for index, leaf in enumerate(waiting):
            begin = leaf.at[1] if leaf.at else 0
            if begin >= end:
                later.extend(waiting[index:])
                break
            with open(os.path.join(base, leaf.path), "r+b") as file:
                stored = begin
                for offset, length in leaf.data:
                    first, last = max(stored, at), min(stored + length, end)
                    if first < last:
                        file.seek(offset + first - stored)
                        file.write(data[first - at : last - at])
                    stored += length
            if begin + leaf.stored > end:
                later.append(leaf)
        at, waiting = end, later
    if waiting:
        raise Damaged(f"{entry.path} is shorter than the tree says")


def check_leaf(leaf: Leaf, path: bytes) -> None:
    """Read a file back and compare it (INV-12)."""
    hasher = blake3()
    with open(path, "rb") as file:
        for offset, length in leaf.data:
            file.seek(offset)
            left = length
            while left:
                data = file.read(min(left, 1 << 20))
                if not data:
                    break
                hasher.update(data)
                left -= len(data)
        os.fsync(file.fileno())
    if hasher.digest() != leaf.hash:
        raise Damaged(f"{leaf.path!r} is not what was captured")


def dress_leaf(leaf: Leaf, path: bytes) -> None:
    """Attributes, permissions, time. Owners are not set, and with them set-user-id bits: on another machine the numbers mean other people."""
    for name, data in leaf.xattrs:
        try:
            os.setxattr(path, name, data)
        except OSError as error:
            warn(f"{leaf.path!r}: attribute {name} not set: {error}")
    os.chmod(path, leaf.mode & 0o1777)
    os.utime(path, ns=(leaf.mtime_ns, leaf.mtime_ns))


def make_links(links: List[Leaf], base: bytes) -> int:
    """Hard links and pipes first, symbolic links last: nothing is ever written through one. Returns the number of hard links."""
    hard = 0
    for leaf in sorted(links, key=lambda leaf: leaf.kind == "symlink"):
        path = os.path.join(base, leaf.path)
        if leaf.kind == "hardlink":
            os.link(os.path.join(base, leaf.target), path, follow_symlinks=False)
            hard += 1
        elif leaf.kind == "symlink":
            if leaf.target.startswith(b"/") or b".." in leaf.target.split(b"/"):
                warn(f"{leaf.path!r} is a link to {leaf.target!r}: look where it leads before you use it")
            os.symlink(leaf.target, path)
            os.utime(path, ns=(leaf.mtime_ns, leaf.mtime_ns), follow_symlinks=False)
        elif leaf.kind == "fifo":
            os.mkfifo(path)
            dress_leaf(leaf, path)
        else:
            warn(f"{leaf.path!r} was not made: it is a {leaf.kind}")
    return hard


def check_sqlite(reader: Reader, staging: Path, pages: List[str]) -> None:
    """Ask SQLite about the restored database before it gets its name."""
    if len(pages) != 1:
        raise Damaged(f"a SQLite backup with {len(pages)} databases")
    problems = sqlite_problems(staging / pages[0], reader.facts)
    if problems:
        raise Damaged(f"{pages[0]}: SQLite does not agree:\n  " + "\n  ".join(problems[:20]))
    counted = len(reader.facts.get("tables") or {})
    warn(f"SQLite: integrity_check ok; page facts, schema and {counted} table counts are those of the backup")


def check(repository: Repository, component: Optional[str], identity: Optional[str], wanted: Optional[str]) -> int:
    """`check`: name hashes of all files; with keys, everything reachable is decrypted and compared."""
    bad, locked = 0, 0

    def report(where: str, reason: object) -> None:
        nonlocal bad
        bad += 1
        print(f"BAD  {where}: {reason}")

    for name in repository.components(component):
        folder, count = repository.folder(name), 0
        for path, digest in stored_files(folder):
            count += 1
            try:
                if hash_file(path) != digest:
                    report(str(path.relative_to(repository.root)), "its bytes do not hash to its name")
            except OSError as error:
                report(str(path.relative_to(repository.root)), f"the machine cannot read it: {error}")
        count += check_announcements(repository, name, report)
        print(f"{name}: {count} files compared with their names")
        only = repository.choose(name, wanted).name if wanted else None
        for file, backup, why in repository.judge(name):
            if why:
                report(f"{name} {file}", f"does not count: {why}")
            elif backup is None or only not in (None, file):
                continue
            elif identity is None and any(session.form == 0 for session in backup.sessions):
                print(f"  {file}: counts; not decrypted (no --identity)")
            else:
                try:
                    print(f"  {file}: {check_backup(Reader(backup, identity))} files decrypted and compared")
                except WrongKey as reason:
                    locked += 1
                    print(f"  {file}: NOT DECRYPTED: {reason}")
                except Usage:
                    raise
                except (Trouble, OSError) as reason:
                    report(f"{name} {file}", reason)
    print("no damage found" if bad == 0 else f"{bad} findings")
    return Damaged.code if bad else WrongKey.code if locked else 0


def stored_files(folder: Path) -> Iterator[Tuple[Path, str]]:
    """Every file whose name has the hash of its bytes, with that hash. Unknown names are left alone."""
    patterns = {
        "backups": (SIGNED_NAME, 17),
        "keys": (re.compile(r"[0-9a-f]{32}-[0-9a-f]{64}\.(age|clear)"), 33),
    }
    for part, (pattern, start) in patterns.items():
        for file in listing(folder / part):
            if pattern.fullmatch(file):
                yield folder / part / file, file[start : start + 64]
    for part in ("packs", "maps"):
        for session in listing(folder / part):
            if re.fullmatch(r"[0-9a-f]{32}", session):
                for file in listing(folder / part / session):
                    if re.fullmatch(r"[0-9a-f]{64}", file):
                        yield folder / part / session / file, file


def check_announcements(repository: Repository, component: str, report: Callable[[str, object], None]) -> int:
    """Signatures of announcements (4), and that they lie where they say."""
    folder, count = repository.folder(component) / "sessions", 0
    for session in listing(folder):
        if not re.fullmatch(r"[0-9a-f]{32}(-[0-9a-f]{2})?", session):
            continue
        count += 1
        try:
            body, public = check_signature((folder / session).read_bytes(), "session", "it")
            said = parse_json(body, "it")
            if (said.get("repository"), said.get("component"), said.get("session")) != (repository.id.hex(), component, session[:32]):
                raise Damaged("it belongs elsewhere")
            if repository.trust and public not in repository.trust:
                raise Damaged(f"signed by ed25519:{public.hex()}, which is not a trusted key")
        except Damaged as reason:
            report(f"{component} sessions/{session}", reason)
    return count


def check_backup(reader: Reader) -> int:
    """Decrypt and compare everything a backup reaches, and its closure with what was reached (INV-06)."""
    try:
        for space in (reader.row_space, reader.overlay_space):
            for index, row in enumerate(space.rows):
                if row.form:
                    space.extent(index)
        files = 0
        for entry in reader.entries():
            files += 1
            for _ in reader.pieces(entry):
                pass
        if reader.tree is not None:
            files = sum(1 for _ in reader.leaves())
        spare = sorted(set(reader.backup.packs) - reader.reached)
        if spare:
            warn(f"{reader.backup.name}: the closure names packs that nothing reaches: {spare}")
        return files
    finally:
        reader.close()


def derive_identity(passphrase: str) -> str:
    """The age identity that a passphrase stands for (docs/how-to/keys.md): scrypt, then Bech32 (BIP 173)."""
    salt = b"lifeboat 2026 v1 passphrase identity"
    secret = hashlib.scrypt(passphrase.strip().encode(), salt=salt, n=1 << 17, r=8, p=1, dklen=32, maxmem=1 << 28)
    prefix, letters = "age-secret-key-", "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
    number = int.from_bytes(secret, "big") << 4  # 256 bits and 4 of padding are 52 groups of 5
    values = [number >> 5 * (51 - i) & 31 for i in range(52)]
    total = 1
    for value in [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix] + values + [0] * 6:
        top, total = total >> 25, (total & 0x1FFFFFF) << 5 ^ value
        for i, generator in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            total ^= generator if top >> i & 1 else 0
    values += [(total ^ 1) >> 5 * (5 - i) & 31 for i in range(6)]
    return (prefix + "1" + "".join(letters[value] for value in values)).upper()


def print_identity() -> int:
    """`identity`: print the private key of the passphrase in BACKUP_ENCRYPTION_KEY, or asked for."""
    passphrase = os.environ.get("BACKUP_ENCRYPTION_KEY") or getpass.getpass("Passphrase: ")
    if len(passphrase.strip()) < 12:
        raise Usage("the passphrase has fewer than 12 characters: Lifeboat never made a key from it")
    print(derive_identity(passphrase))
    return 0


# --- continuous log (11) ---------------------------------------------------------------------------------------------

LOG_HEADER = 264
LOG_NAME = re.compile(
    r"(?:(?P<tail>tail)/(?P<tail_tli>[0-9a-f]{8})-|(?P<tli>[0-9a-f]{8})/)"
    r"(?P<start>[0-9a-f]{16})-(?P<end>[0-9a-f]{16})-(?P<size>[0-9a-f]{8})-(?P<session>[0-9a-f]{32})-(?P<hash>[0-9a-f]{64})"
)


def position(text: str) -> int:
    """A log position like 16/B374D848."""
    match = re.fullmatch(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})", text)
    if not match:
        raise argparse.ArgumentTypeError("a position in the log is written like 16/B374D848")
    return int(match.group(1), 16) << 32 | int(match.group(2), 16)


class Log:
    """The log of one lineage. Only what fits is given out."""

    def __init__(self, repository: Repository, component: str, lineage: Optional[str], identity: Optional[str]) -> None:
        self.repository, self.component, self.identity = repository, component, identity
        repository.components(component)
        self.folder = repository.folder(component)
        found = [n for n in listing(self.folder / "log") if re.fullmatch(r"[0-9a-f]{32}", n)]
        if lineage is None and len(found) != 1:
            raise Usage(f"name one of the lineages of log with --lineage: {', '.join(found) or 'there are none'}")
        self.lineage = lineage or found[0]
        if self.lineage not in found:
            raise NoBackup(f"there is no log of the lineage {self.lineage}; there is: {', '.join(found) or 'none'}")
        self.scope = repository.id + b3(component.encode())
        self.opened: Dict[Tuple[bytes, bytes], Dict[str, Any]] = {}

    def files(self, timeline: int) -> Iterator[Tuple[str, "re.Match[str]"]]:
        """Pieces and frames of a timeline, by name."""
        top = self.folder / "log" / self.lineage
        for folder in (f"{timeline:08x}", "tail"):
            for name in listing(top / folder):
                match = LOG_NAME.fullmatch(f"{folder}/{name}")
                if match and int(match.group("tail_tli") or match.group("tli"), 16) == timeline:
                    yield f"{folder}/{name}", match

    def read(self, name: str, match: "re.Match[str]") -> bytes:
        """The verified bytes of one file (11.1)."""
        data = (self.folder / "log" / self.lineage / name).read_bytes()
        if len(data) != int(match.group("size"), 16) or b3(data).hex() != match.group("hash"):
            raise Damaged(f"{name}: its bytes do not fit its name")
        replaced = struct.unpack_from("<I", data, 228)[0] if len(data) >= LOG_HEADER else 1 << 32
        at = LOG_HEADER + 32 * replaced + TRAILER
        if replaced > 1024 or at > len(data) or data[:8] != b"LBWLOG01":
            raise Damaged(f"{name} is not a log file")
        head, public = check_signature(data[:at], "log", name)
        if self.repository.trust and public not in self.repository.trust:
            raise NoBackup(f"{name} is signed by ed25519:{public.hex()}, which is not a trusted key")
        kind, form, tli, start, end, raw_length = struct.unpack_from("<BB2xIQQ12xI", head, 8)
        lineage, session, check, salt, content = struct.unpack_from("<16s16s32s32s16s", head, 48)
        sealed_length, sealed_hash = struct.unpack_from("<I4x32s", head, 224)
        told = (1 + bool(match.group("tail")), int(match.group("tail_tli") or match.group("tli"), 16))
        told += (int(match.group("start"), 16), int(match.group("end"), 16), self.lineage, match.group("session"))
        if (kind, tli, start, end, lineage.hex(), session.hex()) != told:
            raise Damaged(f"{name} says another place than its name does")
        sealed = data[at:]
        if len(sealed) != sealed_length or b3(sealed) != sealed_hash or raw_length != end - start or raw_length > 1 << 24:
            raise Damaged(f"{name}: its lengths or hashes do not add up")
        keys = self.keys(session, check)
        clear = head[:224] + bytes(4) + head[228:232] + bytes(32) + head[264:]
        file_key = kdf("lifeboat 2026 v1 file key", keys["data_key"] + salt + self.scope)
        try:
            plain = AESGCM(file_key).decrypt(bytes(12), sealed, b"LBv1 log" + b3(clear))
        except InvalidTag:
            raise Damaged(f"{name} does not open: it is damaged, or belongs elsewhere") from None
        raw = inflate(form, plain, raw_length, name)
        if b3k(kdf("lifeboat 2026 v1 chunk key", keys["id_key"]), raw)[:16] != content:
            raise Damaged(f"{name}: its content is not what was sealed")
        return raw

    def keys(self, session: bytes, check: bytes) -> Dict[str, Any]:
        """The keys of a session, from the first key file that opens and fits (5)."""
        if (session, check) in self.opened:
            return self.opened[session, check]
        reasons: List[Trouble] = []
        for form in (0, 1):
            for path in Session(session, check, form).key_files(self.folder):
                data = read_key_file(path)
                if data is None:
                    reasons.insert(0, Damaged(f"keys/{path.name}: its bytes do not hash to its name"))
                    continue
                try:
                    content = parse_json(data if form else run_age(data, self.identity, path.name), path.name)
                    pair = [unhex(content.get(field), 32, f"{field} in {path.name}") for field in ("data_key", "id_key")]
                except (WrongKey, Damaged) as reason:
                    reasons.append(reason)
                    continue
                if content.get("lineage") == self.lineage and kdf("lifeboat 2026 v1 key check", b"".join(pair) + self.scope) == check:
                    self.opened[session, check] = {"data_key": pair[0], "id_key": pair[1]}
                    return self.opened[session, check]
        raise [*reasons, Damaged(f"no key file of the session {session.hex()} fits")][0]


def recover_log(log: Log, timeline: int, start: int, end: int, to: Path) -> int:
    """Write the bytes from start to just before end of a timeline into a new file."""
    if start >= end:
        raise Usage("--start has to lie before --end")
    at, unfit = start, None
    with open(to, "xb") as file:
        held = sorted(log.files(timeline), key=lambda found: (found[1].group("start"), found[0]))
        for name, match in held:
            first, last = int(match.group("start"), 16), int(match.group("end"), 16)
            if last <= start or first >= end or first > at:
                continue
            try:
                raw = log.read(name, match)
            except Trouble as reason:
                warn(f"{name} is not used: {reason}")
                unfit = reason
                continue
            # Bytes that were written before must be the same (INV-16).
            low = max(first, start)
            common = raw[low - first : max(low, min(at, last)) - first]
            file.flush()
            with open(to, "rb") as written:
                written.seek(low - start)
                if written.read(len(common)) != common:
                    raise Damaged(f"{name} holds other bytes than another file for the same position: nothing behind it is to be trusted")
            if last > at:
                file.write(raw[at - first : min(last, end) - first])
                at = min(last, end)
        file.flush()
        os.fsync(file.fileno())
    if at < end:
        os.remove(to)
        raise unfit or NoBackup(f"the log is held from {start >> 32:X}/{start & 0xFFFFFFFF:X} to {at >> 32:X}/{at & 0xFFFFFFFF:X} only")
    print(f"{end - start} bytes of log written to {to}")
    return 0


def trusted_key(text: str) -> bytes:
    """`ed25519:HEX` from the command line."""
    if not re.fullmatch(r"ed25519:[0-9a-fA-F]{64}", text):
        raise argparse.ArgumentTypeError("expected ed25519: and 64 hex digits")
    return bytes.fromhex(text[8:])


def main(argv: Optional[List[str]] = None) -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="recover.py", description="Restore a Lifeboat repository without Lifeboat.")
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("list", help="show the backups and whether they count")
    one.add_argument("store")
    one.add_argument("--component")
    two = commands.add_parser("restore", help="write the files of a backup into a folder")
    two.add_argument("store")
    two.add_argument("component")
    two.add_argument("--backup", default="latest", metavar="SEQ|SEQ-HASH|latest")
    two.add_argument("--identity", help="age identity file; not needed where keys are stored in clear")
    two.add_argument("--to", required=True, type=Path, metavar="DIR")
    three = commands.add_parser("check", help="look for damage; with --identity, decrypt everything")
    three.add_argument("store")
    three.add_argument("component", nargs="?")
    three.add_argument("--identity")
    three.add_argument("--backup", metavar="SEQ|SEQ-HASH|latest", help="decrypt only this one (needs COMPONENT)")
    four = commands.add_parser("log", help="write a range of continuous log into a file")
    four.add_argument("store")
    four.add_argument("component")
    four.add_argument("--lineage", metavar="HEX")
    four.add_argument("--timeline", type=int, default=1)
    four.add_argument("--start", type=position, required=True, metavar="X/X")
    four.add_argument("--end", type=position, required=True, metavar="X/X")
    four.add_argument("--identity")
    four.add_argument("--to", required=True, type=Path, metavar="FILE")
    commands.add_parser("identity", help="print the private key that the passphrase in BACKUP_ENCRYPTION_KEY stands for")
    for command in (one, two, three, four):
        about = "public key of an instance whose backups count; may be repeated"
        command.add_argument("--trust", action="append", default=[], type=trusted_key, metavar="ed25519:HEX", help=about)
    args = parser.parse_args(argv)
    try:
        if args.command == "identity":
            return print_identity()
        repository = Repository(args.store, args.trust)
        if args.command == "list":
            return list_backups(repository, args.component)
        if args.command == "restore":
            return restore(repository, args.component, args.backup, args.identity, args.to)
        if args.command == "log":
            log = Log(repository, args.component, args.lineage, args.identity)
            return recover_log(log, args.timeline, args.start, args.end, args.to)
        if args.backup and not args.component:
            raise Usage("--backup needs a COMPONENT")
        return check(repository, args.component, args.identity, args.backup)
    except Trouble as trouble:
        warn(str(trouble))
        return trouble.code
    except OSError as error:
        warn(f"the machine says: {error}")
        return 1
    except KeyboardInterrupt:
        warn("stopped; nothing was given a name that is not complete")
        return 1


if __name__ == "__main__":
    sys.exit(main())
