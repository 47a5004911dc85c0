"""Real files of every awkward kind, against Pillow, PyTorch and scikit-learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from highlevel.data.images import (
    ImageFolder,
    center_crop,
    fit_image,
    load_image,
    load_images,
    natural_key,
    resize,
    scan_image_folder,
    stratified_split,
)
from highlevel.errors import ArgumentError, DTypeError, FormatError, ShapeError

ORIENTATION = 0x0112  # the EXIF tag


def picture(height: int = 40, width: int = 60, seed: int = 0) -> np.ndarray:
    """A smooth random picture, so that lossy formats stay near it."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def save(path: Path, image: Image.Image | np.ndarray, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, **options)
    return path


def truncated_jpeg(path: Path) -> Path:
    save(path, picture(200, 300), quality=95)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    return path


# --- one file ---


@pytest.mark.parametrize("extension", ["png", "bmp", "tif", "webp"])
def test_lossless_files_come_back_exactly(tmp_path: Path, extension: str) -> None:
    expected = picture()
    path = save(tmp_path / f"a.{extension}", expected, **({"lossless": True} if extension == "webp" else {}))
    loaded = load_image(path)
    assert loaded.dtype == np.uint8
    assert loaded.flags.writeable
    np.testing.assert_array_equal(loaded, expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    upright = picture()
    # How a camera that is turned stores the upright scene, for each value of the tag.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = save(tmp_path / "turned.png", np.ascontiguousarray(stored), exif=exif)
    np.testing.assert_array_equal(load_image(path), upright)


def test_cmyk_jpeg(tmp_path: Path) -> None:
    expected = picture()
    path = save(tmp_path / "print.jpg", Image.fromarray(expected).convert("CMYK"), quality=100, subsampling=0)
    with Image.open(path) as opened:
        assert opened.mode == "CMYK"
    assert np.abs(load_image(path).astype(int) - expected).max() <= 12


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    deep = np.linspace(0, 65535, 40 * 60).astype(np.uint16).reshape(40, 60)
    path = save(tmp_path / "scan.png", deep)
    expected = np.rint(deep / 65535 * 255).astype(np.uint8)
    np.testing.assert_array_equal(load_image(path), np.repeat(expected[..., None], 3, axis=-1))


def test_grey_and_two_level_files_have_three_equal_channels(tmp_path: Path) -> None:
    grey = picture()[..., 0]
    np.testing.assert_array_equal(load_image(save(tmp_path / "grey.png", grey)), np.stack([grey] * 3, axis=-1))
    levels = load_image(save(tmp_path / "fax.png", Image.fromarray(grey).convert("1")))
    assert set(np.unique(levels)) == {0, 255}


def test_transparent_pixels_lie_on_white(tmp_path: Path) -> None:
    colours = np.full((4, 4, 4), (200, 0, 0, 255), np.uint8)
    colours[:2, :, 3] = 0
    colours[2, :, 3] = 128
    loaded = load_image(save(tmp_path / "logo.png", Image.fromarray(colours)))
    np.testing.assert_array_equal(loaded[0, 0], (255, 255, 255))
    np.testing.assert_allclose(loaded[2, 0], (227.4, 127, 127), atol=1)
    np.testing.assert_array_equal(loaded[3, 0], (200, 0, 0))


def test_palette_with_transparency_lies_on_white(tmp_path: Path) -> None:
    indexed = Image.new("P", (4, 4), 0)
    indexed.putpalette([10, 20, 30, 40, 50, 60])
    indexed.putpixel((1, 0), 1)
    loaded = load_image(save(tmp_path / "indexed.png", indexed, transparency=b"\x00\xff"))
    np.testing.assert_array_equal(loaded[0, :2], [(255, 255, 255), (40, 50, 60)])


def test_damaged_files_are_errors_that_name_them(tmp_path: Path) -> None:
    broken = [truncated_jpeg(tmp_path / "cut.jpg"), tmp_path / "text.png", tmp_path / "empty.jpg"]
    broken[1].write_text("this is no picture")
    broken[2].write_bytes(b"")
    whole = save(tmp_path / "cut.png", picture(200, 300)).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[:-2000])
    for path in [*broken, tmp_path / "cut.png"]:
        with pytest.raises(FormatError) as caught:
            load_image(path)
        assert path.name in str(caught.value)
        assert len(str(caught.value).splitlines()) <= 3


