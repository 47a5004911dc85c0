"""Layers that bring data into the form that networks take, and that vary it while training."""

from . import image
from .discretization import Discretization
from .encoding import CategoryEncoding
from .hashing import HashedCrossing, Hashing
from .image import *  # noqa: F403 - the names in its __all__
from .lookup import IntegerLookup, StringLookup
from .normalization import Normalization
from .pipeline import Pipeline
from .rescaling import Rescaling
from .spectrogram import MelSpectrogram, STFTSpectrogram
from .text import TextVectorization

__all__ = [
    "CategoryEncoding",
    "Discretization",
    "HashedCrossing",
    "Hashing",
    "IntegerLookup",
    "MelSpectrogram",
    "Normalization",
    "Pipeline",
    "Rescaling",
    "STFTSpectrogram",
    "StringLookup",
    "TextVectorization",
    *image.__all__,
]
