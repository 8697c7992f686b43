"""A GGUF file's metadata, asked for by key and type."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgellm.errors import FormatError, TokenizerError, UnsupportedModelError
from edgellm.files.strict_json import quoted

OTHER_FILE = "take another file of the model, or convert the original model"


class Metadata(Mapping[str, Any]):
    """The values of a file by key: numbers, flags, texts, lists of texts, and NumPy arrays.

    Whatever is used is asked for by its type, as llama.cpp does. A value of another type is a
    FormatError, or a TokenizerError where it is the tokenizer's, that names the file, the key, and
    both types.
    """

    def __init__(self, file: Path, values: Mapping[str, Any]) -> None:
        self.file = file
        self._values = values

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def wrong(self, key: str, expected: str) -> FormatError | TokenizerError:
        """Return the error that says what a key's value is and what it must be."""
        found = "missing"
        if key in self:
            found = _described(self[key])
        message = f"{self.file}: {key} is {found}; it must be {expected}"
        if key.startswith("tokenizer."):
            return TokenizerError(message, hint=OTHER_FILE)
        return FormatError(message, hint=OTHER_FILE)

    def integer(self, key: str, default: int | None = None) -> int:
        """Return a whole number; without a default it must be there."""
        value = self.get(key, default)
        if type(value) is not int:
            raise self.wrong(key, "a whole number")
        return value

    def uniform_integer(self, key: str, default: int | None = None) -> int:
        """Return a whole number; a list of one for each layer must be the same number all over."""
        values = self.get(key)
        if not isinstance(values, np.ndarray) or values.dtype.kind not in "iu" or not values.size:
            return self.integer(key, default)
        if np.any(values != values[0]):
            raise UnsupportedModelError(
                f"{self.file}: {key} differs from layer to layer, which is not supported"
            )
        return int(values[0])

    def real(self, key: str, default: float) -> float:
        """Return a finite number that is stored as float32, in as few digits as name it."""
        value = self.get(key, default)
        if isinstance(value, int | float) and not isinstance(value, bool):
            number = shortest_float(float(value))
            if math.isfinite(number):
                return number
        raise self.wrong(key, "a finite number")

    def text(self, key: str) -> str | None:
        """Return a text; None: the file has none."""
        value = self.get(key)
        if value is not None and not isinstance(value, str):
            raise self.wrong(key, "a text")
        return value

    def flag(self, key: str, default: bool) -> bool:
        """Return a yes or no."""
        value = self.get(key, default)
        if not isinstance(value, bool):
            raise self.wrong(key, "true or false")
        return value

    def texts(self, key: str) -> list[str]:
        """Return an array of texts, which must be there."""
        value = self.get(key)
        if not isinstance(value, list):
            raise self.wrong(key, "an array of texts")
        return value

    def numbers(self, key: str, count: int, kinds: str) -> list[Any] | None:
        """Return an array of ``count`` numbers; None: the file has none.

        Args:
            key: whose.
            count: how many there must be.
            kinds: NumPy's letters for their types, ``iu`` or ``iuf``.
        """
        values = self.get(key)
        if values is None:
            return None
        is_array = isinstance(values, np.ndarray)
        if not is_array or values.dtype.kind not in kinds or len(values) != count:
            raise self.wrong(key, f"an array of {count} numbers, one for each token")
        numbers: list[Any] = values.tolist()
        return numbers


class ModelNumbers:
    """The numbers that metadata give for one architecture."""

    def __init__(self, metadata: Metadata, architecture: str) -> None:
        self.metadata = metadata
        self._architecture = architecture

    def key(self, name: str) -> str:
        """Return the whole key of a name: ``llama.block_count``."""
        return f"{self._architecture}.{name}"

    def integer(self, name: str, default: int | None = None) -> int:
        """Return a whole number; a list of one for each layer must be the same number all over."""
        return self.metadata.uniform_integer(self.key(name), default)

    def real(self, name: str, default: float) -> float:
        """Return a number that is stored as float32."""
        return self.metadata.real(self.key(name), default)


def shortest_float(value: float) -> float:
    """Return a float32 in as few digits as name it: 1e-05 where float64 says 9.99999974e-06."""
    with np.errstate(over="ignore"):
        return float(str(np.float32(value)))


def _described(value: Any) -> str:
    """Return a value's type, and itself where it is short."""
    if isinstance(value, np.ndarray):
        return f"an array of {len(value)} {value.dtype.name} values"
    if isinstance(value, list):
        return f"an array of {len(value)} texts"
    if isinstance(value, str):
        return f"the text {quoted(value)}"
    return f"the {type(value).__name__} {value}"