def test_every_truncation_of_a_png_is_an_error_or_complete(tmp_path: Path) -> None:
    expected = picture(12, 9)
    whole = save(tmp_path / "whole.png", expected).read_bytes()
    path = tmp_path / "cut.png"
    refused = 0
    for size_bytes in range(len(whole)):
        path.write_bytes(whole[:size_bytes])
        try:
            loaded = load_image(path)
        except FormatError:
            refused += 1
        else:  # all pixels were there, only the end mark was not
            np.testing.assert_array_equal(loaded, expected)
    assert refused > 0.8 * len(whole)


def test_floats_have_no_agreed_range(tmp_path: Path) -> None:
    path = save(tmp_path / "depth.tif", np.linspace(0, 9, 12, dtype=np.float32).reshape(3, 4))
    with pytest.raises(FormatError, match=r"depth\.tif: floating-point"):
        load_image(path)


def test_no_file_is_the_usual_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_image(tmp_path / "nothing.png")


# --- sizes ---


@pytest.mark.parametrize("interpolation", ["box", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("size", [(17, 23), (40, 90), (100, 31), (1, 1), (120, 180)])
def test_resize_equals_pillow(interpolation: str, size: tuple[int, int]) -> None:
    image = picture()
    expected = Image.fromarray(image).resize(size[::-1], Image.Resampling[interpolation.upper()])
    difference = np.abs(resize(image, size, interpolation).astype(int) - np.asarray(expected))
    assert difference.max() <= 1  # Pillow rounds twice, we once


@pytest.mark.parametrize("size", [(17, 23), (1, 1), (120, 180), (40, 30)])
def test_nearest_equals_pillow(size: tuple[int, int]) -> None:
    image = picture()
    expected = Image.fromarray(image).resize(size[::-1], Image.Resampling.NEAREST)
    np.testing.assert_array_equal(resize(image, size, "nearest"), np.asarray(expected))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(17, 23), (100, 31), (120, 180)])
def test_resize_of_floats_equals_pytorch_with_antialias(interpolation: str, size: tuple[int, int]) -> None:
    torch = pytest.importorskip("torch")
    images = np.random.default_rng(0).normal(size=(2, 40, 60, 3)).astype(np.float32)
    planes = torch.from_numpy(images).permute(0, 3, 1, 2)
    expected = torch.nn.functional.interpolate(planes, size, mode=interpolation, antialias=True)
    result = resize(images, size, interpolation)
    np.testing.assert_allclose(result, expected.permute(0, 2, 3, 1).numpy(), atol=2e-5)


@pytest.mark.parametrize("size", [(17, 23), (100, 31), (120, 180)])
def test_resize_without_antialias_equals_pytorch(size: tuple[int, int]) -> None:
    torch = pytest.importorskip("torch")
    images = np.random.default_rng(0).normal(size=(2, 40, 60, 3)).astype(np.float32)
    planes = torch.from_numpy(images).permute(0, 3, 1, 2)
    expected = torch.nn.functional.interpolate(planes, size, mode="bilinear", antialias=False)
    result = resize(images, size, antialias=False)
    np.testing.assert_allclose(result, expected.permute(0, 2, 3, 1).numpy(), atol=2e-5)


def test_resize_keeps_dtype_and_never_aliases_its_input() -> None:
    image = picture()
    same = resize(image, image.shape[:2])
    same[:] = 0
    assert image.any()
    for dtype in (np.float16, np.float32, np.float64):
        assert resize(image.astype(dtype), 8).dtype == dtype


