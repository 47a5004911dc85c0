"""Object code that is kept: what makes a key, who may read, what survives damage, kills and many processes at once."""

from __future__ import annotations

import ctypes
import os
import random
import signal
import stat
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import pytest

from highlevel.backends.native import cache
from highlevel.backends.native.cache import Disk, ObjectCache, Unit, default_folder
from highlevel.backends.native.codegen.targets import Job, aarch64, compile_ir, host
from highlevel.backends.native.devices.loader import link
from highlevel.errors import BackendError

ROOT = Path(__file__).parents[3]
posix = pytest.mark.skipif(os.name != "posix", reason="modes, owners and signals of POSIX")


def unit(number: int, level: int = 0) -> Unit:
    return Unit(f"define i32 @kernel(i32 %x) {{\n  %y = add i32 %x, {number}\n  ret i32 %y\n}}", host(), level)


def units(count: int, first: int = 0) -> list[Unit]:
    return [unit(first + i) for i in range(count)]


def here(jobs: Sequence[Job]) -> list[bytes]:
    return [compile_ir(job.text, job.target, job.level) for job in jobs]


def make(folder: Path | None, **more: int) -> ObjectCache:
    return ObjectCache(folder, compile=here, **more)


def results(store: ObjectCache, wanted: Sequence[Unit]) -> list[int]:
    """What the kernels make of 1000, from a library of all of them."""
    library = link(store.objects(wanted))
    return [library.function(one.symbol, ctypes.c_int32, result=ctypes.c_int32)(1000) for one in wanted]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "new" / "native"


def entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.endswith(".tmp"))


# Keys ----------------------------------------------------------------------------------------------------------------
def test_a_key_is_all_that_decides_about_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    text = unit(1).text
    assert Unit(text, host()) == Unit(text, host()) and Unit(text, host()).key == unit(1).key
    several = [Unit(text, host()), Unit(text, host(), 2), Unit(text + " ", host()), Unit(text, aarch64())]
    if host().arch == "x86_64":
        several.append(Unit(text, host(("avx",))))
    keys = {one.key for one in several}
    assert len(keys) == len(several)
    for versions in (("9", "0", "22.1.0", "x"), ("9", "0", "23.0.0", "x")):
        monkeypatch.setattr(cache, "_versions", lambda versions=versions: versions)
        keys.add(unit(1).key)
    assert len(keys) == len(several) + 2


def test_only_the_kernel_gets_another_name() -> None:
    text = "declare void @kernel_helper()\ndeclare void @kernel.1()\ndeclare void @a_kernel()\n"
    text += "define void @kernel() {\n  call void @kernel()\n  call void @\"kernel\"()\n  ret void\n}"
    made = Unit(text, host())
    expected = text.replace("@kernel()", f"@{made.symbol}()").replace('@"kernel"()', f"@{made.symbol}()")
    assert made.job().text == expected
    assert expected.count(made.symbol) == 3


# Memory --------------------------------------------------------------------------------------------------------------
def test_memory_then_disk_then_compiler(folder: Path) -> None:
    first = make(folder)
    assert results(first, units(5)) == [1000, 1001, 1002, 1003, 1004]
    assert results(first, units(6)) == [1000, 1001, 1002, 1003, 1004, 1005]
    assert (first.counts.compiled, first.counts.memory, first.counts.disk) == (6, 5, 0)
    second = make(folder)
    assert results(second, units(7)) == [1000, 1001, 1002, 1003, 1004, 1005, 1006]
    assert (second.counts.compiled, second.counts.memory, second.counts.disk) == (1, 0, 6)


def test_equal_units_are_one() -> None:
    store = make(None)
    made = store.objects([unit(1), unit(2), unit(1)])
    assert [one.symbol for one in made] == [unit(1).symbol, unit(2).symbol, unit(1).symbol]
    assert store.counts.compiled == 2
    assert results(store, [unit(1), unit(2), unit(1)]) == [1001, 1002, 1001]


