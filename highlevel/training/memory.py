"""How much memory a model takes, known by planning alone: nothing is run, and no batch is allocated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from highlevel.errors import ArgumentError, BackendError, MemoryLimitError, size_text
from highlevel.ir import Graph, Spec, as_dtype, tree
from highlevel.ir.executor import executor

from .targets import kind_of_targets

if TYPE_CHECKING:
    from .trainer import Trainer

SHOWN = 8  # of the largest values
MOST = 1 << 20  # samples: larger batches are not looked for
UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30}


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """What a program of a model needs, in bytes; as text, a report.

    weight_bytes:     of the model, trainable or not; optimizer_bytes: moments and so on; state_bytes: metrics, seeds
    activation_bytes: the arena: all values in between, exactly as large as it will be
    kept_bytes:       what is computed from weights once and kept, such as weights in another order
    input_bytes, output_bytes: a batch, and what comes back; constant_bytes: numbers that the program contains
    largest:          values in the arena, largest first, with the layers that they are of
    """

    batch_size: int
    training: bool
    weight_bytes: int
    optimizer_bytes: int
    state_bytes: int
    activation_bytes: int
    kept_bytes: int
    input_bytes: int
    output_bytes: int
    constant_bytes: int
    largest: tuple[Any, ...]
    _trainer: Any
    _model: Any  # which the trainer does not keep alive
    _batch: Any

    @property
    def total_bytes(self) -> int:
        return (
            self.weight_bytes + self.optimizer_bytes + self.state_bytes + self.activation_bytes + self.kept_bytes
            + self.input_bytes + self.output_bytes + self.constant_bytes
        )  # fmt: skip

    def largest_batch(self, limit: int | str) -> int:
        """The largest batch size whose plan takes no more than so much memory – bytes, or text such as "2GB"."""
        return largest_batch(lambda size: self._resized(size).total_bytes, parse_bytes(limit), self.batch_size)

    def _resized(self, batch_size: int) -> MemoryPlan:
        return plan_memory(self._trainer, resized(self._batch, batch_size), self.training)

    def __str__(self) -> str:
        kind = "training" if self.training else "inference"
        rows = [
            ("weights", self.weight_bytes), ("optimizer", self.optimizer_bytes), ("metrics, seeds", self.state_bytes),
            ("activations", self.activation_bytes), ("kept between runs", self.kept_bytes),
            ("inputs", self.input_bytes), ("outputs", self.output_bytes), ("constants", self.constant_bytes),
            ("total", self.total_bytes),
        ]  # fmt: skip
        lines = [f"Memory of {kind} with {self.batch_size} samples at a time:"]
        lines += [f"  {name:<18} {size_text(size):>10}" for name, size in rows if size or name == "total"]
        if self.largest:
            lines.append("Largest values:")
        for value in self.largest[:SHOWN]:
            lines.append(f"  {size_text(value.size_bytes):>10}  {value.what}  {', '.join(value.layers[:2])}".rstrip())
        return "\n".join(lines)

    __repr__ = __str__


def plan_memory(trainer: Trainer, batch: Any, training: bool, options: dict[str, Any] | None = None) -> MemoryPlan:
    """The plan of a step for a batch (x, y, weight) of specs."""
    backend: Any = executor()
    if not hasattr(backend, "memory_map"):
        raise BackendError(
            f"the backend {backend.name!r} does not plan its memory", expected="the backend 'native'",
            hint='hl.config.set_backend("native")',
        )  # fmt: skip
    graph = trainer.traced(batch, training)
    found = backend.memory_map(graph, options or {})
    weights = {id(v): v.spec.size_bytes for v in trainer.model.variables}
    moments = {id(v): v.spec.size_bytes for v in trainer.optimizer.variables} if training else {}
    others = {id(v): v.spec.size_bytes for v in _variables(graph)}
    return MemoryPlan(
        batch_size=tree.leaves(batch[0])[0].shape[0],
        training=training,
        weight_bytes=sum(weights.values()),
        optimizer_bytes=sum(size for key, size in moments.items() if key not in weights),
        state_bytes=sum(size for key, size in others.items() if key not in weights and key not in moments),
        activation_bytes=found.arena_bytes,
        kept_bytes=found.kept_bytes,
        input_bytes=found.input_bytes,
        output_bytes=found.output_bytes,
        constant_bytes=found.constant_bytes,
        largest=found.values,
        _trainer=trainer,
        _model=trainer.model,
        _batch=batch,
    )


def batch_that_fits(trainer: Trainer, batch: Any, error: MemoryLimitError, options: dict[str, Any]) -> MemoryLimitError:
    """The error with the largest batch size that would fit."""
    limit = options["memory_limit"]

    def needed(size: int) -> int:
        return plan_memory(trainer, resized(batch, size), True, options).total_bytes

    rows = tree.leaves(batch[0])[0].shape[0]
    found = largest_batch(needed, limit, rows)
    return MemoryLimitError.of(
        f"a step of training with {rows} samples does not fit into memory_limit",
        needed_bytes=error.needed_bytes,
        limit_bytes=limit,
        hint=f"batch_size={found} fits" if found else "not even one sample fits: the weights and the optimizer's state "
        "alone may be too much",
    )


def _variables(graph: Graph) -> list[Any]:
    return [variable for variable, _ in (*graph.reads, *graph.updates)]


# Batches that are not there ------------------------------------------------------------------------------------------
def specs_of(value: Any) -> Any:
    """A tree of specs for one of arrays (or specs)."""

    def spec(leaf: Any) -> Any:
        return leaf if leaf is None or isinstance(leaf, Spec) else Spec(tuple(leaf.shape), as_dtype(leaf.dtype))

    return tree.map(spec, value)


def resized(batch: Any, rows: int) -> Any:
    """A tree of specs with another number of samples."""
    return tree.map(lambda leaf: None if leaf is None else leaf.with_shape((rows, *leaf.shape[1:])), batch)


def target_specs(loss_set: Any, outputs: Any, names: Any) -> Any:
    """What targets most likely look like: class numbers for sparse losses, else arrays like the outputs."""
    found = []
    for (loss, _), output in zip(loss_set.resolved(outputs, names), tree.leaves(outputs), strict=True):
        kind = None if loss is None else kind_of_targets(loss)
        if kind == "sparse":
            axis = getattr(loss, "axis", -1) % len(output.shape)
            found.append(Spec((*output.shape[:axis], *output.shape[axis + 1 :]), as_dtype("int64")))
        else:
            found.append(Spec(output.shape, as_dtype("float32")))
    return tree.unflatten(tree.flatten(outputs)[1], found)


# Sizes ---------------------------------------------------------------------------------------------------------------
def parse_bytes(limit: int | str) -> int:
    """A number of bytes, or text: "2GB", "512 MiB".

    >>> parse_bytes("2GB"), parse_bytes("1.5 kib"), parse_bytes(100)
    (2000000000, 1536, 100)
    """
    text = str(limit).strip().lower()
    number = text.rstrip("bkmgti ")
    unit = text[len(number) :].strip()
    try:
        size = int(float(number) * UNITS[unit])
    except (ValueError, KeyError):
        size = 0
    if size < 1:
        raise ArgumentError("this is not an amount of memory", got=repr(limit), expected='bytes, or text such as "2GB"')
    return size


def largest_batch(needed: Callable[[int], int], limit_bytes: int, guess: int = 32) -> int:
    """The largest batch size that needs no more than so many bytes; 0 if not even one sample fits.

    needed: bytes for a batch size; may raise `MemoryLimitError`. It grows (nearly) evenly, so that guesses come close
    """
    sizes: dict[int, int] = {}

    def fits(size: int) -> bool:
        if size not in sizes:
            try:
                sizes[size] = needed(size)
            except MemoryLimitError as error:
                sizes[size] = max(error.needed_bytes, limit_bytes + 1)
        return sizes[size] <= limit_bytes

    if not fits(1):
        return 0
    low, high = 1, MOST + 1  # the one fits, the other is taken not to
    probe = max(2, guess)
    while high - low > 1:
        if fits(probe):
            low = probe
        else:
            high = probe
        each = (sizes[probe] - sizes[1]) / (probe - 1)
        straight = int((limit_bytes - sizes[1]) / each) + 1 if each > 0 else MOST
        steps = len(sizes)
        probe = straight + (straight <= low) if steps < 8 else (low + high) // 2
        probe = min(max(probe, low + 1), high - 1)
    return low
