"""The same values from other operands, so that less has to be stored; the values stay what they are.

A relu is a comparison and a selection. Where the comparison is used again – by the gradient – it keeps alive what the
relu was taken of; but relu(x) ≤ 0 where x ≤ 0, and the relu is there anyway. So a contraction can end with its relu.

A product that is stored in another order, because something needs it so, is read from there by all others as well.
"""

from __future__ import annotations

from collections.abc import Sequence

from highlevel.ir.primitives.movement import inverse_permutation
from highlevel.ir.primitives.movement import transpose as transpose_primitive

from .values import Kind, Value

PASSED = frozenset({"add", "sub", "mul", "div", "reshape"})  # between a contraction and its relu


def compare_results(values: Sequence[Value]) -> list[Value]:
    """The values, with comparisons of relus' operands, where relus of contractions are used again, of their results."""
    found: list[Value] = []
    for value in values:
        found.append(value)
        mask = _mask(value)
        if mask is not None:
            again = _copy(mask, (value, mask.inputs[1]), mask.order)
            _take_users(mask, again, [user for user in mask.users if user is not value])
            found.append(again)
    return found


def _mask(relu: Value) -> Value | None:
    """The comparison x ≤ 0 in (0 if x ≤ 0 else x), if it has other users, and x ends a contraction but for that."""
    if relu.name != "select":
        return None
    mask, zero, x = relu.inputs
    if mask.name != "less_equal" or mask.inputs[0] is not x or not (_is_zero(zero) and _is_zero(mask.inputs[1])):
        return None
    if mask.root.forced or x.root.forced or {*x.users} != {mask, relu} or len(mask.users) < 2:
        return None
    late = all(user is relu or user.order > relu.order for user in mask.users)
    return mask if late and _is_next_to_contraction(x) else None


def _is_zero(x: Value) -> bool:
    return x.name == "full" and x.attrs["value"] == 0


def _is_next_to_contraction(x: Value) -> bool:
    """Whether a value is made of a contraction by a few operators, with nothing on the way used elsewhere."""
    while x.kind is not Kind.CONTRACTION:
        below = [y for y in x.inputs if y.size == x.size and len(y.users) == 1 and y.kind is not Kind.LEAF]
        made = [y for y in below if y.kind is Kind.CONTRACTION or y.name in PASSED]
        if x.name not in PASSED or not made:
            return False
        x = made[0]
    return x.name != "conv_kernel_grad"


def read_moved(value: Value, moved: Value) -> Value:
    """Lets all users of a value take it from a transposition of it, but for the transposition."""
    axes = inverse_permutation(moved.attrs["axes"])
    back = _copy(value, (moved,), moved.order)
    back.kind, back.name, back.primitive, back.attrs = Kind.MOVEMENT, "transpose", transpose_primitive, {"axes": axes}
    _take_users(value, back, [user for user in value.users if user is not moved])
    return back


def _copy(value: Value, inputs: tuple[Value, ...], order: int) -> Value:
    """A value like another one, of other operands."""
    found = Value(
        value.node, value.index, value.kind, value.name, value.primitive, inputs, value.attrs, value.shape,
        value.dtype, value.size, order,
    )  # fmt: skip
    found.label = value.label
    for x in inputs:
        x.users.append(found)
    return found


def _take_users(old: Value, new: Value, users: list[Value]) -> None:
    for user in users:
        user.inputs = tuple([new if x is old else x for x in user.inputs])
    old.users = [user for user in old.users if user not in users]
    new.users = users