def test_memory_is_bounded_and_forgets_what_was_used_longest_ago() -> None:
    size = len(make(None).objects([unit(0)])[0].code)
    store = make(None, memory_bytes=int(4.5 * size))
    store.objects(units(4))
    store.objects([unit(0)])
    store.objects([unit(9)])  # the fifth: 1 goes, 0 was used since
    assert store.counts.compiled == 5
    store.objects([unit(0), unit(2), unit(3), unit(9)])
    assert store.counts.compiled == 5
    store.objects([unit(1)])
    assert store.counts.compiled == 6


def test_calls_of_the_c_library_are_refused(folder: Path) -> None:
    if sys.platform == "darwin":
        pytest.skip("seen in ELF objects only")
    text = "declare float @expf(float)\ndefine float @kernel(float %x) {\n"
    text += "  %y = call float @expf(float %x)\n  ret float %y\n}"
    store = make(folder)
    with pytest.raises(BackendError, match=r"calls the C library\n.*expf in define float @kernel"):
        store.objects([Unit(text, host())])
    assert entries(folder) == []


def test_threads_that_ask_at_once_compile_once() -> None:
    begun = threading.Barrier(8)
    batches: list[int] = []

    def slow(jobs: Sequence[Job]) -> list[bytes]:
        batches.append(len(jobs))
        time.sleep(0.05)
        return here(jobs)

    store = ObjectCache(None, compile=slow)
    found: list[list[int]] = []

    def ask(first: int) -> None:
        begun.wait()
        found.append(results(store, units(6, first)))

    threads = [threading.Thread(target=ask, args=(i % 2 * 3,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == sorted([list(range(1000 + i % 2 * 3, 1006 + i % 2 * 3)) for i in range(8)])
    assert sum(batches) == store.counts.compiled == 9


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_whoever_waits_takes_over_when_the_first_is_interrupted(error: type[BaseException]) -> None:
    waiting = threading.Event()

    def fails_once(jobs: Sequence[Job]) -> list[bytes]:
        if not waiting.is_set():
            waiting.set()
            time.sleep(0.1)
            raise error
        return here(jobs)

    store = ObjectCache(None, compile=fails_once)
    found: list[list[int]] = []

    def second() -> None:
        waiting.wait()
        found.append(results(store, units(3)))

    thread = threading.Thread(target=second)
    thread.start()
    with pytest.raises(error):
        store.objects(units(3))
    thread.join()
    assert found == [[1000, 1001, 1002]]


# Damage --------------------------------------------------------------------------------------------------------------
def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :]


@pytest.mark.parametrize(
    "damage",
    [lambda d: b"", lambda d: d[:7], lambda d: d[:-1], lambda d: d + b"\0", lambda d: flip(d, 0), lambda d: flip(d, 20)]
    + [lambda d, part=part: flip(d, len(d) * part // 8) for part in range(2, 8)],
)
def test_damaged_entries_are_compiled_again(folder: Path, damage: object) -> None:
    make(folder).objects(units(2))
    path = folder / unit(1).key
    sound = path.read_bytes()
    path.write_bytes(damage(sound))  # type: ignore[operator]
    store = make(folder)
    assert results(store, units(2)) == [1000, 1001]
    assert (store.counts.disk, store.counts.compiled) == (1, 1)
    assert path.read_bytes() == sound


def test_an_entry_under_another_name_is_not_taken(folder: Path) -> None:
    make(folder).objects(units(2))
    (folder / unit(0).key).replace(folder / unit(1).key)
    assert results(make(folder), units(2)) == [1000, 1001]


# Whose it is ---------------------------------------------------------------------------------------------------------
@posix
def test_the_folder_and_its_files_are_private_whatever_the_umask(folder: Path) -> None:
    before = os.umask(0)
    try:
        make(folder).objects(units(1))
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [stat.S_IMODE(path.stat().st_mode) for path in entries(folder)] == [0o600]


@posix
@pytest.mark.parametrize("mode", [0o755, 0o770, 0o711, 0o500])
def test_a_folder_that_others_may_use_is_refused_with_one_warning(folder: Path, mode: int) -> None:
    folder.mkdir(parents=True)
    folder.chmod(mode)
    store = make(folder)
    with pytest.warns(UserWarning, match=f"mode is {mode:04o}.*must be 0700 and ours") as seen:
        assert results(store, units(3)) == [1000, 1001, 1002]
        assert results(store, units(5)) == [1000, 1001, 1002, 1003, 1004]
    assert len(seen) == 1
    assert list(folder.iterdir()) == []
    assert store.counts.memory == 3


@posix
def test_a_folder_of_somebody_else_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(folder).objects(units(1))
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    store = make(folder)
    with pytest.warns(UserWarning, match="must be 0700 and ours"):
        assert results(store, units(1)) == [1000]
    assert store.counts.compiled == 1


@posix
def test_links_and_files_are_no_folders(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(real)
    (tmp_path / "file").touch()
    for name, message in (("link", "not a folder"), ("file", "not a folder"), ("file/below", "cannot make it")):
        with pytest.warns(UserWarning, match=message):
            make(tmp_path / name).objects(units(1))
    assert list(real.iterdir()) == []


@posix
def test_files_that_others_could_have_written_are_not_read(folder: Path, tmp_path: Path) -> None:
    make(folder).objects(units(3))
    (folder / unit(0).key).chmod(0o666)
    elsewhere = tmp_path / "elsewhere"
    (folder / unit(1).key).replace(elsewhere)
    (folder / unit(1).key).symlink_to(elsewhere)
    store = make(folder)
    assert results(store, units(3)) == [1000, 1001, 1002]
    assert (store.counts.disk, store.counts.compiled) == (1, 2)
    assert [path.is_symlink() or path.stat().st_mode & 0o077 for path in entries(folder)] == [0, 0, 0]


@posix
@pytest.mark.skipif(os.name == "posix" and os.geteuid() == 0, reason="root may write everywhere")
def test_a_place_that_cannot_be_written_is_one_warning(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.warns(UserWarning, match="cannot make it") as seen:
        assert results(make(tmp_path / "native"), units(2)) == [1000, 1001]
    tmp_path.chmod(0o700)
    assert len(seen) == 1


def test_a_full_disk_is_one_warning(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.warns(UserWarning, match=r"cannot write.*HIGHLEVEL_CACHE") as seen:
        assert results(make(folder), units(3)) == [1000, 1001, 1002]
    assert len(seen) == 1
    assert list(folder.iterdir()) == []


def test_the_setting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for setting, expected in (("", ".cache/highlevel/native"), ("~/x", "x"), (str(tmp_path / "y"), "y")):
        monkeypatch.setenv("HIGHLEVEL_CACHE", setting)
        assert default_folder() == tmp_path / expected
    for off in ("off", "OFF", " off "):
        monkeypatch.setenv("HIGHLEVEL_CACHE", off)
        assert default_folder() is None


# Size ----------------------------------------------------------------------------------------------------------------
def test_the_folder_is_bounded_and_forgets_what_was_used_longest_ago(folder: Path) -> None:
    disk = Disk(folder, 100_000)
    key = "{:064d}".format
    for i in range(90):
        disk.write(key(i), bytes(1000))
        os.utime(folder / key(i), (1e9 + i, 1e9 + i))
    assert len(entries(folder)) == 90
    assert disk.read(key(0)) == bytes(1000)  # which counts as a use
    for i in range(90, 110):
        disk.write(key(i), bytes(1000))
    sizes = [path.stat().st_size for path in entries(folder)]
    assert 50_000 < sum(sizes) <= 107_000  # measured anew after every sixteenth of the limit
    assert disk.read(key(0)) is not None and disk.read(key(109)) is not None
    assert disk.read(key(1)) is None
    assert not list(folder.glob("*.tmp"))


def test_what_killed_writers_left_is_removed_in_time(folder: Path) -> None:
    disk = Disk(folder, 1 << 20)
    disk.write("a", b"x")
    old, new = folder / ".00.tmp", folder / ".01.tmp"
    for path in (old, new):
        path.write_bytes(bytes(10))
    os.utime(old, (time.time() - 2 * cache.STALE_S,) * 2)
    disk.shrink()
    assert (old.exists(), new.exists(), disk.read("a")) == (False, True, b"x")


# Many processes ------------------------------------------------------------------------------------------------------
def start(folder: Path, code: str) -> subprocess.Popen[str]:
    head = f"""
        import ctypes, os, sys
        from pathlib import Path
        from highlevel.backends.native.cache import Disk, ObjectCache, Unit
        from highlevel.backends.native.codegen.targets import host
        from highlevel.backends.native.devices.loader import link
        folder = Path({str(folder)!r})
        TEXT = "define i32 @kernel(i32 %x) {{{{\\n  %y = add i32 %x, {{0}}\\n  ret i32 %y\\n}}}}"
    """
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(head) + textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "HIGHLEVEL_CACHE": "off"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


SHARE = """
    units = [Unit(TEXT.format(i), host(), 2) for i in range(12)]
    print("ready", flush=True)
    sys.stdin.readline()
    library = link(ObjectCache(folder).objects(units))
    print(sum(library.function(u.symbol, ctypes.c_int32, result=ctypes.c_int32)(1000) for u in units))
"""


def share_a_cold_cache(folder: Path, count: int) -> None:
    processes = [start(folder, SHARE) for _ in range(count)]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        output, _ = process.communicate(timeout=60)
        assert (output, process.returncode) == ("12066\n", 0)
    warm = ObjectCache(folder, compile=lambda jobs: pytest.fail("all is there"))
    warm.objects([unit(i, 2) for i in range(12)])
    assert len(list(folder.iterdir())) == 12


def test_eight_processes_share_a_cold_cache(folder: Path) -> None:
    share_a_cold_cache(folder, 8)


@pytest.mark.soak
def test_eight_processes_share_a_cold_cache_many_times(tmp_path: Path) -> None:
    for i in range(20):
        share_a_cold_cache(tmp_path / str(i), 8)


WRITE = """
    disk = Disk(folder, 400_000)
    print("ready", flush=True)
    i = 0
    while True:
        key = f"{i % 50:064d}"
        code = key.encode() * 500
        assert disk.read(key) in (None, code)
        disk.write(key, code)
        i += 1
"""


def kill_writers(folder: Path, times: int, seed: int = 0) -> int:
    """Kills two writers of one folder at random moments; returns how many writes were cut off in the middle."""
    chance = random.Random(seed)
    for _ in range(times):
        writers = [start(folder, WRITE) for _ in range(2)]
        for writer in writers:
            assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
        time.sleep(chance.uniform(0.01, 0.1))
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
            assert writer.communicate()[0] == ""  # neither errors nor warnings before it was killed
    disk = Disk(folder, 400_000)
    kept = entries(folder)
    assert kept
    for path in kept:
        assert disk.read(path.name) == path.name.encode() * 500
    assert sum(path.stat().st_size for path in kept) <= 500_000
    return len(list(folder.glob("*.tmp")))


@posix
def test_writers_that_are_killed_leave_whole_entries(folder: Path) -> None:
    kill_writers(folder, 3)


@posix
@pytest.mark.soak
def test_writers_that_are_killed_often_leave_whole_entries(folder: Path) -> None:
    assert kill_writers(folder, 60, seed=1) > 0


@posix
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_child_forked_while_a_thread_compiles_goes_on_by_itself(folder: Path) -> None:
    compiling = threading.Event()

    def slow(jobs: Sequence[Job]) -> list[bytes]:
        compiling.set()
        time.sleep(0.3)
        return here(jobs)

    store = ObjectCache(folder, compile=slow)
    thread = threading.Thread(target=store.objects, args=(units(3),))
    thread.start()
    compiling.wait()
    child = os.fork()
    if child == 0:
        with warnings.catch_warnings():
            os._exit(0 if results(store, units(3)) == [1000, 1001, 1002] else 1)
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert results(store, units(3)) == [1000, 1001, 1002]
