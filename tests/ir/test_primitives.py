"""Every operator, proved from its own record: values against functions by others, derivatives, shapes, special values.

Nothing here names an operator, so a new record is tested by being there – and fails the suite if it has no sample.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import highlevel.backends  # noqa: F401  (makes operators executable)
from highlevel.errors import HighlevelError
from highlevel.ir import REGISTRY, DType, Primitive, Tensor, as_dtype, define, grad, jit, spec
from highlevel.ir.operators import cast
from highlevel.ir.primitives import reduce_sum
from highlevel.ir.sample import Draw, Sample, mismatch

INSTALLED_ORACLES = ("math", "numpy", "scipy", "sklearn")  # Python itself and the extra "test"
CASES = [
    pytest.param(primitive, sample, id=f"{primitive.name}-{index}-{sample.oracle}")
    for primitive in REGISTRY.values()
    for index, sample in enumerate(primitive.samples)
]
WITH_FLOATS = [case for case in CASES if any(draw.dtype is None for draw in case.values[1].operands)]
WITH_ATTRIBUTES = [case for case in CASES if case.values[1].function is None]  # no sub-graphs made for its operands
every_sample = pytest.mark.parametrize(("primitive", "sample"), CASES)


def expected(sample: Sample, arrays: list[Any]) -> tuple[Any, ...]:
    """The oracle's results; the test is skipped by name where the oracle is not installed."""
    package = pytest.importorskip(sample.oracle.partition(".")[0])
    double = package.enable_x64(True) if package.__name__ == "jax" else nullcontext()
    with np.errstate(all="ignore"), double:
        return tuple(np.asarray(result) for result in sample.expected(*arrays))


def tensors(arrays: Any) -> list[Tensor]:
    return [Tensor.of(np.asarray(array)) for array in arrays]


def arrays_of(operands: Any) -> list[Any]:
    return [operand.numpy() for operand in operands]


def check(got: Any, want: Any, tolerance: float, *, elementwise: bool) -> None:
    assert len(got) == len(want)
    for position, (a, b) in enumerate(zip(got, want, strict=True)):
        wrong = mismatch(np.asarray(a), np.asarray(b), tolerance, elementwise=elementwise)
        assert wrong is None, f"result {position}: {wrong}"


def in_types_of(results: Any, like: Any) -> list[Any]:
    return [np.asarray(result).astype(other.dtype) for result, other in zip(results, like, strict=True)]


# Values --------------------------------------------------------------------------------------------------------------
@every_sample
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_values_are_those_of_the_oracle(primitive: Primitive, sample: Sample, dtype: str, rng: Any) -> None:
    arrays = sample.draw(rng, as_dtype(dtype))
    want = expected(sample, arrays)
    if sample.invariant:
        want = tuple(arrays_of(sample.comparable(*tensors(want))))
    got = arrays_of(sample.apply(primitive, *tensors(arrays)))
    check(got, want, sample.tolerance, elementwise=primitive.family == "elementwise")


