"""Targets: what is said of CPUs against NumPy's account of them, code for each of them run or read, and the workers."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from highlevel.backends.native.cache import Object
from highlevel.backends.native.codegen.targets import (
    Job,
    Target,
    Workers,
    aarch64,
    assembly,
    compile_ir,
    host,
    target,
    workers,
)
from highlevel.backends.native.codegen.targets.symbols import foreign, undefined
from highlevel.backends.native.devices.loader import link
from highlevel.errors import ArgumentError, BackendError

ROOT = Path(__file__).parents[3]
X86 = host(()).arch == "x86_64"
NUMPY_SEES = np._core._multiarray_umath.__cpu_features__  # type: ignore[attr-defined]
needs_processes = pytest.mark.skipif(not hasattr(os, "fork"), reason="signals and forks of POSIX")

LOOP = """
declare float @llvm.sqrt.f32(float)
define void @NAME(i64 %n, ptr noalias %x, ptr noalias %y) {
entry:
  br label %loop
loop:
  %i = phi i64 [0, %entry], [%next, %loop]
  %from = getelementptr inbounds float, ptr %x, i64 %i
  %to = getelementptr inbounds float, ptr %y, i64 %i
  %value = load float, ptr %from, align 4
  %root = call float @llvm.sqrt.f32(float %value)
  %sum = fadd float %root, FACTOR
  store float %sum, ptr %to, align 4
  %next = add nuw nsw i64 %i, 1
  %more = icmp ult i64 %next, %n
  br i1 %more, label %loop, label %done
done:
  ret void
}
"""
BROKEN = "define i32 @f() { ret i32 }"
DISORDERED = "define i32 @f() {\n  %a = add i32 %b, 1\n  %b = add i32 %a, 1\n  ret i32 %b\n}"


def loop(name: str = "f", factor: float = 1.0) -> str:
    return LOOP.replace("NAME", name).replace("FACTOR", f"{factor:e}")


def run_loop(code: bytes, x: np.ndarray) -> np.ndarray:
    y = np.empty_like(x)
    function = link([Object("f", code)]).function("f", ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p)
    function(len(x), x.ctypes.data, y.ctypes.data)
    return y


def python(code: str, **more: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HIGHLEVEL_CACHE": "off", **more}
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], env=environment, stdout=subprocess.PIPE, text=True
    )


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(pids: list[int], within_s: float = 10.0) -> bool:
    end = time.monotonic() + within_s
    while time.monotonic() < end and any(map(alive, pids)):
        time.sleep(0.02)
    return not any(map(alive, pids))


# Targets -------------------------------------------------------------------------------------------------------------
@pytest.mark.skipif(not X86, reason="names of x86")
def test_the_host_is_what_numpy_says_it_is() -> None:
    found = host(())
    assert (found.vector_bytes == 64) == NUMPY_SEES["AVX512F"]
    assert (found.vector_bytes >= 32) == NUMPY_SEES["AVX2"]
    assert found.fma == NUMPY_SEES["FMA3"]
    assert found.is_host
    assert found.lanes(32) * 4 == found.vector_bytes


@pytest.mark.skipif(not X86, reason="names of x86")
@pytest.mark.parametrize(
    ("without", "width", "registers", "absent"),
    [(("avx512f",), 32, 16, ("zmm", "%k1")), (("avx2",), 16, 16, ("zmm",)), (("avx",), 16, 16, ("ymm", "vsqrt"))],
)
def test_a_cpu_without_features_has_none_that_need_them(
    without: tuple[str, ...], width: int, registers: int, absent: tuple[str, ...], rng: np.random.Generator
) -> None:
    if not NUMPY_SEES["AVX2"]:
        pytest.skip("this CPU has not got them anyway")
    smaller = host(without)
    assert (smaller.vector_bytes, smaller.vector_registers) == (width, registers)
    assert not smaller.masking and not smaller.bfloat16_dot
    assert smaller.fma == (without != ("avx",))
    text = assembly(loop(), smaller, 3)
    assert "sqrtps" in text  # vectorised all the same
    assert not any(name in text for name in absent)
    x = rng.random(1003, np.float32)
    np.testing.assert_array_equal(run_loop(compile_ir(loop(), smaller, 3), x), np.sqrt(x) + np.float32(1))


@pytest.mark.skipif(not X86 or not NUMPY_SEES["AVX512F"], reason="a CPU with AVX-512")
def test_all_of_avx512_is_used_where_it_is() -> None:
    assert "zmm" in assembly(loop(), host(()), 3)
    assert host(()).vector_registers == 32
    assert host(()).masking


def test_features_can_be_taken_away_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(target.WITHOUT, " avx512f , fma" if X86 else "")
    assert host() == host(("avx512f", "fma") if X86 else ())
    monkeypatch.setenv(target.WITHOUT, "avx51")
    with pytest.raises(ArgumentError, match="no such CPU feature"):
        host()


def test_targets_tell_apart_what_is_compiled_differently() -> None:
    assert host(()).key == host([]).key
    assert host(()).key != aarch64().key
    if X86:
        assert host(("fma",)).key != host(()).key


def test_code_for_arm_is_generated_everywhere() -> None:
    arm = aarch64()
    assert (arm.arch, arm.vector_bytes, arm.vector_registers, arm.fma) == ("aarch64", 16, 32, True)
    assert not (X86 and arm.is_host)
    assert re.search(r"fsqrt\s+v\d+\.4s", assembly(loop(), arm, 3))
    code = compile_ir(loop(), arm, 3)
    assert code[:4] == b"\x7fELF" and int.from_bytes(code[18:20], "little") == 183  # EM_AARCH64


# Compiling -----------------------------------------------------------------------------------------------------------
def test_loops_are_vectorised_only_when_asked(rng: np.random.Generator) -> None:
    assert "sqrtps" in assembly(loop(), host(), 2)
    assert "sqrtps" not in assembly(loop(), host(), 0)
    x = rng.random(77, np.float32)
    for level in (0, 1, 2, 3):
        np.testing.assert_array_equal(run_loop(compile_ir(loop(), host(), level), x), np.sqrt(x) + np.float32(1))


@pytest.mark.parametrize("text", [BROKEN, DISORDERED])
def test_wrong_ir_is_an_error_with_llvms_words(text: str) -> None:
    with pytest.raises(BackendError, match="LLVM does not accept"):
        compile_ir(text, host())
    with Workers(1) as pool, pytest.raises(BackendError, match="LLVM does not accept"):
        pool.compile([Job(text, host())] * workers.IN_PROCESS)


def test_calls_of_the_c_library_are_seen() -> None:
    text = "declare float @fmaf(float, float, float)\ndeclare ptr @memcpy(ptr, ptr, i64)\ndeclare void @k_1()\n"
    text += "define float @f(float %x, ptr %p) {\n  call void @k_1()\n  call ptr @memcpy(ptr %p, ptr %p, i64 %n)\n"
    text = text.replace("%n", "1000") + "  %y = call float @fmaf(float %x, float %x, float %x)\n  ret float %y\n}"
    for cpu in (host(), aarch64()):
        code = compile_ir(text, cpu)
        if code[:4] == b"\x7fELF":
            assert {"fmaf", "memcpy", "k_1"} <= set(undefined(code))
            assert foreign(code) == ["fmaf"]
    assert undefined(b"MZ something else") == []


def test_a_missing_instruction_becomes_a_call_that_is_seen() -> None:
    text = "declare float @llvm.fma.f32(float, float, float)\ndefine float @f(float %x) {\n"
    text += "  %y = call float @llvm.fma.f32(float %x, float %x, float %x)\n  ret float %y\n}"
    assert foreign(compile_ir(text, aarch64())) == []
    if X86 and sys.platform == "linux":
        assert foreign(compile_ir(text, host(("fma",)))) == ["fmaf"]
        assert not host(("fma",)).fma


# Workers -------------------------------------------------------------------------------------------------------------
def jobs(count: int, first: int = 0, level: int = 2, cpu: Target | None = None) -> list[Job]:
    return [Job(loop("f", first + i), cpu or host(), level) for i in range(count)]


def test_workers_give_what_this_process_would() -> None:
    work = [*jobs(12), *jobs(3, level=0), *jobs(3, cpu=aarch64())]
    with Workers(2) as pool:
        assert pool.processes == []
        codes = pool.compile(work)
        assert 1 <= len(pool.processes) <= 2
        before = set(pool.processes)
        assert pool.compile(work) == codes
        assert before <= set(pool.processes)
        pids = pool.processes
    assert codes == [compile_ir(job.text, job.target, job.level) for job in work]
    assert gone(pids)


def test_few_kernels_start_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Workers, "leaks", 0)
    with Workers(2) as pool:
        pool.compile(jobs(2))
        assert pool.processes == []
        assert Workers.leaks == 2


def test_this_process_leaks_a_bounded_amount(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Workers, "leaks", workers.LEAK_LIMIT - 1)
    with Workers(2) as pool:
        for first in (0, 20, 40):
            assert len(pool.compile(jobs(9, first))) == 9
            assert len(pool.compile(jobs(1, first))) == 1
    assert Workers.leaks <= workers.LEAK_LIMIT


def test_wrong_kernels_do_not_harm_the_others() -> None:
    with Workers(2) as pool:
        with pytest.raises(BackendError, match="LLVM does not accept"):
            pool.compile([*jobs(5), Job(BROKEN, host()), *jobs(5)])
        assert len(pool.compile(jobs(8))) == 8


@needs_processes
def test_killed_workers_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Workers, "leaks", workers.LEAK_LIMIT)
    with Workers(2) as pool:
        pool.compile(jobs(8))
        old = pool.processes
        for pid in old:
            os.kill(pid, signal.SIGKILL)
        assert len(pool.compile(jobs(8))) == 8
        assert pool.processes and not set(pool.processes) & set(old)


def test_without_processes_everything_is_compiled_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    expected = [compile_ir(job.text, job.target, job.level) for job in jobs(6)]
    with Workers(0) as none:
        assert none.compile(jobs(6)) == expected
    monkeypatch.setattr(sys, "executable", str(tmp_path / "a-program"))
    with Workers(2) as embedded:
        assert embedded.compile(jobs(6)) == expected
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python3"))  # looks right, and is not there
    with Workers(2) as missing:
        assert missing.compile(jobs(6)) == expected
        assert missing.processes == []


@needs_processes
def test_a_worker_that_cannot_work_is_done_without(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = tmp_path / "python3"
    fake.write_text("#!/bin/sh\nexit 3\n")
    fake.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(fake))
    with Workers(2) as pool:
        assert len(pool.compile(jobs(6))) == 6
        assert pool.processes == []


SCRIPT = """
    import os, sys, time
    from highlevel.backends.native.codegen.targets import Job, Workers, host, workers
    Workers.leaks = workers.LEAK_LIMIT
    pool = Workers(2)
    text = "define i32 @f() {{ ret i32 {0} }}"
    codes = pool.compile([Job(text.format(i), host(), 2) for i in range(8)])
    print(*pool.processes, flush=True)
