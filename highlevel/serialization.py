"""Objects described by the arguments they were made with, and the closed registry that files are read through.

A class that derives from `Configurable` needs no `get_config`: the arguments of its constructor are captured, and the
object is made again by calling it with them. Files name classes; a name is looked up in the registry and nowhere else –
nothing is ever imported, evaluated or opened because a file says so.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

import numpy as np

from highlevel.errors import ArgumentError, did_you_mean

CLASSES: dict[str, dict[str, type]] = {}
FUNCTIONS: dict[str, dict[str, Callable[..., Any]]] = {}

C = TypeVar("C", bound="Configurable")


class Configurable:
    """Base of layers, optimizers, losses, metrics, initializers, …: captures the constructor's arguments.

    `kind` names the family ("layer", "loss", …); classes register themselves in it under their name.

    >>> class Scale(Configurable, kind="example"):
    ...     def __init__(self, factor=2.0):
    ...         self.factor = factor
    >>> serialize(Scale(3.0))
    {'module': 'highlevel.example', 'class_name': 'Scale', 'config': {'factor': 3.0}, 'registered_name': None}
    >>> deserialize({'class_name': 'Scale', 'config': {'factor': 4.0}}, kind="example").factor
    4.0
    """

    kind: ClassVar[str] = "object"
    aliases: ClassVar[tuple[str, ...]] = ()  # further names, in snake case: "mse" for MeanSquaredError
    registered_name: ClassVar[str | None] = None  # "package>Name" for classes of users
    open_arguments: ClassVar[bool] = False  # whether a constructor with **keywords takes any name
    _config: dict[str, Any]

    def __init_subclass__(cls, kind: str | None = None, **more: Any) -> None:
        super().__init_subclass__(**more)
        if kind is not None:
            cls.kind = kind
        if "aliases" not in cls.__dict__:
            cls.aliases = ()
        if "registered_name" not in cls.__dict__:
            cls.registered_name = None
        if "__init__" in cls.__dict__:
            cls.__init__ = _capturing(cls.__init__)  # type: ignore[method-assign]
        if not cls.__name__.startswith("_"):
            _register_class(cls, cls.kind, cls.__name__)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, as data (numbers, strings, lists, nested descriptions)."""
        return {name: to_data(value) for name, value in self.__dict__.get("_config", {}).items()}

    @classmethod
    def from_config(cls: type[C], config: Mapping[str, Any]) -> C:
        """An object like the one that `get_config` described."""
        return cls(**{name: from_data(value) for name, value in config.items()})


def _register_class(cls: type, kind: str, name: str) -> None:
    """Enters a class under a name; a class of a user never takes the place of one of this library."""
    family = CLASSES.setdefault(kind, {})
    if name in family and _is_ours(family[name]) and not _is_ours(cls):
        return
    family[name] = cls
    names_of.cache_clear()


def _is_ours(cls: type) -> bool:
    return cls.__module__.partition(".")[0] == __name__.partition(".")[0]


def _capturing(init: Callable[..., None]) -> Callable[..., None]:
    """A constructor that notes the arguments of the outermost call and explains those that do not fit."""
    signature = inspect.signature(init)
    open_keywords = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())

    @functools.wraps(init)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            bound = signature.bind(self, *args, **kwargs)
        except TypeError as error:
            raise _misfit(type(self), kwargs, error) from None
        if "_config" not in self.__dict__:
            if open_keywords:
                _check_keywords(type(self), kwargs)
            bound.apply_defaults()
            config = dict(list(bound.arguments.items())[1:])
            for name, parameter in signature.parameters.items():
                if parameter.kind is parameter.VAR_KEYWORD:
                    config.update(config.pop(name, {}))
            object.__setattr__(self, "_config", config)
        init(self, *args, **kwargs)

    return wrapped


