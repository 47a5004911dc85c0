"""The report: its numbers against scikit-learn, its page parsed, its figures decoded."""

from __future__ import annotations

import io
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from highlevel.errors import ArgumentError, DTypeError, MissingExtraError, ShapeError
from highlevel.training import report

pytest.importorskip("matplotlib")

VOID = {"meta", "img", "source", "br"}
HISTORY = {"loss": [2.0, 1.0, 0.5], "accuracy": [0.3, 0.6, 0.9], "val_loss": [2.1, 1.4, 1.2], "learning_rate": [1] * 3}


class Page(HTMLParser):
    """Collects tags, attributes and text, and insists that every tag is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open and data.strip():
            self.text.append(data.strip())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def run(rng: np.random.Generator) -> dict[str, Any]:
    """A plausible outcome: 60 pictures, 5 classes, about a third wrong."""
    y_true = rng.integers(0, 5, 60)
    scores = rng.normal(size=(60, 5)) + 2.0 * np.eye(5)[y_true]
    exponentials = np.exp(scores)
    return {
        "title": "A run",
        "history": HISTORY,
        "class_names": ["ant", "bee", "cat", "dog", "eel"],
        "y_true": y_true,
        "probabilities": exponentials / exponentials.sum(axis=1, keepdims=True),
        "images": rng.integers(0, 256, (60, 20, 30, 3), dtype=np.uint8),
    }


def decode(path_or_bytes: Path | bytes) -> np.ndarray:
    source = io.BytesIO(path_or_bytes) if isinstance(path_or_bytes, bytes) else path_or_bytes
    with Image.open(source) as opened:
        return np.asarray(opened.convert("RGB"))


def colour_count(pixels: np.ndarray, colour: str) -> int:
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int((pixels == wanted).all(axis=-1).sum())


def test_the_page_is_whole_and_needs_nothing_else(tmp_path: Path, run: dict[str, Any]) -> None:
    path = report.write_report(tmp_path / "new" / "folder", **run, phases=[("head", 2), ("all layers", 1)])
    assert path == tmp_path / "new" / "folder" / "report.html"
    assert sorted(file.name for file in path.parent.iterdir()) == [
        "confusion.png", "curves.png", "predictions.png", "report.html",
    ]  # fmt: skip
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert "http" not in text
    assert "@import" not in text
    assert "url(" not in text
    assert not page.all("script") + page.all("link") + page.all("iframe")
    sources = [image["src"] for image in page.all("img")] + [source["srcset"] for source in page.all("source")]
    assert all(source is not None and source.startswith("data:image/png;base64,") for source in sources)
    assert all(image["alt"] for image in page.all("img"))
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all("meta")
    assert "prefers-color-scheme: dark" in text


def test_numbers_equal_sklearns(tmp_path: Path, run: dict[str, Any]) -> None:
    from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support

    y_true, y_pred = run["y_true"], run["probabilities"].argmax(axis=1)
    predictions = report._check(run["class_names"], y_true, run["probabilities"], None, run["images"], None)
    np.testing.assert_array_equal(predictions.confusion(), confusion_matrix(y_true, y_pred))
    page = Page(report.write_report(tmp_path, **run).read_text(encoding="utf-8"))
    assert f"{accuracy_score(y_true, y_pred):.1%}" in page.text
    precision, recall, _, support = precision_recall_fscore_support(y_true, y_pred)
    table = page.text[page.text.index("precision") + 1 :]
    expected = [
        cell
        for row in zip(run["class_names"], support, recall, precision, strict=True)
        for cell in (row[0], str(row[1]), f"{row[2]:.0%}", f"{row[3]:.0%}")
    ]
    assert table[: len(expected)] == expected


def test_summary_rows_and_note_are_shown(tmp_path: Path, run: dict[str, Any]) -> None:
    rows = [("Random weights", "21.4 %"), ("Epochs", 3)]
    page = Page(report.write_report(tmp_path, **run, summary_rows=rows, note="Of 5 kinds.").read_text(encoding="utf-8"))
    position = page.text.index("Random weights")
    assert page.text[position : position + 4] == ["Random weights", "21.4 %", "Epochs", "3"]
    assert "Of 5 kinds." in page.text
    assert page.text.count("A run") == 2


def test_everything_from_outside_is_escaped(tmp_path: Path, run: dict[str, Any]) -> None:
    nasty = '<script>alert("1")</script>&\'$x_1$ $'
    run |= {"title": nasty, "class_names": [nasty + str(i) for i in range(5)]}
    path = report.write_report(
        tmp_path, **run, note=nasty, summary_rows=[(nasty, nasty)], image_names=[nasty] * 60, phases=[(nasty, 3)]
    )
    page = Page(path.read_text(encoding="utf-8"))
    assert not page.all("script")
    assert page.text.count(nasty) >= 4
    assert nasty in [image.get("title") for image in page.all("img")]


def test_wrong_answers_come_first_and_every_class_has_its_turn(run: dict[str, Any]) -> None:
    predictions = report._check(run["class_names"], run["y_true"], run["probabilities"], None, run["images"], None)
    chosen = predictions.samples(24)
    assert len(set(chosen)) == 24
    right = predictions.right[chosen]
    assert right.tolist() == sorted(right.tolist())
    assert (~right).sum() == 8
    assert predictions.confidence is not None
    sureness = predictions.confidence[chosen][~right]
    assert sureness.tolist() == sorted(sureness.tolist(), reverse=True)
    assert set(predictions.y_true[chosen][right][:5]) == set(range(5))
    answer, truth = predictions.caption(chosen[0])
    assert answer.endswith(f"{sureness[0]:.0%}")
    assert truth == f"is {run['class_names'][run['y_true'][chosen[0]]]}"


@pytest.mark.parametrize(("wrong", "expected"), [(0, 0), (3, 3), (60, 24)])
def test_samples_fill_up_from_whatever_there_is(run: dict[str, Any], wrong: int, expected: int) -> None:
    answers = run["y_true"].copy()
    answers[:wrong] = (answers[:wrong] + 1) % 5
    predictions = report._check(run["class_names"], run["y_true"], None, answers, run["images"], None)
    chosen = predictions.samples(24)
    assert len(chosen) == 24
    assert (~predictions.right[chosen]).sum() == expected


def test_figures_show_what_they_should(tmp_path: Path, run: dict[str, Any]) -> None:
    report.write_report(tmp_path, **run, phases=[("head", 2), ("all", 1)])
    curves = decode(tmp_path / "curves.png")
    assert colour_count(curves, report.LIGHT.train) > 500
    assert colour_count(curves, report.LIGHT.validation) > 200
    assert curves.shape[1] > 2 * curves.shape[0]  # two panels: loss and accuracy, none for the learning rate
    assert colour_count(decode(tmp_path / "confusion.png"), "#ffffff") > 1000
    assert colour_count(decode(tmp_path / "predictions.png"), "#dc2626") > 1000  # frames of wrong answers

    perfect = np.eye(5)[run["y_true"]]
    report.write_report(tmp_path, **run | {"probabilities": perfect})
    assert colour_count(decode(tmp_path / "predictions.png"), "#dc2626") == 0
    matrix = decode(tmp_path / "confusion.png")
    assert colour_count(matrix, report.LIGHT.colormap[1]) > 0.05 * matrix[..., 0].size  # a full diagonal


def test_dark_figures_are_dark() -> None:
    light, dark = report._both(report.draw_curves, HISTORY, [], ["loss"])
    assert decode(light).mean() > 200
    assert decode(dark).mean() < 80


def test_odd_runs_are_drawn_too(tmp_path: Path, run: dict[str, Any]) -> None:
    report.write_report(tmp_path / "untrained", **run | {"history": {}})
    assert not (tmp_path / "untrained" / "curves.png").exists()
    one = {"loss": [1.0], "accuracy": [float("nan")]}
    path = report.write_report(tmp_path / "one", **run | {"history": one}, samples=1)
    assert len(Page(path.read_text(encoding="utf-8")).all("figure")) == 1
    many = [f"類 {i}" for i in range(150)]  # a script that the figures' font may lack; more classes than names fit
    probabilities = np.eye(150)[run["y_true"]]
    path = report.write_report(tmp_path / "many", **run | {"class_names": many, "probabilities": probabilities})
    assert "類 149" in path.read_text(encoding="utf-8")


def test_global_state_of_matplotlib_is_left_alone(tmp_path: Path, run: dict[str, Any]) -> None:
    import matplotlib
    from matplotlib import pyplot

    before = dict(matplotlib.rcParams)
    report.write_report(tmp_path, **run)
    assert dict(matplotlib.rcParams) == before
    assert pyplot.get_fignums() == []


def test_mistakes_are_explained(tmp_path: Path, run: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ShapeError, match="images do not fit"):
        report.write_report(tmp_path, **run | {"images": run["images"][:5]})
    with pytest.raises(DTypeError, match="uint8"):
        report.write_report(tmp_path, **run | {"images": run["images"] / 255})
    with pytest.raises(ShapeError, match="probabilities do not fit"):
        report.write_report(tmp_path, **run | {"class_names": ["a", "b"]})
    with pytest.raises(ArgumentError, match="neither probabilities nor y_pred"):
        report.write_report(tmp_path, **run | {"probabilities": None})
    with pytest.raises(ArgumentError, match="y_true is outside the classes"):
        report.write_report(tmp_path, **run | {"y_true": run["y_true"] + 1})
    with pytest.raises(ShapeError, match="y_true does not fit"):
        report.write_report(tmp_path, **run | {"y_true": np.eye(5)[run["y_true"]]})
    with pytest.raises(ShapeError, match="image_names"):
        report.write_report(tmp_path, **run, image_names=["a"])
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'highlevel\[plot\]'"):
        report.write_report(tmp_path, **run)
