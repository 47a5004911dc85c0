"""Machine code that is kept: in memory, and on disk for later processes.

A kernel is known by its IR text, in which names are canonical, so that equal kernels of different layers and programs
are one; by target; and by the versions of LLVM and of this library. Objects on disk carry a checksum: one that is
damaged is compiled anew and replaced. Entries are written under another name and then take theirs, so that readers –
in any number of processes, which never wait for each other – see whole entries or none.

The folder holds code that is run, so it must be ours with mode 0700, and every file in it ours as well. Otherwise
objects are kept in memory only, and one warning says so.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import secrets
import stat
import threading
import time
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from pathlib import Path

import llvmlite
import llvmlite.binding as llvm

import highlevel
from highlevel.errors import BackendError

from .codegen.targets import Job, Target, default_workers
from .codegen.targets.symbols import foreign

ENTRY = "kernel"  # what every unit calls its function
_ENTRY = re.compile(rf'@(?:{ENTRY}(?![\w.$-])|"{ENTRY}")')  # with quotes where llvmlite has printed it
MAGIC = b"hl-obj1\n"
HEADER_BYTES = len(MAGIC) + hashlib.sha256().digest_size
MEMORY_BYTES = 64 << 20
DISK_BYTES = 512 << 20
STALE_S = 3600.0  # a temporary file this old was left by a process that was killed
TOUCH_S = 600.0  # how exact the record of an entry's last use is


@dataclass(frozen=True, slots=True)
class Unit:
    """IR to compile, and the name under which its function will be found.

    text:   a module that defines one function @kernel for others; all else in it is internal or private
    target: the CPU; level: the optimiser's, see `compile_ir`
    key:    a hash of all that decides what the object code is
    symbol: the name of the function in the object code, and so in units that call it
    """

    text: str
    target: Target
    level: int = 0
    key: str = field(init=False, compare=False)

    def __post_init__(self) -> None:
        parts = (*_versions(), self.target.key, str(self.level), self.text)
        key = hashlib.sha256("\0".join(parts).encode()).hexdigest()
        object.__setattr__(self, "key", key)

    @property
    def symbol(self) -> str:
        return f"k_{self.key[:32]}"

    def job(self) -> Job:
        return Job(_ENTRY.sub(f"@{self.symbol}", self.text), self.target, self.level)


@functools.cache
def _versions() -> tuple[str, ...]:
    return highlevel.__version__, llvmlite.__version__, ".".join(map(str, llvm.llvm_version_info)), MAGIC.decode()


def _excerpt(unit: Unit) -> str:
    """The line that says what a unit is."""
    lines = [line for line in unit.text.splitlines() if _ENTRY.search(line)]
    return f"in {lines[0].strip()}" if lines else "in a unit without a kernel"


@dataclass(frozen=True, slots=True)
class Object:
    """Object code, and the name of the function in it."""

    symbol: str
    code: bytes = field(repr=False)


@dataclass(slots=True)
class Counts:
    """Where objects came from, since the cache was made."""

    memory: int = 0
    disk: int = 0
    compiled: int = 0


class ObjectCache:
    """Objects by key: looked for in memory, then on disk, then compiled.

    folder: where the disk's part is, or None for none
    memory_bytes, disk_bytes: the most that each part holds; what was used longest ago goes first
    compile: turns jobs into object code, by default in worker processes
    """

    def __init__(
        self,
        folder: Path | None = None,
        memory_bytes: int = MEMORY_BYTES,
        disk_bytes: int = DISK_BYTES,
        compile: Callable[[Sequence[Job]], list[bytes]] | None = None,
    ) -> None:
        self.disk = Disk(folder, disk_bytes) if folder is not None else None
        self.memory_bytes = memory_bytes
        self.counts = Counts()
        self._compile = compile or default_workers().compile
        self._memory: OrderedDict[str, bytes] = OrderedDict()
        self._size_bytes = 0
        self._renew()
        _caches.add(self)

    def _renew(self) -> None:
        """New locks: a fork may have caught the old ones in a locked state, with nobody left to release them."""
        self._lock = threading.Lock()
        self._pending: dict[str, Future[bytes]] = {}

    def objects(self, units: Sequence[Unit]) -> list[Object]:
        """The objects of all units, in their order. Each key is compiled once, even if several threads ask at once."""
        found: dict[str, bytes] = {}
        wanted = {unit.key: unit for unit in units}
        while missing := [unit for key, unit in wanted.items() if key not in found]:
            mine, others = self._claim(missing, found)
            try:
                if mine:
                    self._produce(mine, found)
            finally:  # an error or an interrupt: threads that wait for these keys take over
                with self._lock:
                    for unit in mine:
                        self._pending.pop(unit.key).cancel()
            for key, future in others:
                with contextlib.suppress(CancelledError):
                    found[key] = future.result()
        return [Object(unit.symbol, found[unit.key]) for unit in units]

    def _claim(
        self, units: Sequence[Unit], found: dict[str, bytes]
    ) -> tuple[list[Unit], list[tuple[str, Future[bytes]]]]:
        """Takes what memory has; of the rest, which units this thread is to produce and which are being produced."""
        mine, others = [], []
        with self._lock:
            for unit in units:
                code = self._memory.get(unit.key)
                if code is not None:
                    self._memory.move_to_end(unit.key)
                    self.counts.memory += 1
                    found[unit.key] = code
                elif unit.key in self._pending:
                    others.append((unit.key, self._pending[unit.key]))
                else:
                    self._pending[unit.key] = Future()
                    mine.append(unit)
        return mine, others

    def _produce(self, units: Sequence[Unit], found: dict[str, bytes]) -> None:
        cold = []
        for unit in units:
            code = self.disk.read(unit.key) if self.disk else None
            if code is None:
                cold.append(unit)
            else:
                self._keep(unit.key, code)
                found[unit.key] = code
                self.counts.disk += 1
        for unit, code in zip(cold, self._compile([unit.job() for unit in cold]) if cold else (), strict=True):
            if calls := foreign(code):
                raise BackendError("generated code calls the C library", got=f"{', '.join(calls)} {_excerpt(unit)}")
            self._keep(unit.key, code)
            found[unit.key] = code
            self.counts.compiled += 1
            if self.disk:
                self.disk.write(unit.key, code)

    def _keep(self, key: str, code: bytes) -> None:
        with self._lock:
            self._size_bytes += len(code) - len(self._memory.pop(key, b""))
            self._memory[key] = code
            while self._size_bytes > self.memory_bytes and len(self._memory) > 1:
                self._size_bytes -= len(self._memory.popitem(last=False)[1])
            self._pending[key].set_result(code)


# Disk ----------------------------------------------------------------------------------------------------------------
class Disk:
    """A private folder with one file for each object. Nothing that goes wrong here is more than a miss."""

    def __init__(self, folder: Path, limit_bytes: int = DISK_BYTES) -> None:
        self.folder = folder
        self.limit_bytes = limit_bytes
        # Written since the folder was last measured. Processes begin anywhere: of those that write little, which would
        # never come to measure a folder of many files, each does so with the chance that it owes.
        self._unchecked_bytes = secrets.randbelow(max(1, limit_bytes // 16))
        self._refused = False

    def read(self, key: str) -> bytes | None:
        """The object of that key, or None; a damaged one is removed."""
        if not self._usable():
            return None
        path = self.folder / key
        try:
            data, last_use = _read_private(path)
        except OSError:
            return None
        code = data[HEADER_BYTES:]
        if data[:HEADER_BYTES] != _header(key, code):
            _remove(path)
            return None
        if time.time() - last_use > TOUCH_S:
            with contextlib.suppress(OSError):
                os.utime(path)
        return code

    def write(self, key: str, code: bytes) -> None:
        """Keeps an object. It is not forced to disk: after a crash a checksum will tell, and it is compiled again."""
        if not self._usable():
            return
        temporary = self.folder / f".{secrets.token_hex(8)}.tmp"
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(_header(key, code) + code)
            temporary.replace(self.folder / key)
        except OSError as error:
            _remove(temporary)
            self._refuse(f"cannot write to it ({error})")
            return
        self._unchecked_bytes += len(code) + HEADER_BYTES
        if self._unchecked_bytes >= self.limit_bytes // 16:
            self._unchecked_bytes = 0
            self.shrink()

    def shrink(self) -> None:
        """Removes what was used longest ago until the folder is well below its limit, and what killed writers left."""
        entries = []
        with contextlib.suppress(OSError):
            for entry in os.scandir(self.folder):
                with contextlib.suppress(OSError):  # another process may be removing it as well
                    found = entry.stat(follow_symlinks=False)
                    if not entry.name.endswith(".tmp"):
                        entries.append((found.st_mtime, found.st_size, Path(entry.path)))
                    elif time.time() - found.st_mtime > STALE_S:
                        _remove(Path(entry.path))
        total = sum(size for _, size, _ in entries)
        if total > self.limit_bytes:
            for _, size, path in sorted(entries):
                _remove(path)
                total -= size
                if total <= self.limit_bytes * 3 // 4:
                    break

    def _usable(self) -> bool:
        """Whether the folder is there (made, if need be), and private."""
        if self._refused:
            return False
        try:
            if not self.folder.exists():
                self.folder.parent.mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(FileExistsError):  # another process was quicker
                    self.folder.mkdir(mode=0o700)
            found = self.folder.lstat()
        except OSError as error:
            self._refuse(f"cannot make it ({error})")
            return False
        if not stat.S_ISDIR(found.st_mode):
            self._refuse("it is not a folder")
        elif not _private(found, 0o700):
            self._refuse(f"its mode is {found.st_mode & 0o777:04o}, its owner {found.st_uid}; it must be 0700 and ours")
        return not self._refused

    def _refuse(self, reason: str) -> None:
        if not self._refused:
            self._refused = True
            warnings.warn(
                f"compiled code is not kept in {self.folder}: {reason}. Mend that, or set HIGHLEVEL_CACHE to another"
                " folder or to 'off'.",
                stacklevel=2,
            )


_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


def _private(found: os.stat_result, mode: int | None = None) -> bool:
    """Whether it is ours alone, and has exactly that mode. On Windows the user's folder is, by its access list."""
    if os.name == "nt":
        return True
    bits = found.st_mode & 0o777
    return found.st_uid == os.geteuid() and (bits & 0o077 == 0 if mode is None else bits == mode)


def _read_private(path: Path) -> tuple[bytes, float]:
    """The content of a file that nobody else could have written, and when it was last used."""
    with os.fdopen(os.open(path, os.O_RDONLY | _FLAGS), "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode) or not _private(found):
            raise PermissionError(path)
        return file.read(), found.st_mtime


def _header(key: str, code: bytes) -> bytes:
    return MAGIC + hashlib.sha256(key.encode() + code).digest()


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


# The cache of the process --------------------------------------------------------------------------------------------
def default_folder() -> Path | None:
    """$HIGHLEVEL_CACHE, by default ~/.cache/highlevel/native; None where that says "off"."""
    setting = os.environ.get("HIGHLEVEL_CACHE", "").strip()
    if setting.lower() == "off":
        return None
    try:
        return Path(setting).expanduser() if setting else Path.home() / ".cache" / "highlevel" / "native"
    except RuntimeError:  # a user without a home
        return None


@functools.cache
def default_cache() -> ObjectCache:
    """The cache that the whole process shares."""
    return ObjectCache(default_folder())


_caches: weakref.WeakSet[ObjectCache] = weakref.WeakSet()


def _renew_all() -> None:
    for cache in list(_caches):
        cache._renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)
