"""What layers with a vocabulary share: how tokens are counted, numbered, and kept.

The numbers of tokens: 0 is the mask (if there is a mask token, and numbers are the output); then come those of unknown
tokens, `num_oov_indices` of them; then the tokens, the most frequent first.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from highlevel import config as settings
from highlevel.errors import ArgumentError, FormatError
from highlevel.ir import Setting

from ..arguments import one_of, whole
from ..base import Layer
from .encoding import MODES, dense_only, mode_of
from .hashing import salt_of


class VocabularyLayer(Layer):
    """Base of layers with a vocabulary: given, or found by `adapt`. It is part of the layer's description."""

    version = Setting(0)  # programs are made for a vocabulary

    def __init__(
        self,
        *,
        max_tokens: int | None,
        num_oov_indices: int,
        mask_token: Any,
        oov_token: Any,
        vocabulary: Any,
        idf_weights: Any,
        invert: bool,
        output_mode: str,
        sparse: bool,
        pad_to_max_tokens: bool,
        oov_method: str,
        salt: Any,
        has_input_vocabulary: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.max_tokens = None if max_tokens is None else whole(self, max_tokens, "max_tokens", 2)
        if pad_to_max_tokens and max_tokens is None:
            raise ArgumentError(f"{self.name}: pad_to_max_tokens needs to know how many", expected="max_tokens=…")
        self.num_oov_indices = whole(self, num_oov_indices, "num_oov_indices", 0)
        self.mask_token = mask_token
        self.oov_token = oov_token
        self.output_mode = mode_of(self, output_mode, (*MODES, "tf_idf"))
        self.invert = invert
        if invert and self.output_mode != "int":
            raise ArgumentError(
                f"{self.name}: invert gives tokens", got=f"output_mode={output_mode!r}", expected='output_mode="int"'
            )
        self.sparse = dense_only(self, sparse)
        self.pad_to_max_tokens = pad_to_max_tokens
        self.oov_method = one_of(self, oov_method, "oov_method", ("floormod", "farmhash"))
        self.salt = salt_of(self, salt)
        self.tokens: tuple[Any, ...] = ()
        self.places: dict[Any, int] = {}
        self.idf: np.ndarray[Any, Any] | None = None  # of all numbers, the special ones too
        self._static = (vocabulary is not None) if has_input_vocabulary is None else bool(has_input_vocabulary)
        self.reset_state()
        if vocabulary is not None:
            self.set_vocabulary(vocabulary, idf_weights)
        elif idf_weights is not None:
            raise ArgumentError(f"{self.name}: weights of no tokens", expected="a vocabulary with idf_weights")

    # Description ------------------------------------------------------------------------------------------------------
    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, with the vocabulary as it is now."""
        found = {**super().get_config(), "vocabulary": None, "idf_weights": None}
        if self.tokens:
            weighted = self.output_mode == "tf_idf"
            tokens = self.get_vocabulary(include_special_tokens=weighted)
            found["vocabulary"] = tokens
            found["idf_weights"] = None if self.idf is None else self.idf[: len(tokens)].tolist()
            found["has_input_vocabulary"] = self._static
        return found

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Any:
        """The layer that `get_config` described. A description names no files."""
        known = {key: value for key, value in config.items() if key != "vocabulary_size"}
        if isinstance(known.get("vocabulary"), str):
            raise FormatError(
                f"{cls.__name__}: a description names a file, and that is not opened",
                got=f"vocabulary={known['vocabulary']!r}",
                expected="the tokens themselves",
                hint="build the layer in code, and load the weights",
            )
        return super().from_config(known)

    def assets(self) -> dict[str, bytes]:
        """The vocabulary as Keras's files hold it: a text with a token on each line."""
        return {"vocabulary.txt": "\n".join(map(str, self.get_vocabulary())).encode("utf-8")} if self.tokens else {}

    def load_assets(self, files: Mapping[str, bytes], idf_weights: Any = None) -> None:
        """Takes the vocabulary from such a text."""
        lines = files["vocabulary.txt"].decode("utf-8").split("\n")
        while lines and lines[-1] == "":
            lines.pop()
        self.set_vocabulary([self.token(line) for line in lines], idf_weights)

    # Numbers ----------------------------------------------------------------------------------------------------------
    @property
    def first_oov(self) -> int:
        """The first number of unknown tokens."""
        return 1 if self.mask_token is not None and self.output_mode == "int" else 0

    @property
    def first_token(self) -> int:
        """The number of the most frequent token."""
        return self.first_oov + self.num_oov_indices

    @property
    def depth(self) -> int:
        """The length of rows."""
        return int(self.max_tokens or 0) if self.pad_to_max_tokens else self.vocabulary_size()

    def vocabulary_size(self) -> int:
        """How many numbers there are, those of the mask and of unknown tokens counted."""
        return len(self.tokens) + self.first_token

    def token(self, value: Any) -> Any:
        """A token in the type that they all have."""
        raise NotImplementedError(f"{type(self).__name__} has no `token`")

    def get_vocabulary(self, include_special_tokens: bool = True) -> list[Any]:
        """The tokens in the order of their numbers."""
        special = [self.mask_token] * self.first_oov + [self.oov_token] * self.num_oov_indices
        return [*(special if include_special_tokens else ()), *self.tokens]

    def set_vocabulary(self, vocabulary: Any, idf_weights: Any = None) -> None:
        """Sets the tokens, with or without the special ones in front.

        vocabulary:  tokens in the order of their numbers, or the path of a text file with a token on each line
        idf_weights: for output_mode="tf_idf", the weight of each
        """
        if isinstance(vocabulary, (str, Path)):
            vocabulary = _read(self, Path(vocabulary))
        items = [self.token(item) for item in (vocabulary.tolist() if hasattr(vocabulary, "tolist") else vocabulary)]
        special = [self.mask_token] * self.first_oov + [self.oov_token] * self.num_oov_indices
        given = bool(special) and items[: len(special)] == special
        tokens = items[len(special) :] if given else items
        self._check(tokens)
        self.idf = self._weights(idf_weights, len(items), given) if self.output_mode == "tf_idf" else None
        if idf_weights is not None and self.output_mode != "tf_idf":
            raise ArgumentError(f"{self.name}: idf_weights are for output_mode='tf_idf'", got=self.output_mode)
        self.tokens = tuple(tokens)
        self.places = {token: place for place, token in enumerate(tokens, self.first_token)}
        self.version += 1

    def _check(self, tokens: Sequence[Any]) -> None:
        if not tokens:
            raise ArgumentError(f"{self.name}: the vocabulary is empty", expected="tokens")
        twice = [token for token, count in Counter(tokens).items() if count > 1]
        if twice:
            raise ArgumentError(f"{self.name}: tokens occur twice", got=f"{twice[:5]!r}", expected="each token once")
        reserved = [self.mask_token] + ([self.oov_token] if self.invert else [])
        for token in reserved:
            if token is not None and token in tokens:
                raise ArgumentError(
                    f"{self.name}: a special token is in the middle of the vocabulary",
                    got=repr(token),
                    expected="no special tokens, or all of them at the beginning: "
                    f"{[self.mask_token] * self.first_oov + [self.oov_token] * self.num_oov_indices}",
                )
        if self.max_tokens is not None and len(tokens) + self.first_token > self.max_tokens:
            raise ArgumentError(
                f"{self.name}: more tokens than max_tokens",
                got=f"{len(tokens)} tokens and {self.first_token} special ones",
                expected=f"at most {self.max_tokens}",
            )

    def _weights(self, given: Any, count: int, special: bool) -> np.ndarray[Any, Any]:
        """Weights of all numbers; unknown tokens get the mean, and what is padded 0."""
        if given is None or np.shape(given) != (count,):
            raise ArgumentError(
                f"{self.name}: each token has a weight",
                got=f"idf_weights of shape {np.shape(given)}" if given is not None else "idf_weights=None",
                expected=f"{count} numbers",
            )
        weights = np.asarray(given, settings.floatx())
        front = 0 if special else self.first_token
        back = self.depth_with(count + front) - front - count
        return np.concatenate([np.full(front, weights.mean()), weights, np.zeros(back)]).astype(weights.dtype)

    def depth_with(self, numbers: int) -> int:
        return max(int(self.max_tokens or 0), numbers) if self.pad_to_max_tokens else numbers

    # Finding it -------------------------------------------------------------------------------------------------------
    def documents(self, data: Any) -> Iterable[Sequence[Any]]:
        """The tokens of each document of a batch."""
        raise NotImplementedError(f"{type(self).__name__} has no `documents`")

    def adapt(self, data: Any, batch_size: int | None = None, steps: int | None = None) -> None:
        """Finds the vocabulary of an array, or of the batches of an iterable; what was known is forgotten."""
        self.reset_state()
        if isinstance(data, (str, bytes, list, tuple, np.ndarray)) or hasattr(data, "__array__"):
            self.update_state(data)
        else:
            for count, batch in enumerate(data):
                if steps is not None and count >= steps:
                    break
                self.update_state(batch[0] if isinstance(batch, tuple) and hasattr(batch, "_fields") else batch)
        self.finalize_state()

    def update_state(self, data: Any) -> None:
        """Counts the tokens of a batch."""
        if self._static:
            raise ArgumentError(
                f"{self.name}: the vocabulary is given", hint=f"{type(self).__name__}() without one finds it by adapt"
            )
        for document in self.documents(data):
            self._counts.update(document)
            self._document_counts.update(set(document))
            self._documents += 1

    def finalize_state(self) -> None:
        """Makes a vocabulary of what has been counted: the most frequent first, then by the alphabet backwards."""
        for special in (self.mask_token, self.oov_token):
            self._counts.pop(special, None)
        ranked = sorted(self._counts.items(), key=lambda item: (item[1], item[0]), reverse=True)
        if not ranked:
            raise ArgumentError(f"{self.name}: there are no tokens in the data", expected="an array, or batches")
        tokens = [token for token, _ in ranked]
        if self.max_tokens is not None:
            tokens = tokens[: self.max_tokens - self.first_token]
        weights = None
        if self.output_mode == "tf_idf":
            weights = [math.log(1 + self._documents / (1 + self._document_counts[token])) for token in tokens]
        self.set_vocabulary(tokens, weights)
        self.reset_state()

    def reset_state(self) -> None:
        """Forgets what has been counted; the vocabulary stays."""
        self._counts: Counter[Any] = Counter()
        self._document_counts: Counter[Any] = Counter()
        self._documents = 0

    def require_vocabulary(self) -> None:
        """Raises if there is no vocabulary yet."""
        if not self.tokens:
            raise ArgumentError(f"{self.name}: there is no vocabulary yet", hint="layer.adapt(data), or vocabulary=[…]")


def _read(layer: Layer, path: Path) -> list[str]:
    if not path.is_file():
        raise ArgumentError(f"{layer.name}: no such file", got=str(path), expected="a text with a token on each line")
    return path.read_text(encoding="utf-8").splitlines()
