"""Image files as pixels, with Pillow: whatever the file, the result is uint8 RGB."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from highlevel.errors import FormatError

# Everything that Pillow's decoders raise on damaged or hostile files.
_DECODER_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)


def decode(path: Path) -> np.ndarray:
    """The pixels of an image file; see `images.load_image`."""
    try:
        with Image.open(path) as opened:
            opened.load()  # decodes everything, so that truncation shows here
            image = ImageOps.exif_transpose(opened)
            return np.array(_to_rgb(image))
    except FileNotFoundError:
        raise
    except FormatError as error:
        raise FormatError(f"{path}: {error.summary}", got=error.got, hint=error.hint) from None
    except _DECODER_ERRORS as error:
        raise FormatError(f"{path}: cannot be read as an image", got=_reason(path, error)) from error


def _reason(path: Path, error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        size_bytes = path.stat().st_size
        return "an empty file" if size_bytes == 0 else f"{size_bytes} bytes that are in no known image format"
    return str(error) or type(error).__name__


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit greys; "I" where Pillow holds them in 32 bits
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise FormatError("greys beyond 16 bits have no agreed range", got=f"{values.min()} to {values.max()}")
        return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise FormatError("floating-point images have no agreed range", hint="save it with 8 or 16 bits per channel")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")
