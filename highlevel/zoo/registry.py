"""Which networks the zoo has, and how one is made.

A family is one file: it builds the network from layers, and registers an `Entry` with its weights, its preprocessing
and its layer groups.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from highlevel.data.preprocess import Preprocessing
from highlevel.errors import ArgumentError, did_you_mean
from highlevel.models import Model
from highlevel.models.saving import LoadReport, assign_weights, read_weights, weights_by_path

from .weights import WeightsFile


@dataclass(frozen=True, slots=True)
class Entry:
    """An architecture.

    build:    `build(num_classes, in_channels, input_size) -> Model`
    weights:  files by tag ("imagenet")
    read:     arrays by path of the model from a weights file
    preprocessing: what the weights were trained with
    groups:   patterns of layer names, from input to output, for freezing and discriminative rates
    head:     the layer that decides between classes
    summary, reference, license: for people
    """

    name: str
    build: Callable[..., Model]
    preprocessing: Preprocessing
    groups: tuple[str, ...]
    weights: Mapping[str, WeightsFile] = field(default_factory=dict)
    read: Callable[[Path], dict[str, np.ndarray]] | None = None
    head: str = "classifier"
    input_size: int = 224
    summary: str = ""
    reference: str = ""
    license: str = ""


ENTRIES: dict[str, Entry] = {}


def register(entry: Entry) -> Entry:
    ENTRIES[entry.name] = entry
    return entry


def list_models() -> list[str]:
    """Names of all networks.

    >>> "efficientnet_lite0" in list_models()
    True
    """
    return sorted(ENTRIES)


def get(name: str) -> Entry:
    if name not in ENTRIES:
        raise ArgumentError(f"the zoo has no network {name!r}", hint=did_you_mean(name, ENTRIES))
    return ENTRIES[name]


def imagenet_classes() -> list[str]:
    """The names of the 1,000 classes of ILSVRC 2012, in the order of the networks' outputs; synonyms left out."""
    lines = (Path(__file__).parent / "imagenet_classes.txt").read_text(encoding="utf-8").splitlines()
    return [line.split(",")[0] for line in lines]


def create(
    name: str,
    weights: str | Path | None = None,
    num_classes: int | None = None,
    in_channels: int = 3,
    input_size: int | tuple[int, int] | None = None,
    class_names: list[str] | None = None,
) -> Model:
    """A network of the zoo, ready to predict or to be fine-tuned.

    weights:     None for random ones, a tag ("imagenet"), or a file of this library's
    num_classes: outputs of the head; 0 for none (features). With pretrained weights a number other than theirs gives
                 a new head with random weights
    in_channels: channels of the images; other than the weights' is reached by adapting the first kernel
    input_size:  side of the (square) images, or (height, width)

    The model carries its preprocessing (`model.preprocess(images)`) and, for known weights, its `class_names`.
    """
    entry = get(name)
    source = _weights_source(entry, weights)
    trained_on = source.num_classes if source is not None else None
    wanted = num_classes if num_classes is not None else trained_on or 1000
    height, width = (input_size, input_size) if isinstance(input_size, int) else input_size or (entry.input_size,) * 2
    model = entry.build(num_classes=wanted, in_channels=in_channels, input_size=(height, width))
    model.preprocessing = _preprocessing(entry.preprocessing, (height, width), in_channels)
    model.group_patterns = list(entry.groups)
    model.origin = {"architecture": name, "weights": None if weights is None else str(weights)}
    if class_names is not None:
        model.class_names = list(class_names)
    if weights is None:
        return model
    arrays = entry.read(source.locate()) if source is not None and entry.read else read_weights(weights)
    report = load_pretrained(model, arrays, head=entry.head if source is not None and wanted != trained_on else None)
    model.origin["loaded"] = len(report.loaded)
    if class_names is None and trained_on == wanted == 1000:
        model.class_names = imagenet_classes()
    return model


def _weights_source(entry: Entry, weights: str | Path | None) -> WeightsFile | None:
    if weights is None or isinstance(weights, Path) or Path(str(weights)).suffix:
        return None
    if weights not in entry.weights:
        raise ArgumentError(
            f"{entry.name}: there are no weights {weights!r}", hint=did_you_mean(weights, [*entry.weights, "None"])
        )
    return entry.weights[str(weights)]


def _preprocessing(preprocessing: Preprocessing, size: tuple[int, int], in_channels: int) -> Preprocessing | None:
    """The preprocessing for another size or for grey images; none for other kinds of images, which nobody knows."""
    if in_channels not in (1, 3):
        return None
    values = preprocessing.to_dict()
    values["size"] = size
    if in_channels == 1:
        values.update(channels="grey", mean=(float(np.mean(values["mean"])),), std=(float(np.mean(values["std"])),))
    return Preprocessing.from_dict(values)


def load_pretrained(model: Model, arrays: dict[str, np.ndarray], *, head: str | None = None) -> LoadReport:
    """Loads weights: all of them, or – given the name of the head – all but the head's, which stay as they are.

    The first kernel is adapted to the number of channels of the images.
    """
    targets = weights_by_path(model)
    adapted = dict(arrays)
    first = next(path for path, variable in targets.items() if variable.name == "kernel")
    if first in arrays and arrays[first].ndim == 4 and arrays[first].shape[2] != targets[first].shape[2]:
        adapted[first] = adapt_channels(arrays[first], targets[first].shape[2])
    if head is not None:
        adapted = {path: array for path, array in adapted.items() if not path.startswith(f"{head}/")}
        adapted |= {path: variable.numpy() for path, variable in targets.items() if path.startswith(f"{head}/")}
    return assign_weights(model, adapted, source="the pretrained weights")


def adapt_channels(kernel: np.ndarray, channels: int) -> np.ndarray:
    """A first kernel (height, width, channels, filters) for another number of input channels.

    One channel gets the sum of all; more are the same ones over again, scaled so that responses stay as large.
    """
    before = kernel.shape[2]
    if channels == 1:
        return np.asarray(kernel.sum(axis=2, keepdims=True))
    repeated = np.concatenate([kernel] * -(-channels // before), axis=2)[:, :, :channels]
    return np.asarray(repeated * (before / channels), kernel.dtype)
