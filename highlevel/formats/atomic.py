"""Writes a file durably: after a crash at any moment, the old content or the new one is there, never a part.

The bytes go to a temporary file in the same folder, are forced to disk, and take the target's name in one step; then
the folder itself is forced to disk, because the renaming lives there.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

# A temporary file this old belongs to a process that was killed: no writer pauses for so long.
STALE_AFTER_S = 3600.0


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A new file, open for reading and writing, that becomes `path` when the block ends without an error.

    If the block fails, `path` is as it was and nothing is left beside it. A symbolic link is followed: the file it
    points to is replaced, the link stays. Permissions are those of any new file (the umask decides).
    """
    target = Path(os.path.realpath(path))
    remove_stale(target)
    temporary = target.with_name(f"{_prefix(target)}{secrets.token_hex(6)}.tmp")
    file = temporary.open("x+b")
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)


@contextlib.contextmanager
def scratch(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file without a name on the disk that `path` is on; it is gone when the block ends, or the process."""
    with tempfile.TemporaryFile(dir=Path(os.path.realpath(path)).parent) as file:
        yield file


def remove_stale(target: Path) -> None:
    """Removes temporary files that killed writers of `target` have left behind."""
    oldest = time.time() - STALE_AFTER_S
    for leftover in target.parent.glob(f"{_glob_escape(_prefix(target))}*.tmp"):
        with contextlib.suppress(OSError):  # another writer may be cleaning up as well
            if leftover.stat().st_mtime < oldest:
                leftover.unlink()


def sync_folder(folder: Path) -> None:
    """Forces a folder's entries to disk, where the system has such a call (Windows does it by itself)."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _prefix(target: Path) -> str:
    return f".{target.name[:200]}."  # a file name may have 255 bytes; the random part needs some of them


def _glob_escape(text: str) -> str:
    return "".join(f"[{char}]" if char in "*?[" else char for char in text)