@pytest.mark.parametrize(("primitive", "sample"), WITH_FLOATS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_types_round_once(primitive: Primitive, sample: Sample, dtype: str, rng: Any) -> None:
    """The oracle computes on the same numbers in float32; the result is that, rounded."""
    arrays = sample.draw(rng, as_dtype(dtype))
    wide = [array.astype(np.float32) if array.dtype == as_dtype(dtype).numpy else array for array in arrays]
    want = expected(sample, wide)
    if sample.invariant:
        want = tuple(arrays_of(sample.comparable(*tensors(want))))
    got = arrays_of(sample.apply(primitive, *tensors(arrays)))
    check(got, in_types_of(want, got), 16.0 if sample.invariant or sample.function else 4.0, elementwise=False)


def integer_cases() -> list[Any]:
    """(primitive, type) for all elementwise operators and the types that their shape rules admit."""
    cases = []
    for primitive, dtype in itertools.product(REGISTRY.values(), ("int32", "int64", "uint8", "bool")):
        if primitive.family == "elementwise":
            sample = primitive.samples[0]
            try:
                primitive.specs(tuple(spec(draw.shape, typed(draw, dtype)) for draw in sample.operands), sample.attrs)
            except HighlevelError:
                continue
            cases.append(pytest.param(primitive, dtype, id=f"{primitive.name}-{dtype}"))
    return cases


def typed(draw: Draw, dtype: str) -> DType:
    return draw.dtype if draw.dtype is as_dtype("bool") else as_dtype(dtype)


@pytest.mark.parametrize(("primitive", "dtype"), integer_cases())
def test_integers_where_they_are_taken(primitive: Primitive, dtype: str, rng: Any) -> None:
    sample = primitive.samples[0]
    arrays = [rng.integers(1, 5, draw.shape).astype(typed(draw, dtype).numpy) for draw in sample.operands]
    got = arrays_of(sample.apply(primitive, *tensors(arrays)))
    check(got, in_types_of(expected(sample, arrays), got), 0.0, elementwise=True)


SPECIAL = (np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 3.0)


@pytest.mark.parametrize(("primitive", "sample"), [case for case in CASES if case.values[1].special])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_special_values(primitive: Primitive, sample: Sample, dtype: str, rng: Any) -> None:
    """NaN, ±inf, ±0 and denormals in every combination; signs of zeros as well where the oracle is NumPy."""
    info = np.finfo(dtype)
    values = [*SPECIAL, info.smallest_subnormal, -info.smallest_subnormal]
    values += [info.tiny / 4, info.tiny, info.max, -info.max]
    floats = [draw.dtype is None for draw in sample.operands]
    grid = np.array(list(itertools.product(values, repeat=sum(floats))), dtype=dtype)
    columns = iter(grid.T.copy())
    arrays = [
        next(columns) if is_float else rng.integers(0, 2, len(grid)).astype(draw.dtype.numpy)
        for draw, is_float in zip(sample.operands, floats, strict=True)
    ]
    want = expected(sample, arrays)
    got = arrays_of(sample.apply(primitive, *tensors(arrays)))
    check(got, want, sample.tolerance, elementwise=True)
    if sample.oracle.startswith("numpy") and got[0].dtype.kind == "f":
        zero = want[0] == 0
        np.testing.assert_array_equal(np.signbit(got[0][zero]), np.signbit(want[0][zero]))


# Shapes --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("primitive", "sample"), WITH_ATTRIBUTES)
@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_the_shape_rule_tells_shape_and_type(primitive: Primitive, sample: Sample, dtype: str, rng: Any) -> None:
    arrays = sample.draw(rng, as_dtype(dtype))
    specs = primitive.specs(tuple(tensor.spec for tensor in tensors(arrays)), sample.attrs)
    with np.errstate(all="ignore"):
        results = primitive.numpy(np, *arrays, **sample.attrs)
    results = results if primitive.multiple else (results,)
    assert [(r.shape, as_dtype(r.dtype)) for r in results] == [(s.shape, s.dtype) for s in specs]


def corruptions(arrays: list[Any]) -> Any:
    """Operands of which one has an axis more, an axis fewer, another size, another type."""
    for i, array in enumerate(arrays):
        with np.errstate(over="ignore"):
            others = [array[None], array.astype(bool), array.astype(np.int32), array.astype(np.float16)]
        others += [array.reshape(-1)[:1].reshape(()), array[0]] if array.size and array.ndim else []
        others += [np.concatenate([array, array[:1]]), np.moveaxis(array, 0, -1)] if array.ndim else []
        others += [np.concatenate([array, array[..., :1]], axis=-1)] if array.ndim else []
        for other in others:
            yield [*arrays[:i], other, *arrays[i + 1 :]]


@pytest.mark.parametrize(("primitive", "sample"), WITH_ATTRIBUTES)
def test_bad_operands_are_named(primitive: Primitive, sample: Sample, rng: Any) -> None:
    """Whatever the operands: a result of the shape that the rule tells, or an error of this library in ten lines."""
    for arrays in corruptions(sample.draw(rng, as_dtype("float32"))):
        operands = tensors(arrays)
        try:
            results = primitive(*operands, **sample.attrs)
        except HighlevelError as error:
            assert len(str(error).splitlines()) <= 10
            assert error.got is not None, error
            assert error.expected is not None, error
        else:
            results = results if primitive.multiple else (results,)
            for result in results:
                assert result.numpy().shape == result.shape
                assert as_dtype(result.numpy().dtype) is result.dtype


def distorted(value: Any) -> Any:
    """Other numbers, and tuples of another length or with another first entry."""
    if isinstance(value, int) and not isinstance(value, bool):
        yield from (-1, 0, 99)
    if isinstance(value, tuple):
        yield from (value + value[:1], value[:-1])
        if value and all(isinstance(item, int) for item in value):
            yield from ((-1, *value[1:]), (99, *value[1:]))


@pytest.mark.parametrize(("primitive", "sample"), [case for case in WITH_ATTRIBUTES if case.values[1].attrs])
def test_bad_attributes_are_named(primitive: Primitive, sample: Sample, rng: Any) -> None:
    """Whatever the attributes: a result of the shape that the rule tells, or an error of this library."""
    operands = tensors(sample.draw(rng, as_dtype("float32")))
    for name, value in sample.attrs.items():
        for other in distorted(value):
            try:
                results = primitive(*operands, **{**sample.attrs, name: other})
            except HighlevelError as error:
                assert error.got is not None, error
            else:
                for result in results if primitive.multiple else (results,):
                    assert result.numpy().shape == result.shape


# Derivatives ---------------------------------------------------------------------------------------------------------
DIFFERENTIABLE = [case for case in CASES if case.values[0].vjp is not None and case.values[1].gradient]
STEP = 1e-5


class Curve:
    """A sample as a scalar function of its floating-point operands, along random directions, in float64."""

    def __init__(self, apply: Callable[..., Any], sample: Sample, rng: Any) -> None:
        self.arrays = sample.draw(rng, as_dtype("float64"))
        self.floats = tuple(i for i, array in enumerate(self.arrays) if array.dtype == np.float64)
        weights = [rng.standard_normal(r.shape) for r in apply(*tensors(self.arrays))]
        self.directions = [[rng.standard_normal(self.arrays[i].shape) for i in self.floats] for _ in range(2)]

        def loss(*operands: Any) -> Any:
            results = apply(*operands)
            pairs = [(r, w) for r, w in zip(results, weights, strict=True) if r.dtype.is_float]
            return total([r * cast(w, r.dtype) for r, w in pairs])

        gradient = grad(loss, argnums=self.floats)

        def slope(*operands: Any) -> Any:
            return total([g * v for g, v in zip(gradient(*operands), self.directions[0], strict=True)])

        curvature = grad(slope, argnums=self.floats)
        self.loss, self.slope = jit(loss), jit(slope)
        self.curvature = jit(
            lambda *operands: total([g * u for g, u in zip(curvature(*operands), self.directions[1], strict=True)])
        )

    def at(self, function: Any, direction: int = 0, distance: float = 0.0) -> float:
        moved = list(self.arrays)
        for i, v in zip(self.floats, self.directions[direction], strict=True):
            moved[i] = moved[i] + distance * v
        return float(function(*tensors(moved)))

    def difference(self, function: Any, direction: int) -> float:
        """Central differences, extrapolated once: the error is of the fourth order."""
        fine, coarse = (
            (self.at(function, direction, h) - self.at(function, direction, -h)) / (2 * h) for h in (STEP, 2 * STEP)
        )
        return (4 * fine - coarse) / 3


def total(terms: list[Any]) -> Any:
    result: Any = 0.0
    for term in terms:
        result = result + reduce_sum(term, axes=tuple(range(term.ndim)))
    return result


@pytest.mark.parametrize(("primitive", "sample"), DIFFERENTIABLE)
def test_first_derivative(primitive: Primitive, sample: Sample, rng: Any) -> None:
    curve = Curve(partial(sample.apply, primitive), sample, rng)
    assert curve.at(curve.slope) == pytest.approx(curve.difference(curve.loss, 0), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(("primitive", "sample"), DIFFERENTIABLE)
def test_second_derivative(primitive: Primitive, sample: Sample, rng: Any) -> None:
    curve = Curve(partial(sample.apply, primitive), sample, rng)
    assert curve.at(curve.curvature) == pytest.approx(curve.difference(curve.slope, 1), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize(
    ("primitive", "sample"),
    [case for case in DIFFERENTIABLE if case.values[0].multiple and case.values[1].function is None],
)
def test_derivative_by_one_result_alone(primitive: Primitive, sample: Sample, rng: Any) -> None:
    """Rules get None for results that the loss does not use. (Squares, because signs of factors are free.)"""
    for position, result in enumerate(primitive(*tensors(sample.draw(rng, as_dtype("float64"))), **sample.attrs)):
        if result.dtype.is_float:

            def apply(*operands: Any, position: int = position) -> Any:
                y = primitive(*operands, **sample.attrs)[position]
                return [y * y]

            curve = Curve(apply, sample, rng)
            assert curve.at(curve.slope) == pytest.approx(curve.difference(curve.loss, 0), rel=1e-6, abs=1e-6)


# Eager and traced ----------------------------------------------------------------------------------------------------
@every_sample
def test_eager_is_traced(primitive: Primitive, sample: Sample, rng: Any) -> None:
    operands = tensors(sample.draw(rng, as_dtype("float32")))
    compiled = jit(lambda *operands: sample.apply(primitive, *operands))
    check(
        arrays_of(compiled(*operands)), arrays_of(sample.apply(primitive, *operands)), 0.0, elementwise=True
    )
    names = {node.name for node in compiled.graph(*operands).nodes()}
    assert primitive.name in names, f"the sample does not use {primitive.name}, only {names}"


# Completeness --------------------------------------------------------------------------------------------------------
def without_sample(registry: dict[str, Primitive]) -> list[str]:
    return [primitive.name for primitive in registry.values() if not primitive.samples]


def without_installed_oracle(registry: dict[str, Primitive]) -> list[str]:
    roots = {p.name: {sample.oracle.partition(".")[0] for sample in p.samples} for p in registry.values()}
    return [name for name, found in roots.items() if not found & set(INSTALLED_ORACLES)]


def without_derivative_test(registry: dict[str, Primitive]) -> list[str]:
    return [p.name for p in registry.values() if p.vjp is not None and not any(sample.gradient for sample in p.samples)]


def test_every_operator_has_a_sample() -> None:
    assert without_sample(REGISTRY) == []


def test_every_operator_has_an_oracle_that_the_tests_install() -> None:
    assert without_installed_oracle(REGISTRY) == []


def test_every_gradient_rule_is_tested() -> None:
    unsmooth = {"full", "iota", "random_bits", "stop_gradient", "cast"}  # no float operand, or no derivative to compare
    assert set(without_derivative_test(REGISTRY)) <= unsmooth


def test_an_operator_without_sample_would_fail() -> None:
    define("unproved", "elementwise", infer=lambda x: x, numpy=lambda xp, x: x, vjp=lambda g, y, x: (g,))
    try:
        assert without_sample(REGISTRY) == ["unproved"]
        assert "unproved" in without_installed_oracle(REGISTRY)
        assert "unproved" in without_derivative_test(REGISTRY)
    finally:
        del REGISTRY["unproved"]


def test_names_and_summaries() -> None:
    for name, primitive in REGISTRY.items():
        assert primitive.name == name == name.lower()
        assert not primitive.summary.endswith(".")
    assert ml_dtypes.bfloat16 == as_dtype("bfloat16").numpy
