"""`model.summary()`: the layers, their output shapes and their parameters, as a table of plain text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from highlevel.layers import Layer

from .placeholder import Placeholder

if TYPE_CHECKING:
    from .model import Model


def format_summary(model: Model, line_length: int | None = None, show_trainable: bool = False) -> str:
    """The table as text, at most `line_length` (100) columns wide."""
    rows = [("Layer (type)", "Output shape", "Parameters", "Trainable")] + [
        _row(model, layer) for layer in model.layers
    ]
    columns = 4 if show_trainable or any(row[3] == "frozen" for row in rows[1:]) else 3
    widths = [max(len(row[i]) for row in rows) for i in range(columns)]
    excess = sum(widths) + 3 * (columns - 1) - (line_length or 100)
    if excess > 0:
        widths[0] = max(16, widths[0] - excess)
    width = sum(widths) + 3 * (columns - 1)
    lines = [f"Model: {model.name}", "─" * width, _line(rows[0], widths), "─" * width]
    lines += [_line(row, widths) for row in rows[1:]]
    trainable = sum(variable.size for variable in model.trainable_variables)
    total = model.count_params()
    lines += ["─" * width, f"Parameters: {total:,} ({format_bytes(sum(v.spec.size_bytes for v in model.weights))})"]
    lines += [f"  trainable: {trainable:,}", f"  frozen:    {total - trainable:,}"]
    return "\n".join(lines)


def _row(model: Model, layer: Layer) -> tuple[str, str, str, str]:
    weights = layer.weights
    state = "frozen" if weights and not layer.trainable_variables else "yes" if weights else "–"
    parameters = f"{sum(variable.size for variable in weights):,}" if layer.built or weights else "? (not built)"
    return f"{layer.name} ({type(layer).__name__})", _output_shape(model, layer), parameters, state


def _output_shape(model: Model, layer: Layer) -> str:
    if model._graph is None:
        return "?"
    for call in model._graph.calls:
        if call.target is layer:
            return ", ".join(_shape(placeholder) for placeholder in call.outputs)
    return "?"


def _shape(placeholder: Placeholder) -> str:
    return f"({', '.join(map(str, placeholder.shape))})"


def _line(row: tuple[Any, ...], widths: list[int]) -> str:
    cells = []
    for i, width in enumerate(widths):
        text = row[i] if len(row[i]) <= width else row[i][: width - 1] + "…"
        cells.append(text.rjust(width) if i == 2 else text.ljust(width))
    return "   ".join(cells).rstrip()


def format_bytes(count: float) -> str:
    """A number of bytes for people: "17.8 MB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError("unreachable")
