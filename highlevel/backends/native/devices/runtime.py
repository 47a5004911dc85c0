"""The few functions that a team of threads runs between and inside of steps, as LLVM IR.

They are compiled like any kernel and never touch Python, so waking a team, its barriers and its sleep need no lock of
the interpreter. All of it works on one block of memory, the team's state (offsets below, one cache line for each thing
that several threads write):

    hl_barrier(state, n)          returns when n threads have called it
    hl_worker(tid, state)         the life of a thread: waits for a step, runs it, meets the others at a barrier; repeat
    hl_run(state, step, arena)    one step, from the caller's thread, which takes part as number 0
    hl_run_alone(state, step, arena)  the same without the others, who are not woken
    hl_stop(state)                ends the workers
    hl_pause(count)               a measured number of pauses

Whoever waits spins at first, for a bounded time, and then sleeps in the kernel, on the very word that it waits for;
who changes the word wakes sleepers, if there are any. How long to spin is learnt: spinning that did not pay halves it
(the thread waited for may need this very CPU), spinning that did doubles it. Every 32nd wait tries the whole bound,
which is more than a sleep and a wake-up take, and if that pays all waits do so again: else, once threads sleep, each
would take so long to wake that the other sleeps as well, for ever. A sleeper announces itself
before it looks for the last time, and a waker changes the word before it looks for sleepers, both sequentially
consistent, so no wake-up is lost (Dekker's argument; Drepper, "Futexes Are Tricky", 2011).

On entry of a step the floating-point mode is the default one – round to nearest, denormals kept, no traps – whatever
the program has set for its own thread, and is put back afterwards.
"""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass

from highlevel.backends.native.cache import Unit
from highlevel.backends.native.codegen.targets import Target

STATE_BYTES = 896
ARRIVED, GENERATION, SLEEPERS = 0, 128, 256  # of the barrier
EPOCH, WAITING = 384, 512  # the number of steps begun, and who sleeps until the next
SPIN, IDLE_SPIN = 640, 644  # how many pauses to spend before sleeping, at barriers and between steps
STEP, ARENA, THREADS, STOP, BOUND = 768, 776, 784, 788, 792  # written between steps only

EXPORTS = ("hl_barrier", "hl_worker", "hl_run", "hl_run_alone", "hl_stop", "hl_pause")


@dataclass(frozen=True, slots=True)
class System:
    """How a thread sleeps on a word until another one wakes it: IR, and the functions of the system that it calls."""

    name: str
    text: str
    imports: dict[str, int]


def system(arch: str, platform: str = sys.platform) -> System:
    """The way of this system: futexes, addresses to wait on, or – elsewhere – short naps."""
    numbers = {"x86_64": 202, "aarch64": 98, "riscv64": 98}
    if platform == "linux" and arch in numbers:
        return System("futex", _FUTEX.replace("NUMBER", str(numbers[arch])), _addresses(platform, "syscall"))
    if platform == "darwin":
        return System("ulock", _ULOCK, _addresses(platform, "__ulock_wait", "__ulock_wake"))
    if platform == "win32":
        return System("address", _WAIT_ON_ADDRESS, _addresses(platform, "WaitOnAddress", "WakeByAddressAll"))
    return naps()


def naps() -> System:
    """What works on any POSIX system: to look again every 50 µs."""
    return System("naps", _NAPS, _addresses(sys.platform, "usleep"))


def _addresses(platform: str, *names: str) -> dict[str, int]:
    """The system's functions under names that are ours, as far as this process runs on that system."""
    if platform != sys.platform or (sys.platform == "win32" and "usleep" in names):
        return {}
    if sys.platform == "win32":
        library = ctypes.WinDLL("api-ms-win-core-synch-l1-2-0")
    else:
        library = ctypes.CDLL(None)
    return {f"hl_{name.strip('_')}": ctypes.cast(library[name], ctypes.c_void_p).value or 0 for name in names}


_FUTEX = """
declare i64 @hl_syscall(i64, ptr, i32, i32, ptr, ptr, i32)
define internal void @sleep(ptr %word, i32 %seen) {
  %r = call i64 @hl_syscall(i64 NUMBER, ptr %word, i32 128, i32 %seen, ptr null, ptr null, i32 0)
  ret void
}
define internal void @wake(ptr %word) {
  %r = call i64 @hl_syscall(i64 NUMBER, ptr %word, i32 129, i32 2147483647, ptr null, ptr null, i32 0)
  ret void
}
"""
_ULOCK = """
declare i32 @hl_ulock_wait(i32, ptr, i64, i32)
declare i32 @hl_ulock_wake(i32, ptr, i64)
define internal void @sleep(ptr %word, i32 %seen) {
  %wide = zext i32 %seen to i64
  %r = call i32 @hl_ulock_wait(i32 1, ptr %word, i64 %wide, i32 0)
  ret void
}
define internal void @wake(ptr %word) {
  %r = call i32 @hl_ulock_wake(i32 257, ptr %word, i64 0)
  ret void
}
"""
_WAIT_ON_ADDRESS = """
declare i32 @hl_WaitOnAddress(ptr, ptr, i64, i32)
declare void @hl_WakeByAddressAll(ptr)
define internal void @sleep(ptr %word, i32 %seen) {
  %copy = alloca i32
  store i32 %seen, ptr %copy
  %r = call i32 @hl_WaitOnAddress(ptr %word, ptr %copy, i64 4, i32 -1)
  ret void
}
define internal void @wake(ptr %word) {
  call void @hl_WakeByAddressAll(ptr %word)
  ret void
}
"""
_NAPS = """
declare i32 @hl_usleep(i32)
define internal void @sleep(ptr %word, i32 %seen) {
  %r = call i32 @hl_usleep(i32 50)
  ret void
}
define internal void @wake(ptr %word) {
  ret void
}
"""

