"""The team: barriers that hold, steps that are whole, and nothing that hangs – interrupted, forked, shared or ended."""

from __future__ import annotations

import ctypes
import dataclasses
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from llvmlite import ir

from highlevel.backends.native.cache import ObjectCache, Unit
from highlevel.backends.native.codegen.targets import aarch64, assembly, compile_ir, host
from highlevel.backends.native.codegen.targets.symbols import foreign
from highlevel.backends.native.devices.loader import Library, link
from highlevel.backends.native.devices.runtime import BOUND, naps, runtime, system
from highlevel.backends.native.devices.team import Runtime, Team, available, close_all, cpus, emit_barrier
from highlevel.errors import ArgumentError

ROOT = Path(__file__).parents[3]
posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="signals and forks of POSIX")
forks = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")

I32, I64, PTR = ir.IntType(32), ir.IntType(64), ir.PointerType()
STORE = ObjectCache(None, compile=lambda jobs: [compile_ir(job.text, job.target, job.level) for job in jobs])

# The arena: [rounds, work, errors, …], and from element 16 on one slot, 128 bytes wide, for each thread.
ROUNDS, WORK, ERRORS, SLOTS, WIDTH = 0, 1, 2, 16, 16


def step_ir() -> str:
    """Each round: write the round's number into one's slot, wait, look into all slots, wait.

    Written with llvmlite's builder, as `emit_barrier` wants it. Work between barriers is a chain of divisions.
    """
    unit = ir.Module()
    step = ir.Function(unit, ir.FunctionType(ir.VoidType(), [I32, I32, PTR, PTR]), name="kernel")
    tid, n, arena, state = step.args
    b = ir.IRBuilder(step.append_basic_block("entry"))

    def at(index: object) -> ir.Instruction:
        return b.gep(arena, [index if isinstance(index, ir.Value) else I64(index)], source_etype=I64)

    def slot(thread: ir.Value) -> ir.Instruction:
        return at(b.add(b.mul(b.zext(thread, I64), I64(WIDTH)), I64(SLOTS)))

    def loop(count: ir.Value, start: ir.Value, body: Callable[[ir.Value], None]) -> None:
        before, head, done = b.block, b.append_basic_block(), b.append_basic_block()
        b.cbranch(b.icmp_unsigned("<", start, count), head, done)
        b.position_at_end(head)
        i = b.phi(start.type)
        i.add_incoming(start, before)
        body(i)
        following = b.add(i, i.type(1))
        i.add_incoming(following, b.block)
        b.cbranch(b.icmp_unsigned("<", following, count), head, done)
        b.position_at_end(done)

    rounds, work = b.load(at(ROUNDS), typ=I64), b.load(at(WORK), typ=I64)
    burnt = b.alloca(ir.DoubleType())
    b.store(ir.DoubleType()(1.0), burnt)

    def one_round(i: ir.Value) -> None:
        def divide(_: ir.Value) -> None:
            b.store(b.fdiv(b.load(burnt, typ=ir.DoubleType()), ir.DoubleType()(1.0000001)), burnt)

        def check(other: ir.Value) -> None:
            wrong = b.icmp_unsigned("!=", b.load(slot(other), typ=I64), i)
            b.atomic_rmw("add", at(ERRORS), b.zext(wrong, I64), "monotonic")

        b.store(i, slot(tid))
        loop(b.udiv(work, b.zext(n, I64)), I64(0), divide)
        emit_barrier(b, state, n)
        loop(n, I32(0), check)
        emit_barrier(b, state, n)

    loop(rounds, I64(0), one_round)
    # What comes out of the work is kept beside the slot: nobody would do work whose result is not used.
    b.store(b.load(burnt, typ=ir.DoubleType()), b.gep(slot(tid), [I64(1)], source_etype=I64))
    b.ret_void()
    return str(unit)


class Rounds:
    """The step above, loaded, with an arena for up to 16 threads."""

    def __init__(self, made: Runtime, rounds: int, work: int = 0) -> None:
        unit = Unit(step_ir(), host(), 2)
        self.library: Library = link(STORE.objects([unit]), made.imports)
        self.step = self.library.address(unit.symbol)
        self.arena = np.zeros(SLOTS + 16 * WIDTH, np.int64)
        self.arena[:2] = rounds, work
        self.address = self.arena.ctypes.data

    def check(self, threads: int) -> None:
        assert self.arena[ERRORS] == 0
        assert set(self.arena[SLOTS::WIDTH][:threads]) == {self.arena[ROUNDS] - 1}


@pytest.fixture(scope="module")
def made() -> Runtime:
    return Runtime(STORE)


