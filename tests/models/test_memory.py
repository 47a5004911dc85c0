"""Models go when the last reference goes, without the help of the garbage collector."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator

import numpy as np
import pytest

import highlevel as hl
from highlevel import layers as L


@pytest.fixture(autouse=True)
def _no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def sequential() -> hl.Model:
    return hl.Sequential([hl.Input((4,)), L.Dense(3, activation="relu"), L.BatchNormalization(), L.Dense(2)])


def functional() -> hl.Model:
    x = hl.Input((4,))
    y = L.Dense(4)(x)
    return hl.Model(x, L.Dense(2)(L.Add()([x, y]) * 2.0))


class Subclassed(hl.Model):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = [L.Dense(4), L.Dense(2)]

    def call(self, x: object) -> object:
        for block in self.blocks:
            x = block(x)
        return x


@pytest.mark.parametrize("make", [sequential, functional, Subclassed], ids=lambda make: make.__name__)
@pytest.mark.parametrize("work", ["nothing", "predict", "fit"])
def test_a_model_and_its_weights_go_at_once(make: Callable[[], hl.Model], work: str) -> None:
    model, x, y = make(), np.zeros((8, 4), "float32"), np.zeros((8, 2), "float32")
    model(x)
    if work != "nothing":
        model.compile("adam", "mse", metrics=["mae"])
        model.predict(x, verbose=0)
    if work == "fit":
        model.fit(
            x, y, verbose=0, validation_data=(x, y), callbacks=[hl.callbacks.EarlyStopping(restore_best_weights=True)]
        )
    references = [weakref.ref(model), *map(weakref.ref, model.layers), *map(weakref.ref, model.weights)]
    assert len(references) > 4
    del model
    assert [reference() for reference in references] == [None] * len(references)


def test_a_history_outlives_its_model() -> None:
    model = sequential()
    model.compile("sgd", "mse")
    history = model.fit(np.zeros((8, 4), "float32"), np.zeros((8, 2), "float32"), verbose=0)
    del model
    assert len(history.history["loss"]) == 1 and history.model is None
