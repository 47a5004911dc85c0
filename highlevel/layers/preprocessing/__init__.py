"""Layers that bring data into the form that networks take, and that vary it while training."""

from . import image
from .image import *  # noqa: F403 - the names in its __all__
from .rescaling import Rescaling

__all__ = ["Rescaling", *image.__all__]
