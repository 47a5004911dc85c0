"""`Layer`: state (see `module`) and a function of it, built when it first sees its inputs."""

from __future__ import annotations

import functools
import inspect
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

from highlevel import constraints, dtype_policies, initializers, regularizers
from highlevel.errors import ArgumentError, HighlevelError, ShapeError, did_you_mean
from highlevel.ir import Symbol, Tensor, Variable, trace, tree
from highlevel.ir.operand import Operand
from highlevel.serialization import accepted_arguments

from .input_spec import check_input_spec
from .module import Module

L = TypeVar("L", bound="Layer")


class CallContext(threading.local):
    """What the calls of layers share while a model runs: whether it trains, and the losses that layers add."""

    def __init__(self) -> None:
        self.depth = 0
        self.training: bool | None = None
        self.losses: list[Any] | None = None


_context = CallContext()


def training_context() -> bool | None:
    """Whether the model (or layer) that is being called trains; None outside of all calls."""
    return bool(_context.training) if _context.depth else _context.training


@contextmanager
def collect_losses() -> Iterator[list[Any]]:
    """Gathers the losses that layers add (`add_loss`, activity regularizers) while a model is called."""
    outer, _context.losses = _context.losses, []
    try:
        yield _context.losses
    finally:
        _context.losses = outer


