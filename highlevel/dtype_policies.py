"""Which type a layer computes in, and which type its variables have (mixed precision: P. Micikevicius et al., 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from highlevel import config
from highlevel.errors import ArgumentError, did_you_mean
from highlevel.ir import DType, as_dtype

_MIXED = {"mixed_bfloat16": "bfloat16", "mixed_float16": "float16"}
_global: list[DTypePolicy] = []


@dataclass(frozen=True, slots=True)
class DTypePolicy:
    """`compute_dtype` is what `call` works in, `variable_dtype` what weights are kept in."""

    name: str

    def __post_init__(self) -> None:
        if self.name not in _MIXED:
            as_dtype(self.name)

    @property
    def compute_dtype(self) -> DType:
        return as_dtype(_MIXED.get(self.name, self.name))

    @property
    def variable_dtype(self) -> DType:
        return as_dtype("float32" if self.name in _MIXED else self.name)


def get(identifier: Any) -> DTypePolicy:
    """The policy that an argument `dtype=` means: None (the global one), a policy, a name, or a data type."""
    if identifier is None:
        return dtype_policy()
    if isinstance(identifier, DTypePolicy):
        return identifier
    if isinstance(identifier, dict):  # as Keras writes it to files
        return get(identifier.get("config", {}).get("name"))
    if isinstance(identifier, str) and identifier in _MIXED:
        return DTypePolicy(identifier)
    try:
        return DTypePolicy(as_dtype(identifier).name)
    except TypeError:
        known = [*_MIXED, "float16", "bfloat16", "float32", "float64", "int32"]
        raise ArgumentError(f"unknown dtype policy {identifier!r}", hint=did_you_mean(identifier, known)) from None


def dtype_policy() -> DTypePolicy:
    """The policy of layers that are not given one."""
    return _global[-1] if _global else DTypePolicy(config.floatx())


def set_dtype_policy(policy: Any) -> None:
    """Sets the global policy: "float32", "mixed_bfloat16", "mixed_float16", …"""
    _global[:] = [get(policy)]
