"""Images: files in, uint8 RGB arrays out.

Every image that enters is uint8 RGB of shape (height, width, 3), whatever the file held: orientation from EXIF is
applied, CMYK and palettes are converted, 16 bits are scaled to 8, transparent pixels are laid on white. A file that
cannot be decoded in full is a `FormatError` that names it; it is never half an image.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from highlevel.errors import ArgumentError, DTypeError, FormatError, ShapeError, did_you_mean


def load_image(path: str | PathLike[str]) -> np.ndarray:
    """Reads one image file as uint8 RGB of shape (height, width, 3).

    Of an animation the first frame is taken. 16-bit greys are scaled from 0…65535 to 0…255. Raises `FormatError`
    when the file is damaged or no image, and `FileNotFoundError` when there is none.
    """
    from .decoding import decode  # imports Pillow, which takes its time

    return decode(Path(path))


def _triangle(x: np.ndarray) -> np.ndarray:
    return np.where(np.abs(x) < 1.0, 1.0 - np.abs(x), 0.0)


def _cubic(x: np.ndarray) -> np.ndarray:
    """Keys's cubic with a = -1/2, as in Pillow, TensorFlow and JAX (with antialiasing, PyTorch too)."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


def _lanczos3(x: np.ndarray) -> np.ndarray:
    return np.where(np.abs(x) < 3.0, np.sinc(x) * np.sinc(x / 3.0), 0.0)


def _box(x: np.ndarray) -> np.ndarray:
    return ((x > -0.5) & (x <= 0.5)).astype(np.float64)


# Interpolation: its kernel, and how far it reaches in pixels.
_KERNELS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], float]] = {
    "box": (_box, 0.5),
    "bilinear": (_triangle, 1.0),
    "bicubic": (_cubic, 2.0),
    "lanczos": (_lanczos3, 3.0),
}


def _taps(size_in: int, size_out: int, interpolation: str, antialias: bool) -> tuple[np.ndarray, np.ndarray]:
    """For every output pixel along one axis: the input pixels that it reads, and their weights (sum 1)."""
    scale = size_in / size_out
    if interpolation == "nearest":
        nearest = (2 * np.arange(size_out) + 1) * size_in // (2 * size_out)  # integers: ties do not drift
        return nearest[:, None], np.ones((size_out, 1), np.float32)
    kernel, reach = _KERNELS[interpolation]
    stretch = max(scale, 1.0) if antialias else 1.0
    center = (np.arange(size_out) + 0.5) * scale - 0.5
    first = np.floor(center - reach * stretch).astype(np.int64) + 1
    index = first[:, None] + np.arange(int(np.ceil(2 * reach * stretch)) + 1)
    weight = kernel((index - center[:, None]) / stretch)
    if antialias:  # outside the image there is nothing; without antialiasing the border pixel goes on
        weight = np.where((index >= 0) & (index < size_in), weight, 0.0)
    weight /= weight.sum(axis=1, keepdims=True)
    return np.clip(index, 0, size_in - 1), weight.astype(np.float32)


def _resample(images: np.ndarray, axis: int, index: np.ndarray, weight: np.ndarray) -> np.ndarray:
    shape = [1] * images.ndim
    shape[axis] = len(index)
    total = np.zeros((*images.shape[:axis], len(index), *images.shape[axis + 1 :]), images.dtype)
    for tap in range(index.shape[1]):
        if weight[:, tap].any():
            total += np.take(images, index[:, tap], axis) * weight[:, tap].reshape(shape)
    return total


def _check_images(images: np.ndarray, caller: str) -> np.ndarray:
    images = np.asarray(images)
    if images.ndim not in (3, 4):
        expected = "(height, width, channels) or (batch, height, width, channels)"
        raise ShapeError(f"{caller}: images have the wrong rank", got=images.shape, expected=expected)
    if images.dtype != np.uint8 and not np.issubdtype(images.dtype, np.floating):
        raise DTypeError(f"{caller}: images have the wrong dtype", got=images.dtype, expected="uint8 or a float dtype")
    return images


def _pair(size: int | Sequence[int], caller: str) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int | np.integer) else tuple(size)
    if height < 1 or width < 1:
        raise ArgumentError(f"{caller}: a size is at least one pixel", got=f"size={size}")
    return int(height), int(width)


