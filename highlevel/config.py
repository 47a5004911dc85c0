"""Settings of the whole library, with Keras's names."""

from __future__ import annotations

from highlevel.errors import ArgumentError

_FLOATS = ("float16", "bfloat16", "float32", "float64")
_FORMATS = ("channels_last", "channels_first")
_values: dict[str, object] = {"floatx": "float32", "epsilon": 1e-7, "image_data_format": "channels_last"}


def floatx() -> str:
    """The type that variables and layers have unless told otherwise: "float32"."""
    return str(_values["floatx"])


def set_floatx(value: str) -> None:
    if value not in _FLOATS:
        raise ArgumentError("floatx is a floating-point type", got=repr(value), expected=" | ".join(_FLOATS))
    _values["floatx"] = value


def epsilon() -> float:
    """The small number that keeps divisions and logarithms finite: 1e-7."""
    return float(_values["epsilon"])  # type: ignore[arg-type]


def set_epsilon(value: float) -> None:
    _values["epsilon"] = float(value)


def image_data_format() -> str:
    """Where images have their channels unless a layer is told otherwise: "channels_last"."""
    return str(_values["image_data_format"])


def set_image_data_format(value: str) -> None:
    if value not in _FORMATS:
        raise ArgumentError("unknown image data format", got=repr(value), expected=" | ".join(_FORMATS))
    _values["image_data_format"] = value


def data_format(value: str | None) -> str:
    """The argument of a layer, or the library's setting where it is None."""
    if value is None:
        return image_data_format()
    if value not in _FORMATS:
        raise ArgumentError("unknown data_format", got=repr(value), expected=" | ".join(_FORMATS))
    return value


def backend() -> str:
    """The name of the backend in use."""
    from highlevel import backends

    return backends.current().name


def set_backend(name: str) -> None:
    """Switches to another backend; variables move to it when they are next used."""
    from highlevel import backends

    backends.set_backend(name)
