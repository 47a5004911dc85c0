"""The demonstration's parts; the whole of it is run by hand and by CI."""

from __future__ import annotations

import numpy as np
import pytest

import highlevel as hl
from highlevel import demo
from highlevel.errors import ArgumentError
from highlevel.transfer.finetune import FineTuned, Labelled


@pytest.fixture
def data(rng) -> Labelled:
    images = rng.integers(0, 256, (6, demo.INPUT_SIZE, demo.INPUT_SIZE, 3)).astype(np.uint8)
    return Labelled(images, np.arange(6) % 3, ("a", "b", "c"))


def test_pictures_go_into_the_network_whole(data):
    net = demo.network(None)
    assert net.input_shape == (None, demo.INPUT_SIZE, demo.INPUT_SIZE, 3)
    assert np.array_equal(net.preprocessing.fit(data.images[0]), data.images[0])
    np.testing.assert_array_equal(net.preprocess(data.images), net.preprocessing.normalize(data.images))


def test_accuracy_is_the_part_that_is_right(data):
    net = demo.network(None).reset_head(3)
    probabilities = demo.predict(net, data)
    assert probabilities.shape == (6, 3)
    assert demo.accuracy(net, data) == np.mean(probabilities.argmax(1) == data.labels)


def test_the_report_is_written(data, tmp_path):
    pytest.importorskip("matplotlib")
    tuned = FineTuned(demo.network(None), data.class_names)
    tuned.add("head", {"loss": [2.0, 1.0], "accuracy": [0.3, 0.5], "learning_rate": [0.1, 0.1]}, 2)
    tuned.add("all layers", {"loss": [0.5], "accuracy": [0.9]}, 1)
    assert tuned.history == {"loss": [2.0, 1.0, 0.5], "accuracy": [0.3, 0.5, 0.9]}
    assert tuned.phases == [("head", 2), ("all layers", 1)]
    report = demo.make_report(tmp_path, "A title", tuned, data, np.eye(3)[data.labels], [("Figure", "42")], "A note")
    text = report.read_text(encoding="utf-8")
    assert all(word in text for word in ("A title", "Figure", "42", "A note")) and len(list(tmp_path.iterdir())) > 1


def test_a_folder_in_use_is_left_alone(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "mine.png").write_bytes(b"")
    with pytest.raises(ArgumentError, match="--output DIR"):
        demo.run_demo(tmp_path, verbose=0, say=lambda text: None)
    assert [path.name for path in (tmp_path / "images").iterdir()] == ["mine.png"]


@pytest.mark.soak
def test_the_whole_demonstration(tmp_path):
    said: list[str] = []
    result = demo.run_demo(tmp_path / "demo", verbose=0, say=said.append)
    assert result.statistics_accuracy <= 0.7
    assert result.after >= 0.9 and result.after >= result.from_random + 0.2
    assert result.elapsed_s < 300 and result.report.is_file()
    assert any(f"{result.after:.2f}" in line for line in said)
    model = hl.load_model(result.model)
    assert len(model.class_names) == 14