@pytest.fixture(autouse=True)
def alone() -> None:
    """The threads of other tests' teams, which begin again when they are needed, are not counted."""
    close_all()


@pytest.fixture
def build(made: Runtime) -> Iterator[Callable[[int], Team]]:
    """Builds teams that end with the test."""
    teams: list[Team] = []

    def build(threads: int, runtime: Runtime | None = None) -> Team:
        teams.append(Team(threads, runtime or made))
        return teams[-1]

    yield build
    for team in teams:
        team.close()


assert close_all is not None  # used by a script below


def child_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if re.fullmatch(r"highlevel-\d+", thread.name)]


# Barriers ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("threads", [1, 2, 3, 4, 7, 16])
@pytest.mark.parametrize("spins", [True, False])
def test_barriers_hold(made: Runtime, build: Callable[..., Team], threads: int, spins: bool) -> None:
    team, rounds = build(threads), Rounds(made, 300)
    for _ in range(5):
        crew = team._crew or team._assemble()
        crew._set(BOUND, 5000 if spins else 0)  # whatever the number of CPUs: both ways to wait
        rounds.arena[SLOTS:] = -1
        team.run(rounds.step, rounds.address)
        rounds.check(threads)
    assert len(child_threads()) == threads - 1


def test_barriers_hold_where_threads_can_only_nap(build: Callable[..., Team]) -> None:
    made = Runtime(STORE, naps())
    team, rounds = build(3, made), Rounds(made, 200)
    for _ in range(3):
        team.run(rounds.step, rounds.address)
    rounds.check(3)