# What an architecture calls a short wait, and its floating-point mode.
_CPU = {
    "x86_64": """
declare void @llvm.x86.sse2.pause()
declare void @llvm.x86.sse.ldmxcsr(ptr)
declare void @llvm.x86.sse.stmxcsr(ptr)
define internal void @relax() alwaysinline {
  call void @llvm.x86.sse2.pause()
  ret void
}
define internal i64 @set_mode(i64 %mode) {
  %old = alloca i32
  %new = alloca i32
  call void @llvm.x86.sse.stmxcsr(ptr %old)
  %was = load i32, ptr %old
  %narrow = trunc i64 %mode to i32
  store i32 %narrow, ptr %new
  call void @llvm.x86.sse.ldmxcsr(ptr %new)
  %wide = zext i32 %was to i64
  ret i64 %wide
}
""",
    "aarch64": """
declare void @llvm.aarch64.isb(i32)
declare i64 @llvm.aarch64.get.fpcr()
declare void @llvm.aarch64.set.fpcr(i64)
define internal void @relax() alwaysinline {
  call void @llvm.aarch64.isb(i32 15)
  ret void
}
define internal i64 @set_mode(i64 %mode) {
  %was = call i64 @llvm.aarch64.get.fpcr()
  call void @llvm.aarch64.set.fpcr(i64 %mode)
  ret i64 %was
}
""",
}
_ANY_CPU = """
define internal void @relax() alwaysinline {
  ret void
}
define internal i64 @set_mode(i64 %mode) {
  ret i64 0
}
"""
_DEFAULT_MODE = {"x86_64": 0x1F80, "aarch64": 0}

