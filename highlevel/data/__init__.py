"""Data in: pictures, folders of pictures, batches, and the preprocessing that belongs to weights."""

from .images import ImageFolder, load_image, load_images, resize, scan_image_folder, stratified_split
from .loader import ArrayLoader, Batch, IterableLoader, make_loader
from .preprocess import Preprocessing

__all__ = [
    "ArrayLoader",
    "Batch",
    "ImageFolder",
    "IterableLoader",
    "Preprocessing",
    "load_image",
    "load_images",
    "make_loader",
    "resize",
    "scan_image_folder",
    "stratified_split",
]