class Layer(Module, kind="layer"):
    """Base of all layers.

    A subclass writes `build(input_shape)`, which makes variables with `add_weight`, and `call(inputs)`, which computes
    with `ops`. Arguments of `call` named `training` and `mask` are filled in. `check_input(input_shape)`, if there is
    one, says which shapes are wrong. There is no `get_config` to write: the constructor's arguments are captured.

    name:      unique among its siblings; given by the attribute or model that holds the layer if None
    trainable: whether optimizers update the layer's weights; takes effect at once
    dtype:     data type or policy ("mixed_bfloat16") that it computes in
    autocast:  whether floating-point inputs are cast to that type
    activity_regularizer: called on the outputs, adds to the loss

    >>> import highlevel as hl
    >>> class Scale(hl.layers.Layer):
    ...     def build(self, input_shape):
    ...         self.factor = self.add_weight((input_shape[-1],), initializer="ones", name="factor")
    ...     def call(self, inputs):
    ...         return inputs * self.factor
    >>> Scale()(np.ones((2, 3), "float32")).shape
    (2, 3)
    """

    supports_masking = False
    autocast = True  # whether floating-point inputs are cast to the type that the layer computes in
    built = False
    input_spec: Any = None  # `InputSpec` of the inputs, for layers that say so
    _policy: dtype_policies.DTypePolicy | None = None
    _untracked = Module._untracked | {"_build_shapes"}

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        if "build" in cls.__dict__ and cls.build_from is Layer.build_from:
            cls.build = _building(cls.__dict__["build"])  # type: ignore[method-assign]

    def __init__(
        self,
        *,
        activity_regularizer: Any = None,
        trainable: bool = True,
        dtype: Any = None,
        autocast: bool = True,
        name: str | None = None,
        input_shape: tuple[int | None, ...] | None = None,
    ) -> None:
        super().__init__(name, trainable)
        self._policy = dtype_policies.get(dtype)
        self.activity_regularizer = regularizers.get(activity_regularizer)
        if not autocast:
            self.autocast = False
        self.input_shape_argument = tuple(input_shape) if input_shape is not None else None

    # Types and description --------------------------------------------------------------------------------------------
    @property
    def dtype_policy(self) -> dtype_policies.DTypePolicy:
        return self._policy or dtype_policies.dtype_policy()

    @property
    def compute_dtype(self) -> str:
        return self.dtype_policy.compute_dtype.name

    @property
    def variable_dtype(self) -> str:
        return self.dtype_policy.variable_dtype.name

    @property
    def dtype(self) -> str:
        return self.variable_dtype

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments as data; always with the layer's name."""
        config = super().get_config()
        config["name"] = self.name
        config["trainable"] = bool(self.trainable)
        if self._policy is not None:
            config["dtype"] = self._policy.name
        if config.get("data_format", "") is None:
            config["data_format"] = self.__dict__["data_format"]  # the setting that it was made under
        return config

    @classmethod
    def from_config(cls: type[L], config: Mapping[str, Any]) -> L:
        """A layer like the one that `get_config` described.

        Arguments that this library does not have are left out where they are None: nothing was asked of them then.
        What all layers have is set afterwards where a constructor does not take it.
        """
        known, anything = accepted_arguments(cls)
        kept = {name: value for name, value in config.items() if name in known or value is not None}
        if isinstance(kept.get("dtype"), dict):
            kept["dtype"] = dtype_policies.get(kept["dtype"])
        if anything:
            return super().from_config(kept)
        common = {name: kept.pop(name) for name in ("name", "trainable", "dtype") if name in kept and name not in known}
        layer = super().from_config(kept)
        layer.name, layer.trainable = common.get("name", layer.name), common.get("trainable", layer.trainable)
        layer._policy = dtype_policies.get(common["dtype"]) if "dtype" in common else layer._policy
        return layer

    # Weights and losses -----------------------------------------------------------------------------------------------
    def add_weight(
        self,
        shape: Iterable[int] | None = None,
        initializer: Any = None,
        dtype: Any = None,
        trainable: bool = True,
        autocast: bool = True,
        regularizer: Any = None,
        constraint: Any = None,
        aggregation: str = "none",
        name: str | None = None,
        tags: tuple[str, ...] = (),
    ) -> Variable:
        """Makes a variable of the layer.

        initializer: name, object or array; Glorot-uniform for floats and zeros for all else if None
        regularizer: adds to the loss; constraint: applied after each update
        """
        sizes = tuple(int(size) for size in shape or ())
        dtype = dtype or self.variable_dtype
        if initializer is None:
            initializer = "glorot_uniform" if "float" in str(dtype) else "zeros"
        with trace.suspended():
            variable = Variable(
                initializers.get(initializer)(sizes, dtype=dtype),
                shape=sizes,
                dtype=dtype,
                trainable=trainable,
                name=name or "variable",
                tags=tags,
                regularizer=regularizers.get(regularizer),
                constraint=constraints.get(constraint),
                autocast=autocast,
            )
        return self.own(variable)

    def add_loss(self, loss: Any) -> None:
        """Adds a scalar to the loss of the model that is being called."""
        if _context.losses is not None:
            _context.losses.extend(tree.leaves(loss))

    # Building and calling --------------------------------------------------------------------------------------------
    def check_input(self, input_shape: Any) -> None:
        """Raises unless the layer takes inputs of that shape, in which sizes may be None.

        Called with the shape (or list of shapes) of the first argument before `build`, and before every call.
        """

    def build(self, *shapes: Any) -> None:
        """Makes the variables, once the shape of the inputs is known. Layers without variables need none."""
        if not self.built and not self.__dict__.get("_is_building"):
            self.mark_built(shapes)

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """The outputs for the inputs; written with `ops`."""
        raise NotImplementedError(f"{type(self).__name__} has no `call`")

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        """The mask of the outputs, given those of the inputs (layers with `supports_masking`)."""
        return previous_mask

    def compute_output_shape(self, *shapes: Any) -> Any:
        """The shape of the outputs for shapes of inputs, in which sizes may be None."""
        from highlevel.layers import shapes as shape_rules

        return shape_rules.output_shape(self, *shapes)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        for leaf in tree.leaves((args, kwargs)):
            if hasattr(type(leaf), "__highlevel_call__"):
                return type(leaf).__highlevel_call__(self, args, kwargs)
        with trace.scope(self.name):
            try:
                return self._call_with_context(args, kwargs)
            except HighlevelError as error:
                named = error.within(f"{trace.scope_path()} ({type(self).__name__})")
                if _context.depth:
                    raise
                raise named.with_traceback(None) from None

    def _call_with_context(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        bound = self.bind_call(args, kwargs)
        arguments, parameters = bound.arguments, bound.signature.parameters
        if "training" in parameters and arguments.get("training") is None:
            arguments["training"] = bool(_context.training)
        for name, value in arguments.items():
            arguments[name] = self._to_operands(value)
        self.prepare(bound)
        masks = self._fill_masks(arguments, parameters, self._to_operands(kwargs.get("mask")))
        outer_training, given = _context.training, arguments.get("training", kwargs.get("training"))
        _context.training = outer_training if given is None else given
        _context.depth += 1
        try:
            with trace.autocast(self.dtype_policy.compute_dtype):
                outputs = self.call(*bound.args, **bound.kwargs)
        finally:
            _context.training = outer_training
            _context.depth -= 1
        if self.activity_regularizer is not None:
            for output in tree.leaves(outputs):
                self.add_loss(self.activity_regularizer(output) / max(output.shape[0] if output.ndim else 1, 1))
        return self._with_masks(arguments, outputs, masks)

    def bind_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> inspect.BoundArguments:
        """Arguments of `call` by name. `training` and `mask` are accepted whether `call` takes them or not."""
        signature = call_signature(type(self))
        parameters = signature.parameters
        takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        known = {
            name: v for name, v in kwargs.items() if takes_any or name in parameters or name not in ("training", "mask")
        }
        try:
            return signature.bind(*args, **known)
        except TypeError as error:
            unknown = [name for name in known if name not in parameters]
            raise ArgumentError(
                f"{self.name}: {f'unknown argument {unknown[0]!r} in a call' if unknown else error}",
                expected=f"call({', '.join(parameters)})",
                hint=did_you_mean(unknown[0], parameters) if unknown else None,
            ) from None

    def _to_operands(self, value: Any) -> Any:
        """Arrays as tensors or symbols, floating-point ones in the type that the layer computes in."""
        compute = self.dtype_policy.compute_dtype

        def convert(leaf: Any) -> Any:
            if not isinstance(leaf, (np.ndarray, np.generic, Operand)):
                return leaf
            operand: Any = leaf.read() if isinstance(leaf, Operand) else Tensor.of(leaf)
            if self.autocast and operand.dtype.is_float and operand.dtype is not compute:
                mask = operand.mask
                operand = operand.astype(compute)
                operand.mask = mask
            return operand

        return tree.map(convert, value)

    def prepare(self, bound: inspect.BoundArguments) -> None:
        """Checks the shapes of a call's arguments (which may be placeholders), and builds at the first one."""
        try:
            first = next(iter(bound.arguments.values()), None)
            if self.input_spec is not None:
                check_input_spec(self, self.input_spec, first)
            shape = shapes_of(first)
            if shape is not None:
                self.check_input(shape)
            if not self.built:
                self.build_from(bound)
        except HighlevelError as error:
            raise error.within(f"{trace.scope_path() or self.path} ({type(self).__name__})") from None

    def build_from(self, bound: inspect.BoundArguments) -> None:
        """Builds from the shapes of a first call's arguments (also those of placeholders, with None for unknown sizes).

        `build` gets the shape of the first argument, or – if it has several parameters, `query_shape`, `value_shape` –
        those of the arguments of these names.
        """
        shapes = {
            name: shapes_of(value)
            for name, value in bound.arguments.items()
            if any(hasattr(leaf, "shape") for leaf in tree.leaves(value))
        }
        self.build_with(shapes)

    def build_with(self, shapes: dict[str, Any]) -> None:
        """Builds from shapes by name of the argument of `call`."""
        parameters = list(inspect.signature(self.build).parameters.values())
        with trace.suspended():
            if len(parameters) == 1 and parameters[0].kind is not inspect.Parameter.VAR_POSITIONAL:
                self.build(next(iter(shapes.values()), None))
            elif all(p.kind is p.VAR_POSITIONAL for p in parameters):
                self.build(*shapes.values())
            else:
                names = {p.name: p.name.removesuffix("_shape") for p in parameters}
                self.build(**{name: shapes[source] for name, source in names.items() if source in shapes})
        self.mark_built(shapes)

    def mark_built(self, shapes: Any = None) -> None:
        """Notes that the variables exist, and gives them their paths."""
        self.__dict__["_build_shapes"] = shapes
        self.built = True
        self.assign_paths(self._path.rpartition("/")[0] + "/" if self._path and "/" in self._path else "")

    def _fill_masks(self, arguments: dict[str, Any], parameters: Any, given: Any) -> Any:
        """Masks that were given, or came with the inputs; hands them to `call` where it takes them."""
        masks = given if given is not None else mask_of(next(iter(arguments.values()), None))
        if "mask" in parameters and arguments.get("mask") is None and masks is not None:
            arguments["mask"] = masks
        for name in list(arguments):
            slot = f"{name}_mask"
            if slot in parameters and arguments.get(slot) is None:
                found = mask_of(arguments[name])
                if found is not None:
                    arguments[slot] = found
        return arguments.get("mask", masks) if "mask" in parameters else masks

    def _with_masks(self, arguments: dict[str, Any], outputs: Any, masks: Any) -> Any:
        """The outputs with the masks that follow from those of the inputs."""
        if masks is None and not _computes_mask(type(self)):
            return outputs
        inputs = next(iter(arguments.values()), None)
        if not self.supports_masking:
            if masks is not None and "mask" not in call_signature(type(self)).parameters:
                warnings.warn(
                    f"{self.name} ({type(self).__name__}) got an input with a mask but does not handle masks: "
                    "the mask ends here",
                    stacklevel=4,
                )
            return outputs
        leaves, structure = tree.flatten(outputs)
        if any(getattr(leaf, "mask", None) is not None for leaf in leaves):
            return outputs  # `call` has set them itself
        new_masks = self.compute_mask(inputs, masks)
        found = tree.leaves(new_masks) if new_masks is not None else []
        if len(found) != len(leaves):
            return outputs
        given = {id(leaf) for leaf in tree.leaves(arguments)}
        leaves = [_alias(leaf) if id(leaf) in given else leaf for leaf in leaves]  # inputs do not get masks
        for leaf, mask in zip(leaves, found, strict=True):
            leaf.mask = mask
        return tree.unflatten(structure, leaves)

    def __repr__(self) -> str:
        state = "" if self.built else ", not built"
        return f"<{type(self).__name__} {self.name}{state}>"


def _building(build: Callable[..., None]) -> Callable[..., None]:
    """A `build` that may be called directly: runs once, outside of any trace, and notes that the variables exist."""

    @functools.wraps(build)
    def wrapped(self: Layer, *shapes: Any, **named: Any) -> None:
        if self.__dict__.get("_is_building"):
            build(self, *shapes, **named)  # the `build` of a base class, called by that of the subclass
        elif not self.built:
            first = next(iter((*shapes, *named.values())), None)
            if first is not None:
                self.check_input(first)
            self.__dict__["_is_building"] = True
            try:
                with trace.suspended():
                    build(self, *shapes, **named)
            finally:
                del self.__dict__["_is_building"]
            self.mark_built(named or shapes)

    return wrapped


def _alias(value: Any) -> Any:
    """Another object for the same tensor or symbol."""
    if isinstance(value, Tensor):
        return Tensor(value._handle, value.spec, value._backend)
    return Symbol(value.node, value.index) if isinstance(value, Symbol) else value


def call_signature(cls: type[Layer]) -> inspect.Signature:
    """The signature of a layer class's `call`, without self."""
    return _signature_without_self(cls.call)


@functools.cache
def _signature_without_self(call: Any) -> inspect.Signature:
    signature = inspect.signature(call)
    return signature.replace(parameters=list(signature.parameters.values())[1:])


def _computes_mask(cls: type) -> bool:
    return cls.compute_mask is not Layer.compute_mask  # type: ignore[attr-defined]


def shapes_of(value: Any) -> Any:
    """The shape of an array, or the tree of shapes of a tree of arrays."""
    if hasattr(value, "shape"):
        return tuple(value.shape)
    if isinstance(value, dict):
        return {key: shapes_of(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [shapes_of(item) for item in value]
    return None


def mask_of(value: Any) -> Any:
    """The mask that came with an array; for a list of arrays the list of masks, or None if there is none at all."""
    if isinstance(value, (Tensor, Symbol)):
        return value.mask
    if isinstance(value, (list, tuple)):
        masks = [mask_of(item) for item in value]
        return masks if any(mask is not None for mask in masks) else None
    return None


def check_rank(layer: Layer, shape: Any, rank: int | tuple[int, ...], what: str, hint: str | None = None) -> None:
    """Raises unless an input has the rank that a layer needs: `what` says what its axes are."""
    ranks = (rank,) if isinstance(rank, int) else rank
    if len(shape) not in ranks:
        raise ShapeError(
            f"{layer.name}: the input has the wrong rank",
            got=f"shape {tuple(shape)} (rank {len(shape)})",
            expected=f"rank {' or '.join(map(str, ranks))}: {what}",
            hint=hint or ("add the batch axis: x[None]" if len(shape) + 1 in ranks else None),
        )


def check_axis(layer: Layer, shape: Any, axis: int, size: int, hint: str | None = None) -> None:
    """Raises unless an axis of the input has the size that the layer was built for."""
    if shape[axis] != size:
        raise ShapeError(
            f"{layer.name}: axis {axis} of the input has changed its size",
            got=f"shape {tuple(shape)}",
            expected=f"{size} on axis {axis}, as when the layer was built",
            hint=hint,
        )


__all__ = ["Layer", "check_axis", "check_rank", "collect_losses", "mask_of", "shapes_of"]
