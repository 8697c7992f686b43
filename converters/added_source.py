"""A difference of weights added to the model that it was taken from, as a source.

So Alpaca, Vicuna and others were published. Where the difference has more tokens than the base, its
makers had given the new rows of the base a value first: Alpaca's own program the mean of all others
(``weight_diff.py``), FastChat's first one zeros (``apply_delta.py``, to 0.1.10).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edgellm.checkpoint.quantization import FLOATS
from edgellm.console.units import plural
from edgellm.converters.tensors.floats import Floats, floats
from edgellm.converters.tensors.recipe import first_few
from edgellm.converters.tensors.source import Bytes, DerivedSource, Source, SourceTensor
from edgellm.converters.tensors.weight_stream import row_parts
from edgellm.errors import ConfigError, FormatError
from edgellm.setting_values import shown

MEAN, ZEROS = "mean", "zeros"
NEW_ROWS = (MEAN, ZEROS)
"""What a base is given in place of rows that only the difference has."""

NAME_BASE = "name the model that the difference was taken from with --add-to"
WITH_TOKENS = ("model.embed_tokens.weight", "lm_head.weight")
"""The matrices with a row a token."""

NUMBERS_THAT_AGREE = (
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
)
"""Which shapes alone do not tell."""


class AddedSource(DerivedSource):
    """A difference with its base added, in float32; config and tokenizer are the difference's.

    Args:
        difference: the weights to be added to the base's.
        base: the model that the difference was taken from.
        new_rows: what the base is given where it has fewer tokens.

    Raises:
        ConfigError: ``new_rows`` is neither.
        FormatError: the two do not have the same tensors, of the same shapes.
    """

    def __init__(self, difference: Source, base: Source, new_rows: str = MEAN) -> None:
        super().__init__(difference)
        if new_rows not in NEW_ROWS:
            raise ConfigError(
                f"new rows are {shown(new_rows)}",
                hint=f"choose one of {', '.join(NEW_ROWS)}",
            )
        self._added = base
        self._new_rows = new_rows
        added = _more_tokens(difference, base)
        self.tensors: Mapping[str, SourceTensor] = {
            name: SourceTensor("F32", tensor.shape, tensor.usual_dtype)
            for name, tensor in difference.tensors.items()
        }
        self.notes: Sequence[str] = [*difference.notes, *base.notes]
        if added:
            self.notes = [*self.notes, _note(added, new_rows)]
        self._means: dict[str, Floats] = {}

    @property
    def fingerprint(self) -> str:
        """Both sources', and what new rows are."""
        return f"{self._base.fingerprint}{self._added.fingerprint}{self._new_rows}"

    def rows(self, name: str, start: int, stop: int) -> Bytes:
        """Return the bytes of the sums of some rows, in float32. Raises ReadError."""
        total = _values(self._base, name, start, stop)
        shared = min(stop, self._added.tensors[name].rows)
        # what overflows becomes infinite, and is refused where it is written
        with np.errstate(over="ignore", invalid="ignore"):
            if start < shared:
                total[: shared - start] += _values(self._added, name, start, shared)
            if stop > shared and self._new_rows == MEAN:
                total[max(0, shared - start) :] += self._mean(name)
        return total.reshape(-1).view(np.uint8)

    def _mean(self, name: str) -> Floats:
        """Return the mean of the base's rows of a matrix; read once."""
        if name not in self._means:
            tensor = self._added.tensors[name]
            total = np.zeros(tensor.shape[1])
            for start, stop in row_parts(tensor.rows, tensor.shape[1]):
                total += _values(self._added, name, start, stop).sum(axis=0, dtype=np.float64)
            self._means[name] = (total / tensor.rows).astype(np.float32)
        return self._means[name]


def _values(source: Source, name: str, start: int, stop: int) -> Floats:
    """Read some rows in float32, shape (rows, ...), as an array of its own."""
    tensor = source.tensors[name]
    values = floats(source.rows(name, start, stop), tensor.dtype)
    return np.array(values.reshape(stop - start, *tensor.shape[1:]))


def _more_tokens(difference: Source, base: Source) -> int:
    """Return how many rows the difference's embedding has more. Raises FormatError."""
    for source, role in ((difference, "the difference"), (base, "the base")):
        packed = [name for name, tensor in source.tensors.items() if tensor.dtype not in FLOATS]
        if packed or source.forms:
            raise FormatError(
                f"{role} is quantized, and adding the difference needs the unquantized numbers",
                hint="name the unquantized model",
            )
    unequal = sorted(difference.tensors.keys() ^ base.tensors.keys())
    if unequal:
        raise FormatError(
            f"the difference and its base do not have the same tensors; only in one: "
            f"{first_few(unequal)}",
            hint=NAME_BASE,
        )
    for key in NUMBERS_THAT_AGREE:
        here, there = difference.config.get(key), base.config.get(key)
        if here is not None and there is not None and here != there:
            raise FormatError(
                f"the difference has the {key} {shown(here)}, its base {shown(there)}",
                hint=NAME_BASE,
            )
    more = 0
    for name, tensor in difference.tensors.items():
        shape = base.tensors[name].shape
        longer = name in WITH_TOKENS and tensor.rows > shape[0] and tensor.shape[1:] == shape[1:]
        if tensor.shape != shape and not longer:
            raise FormatError(
                f"{name} is {tensor.shape} in the difference, and {shape} in its base",
                hint=NAME_BASE,
            )
        more = max(more, tensor.rows - shape[0])
    return more


def _note(added: int, new_rows: str) -> str:
    """Return what becomes of the rows that only the difference has, in words."""
    said = "nothing is added to their rows, as in Vicuna's first version"
    if new_rows == MEAN:
        said = (
            "the mean of its rows is added to theirs, as in Alpaca "
            "(--new-rows zeros for Vicuna's first version)"
        )
    return f"the base lacks {plural(added, 'token')} of the difference: {said}"
