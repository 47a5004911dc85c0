"""Layers, one family per file."""

from .base import Layer

__all__ = ["Layer"]
