"""Keras's public names: the page about them says what is, and what is complete stays so."""

from __future__ import annotations

import importlib.util
import re
import sys
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

keras = pytest.importorskip("keras")

PAGE = Path(__file__).parents[1] / "docs" / "keras-coverage.md"

# Namespaces in which names are still missing. One that is complete is taken out, and stays complete from then on.
INCOMPLETE = (
    "", "activations", "applications*", "backend", "callbacks", "config", "constraints", "datasets*", "distillation",
    "distribution", "dtype_policies", "initializers", "legacy*", "losses", "metrics", "mixed_precision", "models",
    "ops*", "optimizers*", "preprocessing*", "regularizers", "saving", "tree", "utils*", "visualization", "wrappers",
)  # fmt: skip


@pytest.fixture(scope="module")
def make_coverage() -> Any:
    spec = importlib.util.spec_from_file_location("make_coverage", PAGE.with_name("make_coverage.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "make_coverage", module)
        spec.loader.exec_module(module)
        yield module


@pytest.fixture(scope="module")
def result(make_coverage: Any) -> Any:
    return make_coverage.coverage()


def test_the_page_is_up_to_date(make_coverage):
    page = PAGE.read_text(encoding="utf-8")
    version = re.search(r"Keras ([\d.]+)'s", page)
    assert version is not None
    if version[1] != keras.__version__:
        pytest.skip(f"the page is about Keras {version[1]}")
    assert page == make_coverage.text(), "run python docs/make_coverage.py"


def test_what_is_complete_stays_complete(result, make_coverage):
    missing = {name for name in result.missing if not in_any(make_coverage.namespace_of(name), INCOMPLETE)}
    assert missing == set()
    assert {"layers", "random"} <= set(result.namespaces())


def test_every_exception_is_one(result, make_coverage):
    """A name that is here needs no reason for not being here."""
    every = list(make_coverage.public_names(keras))
    for reason, patterns in make_coverage.EXCEPTIONS.items():
        for pattern in patterns:
            names = [name for name in every if fnmatchcase(name, pattern)]
            assert names, f"Keras has no {pattern}"
            assert all(result.exceptions.get(name) == reason for name in names), pattern
    assert set(make_coverage.OTHERWISE) <= set(result.otherwise), "names that are here under their own name by now"


def test_names_are_looked_up_not_guessed(make_coverage):
    assert make_coverage.found("layers.Dense") and make_coverage.found("random.SeedGenerator")
    assert not make_coverage.found("layers.Dens") and not make_coverage.found("layers.conv")  # a module is not a name


def in_any(namespace: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(namespace, pattern) for pattern in patterns)
