"""What a step does: rows of a table, carried out one after the other by every thread of a team.

    void hl_sequence(i32 tid, i32 nthreads, ptr frame, ptr team_state)

is the one step function of all programs; programs differ in their tables and frames, which are data. So a program that
is made of known kernels costs no compilation at all, and a step of any size is one foreign call.

A table is an array of 64-bit words, a row is a few of them: its operation, its length in words, its number, and

    CALL     function, mode, units, grain, blocks, count, (base, offset) × count
    BARRIER                                      all threads meet
    SET      goal, base, offset, counter, step   bases[goal] = bases[base] + offset + counters[counter] · step
    COUNT    counter, value                      counters[counter] = value
    NEXT     counter, change, end, target        adds `change`, and goes to row `target` unless the counter is at `end`
    UNLESS   base, offset, target                goes to row `target` if the byte there is 0
    GO       target
    CHECK    failure                             ends the step if that failure was noted
    END

Targets are counted in words from the beginning of the table. Arguments of calls are addresses – a base and an offset –
or one of the negative bases: BEGIN and END of this thread's share of `units`, cut at multiples of `grain`; TID;
THREADS. A call in mode 1 is made by thread 0 alone, as if it were the only one.

A frame is an array of words: the table's address; how many bases there are, and how many words each thread needs for
bases and counters (bases of loops and counters come after those that are given); where to note times, or 0; the
failure that a function called back has noted, or 0; the bases. A CHECK comes after a barrier, and before the next call
that can fail there is another one, so that all threads find the same.
"""

from __future__ import annotations

from highlevel.backends.native.cache import Unit
from highlevel.backends.native.codegen.targets import Target

CALL, BARRIER, SET, COUNT, NEXT, UNLESS, GO, CHECK, END = range(9)
BASE_BEGIN, BASE_END, BASE_TID, BASE_THREADS = -1, -2, -3, -4
TIMES = 3  # which word of a frame says where to note times
FAILED = 4  # and which one notes failures
HEAD = 5  # words of a frame before its bases
MOST_ARGUMENTS = 48

_CLOCK = {
    "x86_64": ("declare i64 @llvm.readcyclecounter()", "call i64 @llvm.readcyclecounter()"),
    "aarch64": ("declare i64 @llvm.readsteadycounter()", "call i64 @llvm.readsteadycounter()"),
}

