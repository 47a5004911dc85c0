"""A scalar formula as a function of arrays: one loop over contiguous elements, for tests and measurements."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir

from highlevel.ir import DType, as_dtype

from .scalar import LlvmScalars, Scalar, memory_type
from .targets import Target, compile_ir, host

Formula = Callable[..., Scalar]  # (k, *scalars) -> scalar
I64 = ir.IntType(64)
_numbers = itertools.count()


def loop_ir(formula: Formula, inputs: Sequence[DType], target: Target | None = None, name: str = "loop") -> Any:
    """(module, type of the result): `void name(i64 n, T* noalias input…, R* noalias output)`."""
    module = ir.Module(name)
    pointers = [ir.PointerType()] * (len(inputs) + 1)
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64, *pointers]), name)
    for argument in function.args[1:]:
        argument.add_attribute("noalias")
    count, *sources, destination = function.args
    entry, loop, after = (function.append_basic_block(label) for label in ("entry", "loop", "after"))
    builder = ir.IRBuilder(entry)
    builder.cbranch(builder.icmp_signed(">", count, ir.Constant(I64, 0)), loop, after)
    builder.position_at_end(loop)
    i = builder.phi(I64)
    k = LlvmScalars(builder, target)

    def place(pointer: ir.Value, dtype: DType) -> ir.Value:
        return builder.gep(pointer, [i], inbounds=True, source_etype=memory_type(dtype))

    values = [k.load(place(source, dtype), dtype) for source, dtype in zip(sources, inputs, strict=True)]
    result = formula(k, *values)
    k.store(place(destination, result.dtype), result)
    following = builder.add(i, ir.Constant(I64, 1), flags=("nuw", "nsw"))
    i.add_incoming(ir.Constant(I64, 0), entry)
    i.add_incoming(following, builder.block)
    builder.cbranch(builder.icmp_signed("<", following, count), loop, after)
    builder.position_at_end(after)
    builder.ret_void()
    return module, result.dtype


def ufunc(formula: Formula, inputs: Sequence[DType | str], target: Target | None = None) -> Callable[..., Any]:
    """The formula compiled for arrays of these types: `f(*arrays, out=None)`."""
    from ..cache import Object  # the loader and the cache build on this package
    from ..devices.loader import link

    dtypes = [as_dtype(dtype) for dtype in inputs]
    target, name = target or host(), f"k_ufunc{next(_numbers)}"
    module, dtype = loop_ir(formula, dtypes, target, name)
    library = link([Object(name, compile_ir(str(module), target, 3))])
    function = library.function(name, ctypes.c_int64, *[ctypes.c_void_p] * (len(dtypes) + 1))

    def call(*arrays: Any, out: Any = None) -> Any:
        operands = [np.ascontiguousarray(array, d.numpy) for array, d in zip(arrays, dtypes, strict=True)]
        result = np.empty(operands[0].shape, dtype.numpy) if out is None else out
        function(operands[0].size, *(operand.ctypes.data for operand in operands), result.ctypes.data)
        return result

    return call