def test_fit_covers_and_crops_without_distortion() -> None:
    image = np.zeros((100, 300, 3), np.uint8)
    image[:, 100:200] = 255  # a square in the middle
    fitted = fit_image(image, 50)
    assert fitted.shape == (50, 50, 3)
    assert fitted.mean() > 250
    np.testing.assert_array_equal(center_crop(image, 100), 255)


def test_load_images(tmp_path: Path) -> None:
    paths = [save(tmp_path / f"{index}.png", picture(30 + index, 50, seed=index)) for index in range(3)]
    images = load_images(paths, (20, 24), interpolation="bicubic")
    assert images.shape == (3, 20, 24, 3)
    np.testing.assert_array_equal(images[2], fit_image(load_image(paths[2]), (20, 24), interpolation="bicubic"))
    assert load_images([], 8).shape == (0, 8, 8, 3)


def test_mistakes_with_sizes_are_explained() -> None:
    image = picture()
    with pytest.raises(ArgumentError, match="did you mean 'bilinear'"):
        resize(image, 8, "bilinaer")
    with pytest.raises(ArgumentError, match="at least one pixel"):
        resize(image, (8, 0))
    with pytest.raises(ShapeError, match="wrong rank"):
        resize(image[..., 0], 8)
    with pytest.raises(DTypeError, match="int64"):
        resize(image.astype(np.int64), 8)
    with pytest.raises(ShapeError, match="larger than the image"):
        center_crop(image, 50)


# --- folders ---


def test_classes_and_files_are_in_natural_order(tmp_path: Path) -> None:
    for number in range(12, 0, -1):
        for index in (10, 9, 1):
            save(tmp_path / str(number) / f"img{index}.png", picture(4, 4))
    folder = scan_image_folder(tmp_path)
    assert folder.class_names == tuple(str(number) for number in range(1, 13))
    np.testing.assert_array_equal(folder.labels, np.repeat(np.arange(12), 3))
    assert [path.name for path in folder.paths[:3]] == ["img1.png", "img9.png", "img10.png"]
    assert folder.counts["10"] == 3
    images, labels = folder.load(8)
    assert images.shape == (36, 8, 8, 3)
    assert labels is folder.labels
    assert sorted(["a10", "A9", "b1"], key=natural_key) == ["A9", "a10", "b1"]


def messy_folder(directory: Path) -> None:
    for name in ("cat", "dog"):
        for index in range(10):
            save(directory / name / f"{index}.png", picture(8, 8))
    save(directory / "cat" / "print.jpg", Image.fromarray(picture()).convert("CMYK"))
    save(directory / "cat" / "scan.PNG", np.zeros((8, 8), np.uint16))
    save(directory / "dog" / "puppies" / "deep.webp", picture())
    (directory / "desktop.ini").write_text("[ViewState]")
    (directory / "cat" / "desktop.ini").write_text("[ViewState]")
    (directory / "dog" / ".DS_Store").write_bytes(b"\0")
    save(directory / "dog" / "._0.png", picture()).write_bytes(b"resource fork")
    save(directory / ".ipynb_checkpoints" / "0.png", picture())
    (directory / "dog" / "notes.txt").write_text("bring biscuits")


def test_strangers_in_a_folder_do_not_count(tmp_path: Path) -> None:
    messy_folder(tmp_path)
    folder = scan_image_folder(tmp_path)
    assert folder.counts == {"cat": 12, "dog": 11}
    assert [path.name for path in folder.ignored] == ["notes.txt"]
    assert folder.skipped == ()
    assert folder.describe().splitlines() == [
        "23 images in 2 classes: cat 12, dog 11",
        "ignored 1 files that are no images: notes.txt",
    ]