_TEXT = """
declare void @hl_barrier(ptr, i32)
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
{CLOCK_DECLARATION}

define internal i64 @now() alwaysinline {
  %t = {CLOCK}
  ret i64 %t
}

define internal i64 @word(ptr %at, i64 %i) alwaysinline {
  %p = getelementptr i64, ptr %at, i64 %i
  %v = load i64, ptr %p
  ret i64 %v
}

; The number at which share `number` of `n` begins.
define internal i64 @share(i64 %number, i64 %n, i64 %blocks, i64 %grain) alwaysinline {
  %product = mul i64 %number, %blocks
  %block = udiv i64 %product, %n
  %start = mul i64 %block, %grain
  ret i64 %start
}

{APPLY}

; A call: its arguments are collected, then it is made.
define internal void @perform(ptr %row, ptr %bases, i64 %tid, i64 %n) {
entry:
  %argv = alloca [{MOST} x i64]
  %code = call i64 @word(ptr %row, i64 3)
  %units = call i64 @word(ptr %row, i64 5)
  %grain = call i64 @word(ptr %row, i64 6)
  %blocks = call i64 @word(ptr %row, i64 7)
  %count = call i64 @word(ptr %row, i64 8)
  %begin = call i64 @share(i64 %tid, i64 %n, i64 %blocks, i64 %grain)
  %following = add i64 %tid, 1
  %cut = call i64 @share(i64 %following, i64 %n, i64 %blocks, i64 %grain)
  %over = icmp ult i64 %cut, %units
  %end = select i1 %over, i64 %cut, i64 %units
  %shared = icmp ne i64 %units, 0
  %none = icmp uge i64 %begin, %end
  %idle = and i1 %shared, %none
  br i1 %idle, label %done, label %head
head:
  %i = phi i64 [0, %entry], [%i.next, %put]
  %more = icmp ult i64 %i, %count
  br i1 %more, label %argument, label %make
argument:
  %twice = shl i64 %i, 1
  %base.at = add i64 %twice, 9
  %offset.at = add i64 %twice, 10
  %base = call i64 @word(ptr %row, i64 %base.at)
  switch i64 %base, label %address [ i64 -1, label %is.begin i64 -2, label %is.end i64 -3, label %is.tid
                                     i64 -4, label %is.n ]
address:
  %origin = call i64 @word(ptr %bases, i64 %base)
  %offset = call i64 @word(ptr %row, i64 %offset.at)
  %sum = add i64 %origin, %offset
  br label %put
is.begin:
  br label %put
is.end:
  br label %put
is.tid:
  br label %put
is.n:
  br label %put
put:
  %value = phi i64 [%sum, %address], [%begin, %is.begin], [%end, %is.end], [%tid, %is.tid], [%n, %is.n]
  %slot = getelementptr i64, ptr %argv, i64 %i
  store i64 %value, ptr %slot
  %i.next = add i64 %i, 1
  br label %head
make:
  %function = inttoptr i64 %code to ptr
  call void @apply(ptr %function, ptr %argv, i64 %count)
  br label %done
done:
  ret void
}

define void @hl_sequence(i32 %tid, i32 %n, ptr %frame, ptr %state) {
entry:
  %table.word = call i64 @word(ptr %frame, i64 0)
  %given = call i64 @word(ptr %frame, i64 1)
  %needed = call i64 @word(ptr %frame, i64 2)
  %times.word = call i64 @word(ptr %frame, i64 3)
  %table = inttoptr i64 %table.word to ptr
  %times = inttoptr i64 %times.word to ptr
  %timed = icmp ne i64 %times.word, 0
  %bases = alloca i64, i64 %needed, align 16
  %first.base = getelementptr i64, ptr %frame, i64 {HEAD}
  %given.bytes = shl i64 %given, 3
  call void @llvm.memcpy.p0.p0.i64(ptr %bases, ptr %first.base, i64 %given.bytes, i1 false)
  %me = zext i32 %tid to i64
  %all = zext i32 %n to i64
  %leads = icmp eq i32 %tid, 0
  br label %next
next:
  %row = phi ptr [%table, %entry], [%after, %onward], [%there, %jump]
  %op = call i64 @word(ptr %row, i64 0)
  %length = call i64 @word(ptr %row, i64 1)
  switch i64 %op, label %done [ i64 {CALL}, label %call i64 {BARRIER}, label %barrier i64 {SET}, label %set
                                i64 {COUNT}, label %count i64 {NEXT}, label %loop i64 {UNLESS}, label %unless
                                i64 {GO}, label %go i64 {CHECK}, label %check ]
onward:
  %after = getelementptr i64, ptr %row, i64 %length
  br label %next
jump:
  %target = phi i64 [%loop.target, %repeat], [%unless.target, %taken], [%go.target, %go]
  %there = getelementptr i64, ptr %table, i64 %target
  br label %next
call:
  %mode = call i64 @word(ptr %row, i64 4)
  %together = icmp eq i64 %mode, 0
  %mine = or i1 %together, %leads
  br i1 %mine, label %begin, label %onward
begin:
  %tid.seen = select i1 %together, i64 %me, i64 0
  %n.seen = select i1 %together, i64 %all, i64 1
  br i1 %timed, label %clocked, label %plain
plain:
  call void @perform(ptr %row, ptr %bases, i64 %tid.seen, i64 %n.seen)
  br label %onward
clocked:
  %number = call i64 @word(ptr %row, i64 2)
  %of.all = mul i64 %number, %all
  %of.me = add i64 %of.all, %me
  %pair = shl i64 %of.me, 1
  %from.at = getelementptr i64, ptr %times, i64 %pair
  %to.at = getelementptr i64, ptr %from.at, i64 1
  %from = call i64 @now()
  call void @perform(ptr %row, ptr %bases, i64 %tid.seen, i64 %n.seen)
  %to = call i64 @now()
  %known = load i64, ptr %from.at
  %is.new = icmp eq i64 %known, 0
  %start = select i1 %is.new, i64 %from, i64 %known
  %spent = sub i64 %to, %from
  %sum.before = load i64, ptr %to.at
  %spent.all = add i64 %sum.before, %spent
  store i64 %start, ptr %from.at
  store i64 %spent.all, ptr %to.at
  br label %onward
barrier:
  call void @hl_barrier(ptr %state, i32 %n)
  br label %onward
set:
  %goal = call i64 @word(ptr %row, i64 3)
  %set.base = call i64 @word(ptr %row, i64 4)
  %set.offset = call i64 @word(ptr %row, i64 5)
  %set.counter = call i64 @word(ptr %row, i64 6)
  %set.step = call i64 @word(ptr %row, i64 7)
  %origin = call i64 @word(ptr %bases, i64 %set.base)
  %turn = call i64 @word(ptr %bases, i64 %set.counter)
  %moved = mul i64 %turn, %set.step
  %partly = add i64 %origin, %set.offset
  %address = add i64 %partly, %moved
  %goal.at = getelementptr i64, ptr %bases, i64 %goal
  store i64 %address, ptr %goal.at
  br label %onward
count:
  %counter = call i64 @word(ptr %row, i64 3)
  %first = call i64 @word(ptr %row, i64 4)
  %counter.at = getelementptr i64, ptr %bases, i64 %counter
  store i64 %first, ptr %counter.at
  br label %onward
loop:
  %loop.counter = call i64 @word(ptr %row, i64 3)
  %change = call i64 @word(ptr %row, i64 4)
  %last = call i64 @word(ptr %row, i64 5)
  %loop.target = call i64 @word(ptr %row, i64 6)
  %loop.at = getelementptr i64, ptr %bases, i64 %loop.counter
  %was = load i64, ptr %loop.at
  %is = add i64 %was, %change
  store i64 %is, ptr %loop.at
  %over = icmp eq i64 %is, %last
  br i1 %over, label %onward, label %repeat
repeat:
  br label %jump
unless:
  %flag.base = call i64 @word(ptr %row, i64 3)
  %flag.offset = call i64 @word(ptr %row, i64 4)
  %unless.target = call i64 @word(ptr %row, i64 5)
  %flag.origin = call i64 @word(ptr %bases, i64 %flag.base)
  %flag.address = add i64 %flag.origin, %flag.offset
  %flag.at = inttoptr i64 %flag.address to ptr
  %flag = load i8, ptr %flag.at
  %is.set = icmp ne i8 %flag, 0
  br i1 %is.set, label %onward, label %taken
taken:
  br label %jump
go:
  %go.target = call i64 @word(ptr %row, i64 3)
  br label %jump
check:
  %failure = call i64 @word(ptr %row, i64 3)
  %failed.at = getelementptr i64, ptr %frame, i64 {FAILED}
  %failed = load atomic i64, ptr %failed.at monotonic, align 8
  %stop = icmp eq i64 %failed, %failure
  br i1 %stop, label %done, label %onward
done:
  ret void
}
"""


