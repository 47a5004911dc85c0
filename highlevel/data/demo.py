"""The demo's data: patches of real images that scikit-image ships, made hard to tell apart by simple statistics.

Each class is one image. Training patches are cut from one half of it, test patches from the other, with a strip
between that neither sees, so that no pixel is in both. Every patch is grey, has the same mean and the same contrast,
and is softened until its mean gradient is that of all others, up to a random factor that is the same lottery for all
classes. What is left is what the picture shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
from PIL import Image

from highlevel.data.images import ImageFolder, scan_image_folder
from highlevel.data.standard import package_folder
from highlevel.errors import ArgumentError, FormatError, missing_extra


@dataclass(frozen=True)
class Scene:
    """One class: a file of scikit-image, how large its patches are, and in what ways it may be turned.

    `crop` is the range of the patches' side in the image's own pixels. `upright` scenes are mirrored but never
    turned, `legible` ones (writing) are left as they are.
    """

    name: str
    file: str
    crop: tuple[int, int]
    upright: bool = False
    legible: bool = False


SCENES: tuple[Scene, ...] = (
    Scene("astronaut", "astronaut.png", (190, 245), upright=True),
    Scene("brick", "brick.png", (128, 200)),
    Scene("cat", "chelsea.png", (120, 200), upright=True),
    Scene("coffee", "coffee.png", (160, 280), upright=True),
    Scene("coins", "coins.png", (100, 140)),
    Scene("galaxies", "hubble_deep_field.jpg", (120, 240)),
    Scene("grass", "grass.png", (56, 90)),
    Scene("gravel", "gravel.png", (56, 90)),
    Scene("handwriting", "text.png", (100, 150), legible=True),
    Scene("moon", "moon.png", (110, 200)),
    Scene("print", "page.png", (90, 140), legible=True),
    Scene("retina", "retina.jpg", (240, 480)),
    Scene("rocket", "rocket.jpg", (120, 220), upright=True),
    Scene("tissue", "ihc.png", (120, 220)),
)

PATCH_SIDE = 96  # pixels

_MEAN, _CONTRAST = 127.5, 40.0  # of every patch, in grey levels
_GRADIENT = 9.0  # mean gradient of a patch, in grey levels per pixel
_SPREAD = 0.15  # the mean gradient varies by this much either way, at random
_GAP = 0.04  # of the image's width: the strip between the halves
_TRIES = 2000


def make_surfaces_dataset(
    directory: str | PathLike[str],
    seed: int = 0,
    *,
    train_per_class: int = 12,
    test_per_class: int = 10,
) -> ImageFolder:
    """Writes `directory`/train/CLASS/NUMBER.png and `directory`/test/CLASS/NUMBER.png; gives the scanned folder.

    The training patches are the result's own, the test patches its `test`. Same seed, same files. Needs the package
    scikit-image, whose pictures are inside its wheel: nothing is downloaded.
    """
    source = package_folder("skimage")
    if source is None:
        raise missing_extra("The demo's pictures", "scikit-image", "demo")
    directory = Path(directory)
    if directory.exists() and any(directory.iterdir()):
        raise ArgumentError(f"{directory}: the folder is not empty", hint="name a new folder for the patches")
    for index, scene in enumerate(SCENES):
        path = source / "data" / scene.file
        if not path.is_file():
            raise FormatError(f"{path}: missing", hint="pip install --force-reinstall scikit-image")
        with Image.open(path) as opened:
            image = opened.convert("L")
        for role, (part, number) in enumerate((("train", train_per_class), ("test", test_per_class))):
            folder = directory / part / scene.name
            folder.mkdir(parents=True)
            rng = np.random.default_rng((seed, index, role))
            for position, patch in enumerate(_cut_patches(_half(image, role), scene, number, rng)):
                Image.fromarray(patch).save(folder / f"{position:02d}.png")
    return scan_image_folder(directory)


def _half(image: Image.Image, role: int) -> Image.Image:
    width, height = image.size
    gap = max(2, round(width * _GAP))
    left = (width - gap) // 2
    return image.crop((0, 0, left, height) if role == 0 else (left + gap, 0, width, height))


def _cut_patches(half: Image.Image, scene: Scene, number: int, rng: np.random.Generator) -> list[np.ndarray]:
    patches: list[np.ndarray] = []
    largest = min(scene.crop[1], *half.size)
    for _ in range(_TRIES):
        if len(patches) == number:
            return patches
        crop = int(rng.integers(scene.crop[0], largest + 1))
        left, top = (int(rng.integers(0, extent - crop + 1)) for extent in half.size)
        gradient = _GRADIENT * rng.uniform(1 - _SPREAD, 1 + _SPREAD)
        turn = 0 if scene.upright or scene.legible else int(rng.integers(4))
        mirror = not scene.legible and bool(rng.integers(2))
        box = (left, top, left + crop, top + crop)
        pixels = half.resize((PATCH_SIDE, PATCH_SIDE), Image.Resampling.BICUBIC, box=box)
        patch = _equalise(np.asarray(pixels, np.float64), gradient)
        if patch is not None:
            patch = np.rot90(patch, turn)
            patches.append(np.ascontiguousarray(patch[:, ::-1] if mirror else patch))
    raise ArgumentError(f"{scene.name}: too few patches are sharp enough", got=len(patches), expected=number)


def _equalise(pixels: np.ndarray, gradient: float) -> np.ndarray | None:
    """The patch with the common mean and contrast and the given mean gradient, or None where there is too little."""
    if pixels.std() < 6 or _mean_gradient(_standardise(pixels)) < gradient:
        return None
    sharp, soft = 0.0, 8.0  # widths of the blur, in pixels, that leave too much and too little
    for _ in range(12):
        sigma = (sharp + soft) / 2
        if _mean_gradient(_standardise(_blur(pixels, sigma))) > gradient:
            sharp = sigma
        else:
            soft = sigma
    equalised: np.ndarray = np.rint(_standardise(_blur(pixels, soft))).astype(np.uint8)
    return equalised


def _standardise(pixels: np.ndarray) -> np.ndarray:
    for _ in range(8):  # clipping costs contrast, which the next round restores
        pixels = (pixels - pixels.mean()) / (pixels.std() + 1e-6) * _CONTRAST + _MEAN
        pixels = np.clip(pixels, 0, 255)
    return pixels


def _mean_gradient(pixels: np.ndarray) -> float:
    vertical, horizontal = np.gradient(pixels)
    return float(np.hypot(vertical, horizontal).mean())


def _blur(pixels: np.ndarray, sigma: float) -> np.ndarray:
    """A Gaussian blur; the picture goes on as its mirror image beyond the border."""
    reach = int(np.ceil(4 * sigma))
    weight = np.exp(-0.5 * (np.arange(-reach, reach + 1) / max(sigma, 1e-6)) ** 2)
    weight /= weight.sum()
    for _ in range(2):  # down the columns, then, transposed, along the rows
        padded = np.pad(pixels, ((reach, reach), (0, 0)), mode="symmetric")
        windows = np.lib.stride_tricks.sliding_window_view(padded, len(weight), axis=0)
        pixels = (windows @ weight).T
    return pixels


def simple_statistics(images: np.ndarray) -> np.ndarray:
    """What can be said of images (number, height, width, 3) without looking: (number, 15).

    Of the grey picture: mean and standard deviation, then of the gradient's size and of its vertical and horizontal
    part the mean size and the standard deviation, and the gradient's 50th, 75th and 95th percentile; of the colour,
    the mean and the standard deviation of red minus green and of blue minus green.
    """
    rows = []
    for image in np.asarray(images, np.float64):
        grey = image.mean(axis=-1)
        vertical, horizontal = np.gradient(grey)
        size = np.hypot(vertical, horizontal)
        colour = (image[..., ::2] - image[..., 1:2]).reshape(-1, 2)  # exactly 0 in grey pictures
        row = [grey.mean(), grey.std(), size.mean(), size.std()]
        row += [np.abs(vertical).mean(), vertical.std(), np.abs(horizontal).mean(), horizontal.std()]
        row += [*np.percentile(size, (50, 75, 95))]
        row += [*colour.mean(axis=0), *colour.std(axis=0)]
        rows.append(row)
    return np.array(rows)


def simple_statistics_accuracy(
    train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray], penalty: float = 1.0
) -> float:
    """How well a logistic regression on `simple_statistics` does: its accuracy on `test`.

    `train` and `test` are (images, labels). The regression is multinomial, on standardised features, and minimises
    the summed cross-entropy + penalty/2 · ‖W‖², as scikit-learn's `LogisticRegression(C=1/penalty)` does.
    """
    features = simple_statistics(train[0])
    mean, deviation = features.mean(axis=0), features.std(axis=0)
    deviation = np.where(deviation > 1e-9, deviation, 1.0)
    weights, bias = fit_logistic_regression((features - mean) / deviation, np.asarray(train[1]), penalty)
    scores = (simple_statistics(test[0]) - mean) / deviation @ weights + bias
    return float((scores.argmax(axis=1) == np.asarray(test[1])).mean())


def fit_logistic_regression(
    features: np.ndarray, labels: np.ndarray, penalty: float = 1.0, max_steps: int = 200
) -> tuple[np.ndarray, np.ndarray]:
    """Multinomial logistic regression, fitted to convergence: weights (features, classes) and bias (classes,).

    Steps of Newton's method with the bound of Böhning (1992) for the curvature: one fixed matrix in place of the
    Hessian, never an overshoot, no step size. Nesterov's momentum, restarted when it leads uphill, makes it quick.
    """
    number, width = features.shape
    extended = np.concatenate([features, np.ones((number, 1))], axis=1)
    targets = np.eye(int(labels.max()) + 1)[labels]
    ridge = np.diag([penalty] * width + [1e-8])
    curvature = np.linalg.inv(0.5 * extended.T @ extended + ridge)
    parameters = momentum = np.zeros((width + 1, targets.shape[1]))
    for step in range(max_steps * 10):
        scores = extended @ momentum
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        probabilities = scores / scores.sum(axis=1, keepdims=True)
        gradient = extended.T @ (probabilities - targets) + ridge @ momentum
        if np.abs(gradient).max() < 1e-6 * number:
            break
        following = momentum - curvature @ gradient
        uphill = np.vdot(gradient, following - parameters) > 0
        momentum = following if uphill else following + step / (step + 3) * (following - parameters)
        parameters = following
    return momentum[:-1], momentum[-1]