_TEXT = """
declare i32 @llvm.umin.i32(i32, i32)
; Returns when the word at `word` is no longer `seen`.
define internal void @await(ptr %word, i32 %seen, ptr %sleepers, ptr %spin.at, ptr %state) {
entry:
  %bound.at = getelementptr i8, ptr %state, i64 {BOUND}
  %bound = load i32, ptr %bound.at
  %spin = load atomic i32, ptr %spin.at monotonic, align 4
  %turn = and i32 %seen, 31
  %trial = icmp eq i32 %turn, 0
  %count = select i1 %trial, i32 %bound, i32 %spin
  br label %look
look:
  %i = phi i32 [0, %entry], [%i.next, %again]
  %now = load atomic i32, ptr %word acquire, align 4
  %changed = icmp ne i32 %now, %seen
  br i1 %changed, label %paid, label %again
again:
  call void @relax()
  %i.next = add i32 %i, 1
  %more = icmp ult i32 %i.next, %count
  br i1 %more, label %look, label %failed

paid:
  %full = icmp uge i32 %spin, %bound
  br i1 %full, label %done, label %grow
grow:
  %twice = shl i32 %spin, 1
  %some = add i32 %twice, 8
  %capped = call i32 @llvm.umin.i32(i32 %some, i32 %bound)
  %raised = select i1 %trial, i32 %bound, i32 %capped
  store atomic i32 %raised, ptr %spin.at monotonic, align 4
  br label %done

failed:
  %half = lshr i32 %spin, 1
  store atomic i32 %half, ptr %spin.at monotonic, align 4
  %ignored = atomicrmw add ptr %sleepers, i32 1 seq_cst
  br label %check
check:
  %again.now = load atomic i32, ptr %word seq_cst, align 4
  %over = icmp ne i32 %again.now, %seen
  br i1 %over, label %awake, label %asleep
asleep:
  call void @sleep(ptr %word, i32 %seen)
  br label %check
awake:
  %ignored.too = atomicrmw sub ptr %sleepers, i32 1 seq_cst
  br label %done
done:
  ret void
}

; Adds 1 to the word and wakes who sleeps on it.
define internal void @advance(ptr %word, ptr %sleepers) {
  %ignored = atomicrmw add ptr %word, i32 1 seq_cst
  %count = load atomic i32, ptr %sleepers seq_cst, align 4
  %nobody = icmp eq i32 %count, 0
  br i1 %nobody, label %done, label %some
some:
  call void @wake(ptr %word)
  br label %done
done:
  ret void
}

define void @hl_barrier(ptr %state, i32 %n) {
  %alone = icmp sle i32 %n, 1
  br i1 %alone, label %done, label %several
several:
  %generation.at = getelementptr i8, ptr %state, i64 {GENERATION}
  %sleepers = getelementptr i8, ptr %state, i64 {SLEEPERS}
  %generation = load atomic i32, ptr %generation.at acquire, align 4
  %before = atomicrmw add ptr %state, i32 1 acq_rel
  %count = add i32 %before, 1
  %last = icmp eq i32 %count, %n
  br i1 %last, label %release, label %wait
release:
  store atomic i32 0, ptr %state monotonic, align 4
  call void @advance(ptr %generation.at, ptr %sleepers)
  br label %done
wait:
  %spin = getelementptr i8, ptr %state, i64 {SPIN}
  call void @await(ptr %generation.at, i32 %generation, ptr %sleepers, ptr %spin, ptr %state)
  br label %done
done:
  ret void
}

; One thread's share of a step, in the default floating-point mode.
define internal void @take_part(i32 %tid, ptr %state) {
  %step.at = getelementptr i8, ptr %state, i64 {STEP}
  %arena.at = getelementptr i8, ptr %state, i64 {ARENA}
  %n.at = getelementptr i8, ptr %state, i64 {THREADS}
  %step = load ptr, ptr %step.at
  %arena = load ptr, ptr %arena.at
  %n = load i32, ptr %n.at
  %mode = call i64 @set_mode(i64 {MODE})
  call void %step(i32 %tid, i32 %n, ptr %arena, ptr %state)
  %ignored = call i64 @set_mode(i64 %mode)
  call void @hl_barrier(ptr %state, i32 %n)
  ret void
}

define void @hl_worker(i32 %tid, ptr %state) {
entry:
  %epoch.at = getelementptr i8, ptr %state, i64 {EPOCH}
  %waiting = getelementptr i8, ptr %state, i64 {WAITING}
  %spin = getelementptr i8, ptr %state, i64 {IDLE_SPIN}
  %stop.at = getelementptr i8, ptr %state, i64 {STOP}
  br label %next
next:
  %seen = phi i32 [0, %entry], [%epoch, %work]
  call void @await(ptr %epoch.at, i32 %seen, ptr %waiting, ptr %spin, ptr %state)
  %epoch = add i32 %seen, 1
  %stop = load i32, ptr %stop.at
  %ends = icmp ne i32 %stop, 0
  br i1 %ends, label %done, label %work
work:
  call void @take_part(i32 %tid, ptr %state)
  br label %next
done:
  ret void
}

define void @hl_run(ptr %state, ptr %step, ptr %arena) {
  %step.at = getelementptr i8, ptr %state, i64 {STEP}
  %arena.at = getelementptr i8, ptr %state, i64 {ARENA}
  %n.at = getelementptr i8, ptr %state, i64 {THREADS}
  %epoch.at = getelementptr i8, ptr %state, i64 {EPOCH}
  %waiting = getelementptr i8, ptr %state, i64 {WAITING}
  store ptr %step, ptr %step.at
  store ptr %arena, ptr %arena.at
  %n = load i32, ptr %n.at
  %alone = icmp sle i32 %n, 1
  br i1 %alone, label %work, label %others
others:
  call void @advance(ptr %epoch.at, ptr %waiting)
  br label %work
work:
  call void @take_part(i32 0, ptr %state)
  ret void
}

define void @hl_run_alone(ptr %state, ptr %step, ptr %arena) {
  %mode = call i64 @set_mode(i64 {MODE})
  call void %step(i32 0, i32 1, ptr %arena, ptr %state)
  %ignored = call i64 @set_mode(i64 %mode)
  ret void
}

define void @hl_stop(ptr %state) {
  %stop.at = getelementptr i8, ptr %state, i64 {STOP}
  %epoch.at = getelementptr i8, ptr %state, i64 {EPOCH}
  %waiting = getelementptr i8, ptr %state, i64 {WAITING}
  store i32 1, ptr %stop.at
  call void @advance(ptr %epoch.at, ptr %waiting)
  ret void
}

define void @hl_pause(i32 %count) {
entry:
  br label %again
again:
  %i = phi i32 [0, %entry], [%next, %again]
  call void @relax()
  %next = add i32 %i, 1
  %more = icmp ult i32 %next, %count
  br i1 %more, label %again, label %done
done:
  ret void
}
"""


def runtime(target: Target, way: System | None = None) -> Unit:
    """The functions above for a target, as one unit; it exports them by their own names."""
    way = way or system(target.arch)
    text = way.text + _CPU.get(target.arch, _ANY_CPU) + _TEXT
    places = {name: value for name, value in globals().items() if name.isupper() and isinstance(value, int)}
    for name, value in {**places, "MODE": _DEFAULT_MODE.get(target.arch, 0)}.items():
        text = text.replace(f"{{{name}}}", str(value))
    return Unit(text, target)