def test_the_work_between_barriers_is_done(made: Runtime, build: Callable[..., Team]) -> None:
    """The optimiser must not have removed it, or tests with work would be tests without."""
    team, rounds = build(2), Rounds(made, 3, work=2000)
    team.run(rounds.step, rounds.address)
    results = rounds.arena[SLOTS + 1 :: WIDTH][:2].view(np.float64)
    np.testing.assert_allclose(results, 1.0000001 ** -(3 * 2000 // 2), rtol=1e-10)


def test_one_function_serves_all_barriers_of_a_module() -> None:
    text = step_ir()
    assert text.count("hl_barrier") == 3  # declared once, called twice


@pytest.mark.parametrize(
    ("triple", "platform", "way"),
    [
        ("x86_64-unknown-linux-gnu", "linux", "futex"),
        ("aarch64-unknown-linux-gnu", "linux", "futex"),
        ("x86_64-apple-macosx12", "darwin", "ulock"),
        ("arm64-apple-macosx12", "darwin", "ulock"),
        ("x86_64-pc-windows-msvc", "win32", "address"),
        ("aarch64-pc-windows-msvc", "win32", "address"),
        ("x86_64-unknown-freebsd", "freebsd14", "naps"),
        ("aarch64-unknown-freebsd", "freebsd14", "naps"),
    ],
)
def test_the_runtime_is_code_for_every_system(triple: str, platform: str, way: str) -> None:
    target = dataclasses.replace(aarch64(), triple=triple, cpu="", features="")
    found = system(target.arch, platform)
    assert found.name == way
    unit = runtime(target, found)
    code = compile_ir(unit.text, target)
    assert foreign(code) == []
    waits = {"x86_64": "pause", "aarch64": "isb"}.get(target.arch, "")
    assert waits in assembly(unit.text, target)


# Steps ---------------------------------------------------------------------------------------------------------------
def test_python_threads_take_turns(made: Runtime, build: Callable[..., Team]) -> None:
    team, rounds = build(2), Rounds(made, 50)

    def run() -> None:
        for _ in range(40):
            team.run(rounds.step, rounds.address)

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rounds.check(2)
    assert len(child_threads()) == 1


# Waits until somebody writes the first element (bounded, so that a failure is no hang), and says whether it gave up.
WAITING = """
define void @kernel(i32 %tid, i32 %n, ptr %arena, ptr %state) {
entry:
  br label %look
look:
  %i = phi i64 [0, %entry], [%next, %look]
  %value = load atomic i64, ptr %arena acquire, align 8
  %next = add i64 %i, 1
  %empty = icmp eq i64 %value, 0
  %patient = icmp ult i64 %next, 10000000000
  %more = and i1 %empty, %patient
  br i1 %more, label %look, label %done
done:
  %given.up = getelementptr i64, ptr %arena, i64 1
  %failed = zext i1 %empty to i64
  store i64 %failed, ptr %given.up
  ret void
}
"""


def test_python_goes_on_while_a_step_runs(made: Runtime, build: Callable[..., Team]) -> None:
    """A step that ends only after Python has done something in the meantime."""
    unit = Unit(WAITING, host())
    library = link(STORE.objects([unit]))
    arena = np.array([0, 7], np.int64)
    thread = threading.Thread(target=build(2).run, args=(library.address(unit.symbol), arena.ctypes.data))
    thread.start()
    time.sleep(0.01)
    arena[0] = 1
    thread.join()
    assert arena.tolist() == [1, 0]


DENORMALS = """
define void @kernel(i32 %tid, i32 %n, ptr %arena, ptr %state) {
  %wide = zext i32 %tid to i64
  %at = getelementptr float, ptr %arena, i64 %wide
  %value = load volatile float, ptr %at
  %half = fmul float %value, 0.5
  store float %half, ptr %at
  ret void
}
"""
SET_MODE = """
declare void @llvm.x86.sse.ldmxcsr(ptr)
declare void @llvm.x86.sse.stmxcsr(ptr)
define i32 @kernel(i32 %new) {
  %place = alloca i32
  call void @llvm.x86.sse.stmxcsr(ptr %place)
  %old = load i32, ptr %place
  store i32 %new, ptr %place
  call void @llvm.x86.sse.ldmxcsr(ptr %place)
  ret i32 %old
}
"""


@pytest.mark.skipif(host(()).arch != "x86_64", reason="the register of x86")
def test_denormals_are_kept_whatever_the_program_has_set(build: Callable[..., Team]) -> None:
    units = [Unit(DENORMALS, host()), Unit(SET_MODE, host())]
    library = link(STORE.objects(units))
    step, set_mode = library.address(units[0].symbol), library.function(units[1].symbol, ctypes.c_uint32)
    set_mode.restype = ctypes.c_uint32
    values = np.full(4, 1e-40, np.float32)
    team = build(4)
    flushing = 0x1F80 | 0x8040 | 0x6000  # flush to zero, denormals are zero, round towards zero
    before = set_mode(flushing)
    try:
        team.run(step, values.ctypes.data)
        after = set_mode(before)
    finally:
        set_mode(before)
    assert after & 0xFFC0 == flushing  # the program's own mode is back
    assert values.view(np.int32).tolist() == [np.float32(5e-41).view(np.int32)] * 4


# Life ----------------------------------------------------------------------------------------------------------------
def test_a_team_begins_late_ends_and_begins_again(made: Runtime, build: Callable[..., Team]) -> None:
    team, rounds = build(3), Rounds(made, 10)
    assert not team.running and child_threads() == []
    for _ in range(2):
        team.run(rounds.step, rounds.address)
        assert team.running and len(child_threads()) == 2
        team.close()
        team.close()
        assert not team.running and child_threads() == []


def test_a_team_that_nobody_knows_ends(made: Runtime) -> None:
    rounds = Rounds(made, 10)
    team = Team(3, made)
    team.run(rounds.step, rounds.address)
    assert len(child_threads()) == 2
    del team
    assert child_threads() == []


def test_fewer_threads_do_as_well(made: Runtime, build: Callable[..., Team], monkeypatch: pytest.MonkeyPatch) -> None:
    start, started = threading.Thread.start, []

    def scarce(thread: threading.Thread) -> None:
        if len(started) == 2:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", scarce)
    team, rounds = build(8), Rounds(made, 10)
    team.run(rounds.step, rounds.address)
    rounds.check(3)


def test_how_many_threads(monkeypatch: pytest.MonkeyPatch, made: Runtime) -> None:
    monkeypatch.delenv("HIGHLEVEL_THREADS", raising=False)
    assert Team(runtime=made).threads == cpus() == available() >= 1
    monkeypatch.setenv("HIGHLEVEL_THREADS", "3")
    assert Team(runtime=made).threads == 3
    for wrong in ("0", "-1", "many"):
        monkeypatch.setenv("HIGHLEVEL_THREADS", wrong)
        with pytest.raises(ArgumentError, match="HIGHLEVEL_THREADS is a number"):
            cpus()
    with pytest.raises(ArgumentError, match="at least one thread"):
        Team(0, made)


@posix
@forks
@pytest.mark.parametrize("busy", [False, True])
def test_a_forked_child_builds_its_own_threads(made: Runtime, build: Callable[..., Team], busy: bool) -> None:
    """Also when another thread is in the middle of a step, which holds the team's lock for ever in the child."""
    team, rounds = build(3), Rounds(made, 50)
    team.run(rounds.step, rounds.address)
    other = Rounds(made, 100, work=300_000)
    thread = threading.Thread(target=team.run, args=(other.step, other.address))
    if busy:
        thread.start()
        time.sleep(0.02)
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        rounds.arena[SLOTS:] = -1
        team.run(rounds.step, rounds.address)
        threads = len(child_threads())
        rounds.check(3)
        team.close()
        os._exit(threads)
    if busy:
        thread.join()
        other.check(3)
    team.run(rounds.step, rounds.address)
    rounds.check(3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2


def python(code: str, *arguments: str) -> subprocess.Popen[str]:
    """Another process, with this file's steps."""
    head = f"""
        import importlib.util, os, signal, sys, threading, time
        spec = importlib.util.spec_from_file_location("team_tests", {__file__!r})
        t = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(t)
        made = t.Runtime(t.STORE)
    """
    return subprocess.Popen(
        [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(head) + textwrap.dedent(code), *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), "HIGHLEVEL_CACHE": "off"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@posix
def test_ctrl_c_finds_steps_whole() -> None:
    """Many interrupts at random moments: each is raised, and never leaves one thread ahead of another."""
    process = python("""
        team, rounds = t.Team(3, made), t.Rounds(made, 20, 20000)
        interrupts = steps = 0
        print("ready", flush=True)
        while interrupts < 25:
            try:
                while True:
                    rounds.arena[t.SLOTS:] = -1
                    team.run(rounds.step, rounds.address)
                    rounds.check(3)
                    steps += 1
            except KeyboardInterrupt:
                interrupts += 1
                print("interrupted", flush=True)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        team.run(rounds.step, rounds.address)
        rounds.check(3)
        print(steps > 0, len(t.child_threads()))
    """)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    chance = np.random.default_rng(0)
    for _ in range(25):
        time.sleep(chance.uniform(0, 0.02))
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "interrupted\n"
    assert process.communicate(timeout=30)[0] == "True 2\n"
    assert process.returncode == 0


@pytest.mark.parametrize("ending", ["", "sys.exit(3)", "raise SystemExit(3)", "team.close()", "del team"])
def test_the_interpreter_ends_with_teams_alive(ending: str) -> None:
    process = python(f"""
        team, rounds = t.Team(3, made), t.Rounds(made, 20)
        team.run(rounds.step, rounds.address)
        print("ran", flush=True)
        {ending or "pass"}
    """)
    assert process.communicate(timeout=30)[0] == "ran\n"
    assert process.returncode == (3 if "3" in ending else 0)


def test_a_step_that_is_asked_for_at_the_very_end() -> None:
    """After the threads have ended, and when the interpreter allows no new ones."""
    process = python("""
        import atexit
        team, rounds = t.Team(3, made), t.Rounds(made, 20)
        def last():
            team.run(rounds.step, rounds.address)
            rounds.check(1)
            print("ran again", flush=True)
        atexit._clear()
        atexit.register(last)
        atexit.register(t.close_all)
        team.run(rounds.step, rounds.address)
    """)
    assert process.communicate(timeout=30)[0] == "ran again\n"
    assert process.returncode == 0


# Two programs on the same CPUs ---------------------------------------------------------------------------------------
NEIGHBOUR = """
    rounds = t.Rounds(made, 100, int(sys.argv[1]))
    team = t.Team(2, made)
    team.run(rounds.step, rounds.address)
    print("ready", flush=True)
    sys.stdin.readline()
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(int(sys.argv[2])):
        team.run(rounds.step, rounds.address)
    rounds.check(2)
    print(time.perf_counter() - wall, time.process_time() - cpu, flush=True)
"""


def cost(together: int, work: int, steps: int) -> np.ndarray:
    """For that many processes that run steps at once: seconds until the last is done, CPU seconds of all."""
    processes = [python(NEIGHBOUR, str(work), str(steps)) for _ in range(together)]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    found = [[float(word) for word in process.communicate(timeout=120)[0].split()] for process in processes]
    return np.array([max(wall for wall, _ in found), sum(cpu for _, cpu in found)])


def compared(work: int, steps: int) -> np.ndarray:
    """Two processes at once against one after the other (measured before and after): wall clock and CPU time."""
    before = cost(1, work, steps)
    both = cost(2, work, steps)
    return both / (before + cost(1, work, steps))


@pytest.mark.skipif(available() < 2, reason="two CPUs")
def test_two_programs_do_not_burn_each_others_time() -> None:
    """CPU time, which other programs of the machine change little; waiting without end would multiply it."""
    assert any(compared(20_000, 10)[1] < 1.5 for _ in range(3))


@pytest.mark.soak
@pytest.mark.skipif(available() < 2, reason="two CPUs")
@pytest.mark.parametrize("work", [10_000, 40_000, 200_000])
def test_two_programs_take_at_most_a_third_longer(work: int) -> None:
    """On a machine that has nothing else to do."""
    wall, _ = np.median([compared(work, 4_000_000 // work) for _ in range(7)], axis=0)
    assert wall <= 1.3
