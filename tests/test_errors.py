from __future__ import annotations

import copy
import pickle

import pytest

from highlevel import errors
from highlevel.errors import HighlevelError, ShapeError, did_you_mean, missing_extra

FAMILY = [
    cls
    for cls in vars(errors).values()
    if isinstance(cls, type) and issubclass(cls, HighlevelError) and cls is not HighlevelError
]


def test_one_layout() -> None:
    error = ShapeError(
        "dense_1: the last axis does not fit the kernel",
        got="inputs float32 (32, 10)",
        expected="20 features on the last axis",
        layer="classifier/dense_1 (Dense)",
        hint="the layer was built for inputs of shape (None, 20)",
    )
    assert str(error) == (
        "dense_1: the last axis does not fit the kernel\n"
        "  got:      inputs float32 (32, 10)\n"
        "  expected: 20 features on the last axis\n"
        "  layer:    classifier/dense_1 (Dense)\n"
        "  hint:     the layer was built for inputs of shape (None, 20)"
    )


def test_what_is_not_said_takes_no_line() -> None:
    assert str(ShapeError("wrong")) == "wrong"
    assert str(ShapeError("wrong", got=0, hint="")) == "wrong\n  got:      0\n  hint:     "


def test_the_innermost_layer_is_named() -> None:
    error = ShapeError("wrong")
    assert error.within("model/block/dense") is error
    error.within("model/block")
    assert error.layer == "model/block/dense"


@pytest.mark.parametrize("cls", FAMILY, ids=lambda cls: cls.__name__)
def test_every_error_is_also_one_of_pythons(cls: type[HighlevelError]) -> None:
    """So that `except ValueError` goes on working for those who do not know the family."""
    assert cls.__doc__
    builtin = next(base for base in cls.__mro__ if base.__module__ == "builtins")
    assert builtin not in (Exception, BaseException, object)
    error = cls("summary", got=1, expected=2, layer="a", hint="b")
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is cls
        assert str(again) == str(error)
    with pytest.raises(HighlevelError):
        raise error


def test_suggestions() -> None:
    known = ["relu", "sigmoid", "softmax", "tanh"]
    assert did_you_mean("rleu", known) == "did you mean 'relu'?"
    assert did_you_mean("softmx", known) == "did you mean 'softmax'?"
    assert did_you_mean("xyz", known) == "known: relu, sigmoid, softmax, tanh"
    assert did_you_mean("xyz", []) is None
    assert did_you_mean(None, known) == "known: relu, sigmoid, softmax, tanh"
    many = did_you_mean("???", [f"name{i:02}" for i in range(50)])
    assert many is not None
    assert many.endswith("name11, …")


def test_missing_extras_name_the_command() -> None:
    error = missing_extra("plots", "matplotlib", "plot")
    assert isinstance(error, ImportError)
    assert "pip install 'highlevel[plot]'" in str(error)
    assert "'matplotlib'" in str(error)
