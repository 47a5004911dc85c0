"""Units that are known by what they were made from.

Writing the text of a unit costs as much as finding its machine code in the cache. So the key of a described unit is a
hash of a description – a plan, which decides every instruction – and of the sources that turn it into text; the text
itself is only written when it has to be compiled.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path

from ..cache import Unit
from ..codegen.targets import Target


class Described(Unit):
    """A unit whose text is written when somebody asks for it.

    description: what decides the text, together with `sources`
    write:       gives the text
    """

    __slots__ = ("_text", "_write")
    _text: str | None
    _write: Callable[[], str]

    def __init__(
        self, description: str, sources: str, write: Callable[[], str], target: Target, level: int = 0
    ) -> None:
        base = Unit(f"{sources}\0{description}", target, level)
        for name, value in (
            ("target", target),
            ("level", level),
            ("key", base.key),
            ("_write", write),
            ("_text", None),
        ):
            object.__setattr__(self, name, value)

    @property
    def text(self) -> str:
        """The IR."""
        text = self._text
        if text is None:
            text = self._write()
            object.__setattr__(self, "_text", text)
        return text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Unit) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        return f"Described({self.symbol})"


@functools.cache
def sources_of(*folders: str) -> str:
    """A hash of all sources in folders beside this one, so that other code writes other units."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted((Path(__file__).parent.parent / folder).glob("*.py")):
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()