def resize(
    images: np.ndarray, size: int | Sequence[int], interpolation: str = "bilinear", antialias: bool = True
) -> np.ndarray:
    """Resizes one image (height, width, channels) or a batch of them to `size` = (height, width), or a square.

    `interpolation` is "nearest", "box", "bilinear", "bicubic" or "lanczos". With `antialias` the kernel widens when
    the image shrinks, as in Pillow; without, it reads the same few pixels at any scale, as OpenCV does: networks can
    tell the difference. The dtype stays; uint8 is rounded and clipped.

    >>> resize(np.array([[[0], [255]]], np.uint8), (1, 4))[0, :, 0]
    array([  0,  64, 191, 255], dtype=uint8)
    """
    images = _check_images(images, "resize")
    known = ["nearest", *_KERNELS]
    if interpolation not in known:
        hint = did_you_mean(interpolation, known)
        raise ArgumentError("resize: unknown interpolation", got=repr(interpolation), expected=known, hint=hint)
    size_out = _pair(size, "resize")
    vertical, horizontal = images.ndim - 3, images.ndim - 2
    if images.shape[vertical:-1] == size_out:
        return images.copy()
    values = images.astype(np.float32) if images.dtype in (np.uint8, np.float16) else images
    steps = list(zip((vertical, horizontal), size_out, strict=True))
    steps.sort(key=lambda step: step[1] / images.shape[step[0]])  # the axis that shrinks most first: less to do
    for axis, extent in steps:
        values = _resample(values, axis, *_taps(images.shape[axis], extent, interpolation, antialias))
    if images.dtype == np.uint8:
        values = np.clip(np.rint(values), 0, 255)
    return values.astype(images.dtype)


def center_crop(images: np.ndarray, size: int | Sequence[int]) -> np.ndarray:
    """The middle (height, width) = `size` of one image or of a batch.

    >>> center_crop(np.zeros((5, 10, 10, 3), np.uint8), 4).shape
    (5, 4, 4, 3)
    """
    images = _check_images(images, "center_crop")
    height, width = images.shape[-3:-1]
    wanted_height, wanted_width = _pair(size, "center_crop")
    if wanted_height > height or wanted_width > width:
        raise ShapeError("center_crop: the crop is larger than the image", got=f"{images.shape} for size={size}")
    top, left = (height - wanted_height) // 2, (width - wanted_width) // 2
    return images[..., top : top + wanted_height, left : left + wanted_width, :]


def fit_image(image: np.ndarray, size: int | Sequence[int], **how: Any) -> np.ndarray:
    """Scales one image (height, width, channels) until it just covers `size`, and crops the middle: never distorted.

    `how` is passed on to `resize`.
    """
    height, width = _check_images(image, "fit_image").shape[-3:-1]
    wanted_height, wanted_width = _pair(size, "fit_image")
    scale = max(wanted_height / height, wanted_width / width)
    covering = max(wanted_height, round(height * scale)), max(wanted_width, round(width * scale))
    return center_crop(resize(image, covering, **how), (wanted_height, wanted_width))


def load_images(paths: Iterable[str | PathLike[str]], size: int | Sequence[int], **how: Any) -> np.ndarray:
    """Reads images and fits each to `size` (see `fit_image`): uint8 RGB of shape (number, height, width, 3)."""
    wanted = _pair(size, "load_images")
    paths = list(paths)
    images = np.empty((len(paths), *wanted, 3), np.uint8)
    for position, path in enumerate(paths):
        images[position] = fit_image(load_image(path), wanted, **how)
    return images


