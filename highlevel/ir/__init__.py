"""The language: specs, primitives, graphs, tracing, differentiation. Needs NumPy (and bfloat16 for it), no more."""

from . import autodiff, control, dtypes, operand, operators, primitives, tree
from .autodiff import grad, gradients, jvp, value_and_grad, vjp
from .control import checkpoint, cond, custom_gradient, scan, stop_gradient, while_loop
from .dtypes import DType, as_dtype
from .graph import Graph, Node, Origin, Symbol
from .jit import Compiled, jit
from .primitive import REGISTRY, Primitive, define
from .spec import Spec, spec
from .tensor import Tensor
from .trace import Trace, scope, trace_graph
from .variable import Setting, Variable

__all__ = [
    "REGISTRY",
    "Compiled",
    "DType",
    "Graph",
    "Node",
    "Origin",
    "Primitive",
    "Setting",
    "Spec",
    "Symbol",
    "Tensor",
    "Trace",
    "Variable",
    "as_dtype",
    "autodiff",
    "checkpoint",
    "cond",
    "control",
    "custom_gradient",
    "define",
    "dtypes",
    "grad",
    "gradients",
    "jit",
    "jvp",
    "operand",
    "operators",
    "primitives",
    "scan",
    "scope",
    "spec",
    "stop_gradient",
    "trace_graph",
    "tree",
    "value_and_grad",
    "vjp",
    "while_loop",
]