def test_all_damaged_files_are_named_at_once_or_skipped(tmp_path: Path) -> None:
    messy_folder(tmp_path)
    truncated_jpeg(tmp_path / "cat" / "cut.jpg")
    (tmp_path / "dog" / "text.png").write_text("no picture")
    with pytest.raises(FormatError, match="2 of 25 images cannot be read") as caught:
        scan_image_folder(tmp_path)
    assert "cat/cut.jpg: " in str(caught.value)
    assert "dog/text.png: 10 bytes that are in no known image format" in str(caught.value)

    folder = scan_image_folder(tmp_path, on_bad="skip")
    assert len(folder) == 23
    assert [bad.path.name for bad in folder.skipped] == ["cut.jpg", "text.png"]
    assert "skipped 2 damaged images: cut.jpg, text.png" in folder.describe()
    with pytest.raises(FormatError, match="at most 5% damaged"):
        scan_image_folder(tmp_path, on_bad="skip", max_bad_fraction=0.05)


@pytest.mark.parametrize(("other", "role"), [("test", "test"), ("validation", "validation"), ("val", "validation")])
def test_divided_folders(tmp_path: Path, other: str, role: str) -> None:
    for name in ("2", "10"):
        save(tmp_path / "train" / name / "a.png", picture(8, 8))
    save(tmp_path / other / "10" / "b.png", picture(8, 8))
    folder = scan_image_folder(tmp_path)
    held_out = getattr(folder, role)
    assert isinstance(held_out, ImageFolder)
    assert folder.class_names == held_out.class_names == ("2", "10")
    assert held_out.labels.tolist() == [1]
    assert f"{role}: 1 images in 2 classes: 2 0, 10 1" in folder.describe()


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for name in ("train", "plane"):
        save(tmp_path / name / "a.png", picture(8, 8))
    assert scan_image_folder(tmp_path).class_names == ("plane", "train")


def test_mistakes_with_folders_are_explained(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="no such folder"):
        scan_image_folder(tmp_path / "nothing")
    save(tmp_path / "flat" / "a.png", picture(8, 8))
    with pytest.raises(ArgumentError, match="into a sub-folder named after it"):
        scan_image_folder(tmp_path / "flat")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArgumentError, match=r"without any image\n.*'empty'"):
        scan_image_folder(tmp_path)
    with pytest.raises(ArgumentError, match="on_bad"):
        scan_image_folder(tmp_path, on_bad="ignore")
    save(tmp_path / "data" / "train" / "cat" / "a.png", picture(8, 8))
    save(tmp_path / "data" / "test" / "cats" / "a.png", picture(8, 8))
    with pytest.raises(ArgumentError, match="did you mean 'cat'"):
        scan_image_folder(tmp_path / "data")


# --- splits ---


@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.37, 0.5])
def test_stratified_split_holds_out_as_many_of_each_class_as_sklearn(fraction: float) -> None:
    from sklearn.model_selection import StratifiedShuffleSplit

    labels = np.repeat([3, 1, 7], [60, 31, 9])  # sorted by class, where the tail would lose classes
    kept, held_out = stratified_split(labels, fraction, seed=4)
    assert sorted([*kept, *held_out]) == list(range(100))
    reference = StratifiedShuffleSplit(1, test_size=round(fraction * 100), random_state=0)
    _, expected = next(reference.split(labels, labels))
    assert len(held_out) == len(expected)
    difference = np.bincount(labels[held_out], minlength=8) - np.bincount(labels[expected], minlength=8)
    assert np.abs(difference).max() <= 1


def test_stratified_split_depends_on_the_seed_alone() -> None:
    labels = np.arange(50) % 5
    first, second, other = (stratified_split(labels, 0.2, seed)[1] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, second)
    assert first.tolist() != other.tolist()
    assert sorted(first) != first.tolist()


def test_small_classes_are_in_both_parts_and_single_ones_are_kept() -> None:
    labels = np.array([0] * 20 + [1, 1, 2])
    kept, held_out = stratified_split(labels, 0.1)
    assert set(labels[kept]) == {0, 1, 2}
    assert set(labels[held_out]) == {0, 1}
    with pytest.raises(ArgumentError, match="fraction"):
        stratified_split(np.array([0, 1]), 1.0)
    with pytest.raises(ShapeError, match="wrong shape"):
        stratified_split(np.eye(3), 0.5)
