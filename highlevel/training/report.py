"""The report of a training run: figures as PNG, and one HTML page that holds everything.

The page needs no network and no other file, reads well on a phone, and follows the reader's light or dark mode; every
figure is drawn once for each. Whatever comes from outside (titles, class names, file names) is escaped.
"""

from __future__ import annotations

import base64
import html
import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from highlevel.errors import ArgumentError, DTypeError, ShapeError, missing_extra


@dataclass(frozen=True)
class Theme:
    """Colours of the figures; the page's style sheet uses the same."""

    background: str
    ink: str
    faint: str
    train: str
    validation: str
    colormap: tuple[str, str]


LIGHT = Theme("#ffffff", "#1f2937", "#d7dce3", "#2563eb", "#d97706", ("#ffffff", "#1d4ed8"))
DARK = Theme("#171c26", "#e5e7eb", "#3a4352", "#7aa7ff", "#fbbf24", ("#171c26", "#6d9dff"))

_NUMBERS_UP_TO = 20  # classes: beyond, a confusion matrix shows colours only
_NAMES_UP_TO = 60


@dataclass(frozen=True)
class Predictions:
    """What a model said of labelled images. `confidence[i]` is the probability that it gave to its own answer."""

    class_names: tuple[str, ...]
    y_true: np.ndarray
    y_pred: np.ndarray
    images: np.ndarray
    confidence: np.ndarray | None
    names: tuple[str, ...] | None

    @property
    def right(self) -> np.ndarray:
        """Which answers are right."""
        correct: np.ndarray = self.y_true == self.y_pred
        return correct

    def confusion(self) -> np.ndarray:
        """Counts: row = true class, column = answer."""
        matrix = np.zeros((len(self.class_names),) * 2, np.int64)
        np.add.at(matrix, (self.y_true, self.y_pred), 1)
        return matrix

    def samples(self, number: int) -> list[int]:
        """A fair choice to show: wrong answers, the surest first, fill up to a third; the rest are right ones.

        The right ones go round the classes, so that every class has its turn.
        """
        sureness = np.zeros(len(self.y_true)) if self.confidence is None else self.confidence
        wrong = sorted(np.flatnonzero(~self.right).tolist(), key=lambda i: -sureness[i])
        turn: dict[int, int] = {}
        rounds = []
        for i in np.flatnonzero(self.right).tolist():
            label = int(self.y_true[i])
            rounds.append((turn.get(label, 0), label, i))
            turn[label] = turn.get(label, 0) + 1
        right = [i for _, _, i in sorted(rounds)]
        shown_wrong = wrong[: max(number // 3, number - len(right))]
        return shown_wrong + right[: number - len(shown_wrong)]

    def caption(self, i: int) -> tuple[str, str]:
        """The answer to image `i` with its probability, and the truth where it differs."""
        sure = "" if self.confidence is None else f" {self.confidence[i]:.0%}"
        truth = "" if self.right[i] else f"is {self.class_names[self.y_true[i]]}"
        return f"{self.class_names[self.y_pred[i]]}{sure}", truth


def write_report(
    directory: str | PathLike[str],
    *,
    title: str,
    history: Mapping[str, Sequence[float]],
    class_names: Sequence[str],
    y_true: np.ndarray,
    probabilities: np.ndarray | None = None,
    y_pred: np.ndarray | None = None,
    images: np.ndarray,
    summary_rows: Sequence[tuple[str, object]] = (),
    phases: Sequence[tuple[str, int]] = (),
    image_names: Sequence[str] | None = None,
    note: str = "",
    samples: int = 24,
) -> Path:
    """Writes curves.png, confusion.png, predictions.png and report.html into `directory`; gives the page's path.

    `history` is what `fit` returns, one number per epoch under each name, "val_" before the names of held-out
    figures. `phases` are the names and numbers of epochs of the parts of the training. `probabilities` (number,
    classes), the answers `y_pred` (by default the most probable classes), the labels `y_true` and the uint8 RGB
    `images` (number, height, width, 3) belong to the same held-out examples. `summary_rows` are (label, value).
    """
    predictions = _check(class_names, y_true, probabilities, y_pred, images, image_names)
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    chosen = predictions.samples(samples)
    metrics = curve_names(history)
    curves = [_both(draw_curves, history, phases, [metric]) for metric in metrics]  # one each: they wrap on a phone
    confusion = _both(draw_confusion, predictions)
    if metrics:
        (directory / "curves.png").write_bytes(draw_curves(LIGHT, history, phases, metrics))
    (directory / "confusion.png").write_bytes(confusion[0])
    (directory / "predictions.png").write_bytes(draw_samples(LIGHT, predictions, chosen))
    page = _page(title, note, summary_rows, predictions, chosen, curves, confusion)
    path = directory / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def _check(
    class_names: Sequence[str],
    y_true: np.ndarray,
    probabilities: np.ndarray | None,
    y_pred: np.ndarray | None,
    images: np.ndarray,
    names: Sequence[str] | None,
) -> Predictions:
    labels, images = np.asarray(y_true), np.asarray(images)
    number, classes = len(labels), len(class_names)
    if images.ndim != 4 or images.shape[-1] != 3 or len(images) != number:
        raise ShapeError("write_report: images do not fit", got=images.shape, expected=f"({number}, height, width, 3)")
    if images.dtype != np.uint8:
        raise DTypeError("write_report: images have the wrong dtype", got=images.dtype, expected="uint8")
    confidence = None
    if probabilities is not None:
        probabilities = np.asarray(probabilities)
        if probabilities.shape != (number, classes):
            expected = f"({number}, {classes})"
            raise ShapeError("write_report: probabilities do not fit", got=probabilities.shape, expected=expected)
        y_pred = probabilities.argmax(axis=1) if y_pred is None else y_pred
        confidence = probabilities[np.arange(number), np.asarray(y_pred)]
    if y_pred is None:
        raise ArgumentError("write_report: neither probabilities nor y_pred", expected="one of them at least")
    answers = np.asarray(y_pred)
    for what, values in (("y_true", labels), ("y_pred", answers)):
        if values.shape != (number,) or not np.issubdtype(values.dtype, np.integer):
            got = f"{values.dtype} {values.shape}"
            raise ShapeError(f"write_report: {what} does not fit", got=got, expected=f"integers ({number},)")
        if number and (values.min() < 0 or values.max() >= classes):
            got = f"{values.min()} to {values.max()}"
            raise ArgumentError(f"write_report: {what} is outside the classes", got=got, expected=f"0 to {classes - 1}")
    if names is not None and len(names) != number:
        raise ShapeError("write_report: image_names do not fit", got=len(names), expected=number)
    return Predictions(
        tuple(map(str, class_names)), labels, answers, images, confidence, None if names is None else tuple(names)
    )


# --- figures ---


def _both(draw: Any, *arguments: Any) -> tuple[bytes, bytes]:
    return draw(LIGHT, *arguments), draw(DARK, *arguments)


def _figure(theme: Theme, width: float, height: float) -> Any:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise missing_extra("The report", "matplotlib", "plot") from None
    figure = Figure(figsize=(width, height), dpi=130, facecolor=theme.background, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _style(axes: Any, theme: Theme) -> None:
    axes.set_facecolor(theme.background)
    axes.tick_params(colors=theme.ink, length=0, labelsize=9)
    for name, spine in axes.spines.items():
        spine.set_visible(name in ("left", "bottom"))
        spine.set_color(theme.faint)
    for text in (axes.title, axes.xaxis.label, axes.yaxis.label):
        text.set_color(theme.ink)


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a script that the font lacks: boxes, not a failure
        figure.savefig(buffer, format="png", facecolor=figure.get_facecolor())
    return buffer.getvalue()


def _short(text: str, limit: int = 22) -> str:
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    return text.replace("$", r"\$")  # a dollar sign begins a formula otherwise


def curve_names(history: Mapping[str, Sequence[float]], limit: int = 4) -> list[str]:
    """The loss and the metrics in `history` that are worth a figure, without their "val_" counterparts."""
    names = [name.removeprefix("val_") for name, values in history.items() if len(values)]
    return [name for name in dict.fromkeys(names) if name not in ("learning_rate", "lr")][:limit]


def draw_curves(
    theme: Theme, history: Mapping[str, Sequence[float]], phases: Sequence[tuple[str, int]], names: Sequence[str]
) -> bytes:
    """Loss and metrics over the epochs, training and validation, with a mark where a phase of the training begins."""
    figure = _figure(theme, 4.6 * len(names), 3.4)
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        _style(axes, theme)
        last = 1
        for key, label, color in ((name, "training", theme.train), (f"val_{name}", "validation", theme.validation)):
            values = np.asarray(history.get(key, ()), float)
            if len(values):
                last = max(last, len(values))
                epochs = np.arange(1, len(values) + 1)
                marker = "o" if len(values) <= 30 else None
                axes.plot(epochs, values, color=color, label=label, linewidth=2, marker=marker, markersize=3.5)
        heading = _short(name.replace("_", " "))
        axes.set_title(heading, fontsize=12, fontweight="bold", loc="left", pad=18, color=theme.ink)
        axes.set_xlabel("epoch", color=theme.ink)
        axes.set_xlim(0.5, last + 0.5)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(axis="y", color=theme.faint, linewidth=0.6)
        _mark_phases(axes, theme, phases, last)
        axes.legend(frameon=False, labelcolor=theme.ink, fontsize=9)
    return _png(figure)


def _mark_phases(axes: Any, theme: Theme, phases: Sequence[tuple[str, int]], last: int) -> None:
    begin = 0.5
    for position, (name, epochs) in enumerate(phases):
        if position:
            axes.axvline(begin, color=theme.ink, linewidth=1, linestyle=(0, (4, 3)), alpha=0.6)
        # A short phase at the right end gets its name set from the right, or it would run out of the figure.
        at_end = position > 0 and position == len(phases) - 1 and epochs < 0.25 * last
        place, align = (last + 0.5, "right") if at_end else (begin, "left")
        axes.annotate(
            _short(name), (place, 1), xycoords=("data", "axes fraction"), xytext=(0, 5), textcoords="offset points",
            fontsize=9, color=theme.ink, ha=align, va="bottom", alpha=0.85,
        )  # fmt: skip
        begin += epochs


def draw_confusion(theme: Theme, predictions: Predictions) -> bytes:
    """The confusion matrix: colours by share of the true class, numbers are counts."""
    from matplotlib.colors import LinearSegmentedColormap

    counts = predictions.confusion()
    classes = len(counts)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = float(np.clip(0.42 * classes + 1.8, 3.6, 11))
    figure = _figure(theme, side + 0.4, side)
    axes = figure.subplots()
    _style(axes, theme)
    colormap = LinearSegmentedColormap.from_list("share", theme.colormap)
    axes.imshow(share, cmap=colormap, vmin=0, vmax=1)
    if classes <= _NAMES_UP_TO:
        names = [_short(name, 16) for name in predictions.class_names]
        axes.set_xticks(range(classes), names, rotation=55, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(classes), names)
    if classes <= _NUMBERS_UP_TO:
        for row, column in np.argwhere(counts):
            dark_cell = share[row, column] > 0.5
            color = theme.background if dark_cell else theme.ink
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=8.5, color=color)
        for line in np.arange(classes - 1) + 0.5:
            axes.axhline(line, color=theme.faint, linewidth=0.4)
            axes.axvline(line, color=theme.faint, linewidth=0.4)
    axes.set_xlabel("predicted", color=theme.ink)
    axes.set_ylabel("true", color=theme.ink)
    return _png(figure)


def draw_samples(theme: Theme, predictions: Predictions, chosen: Sequence[int], columns: int = 6) -> bytes:
    """A grid of images with the model's answers; wrong ones have a cross, a frame, and the truth."""
    columns = max(1, min(columns, len(chosen)))
    rows = max(1, -(-len(chosen) // columns))
    figure = _figure(theme, 1.75 * columns, 2.15 * rows)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels:
        axes.set_axis_off()
    for axes, i in zip(panels, chosen, strict=False):
        right = bool(predictions.right[i])
        color = "#15803d" if right else "#dc2626"
        answer, truth = predictions.caption(i)
        axes.imshow(predictions.images[i])
        label = f"{'✓' if right else '✗'} {_short(answer)}" + (f"\n{_short(truth)}" if truth else "")
        axes.set_title(label, fontsize=9, color=color, loc="left")
        if not right:
            height, width = predictions.images[i].shape[:2]
            axes.plot(
                [-0.5, width - 0.5, width - 0.5, -0.5, -0.5], [-0.5, -0.5, height - 0.5, height - 0.5, -0.5],
                color=color, linewidth=3, clip_on=False,
            )  # fmt: skip
    return _png(figure)


# --- the page ---

_STYLE = """
:root { color-scheme: light dark; --bg: #f4f5f7; --card: #ffffff; --ink: #1f2937; --soft: #667085; --line: #e3e6eb;
  --accent: #2563eb; --right: #15803d; --wrong: #dc2626; }
@media (prefers-color-scheme: dark) { :root { --bg: #0e1219; --card: #171c26; --ink: #e5e7eb; --soft: #98a2b3;
  --line: #2a3240; --accent: #7aa7ff; --right: #4ade80; --wrong: #f87171; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--bg); color: var(--ink); line-height: 1.5;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 2rem 1rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .4rem; }
h2 { font-size: 1.1rem; margin: 0 0 .8rem; }
p.note { color: var(--soft); margin: 0 0 1.2rem; max-width: 44rem; }
section { background: var(--card); border: 1px solid var(--line); border-radius: .8rem; padding: 1.1rem 1.2rem;
  margin: 1rem 0; }
.headline { display: flex; flex-wrap: wrap; gap: .4rem 2.2rem; align-items: center; }
.headline strong { font-size: 2.8rem; line-height: 1.1; color: var(--accent); font-variant-numeric: tabular-nums; }
.headline span { color: var(--soft); display: block; }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr)); gap: 0 2rem; margin: 1rem 0 0; }
dl div { display: flex; justify-content: space-between; gap: 1rem; padding: .35rem 0;
  border-top: 1px solid var(--line); }
dt { color: var(--soft); } dd { margin: 0; text-align: right; font-weight: 600; font-variant-numeric: tabular-nums;
  flex: none; max-width: 65%; overflow-wrap: anywhere; }
picture img { display: block; width: 100%; height: auto; margin: 0 auto; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 500; color: var(--soft); padding: .25rem .5rem .25rem 0; }
td { padding: .25rem .5rem .25rem 0; border-top: 1px solid var(--line); } td.number, th.number { text-align: right; }
.bar { display: block; min-width: 4rem; height: .55rem; border-radius: .3rem; background: var(--line);
  overflow: hidden; }
.bar i { display: block; height: 100%; background: var(--accent); }
.samples { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(7.4rem, 29%), 1fr)); gap: .9rem; }
.curves { display: grid; grid-template-columns: repeat(auto-fit, minmax(17rem, 1fr)); gap: .6rem; }
figure { margin: 0; font-size: .85rem; } figure img { width: 100%; border-radius: .4rem; display: block; }
figure.wrong img { outline: 3px solid var(--wrong); outline-offset: -1px; }
figcaption { margin-top: .25rem; line-height: 1.3; overflow-wrap: anywhere; }
figcaption b { color: var(--right); } figure.wrong b { color: var(--wrong); } figcaption span { color: var(--soft); }
footer { color: var(--soft); font-size: .85rem; margin-top: 1.5rem; }
"""


def _data_url(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _picture(figure: tuple[bytes, bytes], alt: str, width: str) -> str:
    light, dark = map(_data_url, figure)
    source = f'<source media="(prefers-color-scheme: dark)" srcset="{dark}">'
    return f'<picture>{source}<img src="{light}" alt="{html.escape(alt)}" style="max-width: {width}"></picture>'


def _page(
    title: str,
    note: str,
    summary_rows: Sequence[tuple[str, object]],
    predictions: Predictions,
    chosen: Sequence[int],
    curves: Sequence[tuple[bytes, bytes]],
    confusion: tuple[bytes, bytes],
) -> str:
    safe_title = html.escape(title)
    number = len(predictions.y_true)
    accuracy = f"{predictions.right.mean():.1%}" if number else "–"
    rows = "".join(
        f"<div><dt>{html.escape(str(label))}</dt><dd>{html.escape(str(value))}</dd></div>"
        for label, value in summary_rows
    )
    headline = (
        f'<div class="headline"><strong>{accuracy}</strong><div>of {number} held-out images recognised'
        f"<span>{int(predictions.right.sum())} right, {int((~predictions.right).sum())} wrong, "
        f"{len(predictions.class_names)} classes</span></div></div>"
    )
    sections = [headline + (f"<dl>{rows}</dl>" if rows else "")]
    if curves:
        pictures = "".join(_picture(curve, "Training and validation by epoch", "36rem") for curve in curves)
        sections.append(f'<h2>Training</h2><div class="curves">{pictures}</div>')
    shown = f"{len(chosen)} of {number}; wrong ones first, then right ones from every class in turn"
    samples = "".join(_sample(predictions, i) for i in chosen)
    sections.append(f'<h2>Sample predictions</h2><p class="note">{shown}</p><div class="samples">{samples}</div>')
    sections.append("<h2>Confusion matrix</h2>" + _picture(confusion, "Confusion matrix", "44rem"))
    sections.append(f'<h2>By class</h2><div class="scroll">{_class_table(predictions)}</div>')
    body = "\n".join(f"<section>{section}</section>" for section in sections)
    note_html = f'<p class="note">{html.escape(note)}</p>' if note else ""
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{safe_title}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{safe_title}</h1>\n{note_html}\n{body}\n"
        f"<footer>Written by highlevel.</footer>\n</main>\n</body>\n</html>\n"
    )


def _sample(predictions: Predictions, i: int) -> str:
    buffer = io.BytesIO()
    thumbnail = Image.fromarray(predictions.images[i])
    thumbnail.thumbnail((224, 224))
    thumbnail.save(buffer, format="png")
    right = bool(predictions.right[i])
    answer, truth = map(html.escape, predictions.caption(i))
    name = "" if predictions.names is None else f' title="{html.escape(predictions.names[i])}"'
    lines = f"<b>{'✓' if right else '✗'} {answer}</b>" + (f"<br><span>{truth}</span>" if truth else "")
    kind = "" if right else ' class="wrong"'
    image = f'<img src="{_data_url(buffer.getvalue())}" alt="{answer}"{name}>'
    return f"<figure{kind}>{image}<figcaption>{lines}</figcaption></figure>"


def _class_table(predictions: Predictions) -> str:
    counts = predictions.confusion()
    rows = []
    for label, name in enumerate(predictions.class_names):
        total, answered, right = counts[label].sum(), counts[:, label].sum(), counts[label, label]
        recall, precision = (f"{right / of:.0%}" if of else "–" for of in (total, answered))
        bar = f'<span class="bar"><i style="width: {right / max(total, 1):.0%}"></i></span>'
        rows.append(
            f'<tr><td>{html.escape(name)}</td><td class="number">{total}</td><td class="number">{recall}</td>'
            f'<td>{bar}</td><td class="number">{precision}</td></tr>'
        )
    head = (
        '<tr><th>class</th><th class="number">images</th><th class="number">recall</th><th></th>'
        '<th class="number">precision</th></tr>'
    )
    return f"<table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>"