"""


@needs_processes
def test_scripts_need_no_guard_and_leave_nobody_behind(tmp_path: Path) -> None:
    """A script file without `if __name__ == "__main__"`: spawned workers that ran it again would print, too."""
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-X", "dev", str(script)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1
    assert gone([int(pid) for pid in done.stdout.split()])


@needs_processes
@pytest.mark.parametrize("forked", [False, True])
def test_workers_end_with_a_parent_that_is_killed(forked: bool) -> None:
    """Even where a child of the parent lives on, which has inherited everything but the pipes to the workers."""
    more = "if os.fork() == 0:\n    time.sleep(20)\n    os._exit(0)\n" if forked else ""
    parent = python(textwrap.dedent(SCRIPT) + more + "time.sleep(60)\n")
    assert parent.stdout is not None
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert pids and all(map(alive, pids))
    if forked:
        time.sleep(0.3)
    parent.kill()
    parent.wait()
    assert gone(pids)
    parent.stdout.close()


@needs_processes
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_has_workers_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Workers, "leaks", workers.LEAK_LIMIT)
    with Workers(2) as pool:
        expected = pool.compile(jobs(8))
        child = os.fork()
        if child == 0:
            same = pool.compile(jobs(8)) == expected
            pool.close()
            os._exit(0 if same else 1)
        assert pool.compile(jobs(8)) == expected
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert pool.compile(jobs(8)) == expected
