"""The demo's data: disjoint, alike to simple statistics, the same for the same seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from highlevel.data import demo
from highlevel.data.images import ImageFolder
from highlevel.errors import ArgumentError, MissingExtraError

pytest.importorskip("skimage")


@pytest.fixture(scope="module")
def surfaces(tmp_path_factory: pytest.TempPathFactory) -> ImageFolder:
    return demo.make_surfaces_dataset(tmp_path_factory.mktemp("surfaces"))


@pytest.fixture(scope="module")
def arrays(surfaces: ImageFolder) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    assert surfaces.test is not None
    return surfaces.load(demo.PATCH_SIDE), surfaces.test.load(demo.PATCH_SIDE)


def test_the_folder(surfaces: ImageFolder) -> None:
    assert surfaces.test is not None
    assert set(surfaces.counts.values()) == {12}
    assert set(surfaces.test.counts.values()) == {10}
    assert surfaces.class_names == tuple(scene.name for scene in demo.SCENES)
    assert surfaces.paths[0].relative_to(surfaces.paths[0].parents[2]).as_posix() == "train/astronaut/00.png"
    with Image.open(surfaces.paths[0]) as opened:
        assert (opened.size, opened.mode) == ((96, 96), "L")


def test_halves_of_every_picture_are_disjoint_with_a_gap() -> None:
    columns = np.arange(641, dtype=np.int32)[None].repeat(3, axis=0)
    picture = Image.fromarray(columns)
    train, test = (np.asarray(demo._half(picture, role)) for role in (0, 1))
    assert train.max() + 0.03 * 641 < test.min()
    assert (train.min(), test.max()) == (0, 640)


def test_brightness_contrast_and_gradient_are_equalised(arrays: tuple) -> None:
    for images, _ in arrays:
        grey = images[..., 0].astype(float)
        assert np.abs(grey.mean(axis=(1, 2)) - 127.5).max() < 0.5
        assert np.abs(grey.std(axis=(1, 2)) - 40).max() < 1.5
        gradients = [np.hypot(*np.gradient(patch)).mean() for patch in grey]
        assert max(gradients) < 1.16 * 9
        assert min(gradients) > 0.84 * 9


@pytest.mark.parametrize("inverse_penalty", [0.1, 1.0, 100.0])
def test_simple_statistics_do_not_give_the_classes_away(arrays: tuple, inverse_penalty: float) -> None:
    (x_train, y_train), (x_test, y_test) = arrays
    model = make_pipeline(StandardScaler(), LogisticRegression(C=inverse_penalty, max_iter=10000, tol=1e-8))
    model.fit(demo.simple_statistics(x_train), y_train)
    expected = model.score(demo.simple_statistics(x_test), y_test)
    assert expected <= 0.70
    ours = demo.simple_statistics_accuracy((x_train, y_train), (x_test, y_test), penalty=1 / inverse_penalty)
    assert ours == pytest.approx(expected, abs=0.01)


def test_statistics_of_colour_are_seen(rng: np.random.Generator) -> None:
    images = rng.integers(0, 200, (40, 16, 16, 3), dtype=np.uint8)
    labels = np.arange(40) % 2
    images[labels == 1, ..., 0] += 50
    halves = (images[:20], labels[:20]), (images[20:], labels[20:])
    assert demo.simple_statistics_accuracy(*halves) == 1.0


def test_logistic_regression_equals_sklearns() -> None:
    from sklearn.datasets import load_iris

    features, labels = load_iris(return_X_y=True)
    features = StandardScaler().fit_transform(features)
    for penalty in (0.01, 1.0, 100.0):
        weights, bias = demo.fit_logistic_regression(features, labels, penalty)
        reference = LogisticRegression(C=1 / penalty, max_iter=10000, tol=1e-10).fit(features, labels)
        expected = reference.predict_proba(features)
        scores = np.exp(features @ weights + bias)
        np.testing.assert_allclose(scores / scores.sum(axis=1, keepdims=True), expected, atol=2e-3)


def test_same_seed_same_files(surfaces: ImageFolder, tmp_path: Path) -> None:
    again = demo.make_surfaces_dataset(tmp_path / "again")
    other = demo.make_surfaces_dataset(tmp_path / "other", seed=1, train_per_class=2, test_per_class=1)
    assert [path.read_bytes() for path in again.paths] == [path.read_bytes() for path in surfaces.paths]
    assert len(other) == 28
    assert other.load(96)[0][0].tolist() != surfaces.load(96)[0][0].tolist()


def test_mistakes_are_explained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("do not touch")
    with pytest.raises(ArgumentError, match="not empty"):
        demo.make_surfaces_dataset(tmp_path)
    monkeypatch.setattr(demo, "package_folder", lambda package: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'highlevel\[demo\]'"):
        demo.make_surfaces_dataset(tmp_path / "new")
