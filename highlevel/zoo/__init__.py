"""Networks by name, with pretrained weights: `hl.zoo.create("efficientnet_lite0", weights="imagenet")`."""

from . import efficientnet_lite as efficientnet_lite
from .registry import ENTRIES, Entry, create, get, imagenet_classes, list_models, register
from .weights import WeightsFile, home

__all__ = ["ENTRIES", "Entry", "WeightsFile", "create", "get", "home", "imagenet_classes", "list_models", "register"]
