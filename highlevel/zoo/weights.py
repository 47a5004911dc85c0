"""Where weights lie: in the library's own folder, or in an installed package. Always checked by hash."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from highlevel.errors import FormatError, WeightsError


def home() -> Path:
    """The folder for weights: $HIGHLEVEL_HOME/zoo, by default ~/.highlevel/zoo."""
    return Path(os.environ.get("HIGHLEVEL_HOME", "~/.highlevel")).expanduser() / "zoo"


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """A file of weights.

    file, sha256, size_bytes: what it is
    package, inside:          an installable package that ships it, and the path inside of it
    num_classes, license, top1: what it was trained for, under which terms, and how well
    """

    file: str
    sha256: str
    size_bytes: int
    num_classes: int
    license: str
    package: str | None = None
    inside: str | None = None
    top1: float | None = None

    def locate(self) -> Path:
        """The path of the file, checked; an error says where it could come from."""
        found = next((path for path in self.places() if path.is_file()), None)
        if found is None:
            raise WeightsError(
                f"the weights {self.file} are not on this machine",
                got=f"nothing at {', '.join(map(str, self.places()))}",
                expected=f"{self.size_bytes:,} bytes, sha256 {self.sha256[:16]}…",
                hint=self.source,
            )
        check_hash(found, self.sha256)
        return found

    def places(self) -> list[Path]:
        """Where the file may be, in the order of looking."""
        places = [home() / self.file]
        if self.package is not None and self.inside is not None:
            spec = find_spec(self.package)
            if spec is not None and spec.origin is not None:
                places.append(Path(spec.origin).parent / self.inside)
        return places

    @property
    def source(self) -> str:
        """How to get the file."""
        return f"pip install {self.package.replace('_', '-')}" if self.package else f"put the file into {home()}"

    @property
    def available(self) -> bool:
        return any(path.is_file() for path in self.places())


def check_hash(path: Path, sha256: str) -> None:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    if digest.hexdigest() != sha256:
        raise FormatError(
            f"{path} is not the file that it should be",
            got=f"sha256 {digest.hexdigest()[:16]}…",
            expected=f"sha256 {sha256[:16]}…",
            hint="it is damaged or has been replaced; remove it and install it again",
        )
