"""Models: functional, sequential and subclassed; summaries and files."""

from .model import Model
from .placeholder import Input, Placeholder
from .saving import load_model
from .sequential import Sequential

__all__ = ["Input", "Model", "Placeholder", "Sequential", "load_model"]
