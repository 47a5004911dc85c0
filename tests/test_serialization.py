"""Objects as data and back, and files that name what they should not."""

from __future__ import annotations

import copy
import json
import os
import pickle
from typing import Any

import numpy as np
import pytest

from highlevel import serialization
from highlevel.errors import ArgumentError
from highlevel.ir import Tensor, as_dtype
from highlevel.serialization import (
    CLASSES,
    FUNCTIONS,
    Configurable,
    deserialize,
    from_data,
    get,
    names_of,
    register_function,
    register_serializable,
    serialize,
    snake_case,
    to_data,
)

KIND = "widget"


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What a test registers ends with it."""
    monkeypatch.setattr(serialization, "CLASSES", {kind: dict(family) for kind, family in CLASSES.items()})
    monkeypatch.setattr(serialization, "FUNCTIONS", {kind: dict(family) for kind, family in FUNCTIONS.items()})
    names_of.cache_clear()
    yield serialization.CLASSES
    names_of.cache_clear()


@pytest.fixture
def widgets() -> Any:
    class Base(Configurable, kind=KIND):
        def __init__(self, *, name: str = "base", **kwargs: Any) -> None:
            self.name = name
            if kwargs:
                raise AssertionError(kwargs)

    class Knob(Base):
        aliases = ("turner",)

        def __init__(self, size: int, steps: Any = (1, 2), part: Any = None, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.size, self.steps, self.part = size, steps, part

    class BigKnob(Knob):
        def __init__(self, factor: float = 2.0, **kwargs: Any) -> None:
            super().__init__(size=int(10 * factor), **kwargs)
            self.factor = factor

    class Plain(Configurable, kind=KIND):
        """No constructor at all."""

    return {cls.__name__: cls for cls in (Base, Knob, BigKnob, Plain)}


# Constructor arguments -----------------------------------------------------------------------------------------------
def test_the_outermost_constructor_is_captured(widgets: Any) -> None:
    knob = widgets["Knob"](3, part=widgets["Base"](name="inner"))
    assert knob.get_config() == {
        "size": 3,
        "steps": [1, 2],
        "part": {
            "module": "highlevel.widget",
            "class_name": "Base",
            "config": {"name": "inner"},
            "registered_name": None,
        },
    }
    big = widgets["BigKnob"](factor=1.5, name="b", part=None)
    assert big.get_config() == {"factor": 1.5, "name": "b", "part": None}
    assert big.size == 15
    assert widgets["Plain"]().get_config() == {}


def test_made_again_it_is_the_same(widgets: Any) -> None:
    for thing in (
        widgets["Knob"](3, steps=[4], part=widgets["BigKnob"](factor=0.5, name="x")),
        widgets["Plain"](),
    ):
        text = json.dumps(serialize(thing))
        again = deserialize(json.loads(text))
        assert type(again) is type(thing)
        assert serialize(again) == serialize(thing)
        assert serialize(type(thing).from_config(thing.get_config())) == serialize(thing)
        assert serialize(copy.deepcopy(thing)) == serialize(thing)
    assert again is not thing


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda w: w["Knob"](), "missing a required argument: 'size'"),
        (lambda w: w["Knob"](1, 2, 3, 4), "too many positional arguments"),
        (lambda w: w["Knob"](1, sise=2), r"Knob: unknown argument 'sise'\n  got: +sise=2"),
        (lambda w: w["Knob"](1, nam="x"), "did you mean 'name'"),
        (lambda w: w["BigKnob"](stepz=3), "did you mean 'steps'"),
        (lambda w: w["Base"](nmae="x"), "did you mean 'name'"),
    ],
)
def test_arguments_that_do_not_fit_are_explained(widgets: Any, make: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message) as caught:
        make(widgets)
    assert len(str(caught.value).splitlines()) <= 10


# Values --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("value", "data"),
    [
        (1, 1),
        (1.5, 1.5),
        ("a", "a"),
        (None, None),
        (True, True),
        ((1, [2, (3,)]), [1, [2, [3]]]),
        ({"a": (1,), 2: 3}, {"a": [1], "2": 3}),
        (np.float32(0.5), 0.5),
        (np.bool_(True), True),
        (as_dtype("bfloat16"), "bfloat16"),
    ],
)
def test_values_as_data(value: Any, data: Any) -> None:
    assert to_data(value) == data
    json.dumps(to_data(value))


@pytest.mark.parametrize("make", [np.asarray, Tensor.of])
def test_arrays_as_data(make: Any) -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    again = from_data(json.loads(json.dumps(to_data(make(array)))))
    assert again.dtype == array.dtype
    np.testing.assert_array_equal(again, array)


@pytest.mark.parametrize("value", [object(), 1j, {1, 2}, b"bytes", open])
def test_what_is_not_data(value: Any) -> None:
    with pytest.raises(ArgumentError, match=r"cannot describe this argument|is not registered"):
        to_data(value)


def test_functions_are_named_if_they_are_registered() -> None:
    def squeeze(x: Any) -> Any:
        return x

    with pytest.raises(ArgumentError, match=r"'squeeze' is not registered.*\n  hint: .*register_serializable"):
        to_data(squeeze)
    register_function("activation", squeeze, "squash")
    assert to_data(squeeze) == "squeeze"
    assert get("squash", "activation") is squeeze

    @register_serializable("mine")
    def own(x: Any) -> Any:
        return x

    assert to_data(own) == {"class_name": "__function__", "config": "mine>own"}
    assert from_data(to_data(own)) is own
    with pytest.raises(ArgumentError, match="unknown function: 'mine>owl'"):
        from_data({"class_name": "__function__", "config": "mine>owl"})


# Names ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "name",
    [
        "Dense",
        "Conv2D",
        "Conv2DTranspose",
        "MeanSquaredError",
        "LSTM",
        "GRUCell",
        "ReLU",
        "BatchNormalization",
        "GlobalAveragePooling1D",
        "KLDivergence",
        "RMSprop",
        "AdamW",
        "MultiHeadAttention",
    ],
)
def test_snake_case_is_that_of_keras(name: str) -> None:
    pytest.importorskip("keras")
    from keras.src.utils.naming import to_snake_case

    assert snake_case(name) == to_snake_case(name)


def test_get(widgets: Any) -> None:
    big = widgets["BigKnob"]
    for word in ("BigKnob", "big_knob", "bigknob"):
        assert type(get(word, KIND)) is big
    assert type(get(big, KIND)) is big
    thing = big()
    assert get(thing, KIND) is thing
    assert get(None, KIND) is None
    assert get(serialize(thing), KIND).factor == 2.0
    assert get(len, KIND) is len
    assert names_of(KIND)["turner"] is widgets["Knob"]
    assert "turner" not in {word for word, cls in names_of(KIND).items() if cls is big}  # aliases are not inherited
    with pytest.raises(ArgumentError, match=r"unknown widget 'big_nob'\n  hint: +did you mean 'big_knob'"):
        get("big_nob", KIND)
    with pytest.raises(ArgumentError, match="this is not a widget"):
        get(3, KIND)


def test_a_class_defined_again_is_the_new_one(widgets: Any) -> None:
    assert get("plain", KIND) is not None

    class Plain(Configurable, kind=KIND):
        pass

    assert type(get("plain", KIND)) is Plain
    assert type(deserialize({"class_name": "Plain", "config": {}}, KIND)) is Plain


def test_classes_of_users_do_not_displace_ours() -> None:
    from highlevel import initializers

    ours = type(get("zeros", "initializer"))

    class Zeros(initializers.Initializer):
        pass

    assert type(get("zeros", "initializer")) is ours
    assert type(deserialize({"class_name": "Zeros", "config": {}}, "initializer")) is ours

    @register_serializable("mine")
    class Ones(initializers.Initializer):
        pass

    assert type(deserialize(serialize(Ones()))) is Ones
    assert type(get("ones", "initializer")) is not Ones


# Files that name things ----------------------------------------------------------------------------------------------
def test_registered_classes_are_found_by_their_full_name_only(widgets: Any) -> None:
    @register_serializable("mine", name="Handle")
    class Knob(widgets["Base"]):  # type: ignore[misc]
        pass

    description = serialize(Knob(name="k"))
    assert description["registered_name"] == "mine>Handle"
    again = deserialize(description)
    assert type(again) is Knob
    assert again.name == "k"

    class Derived(Knob):
        pass

    assert serialize(Derived())["registered_name"] is None  # not its parent's
    assert type(deserialize(serialize(Derived()))) is Derived


def test_a_missing_class_of_a_user_is_not_replaced_by_one_of_that_name(widgets: Any) -> None:
    description = {"class_name": "Base", "registered_name": "theirs>Base", "config": {}, "module": "their.code"}
    with pytest.raises(ArgumentError, match="unknown class: 'theirs>Base'"):
        deserialize(description)
    assert type(deserialize(description, custom_objects={"Base": widgets["Plain"]})) is widgets["Plain"]
    assert type(deserialize(description, custom_objects={"theirs>Base": widgets["Plain"]})) is widgets["Plain"]


def test_the_module_tells_families_apart() -> None:
    class Same(Configurable, kind="left"):
        pass

    class Other(Configurable, kind="right"):
        pass

    serialization.CLASSES["right"]["Same"] = Other
    assert type(deserialize({"class_name": "Same", "module": "highlevel.left", "config": {}})) is Same
    assert type(deserialize({"class_name": "Same", "module": "keras.rights", "config": {}})) is Other
    assert type(deserialize({"class_name": "Same", "config": {}}, kind="left")) is Same


@pytest.mark.parametrize(
    "name", ["os.system", "system", "builtins.eval", "__import__", "subprocess.Popen", "Configurable", "object", ""]
)
def test_nothing_outside_the_registry_is_ever_found(name: str, tmp_path: Any) -> None:
    marker = tmp_path / "touched"
    config = {"command": f"touch {marker}", "args": [f"touch {marker}"]}
    for description in (
        {"class_name": name, "module": "os", "config": config},
        {"class_name": name, "module": "os", "registered_name": "os>system", "config": config},
        {"class_name": "__function__", "config": name},
    ):
        with pytest.raises(ArgumentError, match="unknown"):
            from_data([{"nested": description}])
    assert not marker.exists()
    assert os.environ.get("TOUCHED") is None


def test_pickled_objects_keep_their_description() -> None:
    from highlevel import regularizers

    thing = regularizers.L2(0.25)
    assert serialize(pickle.loads(pickle.dumps(thing))) == serialize(thing)
