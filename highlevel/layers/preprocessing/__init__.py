"""Layers that bring data into the form that networks take."""

from .rescaling import Rescaling

__all__ = ["Rescaling"]
