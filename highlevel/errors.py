"""The one family of errors, in one layout.

Every error that a user can cause reads the same way, in at most ten lines:

    dense_1: the last axis does not fit the kernel
      got:      inputs float32 (32, 10)
      expected: 20 features on the last axis
      layer:    classifier/dense_1 (Dense)
      hint:     the layer was built for inputs of shape (None, 20)

`got` is what came, `expected` the rule that it broke, `layer` the path of the layer that was running (added on the
way up by `Layer.__call__`), `hint` the way to mend it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class HighlevelError(Exception):
    """Base of all errors raised on purpose by this library."""

    def __init__(
        self,
        summary: str,
        *,
        got: object = None,
        expected: object = None,
        layer: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(summary)
        self.summary = summary
        self.got = got
        self.expected = expected
        self.layer = layer
        self.hint = hint

    def within(self, layer: str) -> HighlevelError:
        """Names the layer that was running, unless an inner layer has been named already."""
        if self.layer is None:
            self.layer = layer
        return self

    def __str__(self) -> str:
        rows = [("got", self.got), ("expected", self.expected), ("layer", self.layer), ("hint", self.hint)]
        lines = [self.summary]
        lines += [f"  {label + ':':<10}{value}" for label, value in rows if value is not None]
        return "\n".join(lines)


class ShapeError(HighlevelError, ValueError):
    """The sizes or ranks of operands do not fit together."""


class DTypeError(HighlevelError, TypeError):
    """An operand has a data type that the operator does not take."""


class ArgumentError(HighlevelError, ValueError):
    """An argument is unknown, missing or outside its range."""


class TargetError(HighlevelError, ValueError):
    """Targets (labels) do not fit the model's output or the loss."""


class GradientError(HighlevelError, ValueError):
    """A gradient was asked for that does not exist."""


class TraceError(HighlevelError, RuntimeError):
    """A symbolic value was used where a number is needed, or a trace was misused."""


class FormatError(HighlevelError, ValueError):
    """A file is damaged, is not what it claims to be, or holds something that is never loaded."""


class WeightsError(HighlevelError, ValueError):
    """Weights do not fit the model that they are loaded into."""


class BackendError(HighlevelError, RuntimeError):
    """A backend or device is missing or cannot do what was asked."""


class MemoryLimitError(BackendError):
    """A program needs more memory than it may have: `needed_bytes`, at the least, and `limit_bytes`."""

    needed_bytes: int = 0
    limit_bytes: int = 0

    @classmethod
    def of(cls, summary: str, needed_bytes: int, limit_bytes: int, hint: str | None = None) -> MemoryLimitError:
        """The error for these numbers."""
        error = cls(summary, got=f"{size_text(needed_bytes)} at the least", expected=size_text(limit_bytes), hint=hint)
        error.needed_bytes, error.limit_bytes = needed_bytes, limit_bytes
        return error


def size_text(size_bytes: int) -> str:
    """A number of bytes for people.

    >>> size_text(1_500), size_text(2_340_000_000)
    ('1.5 kB', '2.34 GB')
    """
    size, unit = float(size_bytes), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.3g} {unit}"


class MissingExtraError(HighlevelError, ImportError):
    """An optional dependency is not installed."""


def missing_extra(feature: str, package: str, extra: str) -> MissingExtraError:
    """The error for an optional dependency: names the feature, the package and the command that installs it."""
    return MissingExtraError(
        f"{feature} needs the package {package!r}, which is not installed",
        hint=f"pip install 'highlevel[{extra}]'",
    )


def did_you_mean(word: object, known: Iterable[str]) -> str | None:
    """A hint with the nearest known names, or the list of them when nothing is near."""
    names = sorted(str(name) for name in known)
    near = difflib.get_close_matches(str(word), names, n=3, cutoff=0.6)
    if near:
        return "did you mean " + " or ".join(repr(name) for name in near) + "?"
    if not names:
        return None
    listed = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    return f"known: {listed}"