def accepted_arguments(cls: type) -> tuple[set[str], bool]:
    """All names that the constructors along the inheritance take, and whether the last of them takes any name."""
    names: set[str] = set()
    for base in cls.__mro__:
        if "__init__" not in base.__dict__:
            continue
        parameters = list(inspect.signature(base.__dict__["__init__"]).parameters.values())[1:]
        names |= {p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            return names, False
    return names, base is not object


def _check_keywords(cls: type, kwargs: Mapping[str, Any]) -> None:
    names, anything = accepted_arguments(cls)
    unknown = (
        [] if anything or getattr(cls, "open_arguments", False) else [name for name in kwargs if name not in names]
    )
    if unknown:
        raise ArgumentError(
            f"{cls.__name__}: unknown argument {unknown[0]!r}",
            got=f"{unknown[0]}={kwargs[unknown[0]]!r}",
            expected=f"arguments of {cls.__name__}",
            hint=did_you_mean(unknown[0], names),
        )


def _misfit(cls: type, kwargs: Mapping[str, Any], error: TypeError) -> ArgumentError:
    names, _ = accepted_arguments(cls)
    unknown = [name for name in kwargs if name not in names]
    if unknown:
        return ArgumentError(
            f"{cls.__name__}: unknown argument {unknown[0]!r}",
            got=f"{unknown[0]}={kwargs[unknown[0]]!r}",
            expected=f"arguments of {cls.__name__}",
            hint=did_you_mean(unknown[0], names),
        )
    return ArgumentError(f"{cls.__name__}: {error}", expected=f"{cls.__name__}({', '.join(sorted(names))})")


# Names ---------------------------------------------------------------------------------------------------------------
def snake_case(name: str) -> str:
    """`MeanSquaredError` → `mean_squared_error`; `Conv2D` → `conv2d`; `LSTM` → `lstm`."""
    out = ""
    for i, letter in enumerate(name):
        starts_word = letter.isupper() and i > 0 and (
            name[i - 1].islower() or (i + 1 < len(name) and name[i + 1].islower() and not name[i - 1].isdigit())
        )  # fmt: skip
        out += ("_" if starts_word else "") + letter.lower()
    return out


def register_function(kind: str, function: Callable[..., Any], *names: str) -> None:
    """Makes a function known by its name (and others) in a family: activations, losses."""
    for name in (function.__name__, *names):
        FUNCTIONS.setdefault(kind, {})[name] = function


def register_serializable(package: str = "Custom", name: str | None = None) -> Callable[[Any], Any]:
    """Decorator for classes and functions of users, so that files that name them can be read.

    The class is stored as `package>Name`; reading a file never imports it: it has to be defined (and so registered)
    before.
    """

    def decorate(thing: Any) -> Any:
        full = f"{package}>{name or thing.__name__}"
        if inspect.isclass(thing):
            thing.registered_name = full  # type: ignore[attr-defined]
            _register_class(thing, getattr(thing, "kind", "object"), full)
        else:
            thing.registered_name = full
            FUNCTIONS.setdefault("custom", {})[full] = thing
        return thing

    return decorate


@functools.cache
def names_of(kind: str) -> dict[str, type]:
    """Every word by which a class of the family can be asked for: "MeanSquaredError", "mean_squared_error", "mse"."""
    found: dict[str, type] = {}
    for cls in CLASSES.get(kind, {}).values():
        for word in (snake_case(cls.__name__), cls.__name__.lower(), cls.__name__, *getattr(cls, "aliases", ())):
            found.setdefault(word, cls)
    return found


def get(identifier: Any, kind: str) -> Any:
    """The object that an argument means: itself, a name, a class, or a description; None stays None.

    Names of classes give a new object with default arguments; names of functions give the function.
    """
    if identifier is None:
        return None
    if isinstance(identifier, str):
        functions = FUNCTIONS.get(kind, {})
        if identifier in functions:
            return functions[identifier]
        words = names_of(kind)
        if identifier in words:
            return words[identifier]()
        known = set(functions) | {snake_case(cls.__name__) for cls in words.values()}
        raise ArgumentError(f"unknown {kind} {identifier!r}", hint=did_you_mean(identifier, known))
    if isinstance(identifier, dict):
        return deserialize(identifier, kind=kind)
    if inspect.isclass(identifier):
        return identifier()
    if callable(identifier) or isinstance(identifier, Configurable):
        return identifier
    raise ArgumentError(
        f"this is not a {kind}", got=repr(identifier), expected=f"a name, a {kind} object, or a function"
    )


# Layers in several places ---------------------------------------------------------------------------------------------
class _Sharing(threading.local):
    """Layers that the outermost description has met so far: written, by identity; read, by number."""

    def __init__(self) -> None:
        self.depth = 0
        self.written: dict[int, tuple[Any, dict[str, Any]]] = {}
        self.read: dict[int, Any] = {}

    def __enter__(self) -> _Sharing:
        self.depth += 1
        return self

    def __exit__(self, *_: Any) -> None:
        self.depth -= 1
        if not self.depth:
            self.written, self.read = {}, {}


_sharing = _Sharing()


# Data ----------------------------------------------------------------------------------------------------------------
def serialize(thing: Any) -> Any:
    """A description of an object in plain data. A layer that occurs more than once in it has a `shared_object_id`."""
    if not isinstance(thing, Configurable):
        return to_data(thing)
    with _sharing:
        if id(thing) in _sharing.written:
            _, description = _sharing.written[id(thing)]
            description.setdefault("shared_object_id", 1 + list(_sharing.written).index(id(thing)))
            return dict(description)
        description = _describe(thing)
        if thing.kind == "layer":
            _sharing.written[id(thing)] = thing, description
        return description


def _describe(thing: Configurable) -> dict[str, Any]:
    name, cls = thing.registered_name or None, type(thing)
    known = CLASSES.get(thing.kind, {}).get(name or cls.__name__)
    if known is not None and known is not cls and _is_ours(known):
        raise ArgumentError(
            f"the class {cls.__name__} has the name of one of this library, so a file could not tell them apart",
            hint="decorate it with @hl.register_serializable(), or call it otherwise",
        )
    return {
        "module": f"highlevel.{thing.kind}",
        "class_name": type(thing).__name__,
        "config": thing.get_config(),
        "registered_name": name,
    }


def to_data(value: Any) -> Any:
    """Constructor arguments as JSON-able data."""
    if isinstance(value, Configurable):
        return serialize(value)
    if isinstance(value, (bool, int, float, str, type(None))):
        return value
    if isinstance(value, (list, tuple)):
        return [to_data(item) for item in value]
    if isinstance(value, dict):
        return {str(key): to_data(item) for key, item in value.items()}
    if isinstance(value, np.generic):
        return value.item()
    if hasattr(value, "__array__"):
        array = np.asarray(value)
        return {"class_name": "__numpy__", "config": {"value": array.tolist(), "dtype": array.dtype.name}}
    if hasattr(value, "name") and (hasattr(value, "size_bytes") or hasattr(value, "compute_dtype")):
        return value.name  # a data type or a policy of them
    if callable(value):
        return _function_name(value)
    raise ArgumentError(
        "cannot describe this argument as data",
        got=type(value).__name__,
        expected="numbers, strings, lists, registered objects",
    )


def _function_name(function: Callable[..., Any]) -> Any:
    registered = getattr(function, "registered_name", None)
    name = str(registered or getattr(function, "__name__", ""))
    if any(functions.get(name) is function for functions in FUNCTIONS.values()):
        return name if registered is None else {"class_name": "__function__", "config": name}
    raise ArgumentError(
        f"the function {name or function!r} is not registered, so a file could not name it",
        hint="decorate it with @hl.register_serializable()",
    )


def from_data(value: Any) -> Any:
    """Nested descriptions made into objects; everything else as it is."""
    if isinstance(value, dict):
        if value.get("class_name") == "__numpy__":
            return np.array(value["config"]["value"], dtype=value["config"]["dtype"])
        if value.get("class_name") == "__function__":
            return _lookup(FUNCTIONS.get("custom", {}), value["config"], "function")
        if "class_name" in value and "config" in value:
            return deserialize(value)
        return {key: from_data(item) for key, item in value.items()}
    return [from_data(item) for item in value] if isinstance(value, list) else value


def _lookup(known: Mapping[str, Any], name: str, what: str) -> Any:
    if name in known:
        return known[name]
    raise ArgumentError(
        f"the description names an unknown {what}: {name!r}",
        expected=f"a {what} of this library, or one registered with @hl.register_serializable()",
        hint=did_you_mean(name, known),
    )


def deserialize(
    description: Mapping[str, Any], kind: str | None = None, custom_objects: Mapping[str, Any] | None = None
) -> Any:
    """The object that a description means. Classes are looked up by name in the registry, never imported."""
    name = description["class_name"]
    module = str(description.get("module") or "").rpartition(".")[2]  # "layer" here, "layers" in Keras's files
    families = [kind] if kind else [family for family in CLASSES if module in (family, f"{family}s", f"{family}es")]
    known: dict[str, type] = {}
    for family in families or CLASSES:
        known.update(CLASSES.get(family, {}))
    known.update(custom_objects or {})
    registered = description.get("registered_name")
    if registered in known or (registered and ">" in registered and name not in (custom_objects or {})):
        name = registered  # a class of a user is that class or none, whatever else has its name
    cls = _lookup(known, name, kind or "class")
    number = description.get("shared_object_id")
    number = number if isinstance(number, int) else None
    with _sharing:
        found = None if number is None else _sharing.read.get(number)
        if type(found) is not cls:
            found = cls.from_config(description.get("config", {}))
        if number is not None:
            _sharing.read[number] = found
        return found
