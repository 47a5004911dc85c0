"""The devices cpu and null: units that call each other, compiled, loaded, run on memory – and what is refused."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from highlevel.backends.native.cache import ObjectCache, Unit
from highlevel.backends.native.codegen.targets import Target, aarch64, compile_ir, host
from highlevel.backends.native.devices.cpu import CpuDevice, default_cpu
from highlevel.backends.native.devices.device import Device, Memory, Step
from highlevel.backends.native.devices.loader import link
from highlevel.backends.native.devices.null import NullDevice
from highlevel.errors import ArgumentError, BackendError

# y[i] = x[i] * factor for from ≤ i < to
SCALE = """
define void @kernel(ptr noalias %x, ptr noalias %y, i64 %from, i64 %to) {
entry:
  %some = icmp slt i64 %from, %to
  br i1 %some, label %loop, label %done
loop:
  %i = phi i64 [%from, %entry], [%next, %loop]
  %at = getelementptr inbounds float, ptr %x, i64 %i
  %into = getelementptr inbounds float, ptr %y, i64 %i
  %value = load float, ptr %at, align 4
  %scaled = fmul float %value, FACTOR
  store float %scaled, ptr %into, align 4
  %next = add nsw i64 %i, 1
  %more = icmp slt i64 %next, %to
  br i1 %more, label %loop, label %done
done:
  ret void
}
"""
# arena: x, y, z of COUNT floats. y = 3x in parts; then, after a barrier, z = 5 · reverse of the parts of y.
STEP = """
declare void @SCALE3(ptr, ptr, i64, i64)
declare void @SCALE5(ptr, ptr, i64, i64)
declare void @hl_barrier(ptr, i32)
define void @kernel(i32 %tid, i32 %n, ptr %arena, ptr %state) {
  %y = getelementptr float, ptr %arena, i64 COUNT
  %z = getelementptr float, ptr %y, i64 COUNT
  %t = zext i32 %tid to i64
  %count = zext i32 %n to i64
  %t1 = add i64 %t, 1
  %a = mul i64 %t, COUNT
  %b = mul i64 %t1, COUNT
  %from = udiv i64 %a, %count
  %to = udiv i64 %b, %count
  call void @SCALE3(ptr %arena, ptr %y, i64 %from, i64 %to)
  call void @hl_barrier(ptr %state, i32 %n)
  %from2 = sub i64 COUNT, %to
  %to2 = sub i64 COUNT, %from
  call void @SCALE5(ptr %y, ptr %z, i64 %from2, i64 %to2)
  ret void
}
"""
COUNT = 1001


def program(target: Target) -> list[Unit]:
    """Two kernels and a step that calls them; the step is the last."""
    scales = [Unit(SCALE.replace("FACTOR", f"{factor}.0"), target, 2) for factor in (3, 5)]
    step = STEP.replace("COUNT", str(COUNT))
    for name, unit in zip(("SCALE3", "SCALE5"), scales, strict=True):
        step = step.replace(name, unit.symbol)
    return [*scales, Unit(step, target)]


@pytest.fixture
def store() -> ObjectCache:
    return ObjectCache(None, compile=lambda jobs: [compile_ir(job.text, job.target, job.level) for job in jobs])


@pytest.fixture
def cpu(store: ObjectCache) -> Iterator[CpuDevice]:
    device = CpuDevice(2, cache=store)
    yield device
    device.close()


def ready(device: Device) -> Step:
    units = program(device.target)
    return Step(device.load(device.compile(units)), units[-1].symbol)


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
def test_a_program_is_compiled_loaded_and_run(store: ObjectCache, threads: int, rng: np.random.Generator) -> None:
    device = CpuDevice(threads, cache=store)
    step, arena = ready(device), device.allocate(3 * 4 * COUNT)
    assert arena.array is not None
    floats = arena.array.view(np.float32).reshape(3, COUNT)
    for _ in range(20):
        floats[0] = rng.standard_normal(COUNT, np.float32)
        floats[1:] = np.nan
        device.run(step, arena)
        np.testing.assert_array_equal(floats[1], floats[0] * np.float32(3))
        np.testing.assert_array_equal(floats[2], floats[1] * np.float32(5))
    device.close()


@pytest.mark.skipif(host(()).arch != "x86_64", reason="features of x86")
@pytest.mark.parametrize("without", [("avx512f",), ("avx",)])
def test_a_device_for_a_smaller_cpu(store: ObjectCache, without: tuple[str, ...]) -> None:
    device = CpuDevice(2, target=host(without), cache=store)
    step, arena = ready(device), device.allocate(3 * 4 * COUNT)
    assert arena.array is not None
    floats = arena.array.view(np.float32).reshape(3, COUNT)
    floats[0] = np.arange(COUNT)
    device.run(step, arena)
    np.testing.assert_array_equal(floats[2], 15 * np.arange(COUNT))
    device.close()


def test_devices_fit_the_protocol(cpu: CpuDevice, store: ObjectCache) -> None:
    assert isinstance(cpu, Device)
    assert isinstance(NullDevice(cache=store), Device)
    assert default_cpu() is default_cpu()
    assert cpu.threads == 2


@pytest.mark.parametrize("alignment", [1, 16, 64, 4096])
@pytest.mark.parametrize("size", [0, 1, 100, 1 << 20])
def test_memory_is_aligned_and_all_there(cpu: CpuDevice, size: int, alignment: int) -> None:
    memory = cpu.allocate(size, alignment)
    assert memory.array is not None
    assert memory.address % alignment == 0
    assert memory.array.ctypes.data == memory.address or size == 0
    assert memory.array.shape == (size,) and memory.size_bytes == size
    memory.array[:] = 7
    assert memory.array.sum(dtype=np.int64) == 7 * size


def test_what_is_refused(cpu: CpuDevice, store: ObjectCache) -> None:
    for alignment in (0, -8, 48):
        with pytest.raises(ArgumentError, match="power of two"):
            cpu.allocate(8, alignment)
    other = aarch64() if host().arch == "x86_64" else host(())
    if not other.is_host:
        with pytest.raises(BackendError, match="cannot run code for another CPU"):
            CpuDevice(target=other, cache=store)
        with pytest.raises(BackendError, match="another target"):
            cpu.compile(program(other))
    lost = Unit("declare void @k_nowhere()\ndefine void @kernel() {\n  call void @k_nowhere()\n  ret void\n}", host())
    with pytest.raises(BackendError, match="cannot be linked") as caught:
        cpu.load(cpu.compile([lost]))
    if sys.platform != "darwin":
        assert "undefined: k_nowhere" in str(caught.value)


def test_an_object_that_is_none(cpu: CpuDevice, store: ObjectCache) -> None:
    sound = cpu.compile(program(host()))[0]
    with pytest.raises(BackendError, match="cannot be linked"):
        link([type(sound)(sound.symbol, b"garbage" * 99)])
    assert cpu.load([sound]).address(sound.symbol) > 0


# Null ----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("target", [host(), aarch64()], ids=lambda target: target.arch)
def test_null_compiles_everything_and_runs_nothing(store: ObjectCache, target: Target) -> None:
    device = NullDevice(target, cache=store)
    step, arena = ready(device), device.allocate(1 << 40)  # memory that no machine has
    assert store.counts.compiled == 3
    device.run(step, arena)
    assert (device.steps_run, device.allocated_bytes) == (1, 1 << 40)
    assert arena.array is None
    with pytest.raises(KeyError):
        device.run(Step(step.code, "k_nowhere"), arena)
    step.code.close()
    device.close()


def test_null_refuses_what_is_not_its_own(cpu: CpuDevice, store: ObjectCache) -> None:
    step = ready(cpu)
    with pytest.raises(BackendError, match="loaded by another device"):
        NullDevice(cache=store).run(step, Memory(0, 0))
    with pytest.raises(BackendError, match="LLVM does not accept"):
        NullDevice(cache=store).compile([Unit("define void @kernel() { oops }", host())])


# Unloading -----------------------------------------------------------------------------------------------------------
def resident_kib() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_programs_that_die_leave_no_memory_behind(cpu: CpuDevice) -> None:
    units = program(cpu.target)
    objects = cpu.compile(units)

    def cycle(times: int) -> int:
        for _ in range(times):
            arena = cpu.allocate(3 * 4 * COUNT)
            cpu.run(Step(cpu.load(objects), units[-1].symbol), arena)
        gc.collect()
        return resident_kib()

    before = cycle(300)
    assert cycle(600) - before < 1024  # a page for each would be 2.4 MB
