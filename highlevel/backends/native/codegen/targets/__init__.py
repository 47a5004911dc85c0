"""Targets: the CPUs that code is generated for, and the way from IR to object code for them."""

from .target import Target, aarch64, assembly, compile_ir, host
from .workers import Job, Workers, default_workers

__all__ = ["Job", "Target", "Workers", "aarch64", "assembly", "compile_ir", "default_workers", "host"]
