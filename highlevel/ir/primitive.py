"""One record per operator: what it means, which shapes it takes, how it is differentiated, and how it is tested.

Everything else in the library – eager execution, shape errors, gradients, every backend, the operator tables of the
documentation, the registry-driven tests – is derived from these records. Adding an operator is adding one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from highlevel.errors import ArgumentError

from . import trace
from .executor import executor
from .graph import Symbol
from .operand import Operand
from .sample import Sample
from .spec import Spec
from .tensor import Tensor

REGISTRY: dict[str, Primitive] = {}


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Primitive:
    """An operator of the language.

    name:       unique; the key of the registry
    family:     its kind ("elementwise", "movement", …), named like the file of most of them; backends dispatch on it
    infer:      `infer(*specs, **attrs) -> Spec`, or a tuple of specs where `multiple`; raises `ShapeError`
    numpy:      `numpy(xp, *arrays, **attrs)`: the definition, over an array module (NumPy or CuPy)
    vjp:        `vjp(g, y, *x, **attrs)`: one cotangent (or None) per operand, made of primitives; None for operators
                without gradient. Where `multiple`, `g` and `y` are tuples and an entry of `g` may be None
    scalar:     elementwise rows: the meaning on scalars, `scalar(k, *values)`, over a `ScalarBuilder`
    multiple:   the operator has several outputs
    selective:  `numpy` takes `wanted`, one flag per output, and may return None where it is False
    samples:    how the registry-driven tests draw operands, and the oracle they compare with
    """

    name: str
    family: str
    infer: Callable[..., Any]
    numpy: Callable[..., Any]
    vjp: Callable[..., Any] | None = None
    scalar: Callable[..., Any] | None = None
    multiple: bool = False
    selective: bool = False
    samples: tuple[Sample, ...] = ()
    summary: str = ""

    def __call__(self, *operands: Operand, **attrs: Any) -> Any:
        """Applies the operator: concrete operands compute now, a symbolic one records a node."""
        operands = tuple([operand.read() for operand in operands])
        for operand in operands:
            if isinstance(operand, Symbol):
                return trace.record(self, operands, attrs)
        if not operands and trace.is_open():
            return trace.record(self, operands, attrs)
        return self._run(operands, attrs)

    def _run(self, operands: tuple[Any, ...], attrs: Mapping[str, Any]) -> Any:
        """Computes the operator on numbers."""
        backend = executor()
        specs = self.specs(tuple([operand.spec for operand in operands]), attrs)
        handles = backend.run(self, [operand.handle_on(backend) for operand in operands], attrs)
        outputs = tuple([Tensor(h, s, backend) for h, s in zip(handles, specs, strict=True)])
        return outputs if self.multiple else outputs[0]

    def specs(self, specs: tuple[Spec, ...], attrs: Mapping[str, Any]) -> tuple[Spec, ...]:
        """The specs of all outputs, as a tuple whether there is one or several."""
        inferred = self.infer(*specs, **attrs)
        return tuple(inferred) if self.multiple else (inferred,)

    def __repr__(self) -> str:
        return self.name


def define(name: str, family: str, **fields: Any) -> Primitive:
    """Creates and registers a primitive. A second definition of the same name is an error."""
    if name in REGISTRY:
        raise ArgumentError(f"primitive {name!r} is defined twice", hint="choose another name")
    REGISTRY[name] = Primitive(name, family, **fields)
    return REGISTRY[name]
