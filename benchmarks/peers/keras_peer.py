"""Keras on JAX as a worker (see serving.py)."""

from __future__ import annotations

import os

os.environ["KERAS_BACKEND"] = "jax"

import keras
import numpy as np
from serving import Call, serve
from workloads import find


def prepare(case: str, kind: str, variant: str) -> Call:
    keras.utils.set_random_seed(0)
    workload = find(case)
    x, y = workload.batch()
    model = workload.compiled(keras)
    if kind == "train":
        return lambda: float(np.asarray(model.train_on_batch(x, y)))
    return lambda: np.asarray(model.predict_on_batch(x))


if __name__ == "__main__":
    serve(prepare)
