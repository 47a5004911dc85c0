"""Writing a file: all of it or nothing, on disk before it has its name."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from highlevel.formats import atomic, safetensors


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_new_content_replaces_the_old(tmp_path: Path) -> None:
    target = tmp_path / "weights.bin"
    for content in (b"old", b"new and longer"):
        with atomic.replacing(target) as file:
            file.write(content)
        assert target.read_bytes() == content
    assert _names(tmp_path) == ["weights.bin"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_content_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "weights.bin"
    target.write_bytes(b"old")
    with pytest.raises(error), atomic.replacing(target) as file:
        file.write(b"half of the n")
        raise error
    assert target.read_bytes() == b"old"
    assert _names(tmp_path) == ["weights.bin"]


def test_bytes_reach_the_disk_before_the_name_and_the_folder_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash between any two of these steps leaves a whole file under the name."""
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def spy_fsync(descriptor: int) -> None:
        kind = "folder" if Path(f"/proc/self/fd/{descriptor}").resolve().is_dir() else "file"
        steps.append(f"fsync {kind}")
        fsync(descriptor)

    def spy_replace(self: Path, target: Path) -> Path:
        steps.append("replace")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(Path, "replace", spy_replace)
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("needs /proc to tell files from folders")
    with atomic.replacing(tmp_path / "x") as file:
        file.write(b"content")
    assert steps == ["fsync file", "replace", "fsync folder"]


def test_a_symbolic_link_stays_and_its_target_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    real, link = tmp_path / "disk" / "real.bin", tmp_path / "link.bin"
    real.write_bytes(b"old")
    link.symlink_to(real)
    with atomic.replacing(link) as file:
        file.write(b"new")
    assert link.is_symlink()
    assert real.read_bytes() == b"new"


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with atomic.replacing(tmp_path / "x") as file:
            file.write(b"content")
    finally:
        os.umask(before)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o640


def test_leftovers_of_killed_writers_go_and_those_of_living_ones_stay(tmp_path: Path) -> None:
    old, young, other = (tmp_path / name for name in (".a[1].bin.aa.tmp", ".a[1].bin.bb.tmp", ".b.bin.cc.tmp"))
    for path in (old, young, other):
        path.write_bytes(b"half")
    long_ago = time.time() - 2 * atomic.STALE_AFTER_S
    os.utime(old, (long_ago, long_ago))
    os.utime(other, (long_ago, long_ago))
    with atomic.replacing(tmp_path / "a[1].bin") as file:
        file.write(b"content")
    assert _names(tmp_path) == [".a[1].bin.bb.tmp", ".b.bin.cc.tmp", "a[1].bin"]


def test_a_name_of_255_bytes_can_be_written(tmp_path: Path) -> None:
    target = tmp_path / ("n" * 255)
    with atomic.replacing(target) as file:
        file.write(b"content")
    assert target.read_bytes() == b"content"


def test_a_missing_folder_is_the_systems_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic.replacing(tmp_path / "no" / "x"):
        pass


_WRITER = """
import itertools, sys
import numpy as np
from highlevel.formats import safetensors
for step in itertools.count(1):
    safetensors.write(sys.argv[1], {"a": np.full(500_000, step, "f4"), "b": np.full(300_000, step, "f4")})
    print(step, flush=True)
"""


def _kill_writers(folder: Path, rounds: int, seed: int) -> int:
    """Kills a process that does nothing but write; counts the rounds in which a new version had been written."""
    target = folder / "weights.safetensors"
    random = np.random.default_rng(seed)
    progress = 0
    for _ in range(rounds):
        with subprocess.Popen([sys.executable, "-c", _WRITER, str(target)], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None and writer.stdout.readline() == b"1\n"
            time.sleep(random.uniform(0, 0.05))
            writer.send_signal(signal.SIGKILL)
        tensors, _ = safetensors.read(target)
        assert len({*np.unique(tensors["a"]), *np.unique(tensors["b"])}) == 1
        progress += int(tensors["a"][0]) > 1
    return progress


@pytest.mark.skipif(os.name == "nt", reason="kill -9")
def test_a_killed_writer_leaves_a_readable_file(tmp_path: Path) -> None:
    assert _kill_writers(tmp_path, rounds=6, seed=0) >= 1


@pytest.mark.soak
@pytest.mark.skipif(os.name == "nt", reason="kill -9")
def test_a_thousand_killed_writers_leave_a_readable_file(tmp_path: Path) -> None:
    assert _kill_writers(tmp_path, rounds=1000, seed=1) >= 500