def _apply() -> str:
    """A call of a function of any number of words. Addresses and numbers are handed over alike on all 64-bit CPUs."""
    lines = ["define internal void @apply(ptr %function, ptr %argv, i64 %count) {", "entry:"]
    cases = " ".join(f"i64 {count}, label %n{count}" for count in range(MOST_ARGUMENTS + 1))
    lines.append(f"  switch i64 %count, label %done [ {cases} ]")
    for count in range(MOST_ARGUMENTS + 1):
        lines.append(f"n{count}:")
        for i in range(count):
            lines.append(f"  %v{count}.{i} = call i64 @word(ptr %argv, i64 {i})")
        words = ", ".join(f"i64 %v{count}.{i}" for i in range(count))
        lines += [f"  call void %function({words})", "  br label %done"]
    return "\n".join([*lines, "done:", "  ret void", "}"])


def sequencer(target: Target) -> Unit:
    """The function above for a target, as a unit that exports it by its own name."""
    declaration, clock = _CLOCK.get(target.arch, ("", "add i64 0, 0"))
    text = _TEXT.replace("{CLOCK_DECLARATION}", declaration).replace("{CLOCK}", clock).replace("{APPLY}", _apply())
    text = text.replace("{MOST}", str(MOST_ARGUMENTS)).replace("{HEAD}", str(HEAD))
    for name in ("CALL", "BARRIER", "SET", "COUNT", "NEXT", "UNLESS", "GO", "CHECK", "FAILED"):
        text = text.replace(f"{{{name}}}", str(globals()[name]))
    return Unit(text, target, 1)
