"""Losses and metrics of a compiled model: matched to its outputs, weighted, named."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from highlevel import ops
from highlevel.errors import ArgumentError, HighlevelError, did_you_mean
from highlevel.ir import Tensor, tree

from . import losses as losses_module
from . import metrics as metrics_module
from .targets import check_targets


def per_output(value: Any, outputs: Any, names: Sequence[str], what: str) -> list[Any]:
    """An argument of `compile`, one entry per output: given once, as a list in order, or as a dictionary by name."""
    count = len(tree.leaves(outputs))
    if isinstance(value, dict):
        unknown = [key for key in value if key not in names]
        if unknown:
            raise ArgumentError(f"{what}: there is no output {unknown[0]!r}", hint=did_you_mean(unknown[0], names))
        return [value.get(name) for name in names]
    if isinstance(value, (list, tuple)):
        if len(value) != count:
            raise ArgumentError(
                f"{what}: one entry per output", got=len(value), expected=f"{count}: {', '.join(names)}"
            )
        return list(value)
    return [value] * count


def leaf_names(outputs: Any, prefix: str = "") -> list[str]:
    """Names of the leaves of a tree of outputs: the keys on the way to each, and "output_0", … in lists.

    >>> leaf_names({"b": 1, "a": [2, {"c": 3}]})
    ['a_0', 'a_1_c', 'b']
    """
    if isinstance(outputs, dict):
        return [name for key in sorted(outputs, key=str) for name in leaf_names(outputs[key], f"{prefix}{key}_")]
    if isinstance(outputs, (list, tuple)):
        start = prefix or "output_"
        return [name for i, item in enumerate(outputs) for name in leaf_names(item, f"{start}{i}_")]
    return [prefix.removesuffix("_") or "output_0"]


def leaves_like(
    value: Any, outputs: Any, names: Sequence[str], what: str, required: Sequence[str] = ()
) -> list[Any]:
    """Targets or weights, one entry per output; a dictionary may leave out those that are not required."""
    count = len(tree.leaves(outputs))
    if value is None:
        return [None] * count
    if isinstance(value, dict) and tree.flatten(value)[1] != tree.flatten(outputs)[1]:
        unknown = [key for key in value if key not in names]
        missing = [name for name in required if name not in value]
        if unknown or missing:
            raise ArgumentError(
                f"{what}: {f'there is no output {unknown[0]!r}' if unknown else f'{missing[0]!r} is missing'}",
                got=sorted(value, key=str),
                expected=list(names),
                hint=did_you_mean(unknown[0], names) if unknown else None,
            )
        return [value.get(name) for name in names]
    found = tree.leaves(value)
    if len(found) != count:
        raise ArgumentError(f"{what}: one array per output", got=len(found), expected=f"{count}: {', '.join(names)}")
    return found


class LossSet:
    """The loss of a model: the weighted sum of the losses of its outputs."""

    def __init__(self, loss: Any, weights: Any = None) -> None:
        self.loss = loss
        self.weights = weights
        self._known: Any = None

    def resolved(self, outputs: Any, names: Sequence[str]) -> list[tuple[Any, float]]:
        """(loss, weight) for each output; an output without loss has None."""
        key = tree.flatten(outputs)[1], tuple(names)
        if self._known is None or self._known[0] != key:
            self._known = key, self._resolve(outputs, names)
        return self._known[1]  # type: ignore[no-any-return]

    def _resolve(self, outputs: Any, names: Sequence[str]) -> list[tuple[Any, float]]:
        found = [losses_module.get(loss) for loss in per_output(self.loss, outputs, names, "loss")]
        weights = per_output(self.weights, outputs, names, "loss_weights")
        return [(loss, 1.0 if weight is None else float(weight)) for loss, weight in zip(found, weights, strict=True)]

    def __call__(self, y: Any, outputs: Any, weight: Any, names: Sequence[str]) -> tuple[Any, dict[str, Any]]:
        """The total, and the losses of the single outputs by name where there are several."""
        predictions = tree.leaves(outputs)
        losses = self.resolved(outputs, names)
        targets = self._targets(y, outputs, names, losses)
        weights = (
            leaves_like(weight, outputs, names, "sample_weight") if _is_several(weight) else [weight] * len(targets)
        )
        terms: dict[str, Any] = {}
        total = None
        rows = zip(losses, targets, predictions, weights, names, strict=True)
        for (loss, factor), target, prediction, sample_weight, name in rows:
            if loss is None or target is None:
                continue
            value = ops.cast(loss(target, prediction, sample_weight=sample_weight, mask=prediction.mask), "float32")
            terms[f"{name}_loss"] = value
            total = value * factor if total is None else total + value * factor
        if total is None:
            total = ops.zeros((), "float32")
        return total, terms if len(predictions) > 1 else {}

    @staticmethod
    def _targets(y: Any, outputs: Any, names: Sequence[str], losses: Sequence[tuple[Any, float]]) -> list[Any]:
        required = [name for name, (loss, _) in zip(names, losses, strict=True) if loss is not None]
        return leaves_like(y, outputs, names, "y", required)

    def check(self, y: Any, outputs: Any, names: Sequence[str]) -> None:
        """Looks at targets on the host, before anything runs; `outputs` is a tree of specs."""
        losses = self.resolved(outputs, names)
        targets = self._targets(y, outputs, names, losses)
        rows = zip(losses, targets, tree.leaves(outputs), names, strict=True)
        for (loss, _), target, spec, name in rows:
            if loss is not None and target is not None:
                try:
                    check_targets(loss, target, spec)
                except HighlevelError as error:
                    raise error.within(f"{name} (an output)").with_traceback(None) from None


def _is_several(weight: Any) -> bool:
    return isinstance(weight, (dict, list, tuple))


class MetricSet:
    """The metrics of a model: the mean loss, and what was asked for, updated inside the step."""

    def __init__(self, metrics: Any = None, weighted: Any = None) -> None:
        self.requested = metrics
        self.requested_weighted = weighted
        self.loss = metrics_module.Mean(name="loss")
        self.output_losses: dict[str, Any] = {}
        self._found: list[list[tuple[str, Any, bool]]] | None = None

    def _resolve(self, outputs: Any, targets: Sequence[Any], names: Sequence[str]) -> list[list[tuple[str, Any, bool]]]:
        """For each output, (name, metric, whether sample weights count)."""
        if self._found is not None:
            return self._found
        several = len(tree.leaves(outputs)) > 1
        found: list[list[tuple[str, Any, bool]]] = [[] for _ in tree.leaves(outputs)]
        taken, used = {"loss"}, set()
        for requested, weighted in ((self.requested, False), (self.requested_weighted, True)):
            for place, (items, target, prediction) in enumerate(
                zip(_metric_lists(requested, outputs, names), targets, tree.leaves(outputs), strict=True)
            ):
                for item in items:
                    if target is None:
                        continue
                    metric = metrics_module.resolve_metric(item, target.spec, prediction.spec)
                    if id(metric) in used:  # given once for several outputs: each has its own state
                        metric = type(metric).from_config(metric.get_config())
                    used.add(id(metric))
                    label = item if isinstance(item, str) and item in ("acc", "accuracy") else metric.name
                    name = f"{names[place]}_{label}" if several else label
                    while name in taken:
                        name += "_1"
                    taken.add(name)
                    found[place].append((name, metric, weighted))
        self._found = found
        return found

    def update(
        self, y: Any, outputs: Any, weight: Any, names: Sequence[str], loss: Any, terms: dict[str, Any]
    ) -> dict[str, Any]:
        """Takes a batch into account; returns the results so far, by name."""
        predictions = tree.leaves(outputs)
        targets = leaves_like(y, outputs, names, "y")
        size = predictions[0].shape[0] if predictions and predictions[0].ndim else 1
        self.loss.update_state(loss, sample_weight=float(size))
        results = {"loss": self.loss.result()}
        for name, value in terms.items():
            if name not in self.output_losses:
                self.output_losses[name] = metrics_module.Mean(name=name)
            self.output_losses[name].update_state(value, sample_weight=float(size))
            results[name] = self.output_losses[name].result()
        weights = (
            leaves_like(weight, outputs, names, "sample_weight") if _is_several(weight) else [weight] * len(targets)
        )
        for rows, target, prediction, sample_weight in zip(
            self._resolve(outputs, targets, names), targets, predictions, weights, strict=True
        ):
            for name, metric, weighted in rows:
                mask = None if prediction.mask is None else ops.cast(prediction.mask, "float32")
                counted = sample_weight if weighted else None
                if mask is not None:
                    counted = mask if counted is None else losses_module.masked_weight(counted, mask)
                metric.update_state(target, prediction, sample_weight=counted)
                results[name] = metric.result()
        return results

    def __iter__(self) -> Iterator[Any]:
        yield self.loss
        yield from self.output_losses.values()
        for rows in self._found or []:
            for _, metric, _ in rows:
                yield metric

    @property
    def names(self) -> list[str]:
        return ["loss", *self.output_losses, *(name for rows in self._found or [] for name, _, _ in rows)]

    def ordered(self, results: Mapping[str, Any]) -> Logs:
        """Results with the loss first, then losses of outputs, then metrics in the order of `compile`."""
        known = {name: results[name] for name in self.names if name in results}
        return Logs({**known, **{name: value for name, value in results.items() if name not in known}})

    def reset(self) -> None:
        for metric in self:
            metric.reset_state()


def _metric_lists(requested: Any, outputs: Any, names: Sequence[str]) -> list[list[Any]]:
    """The metrics asked for, a list per output."""
    count = len(tree.leaves(outputs))
    if requested is None:
        return [[] for _ in range(count)]
    if isinstance(requested, (list, tuple)) and count == 1 and not any(isinstance(m, (list, tuple)) for m in requested):
        return [list(requested)]
    if isinstance(requested, dict) or (
        isinstance(requested, (list, tuple)) and count > 1 and any(isinstance(m, (list, tuple)) for m in requested)
    ):
        rows = per_output(requested, outputs, names, "metrics")
    elif isinstance(requested, (list, tuple)):
        rows = [list(requested)] * count if count == 1 or len(requested) != count else list(requested)
    else:
        rows = [requested] * count
    return [[] if row is None else list(row) if isinstance(row, (list, tuple)) else [row] for row in rows]


class Logs(dict[str, Any]):
    """Results of a step by name; tensors become numbers when they are read, not before."""

    def __getitem__(self, name: str) -> float:
        value = super().__getitem__(name)
        return float(value.item()) if isinstance(value, Tensor) else value

    def get(self, name: str, default: Any = None) -> Any:
        return self[name] if name in self else default  # noqa: SIM401 - dict's own `get` would not make it a number

    def items(self) -> Any:
        return [(name, self[name]) for name in self]

    def values(self) -> Any:
        return [self[name] for name in self]

    def as_floats(self) -> dict[str, float]:
        return {name: self[name] for name in self}
