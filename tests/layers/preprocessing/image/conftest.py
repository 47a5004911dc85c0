"""An example of each layer of images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import highlevel as hl
from highlevel.layers.preprocessing import image
from highlevel.layers.preprocessing.image.base import RandomImageLayer

EXAMPLES: dict[str, dict[str, Any]] = {
    "AugMix": {"num_chains": 2, "chain_depth": 1},
    "AutoContrast": {},
    "CenterCrop": {"height": 5, "width": 4},
    "ContrastLimitedAdaptiveHistogramEqualization": {"tile_grid_size": (2, 2)},
    "CutMix": {},
    "Equalization": {},
    "MaxNumBoundingBoxes": {"max_number": 3, "bounding_box_format": "xyxy"},
    "MixUp": {"alpha": 1.0},
    "RandAugment": {"num_ops": 1},
    "RandomBrightness": {"factor": 0.5},
    "RandomColorDegeneration": {"factor": 0.5},
    "RandomColorJitter": {
        "brightness_factor": 0.2, "contrast_factor": 0.2, "saturation_factor": (0.3, 0.7), "hue_factor": 0.2,
    },
    "RandomContrast": {"factor": 0.5},
    "RandomCrop": {"height": 5, "width": 4},
    "RandomElasticTransform": {"factor": (1.0, 1.0), "scale": (0.9, 1.0)},
    "RandomErasing": {"factor": (1.0, 1.0), "scale": (0.2, 0.5)},
    "RandomFlip": {},
    "RandomGaussianBlur": {"factor": (1.0, 1.0), "sigma": (0.5, 1.0)},
    "RandomGrayscale": {},
    "RandomHue": {"factor": 0.5},
    "RandomInvert": {"factor": (0.5, 0.5)},
    "RandomPerspective": {"factor": (1.0, 1.0)},
    "RandomPosterization": {"factor": 4},
    "RandomRotation": {"factor": 0.3},
    "RandomSaturation": {"factor": (0.2, 0.9)},
    "RandomSharpness": {"factor": 1.0},
    "RandomShear": {"x_factor": 0.3, "y_factor": 0.3},
    "RandomTranslation": {"height_factor": 0.3, "width_factor": 0.3},
    "RandomZoom": {"height_factor": 0.3},
    "Resizing": {"height": 5, "width": 4},
    "Solarization": {"threshold_factor": 0.9},
}  # fmt: skip


@pytest.fixture
def examples() -> dict[str, dict[str, Any]]:
    """The arguments of each."""
    return EXAMPLES


@pytest.fixture
def make(examples: dict[str, dict[str, Any]]) -> Any:
    """Makes the example of a name, with a seed if it is random."""

    def layer(which: str, **more: Any) -> Any:
        kind = getattr(image, which)
        seed = {"seed": 7} if issubclass(kind, RandomImageLayer) else {}
        return getattr(hl.layers, which)(**{**examples[which], **seed, **more})

    return layer


@pytest.fixture
def pictures(rng: np.random.Generator) -> np.ndarray:
    """Four pictures in colour."""
    return rng.integers(0, 255, (4, 8, 8, 3)).astype("uint8")


@pytest.fixture(params=image.__all__)
def name(request: pytest.FixtureRequest) -> str:
    """Every layer of images."""
    return str(request.param)