_EXTENSIONS = frozenset({".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
_SYSTEM_FILES = frozenset({"desktop.ini", "thumbs.db", "ehthumbs.db", "icon\r"})
_TRAINING_PARTS = frozenset({"train", "training"})
_VALIDATION_PARTS = frozenset({"val", "valid", "validation"})
_TEST_PARTS = frozenset({"test", "testing"})


def natural_key(text: str) -> list[str | int]:
    """Sorts as people count: "class 2" comes before "class 10".

    >>> sorted(["10", "9", "b", "A"], key=natural_key)
    ['9', '10', 'A', 'b']
    """
    # Splitting at digits alternates text and number, so that equal positions always compare equal types.
    return [int(part) if part.isdecimal() else part.casefold() for part in re.split(r"(\d+)", text)]


@dataclass(frozen=True)
class BadImage:
    """A file that looks like an image by its name and cannot be decoded."""

    path: Path
    reason: str


@dataclass(frozen=True, eq=False)
class ImageFolder:
    """The images of a folder that holds one sub-folder per class.

    `labels[i]` is the class of `paths[i]`, an index into `class_names`. `skipped` are the damaged images that were
    left out, `ignored` the files that are no images by their names. `validation` and `test` are set when the folder
    was divided beforehand (`train/` beside `validation/` or `test/`); they share `class_names`.
    """

    paths: tuple[Path, ...]
    labels: np.ndarray
    class_names: tuple[str, ...]
    skipped: tuple[BadImage, ...] = ()
    ignored: tuple[Path, ...] = ()
    validation: ImageFolder | None = None
    test: ImageFolder | None = None

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def counts(self) -> dict[str, int]:
        """How many images every class has."""
        numbers = np.bincount(self.labels, minlength=len(self.class_names))
        return dict(zip(self.class_names, numbers.tolist(), strict=True))

    def load(self, size: int | Sequence[int], **how: Any) -> tuple[np.ndarray, np.ndarray]:
        """The images, fitted to `size` (see `load_images`), and their labels."""
        return load_images(self.paths, size, **how), self.labels

    def describe(self) -> str:
        """What was found, in a few lines to print."""
        classes = ", ".join(f"{name} {count}" for name, count in self.counts.items())
        lines = [f"{len(self)} images in {len(self.class_names)} classes: {classes}"]
        if self.skipped:
            lines.append(f"skipped {len(self.skipped)} damaged images: {_listing(bad.path for bad in self.skipped)}")
        if self.ignored:
            lines.append(f"ignored {len(self.ignored)} files that are no images: {_listing(self.ignored)}")
        for name, part in (("validation", self.validation), ("test", self.test)):
            if part is not None:
                lines += [f"{name}: {line}" for line in part.describe().splitlines()]
        return "\n".join(lines)


def _listing(paths: Iterable[Path], limit: int = 5) -> str:
    names = [path.name for path in paths]
    return ", ".join(names[:limit]) + (f", … ({len(names) - limit} more)" if len(names) > limit else "")


def scan_image_folder(
    directory: str | PathLike[str], on_bad: str = "error", max_bad_fraction: float = 0.1
) -> ImageFolder:
    """Finds the images in `directory`, one sub-folder per class, and decodes each once to know that it is sound.

    Classes and files are in natural order. Hidden files and those that operating systems leave behind do not count.
    Damaged images: with `on_bad="error"` all of them are named in one `FormatError`, with "skip" they are left out
    and listed in the result, unless they are more than `max_bad_fraction` of all.

    A folder that holds `train/` beside `validation/` or `test/` is read as divided: see `ImageFolder`.
    """
    if on_bad not in ("error", "skip"):
        raise ArgumentError("scan_image_folder: unknown on_bad", got=repr(on_bad), expected='"error" or "skip"')
    directory = Path(directory)
    if not directory.is_dir():
        raise ArgumentError(f"{directory}: no such folder", expected="a folder with one sub-folder per class")
    children = _visible_folders(directory)
    parts = {child.name.lower(): child for child in children}
    training = [parts[name] for name in parts if name in _TRAINING_PARTS]
    others = [name for name in parts if name in _VALIDATION_PARTS | _TEST_PARTS]
    divided = len(training) == 1 and others and len(training) + len(others) == len(children)
    if not (divided and _visible_folders(training[0])):
        folder = _scan_classes(directory, children, None)
    else:
        folder = _scan_classes(training[0], _visible_folders(training[0]), None)
        held_out: dict[str, ImageFolder] = {}
        for name in others:
            role = "test" if name in _TEST_PARTS else "validation"
            if role in held_out:
                raise ArgumentError(f"{directory}: two {role} folders", got=sorted(others), expected="one of a kind")
            held_out[role] = _scan_classes(parts[name], _visible_folders(parts[name]), folder.class_names)
        folder = ImageFolder(
            folder.paths, folder.labels, folder.class_names, folder.skipped, folder.ignored, **held_out
        )
    _check_sound(directory, folder, on_bad, max_bad_fraction)
    return folder


def _visible_folders(directory: Path) -> list[Path]:
    return sorted(
        (child for child in directory.iterdir() if child.is_dir() and not child.name.startswith(".")),
        key=lambda child: natural_key(child.name),
    )


def _scan_classes(directory: Path, folders: list[Path], known_classes: tuple[str, ...] | None) -> ImageFolder:
    if not folders:
        hint = "put the images of each class into a sub-folder named after it"
        raise ArgumentError(f"{directory}: no class folders", expected="one sub-folder per class", hint=hint)
    class_names = known_classes or tuple(folder.name for folder in folders)
    unknown = [folder.name for folder in folders if folder.name not in class_names]
    if unknown:
        near = did_you_mean(unknown[0], class_names)
        raise ArgumentError(f"{directory}: classes that the training folder lacks", got=unknown, hint=near)
    paths: list[Path] = []
    labels: list[int] = []
    ignored: list[Path] = []
    for folder in folders:
        for path in _visible_files(folder):
            if path.suffix.lower() in _EXTENSIONS:
                paths.append(path)
                labels.append(class_names.index(folder.name))
            else:
                ignored.append(path)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # decoders work outside Python's lock
        reasons = list(pool.map(_damage, paths))
    sound = [position for position, reason in enumerate(reasons) if reason is None]
    skipped = tuple(BadImage(path, reason) for path, reason in zip(paths, reasons, strict=True) if reason is not None)
    kept = tuple(paths[position] for position in sound)
    return ImageFolder(kept, np.array(labels, np.int64)[sound], class_names, skipped, tuple(ignored))


def _visible_files(folder: Path) -> list[Path]:
    found = [
        path
        for path in folder.rglob("*")
        if path.is_file()
        and path.name.lower() not in _SYSTEM_FILES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    return sorted(found, key=lambda path: natural_key(path.relative_to(folder).as_posix()))


def _damage(path: Path) -> str | None:
    try:
        load_image(path)
    except FormatError as error:
        return str(error.got or error.summary)
    return None


def _check_sound(directory: Path, folder: ImageFolder, on_bad: str, max_bad_fraction: float) -> None:
    parts = [part for part in (folder, folder.validation, folder.test) if part is not None]
    bad = [damaged for part in parts for damaged in part.skipped]
    number = len(bad) + sum(map(len, parts))
    listed = "".join(f"\n            {one.path.relative_to(directory).as_posix()}: {one.reason}" for one in bad)
    if bad and on_bad == "error":
        hint = 'mend or remove them, or leave them out with on_bad="skip"'
        raise FormatError(f"{directory}: {len(bad)} of {number} images cannot be read", got=listed, hint=hint)
    if len(bad) > max_bad_fraction * number:
        expected = f"at most {max_bad_fraction:.0%} damaged (max_bad_fraction)"
        raise FormatError(f"{directory}: {len(bad)} of {number} images are damaged", got=listed, expected=expected)
    empty = [name for name, count in folder.counts.items() if count == 0]
    if empty:
        raise ArgumentError(f"{directory}: classes without any image", got=empty, hint="remove the empty folders")


def stratified_split(labels: np.ndarray, fraction: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Divides positions 0…n-1 into kept and held-out ones so that every class is held out in the same proportion.

    `fraction` of all is held out, as nearly as whole images allow; a class with at least two members is in both
    parts, one with a single member is kept. Both parts come shuffled, and depend on `seed` alone.

    >>> kept, held_out = stratified_split(np.array([0, 0, 0, 0, 1, 1, 1, 1]), 0.25)
    >>> len(kept), len(held_out)
    (6, 2)
    """
    labels = np.asarray(labels)
    if labels.ndim != 1 or len(labels) == 0:
        raise ShapeError("stratified_split: labels have the wrong shape", got=labels.shape, expected="(number,)")
    if not 0 < fraction < 1:
        raise ArgumentError("stratified_split: fraction is outside its range", got=fraction, expected="0 < … < 1")
    classes, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    exact = counts * fraction
    held = np.floor(exact).astype(np.int64)
    # Largest remainders first, until the total is right.
    missing = round(len(labels) * fraction) - int(held.sum())
    held[np.argsort(held - exact, kind="stable")[: max(missing, 0)]] += 1
    held = np.where(counts > 1, np.clip(held, 1, counts - 1), 0)
    rng = np.random.default_rng(seed)
    kept_parts, held_parts = [], []
    for position in range(len(classes)):
        members = rng.permutation(np.flatnonzero(inverse == position))
        held_parts.append(members[: held[position]])
        kept_parts.append(members[held[position] :])
    return rng.permutation(np.concatenate(kept_parts)), rng.permutation(np.concatenate(held_parts))
