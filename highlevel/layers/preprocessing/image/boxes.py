"""Bounding boxes: nine ways to write four numbers, and what is left of boxes at the edges of an image."""

from __future__ import annotations

from typing import Any

from highlevel import ops
from highlevel.errors import ArgumentError, ShapeError

FORMATS = (
    "xyxy", "yxyx", "xywh", "center_xywh", "center_yxhw", "rel_xyxy", "rel_yxyx", "rel_xywh", "rel_center_xywh",
)  # fmt: skip


def check_format(name: str | None) -> str | None:
    """The format in small letters; raises if there is no such format."""
    if name is None:
        return None
    if not isinstance(name, str) or name.lower() not in FORMATS:
        raise ArgumentError("unknown format of bounding boxes", got=repr(name), expected=" | ".join(map(repr, FORMATS)))
    return name.lower()


def check(layer: Any, value: Any, single: bool) -> dict[str, Any]:
    """A dictionary of boxes and labels, boxes in floating point."""
    if not isinstance(value, dict) or not {"boxes", "labels"} <= set(value):
        raise ArgumentError(
            f"{layer.name}: bounding boxes are boxes with labels",
            got=f"keys {sorted(value)}" if isinstance(value, dict) else type(value).__name__,
            expected='{"boxes": …, "labels": …}',
        )
    boxes, labels = (ops.convert_to_tensor(value[key]) for key in ("boxes", "labels"))
    if boxes.ndim != (2 if single else 3) or boxes.shape[-1] != 4 or tuple(labels.shape[: boxes.ndim - 1]) != tuple(
        boxes.shape[:-1]
    ):
        raise ShapeError(
            f"{layer.name}: boxes and labels do not fit",
            got=f"boxes {tuple(boxes.shape)}, labels {tuple(labels.shape)}",
            expected="boxes (…, count, 4), labels (…, count)",
            hint="pad to one number of boxes per image, with the label −1" if not single else None,
        )
    return {**value, "boxes": ops.cast(boxes, "float32"), "labels": labels}


def parts(boxes: Any) -> list[Any]:
    """The four numbers of each box."""
    return [boxes[..., i] for i in range(4)]


def convert(boxes: Any, source: str, target: str, height: int, width: int) -> Any:
    """Boxes (…, 4) in another format, for images of a size."""
    if source == target:
        return boxes
    a, b, c, d = parts(boxes)
    if source.endswith(("yxyx", "yxhw")):
        a, b, c, d = b, a, d, c
    if "center" in source:
        a, b, c, d = a - c / 2, b - d / 2, a + c / 2, b + d / 2
    elif source.endswith("xywh"):
        c, d = a + c, b + d
    relative = target.startswith("rel_") - source.startswith("rel_")
    if relative:
        a, c = (x / width if relative > 0 else x * width for x in (a, c))
        b, d = (y / height if relative > 0 else y * height for y in (b, d))
    if "center" in target:
        a, b, c, d = a + (c - a) / 2, b + (d - b) / 2, c - a, d - b
    elif target.endswith("xywh"):
        c, d = c - a, d - b
    if target.endswith(("yxyx", "yxhw")):
        a, b, c, d = b, a, d, c
    return ops.stack([a, b, c, d], axis=-1)


def clip(boxes: Any, labels: Any, height: int, width: int) -> tuple[Any, Any]:
    """Boxes ("xyxy") cut at the edges of the image; those of which nothing is left get the label −1."""
    x1, y1, x2, y2 = parts(boxes)
    x1, x2 = (ops.clip(x, 0.0, float(width)) for x in (x1, x2))
    y1, y2 = (ops.clip(y, 0.0, float(height)) for y in (y1, y2))
    left = ops.greater((x2 - x1) * (y2 - y1), 0.0)
    if labels.ndim == boxes.ndim:
        left = ops.expand_dims(left, -1)
    return ops.stack([x1, y1, x2, y2], axis=-1), ops.where(left, labels, ops.full_like(labels, -1))


def around(corners_x: list[Any], corners_y: list[Any]) -> Any:
    """The boxes that just hold some points."""
    xs, ys = ops.stack(corners_x, axis=-1), ops.stack(corners_y, axis=-1)
    return ops.stack([ops.min(xs, -1), ops.min(ys, -1), ops.max(xs, -1), ops.max(ys, -1)], axis=-1)


def corners(boxes: Any) -> tuple[list[Any], list[Any]]:
    """The coordinates of the four corners: x of each, y of each."""
    x1, y1, x2, y2 = parts(boxes)
    return [x1, x2, x2, x1], [y1, y1, y2, y2]


def through(matrix: Any, boxes: Any) -> Any:
    """Boxes "xyxy" (batch, boxes, 4) of images that are read through a matrix (batch, 8): around their new corners."""
    a0, a1, a2, b0, b1, b2 = (matrix[:, i : i + 1] for i in range(6))
    scale = a0 * b1 - a1 * b0
    places = list(zip(*corners(boxes), strict=True))
    xs = [(b1 * (x - a2) - a1 * (y - b2)) / scale for x, y in places]
    ys = [(a0 * (y - b2) - b0 * (x - a2)) / scale for x, y in places]
    return around(xs, ys)
