"""What code is generated for: a CPU, as code generators and planners need to know it.

A `Target` enters code generation, tile planning and the key of every cached kernel. Two targets with equal `key` get
equal machine code for equal IR.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable
from dataclasses import dataclass

import llvmlite.binding as llvm

from highlevel.errors import ArgumentError, BackendError

from .compiler import compile_text, create_machine, exclusive

WITHOUT = "HIGHLEVEL_CPU_WITHOUT"


@dataclass(frozen=True, slots=True)
class Target:
    """A CPU.

    triple, cpu, features: in LLVM's terms; features is the full list, "+sse2,-avx512f,…"
    data_layout:           LLVM's description of sizes and alignments
    vector_bytes:          width of a vector register: 64 (AVX-512), 32 (AVX2), 16 (SSE2, NEON)
    vector_registers:      how many of them there are
    fma:                   `llvm.fma` is one instruction (else it would be a call of the C library, which is refused)
    masking:               vector instructions take masks, so that the edge of a tile costs nothing
    bfloat16_dot:          dot products of bfloat16 pairs, accumulated in float32
    """

    triple: str
    cpu: str
    features: str
    data_layout: str
    vector_bytes: int
    vector_registers: int
    fma: bool
    masking: bool
    bfloat16_dot: bool

    @property
    def arch(self) -> str:
        """ "x86_64", "aarch64" or what else the triple begins with."""
        arch = self.triple.split("-")[0]
        return {"amd64": "x86_64", "arm64": "aarch64"}.get(arch, arch)

    @property
    def key(self) -> str:
        """All that decides which machine code comes out for given IR."""
        return f"{self.triple}|{self.cpu}|{self.features}"

    @property
    def is_host(self) -> bool:
        """Whether this process can run the code (and not only have it compiled)."""
        return bool(self.triple == llvm.get_process_triple())

    def lanes(self, bits: int) -> int:
        """How many elements of that many bits a vector register holds."""
        return self.vector_bytes * 8 // bits


def compile_ir(text: str, target: Target, level: int = 0) -> bytes:
    """Object code of one IR module, compiled in this process.

    Level 0 runs no optimiser pass, which suits code that is already as it should be (micro-kernels); loops that are to
    be vectorised need level 2 or 3. IR that LLVM does not accept is a `BackendError` with its message.
    """
    try:
        return compile_text(text, target.triple, target.cpu, target.features, level)
    except RuntimeError as error:
        raise invalid_ir(str(error)) from None


def assembly(text: str, target: Target, level: int = 0) -> str:
    """The machine code of an IR module as text, for tests and for people."""
    try:
        return compile_text(text, target.triple, target.cpu, target.features, level, assembly=True).decode()
    except RuntimeError as error:
        raise invalid_ir(str(error)) from None


def invalid_ir(message: str) -> BackendError:
    """The error for generated code that LLVM refuses: always a fault of this library."""
    return BackendError("LLVM does not accept the generated code", got=" / ".join(message.strip().splitlines()[:4]))


# The CPUs that there are ---------------------------------------------------------------------------------------------
def host(without: Iterable[str] | None = None) -> Target:
    """The CPU of this machine, as if it lacked the features `without` and all that build on them.

    The default is what the environment variable HIGHLEVEL_CPU_WITHOUT lists ("avx512f,fma"), so that code for smaller
    CPUs can be tried on a bigger one.
    """
    if without is None:
        without = [name.strip() for name in os.environ.get(WITHOUT, "").split(",") if name.strip()]
    return _host(tuple(sorted(set(without))))


@functools.cache
def _host(without: tuple[str, ...]) -> Target:
    try:
        features = dict(llvm.get_host_cpu_features())
    except RuntimeError:  # LLVM cannot tell on this system: what every CPU of the architecture has
        features = {}
    unknown = [name for name in without if name not in features]
    if unknown and features:
        raise ArgumentError("no such CPU feature", got=", ".join(unknown), expected="names as LLVM has them")
    present = {name for name, has in features.items() if has}
    kept = _closed({name for name in present if name not in without})
    return _describe(
        llvm.get_process_triple(),
        llvm.get_host_cpu_name(),
        kept,
        [f"{'+' if name in kept else '-'}{name}" for name in sorted(features)],
    )


@functools.cache
def aarch64() -> Target:
    """Any 64-bit ARM CPU, to generate and check code for it on other machines."""
    return _describe("aarch64-unknown-linux-gnu", "generic", {"neon"}, ["+neon"])


def _needs(feature: str) -> set[str]:
    """The features of x86 that another one builds on, as far as vectors go; taking one away takes these with it."""
    if feature.startswith(("avx512", "avx10")) and feature != "avx512f":
        return {"avx512f"}
    if feature == "avx512f":
        return {"avx2", "fma", "f16c"}
    if feature in ("avx2", "fma", "f16c", "vaes", "vpclmulqdq", "xop", "fma4"):
        return {"avx"}
    if feature.startswith("avx") and feature != "avx":  # avxvnni, avxifma, avxneconvert, …
        return {"avx2"}
    return set()


def _closed(features: set[str]) -> set[str]:
    """The features whose foundations are all there."""
    while lost := {name for name in features if not _needs(name) <= features}:
        features = features - lost
    return features


def _describe(triple: str, cpu: str, present: set[str], flags: list[str]) -> Target:
    arm = triple.startswith(("aarch64", "arm64"))
    avx512 = "avx512f" in present
    if avx512:
        # LLVM keeps to 256 bits on several CPUs for fear of lower clock rates; arithmetic in dense kernels gains more.
        flags = [*flags, "-prefer-256-bit"]
    features = ",".join(flags)
    with exclusive(), create_machine(triple, cpu, features) as machine:
        layout = str(machine.target_data)
    return Target(
        triple=triple,
        cpu=cpu,
        features=features,
        data_layout=layout,
        vector_bytes=64 if avx512 else 32 if "avx2" in present else 16,
        vector_registers=32 if avx512 or arm else 16,
        fma=arm or "fma" in present,
        masking=avx512,
        bfloat16_dot="avx512bf16" in present or (arm and "bf16" in present),
    )
