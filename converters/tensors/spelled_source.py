"""A source in LLaMA's words: fused matrices apart, heads' rows in our order, factors inside."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from edgellm.checkpoint.dialects.names import Spelling, StoredRows, spelled
from edgellm.checkpoint.quantization import FLOATS, QUANTIZED_PARTS
from edgellm.console.units import plural
from edgellm.converters.tensors.floats import floats, stored
from edgellm.converters.tensors.rope_permutation import halves_from_pairs
from edgellm.converters.tensors.source import (
    Bytes,
    DerivedSource,
    ReadRows,
    Source,
    SourceTensor,
    have_same_rows,
)
from edgellm.errors import UnsupportedModelError


class SpelledSource(DerivedSource):
    """A source whose family is LLaMA under another name, or whose tensors are called otherwise.

    Any other source is shown as it is, but for a tied head that is stored all the same.

    Raises:
        FormatError: a tensor or a number is not what the config says.
        UnsupportedModelError: the model does what edgellm does not.
    """

    def __init__(self, base: Source) -> None:
        super().__init__(base)
        shapes = {name: tensor.shape for name, tensor in base.tensors.items()}
        spelling = spelled(base.config, shapes)
        self.spelling = spelling
        self._rows = spelling.tensors
        self.config = spelling.config
        self.tensors = {
            name: _shown(name, base.tensors[rows.name], rows)
            for name, rows in spelling.tensors.items()
        }
        by_stored_path = {
            name.rpartition(".")[0]: base.forms.get(rows.name.rpartition(".")[0])
            for name, rows in spelling.tensors.items()
        }
        self.forms = {path: form for path, form in by_stored_path.items() if form is not None}
        self.notes = [*base.notes, *_notes(base, spelling)]
        if self.config.get("tie_word_embeddings") is True and "lm_head.weight" in self.tensors:
            self._settle_head()

    def _settle_head(self) -> None:
        """Leave a tied head out that is the embedding again; untie another one.

        That one is the head, as it is to transformers 5, whatever the config says.
        """
        if _are_the_same(self, "lm_head", "model.embed_tokens"):
            self.tensors = {
                name: tensor
                for name, tensor in self.tensors.items()
                if not name.startswith("lm_head.")
            }
            return
        self.config = {**self.config, "tie_word_embeddings": False}
        self.notes = [
            *self.notes,
            "the config ties the head to the embedding, and another head is stored: "
            "that one is taken, and the new config says so",
        ]

    def rows(self, name: str, start: int, stop: int) -> Bytes:
        """Return the bytes of some rows, moved and multiplied as the family asks for."""
        rows = self._rows[name]

        content = read_in_our_order(partial(self._base.rows, rows.name), rows, start, stop)
        dtype = self._base.tensors[rows.name].dtype
        if rows.factor == 1.0 or dtype not in FLOATS:
            return content
        multiplied = floats(content, dtype) * np.float32(rows.factor)
        return stored(multiplied, self.tensors[name].dtype)


def read_in_our_order(read: ReadRows, rows: StoredRows, start: int, stop: int) -> Bytes:
    """Return the bytes of some rows of a tensor of ours, not yet multiplied.

    Args:
        read: gives the bytes of stored rows, from one to another.
        rows: where the tensor lies in them.
        start: the first row of ours.
        stop: the row behind the last.
    """

    def read_part(first: int, last: int) -> Bytes:
        return read(rows.start + first, rows.start + last)

    if rows.head_dim is None:
        return read_part(start, stop)
    return halves_from_pairs(read_part, rows.head_dim, start, stop)


def _notes(base: Source, spelling: Spelling) -> list[str]:
    """Return which family the model becomes, and how much of it no text goes through."""
    notes = []
    family, becomes = base.config.get("model_type"), spelling.config.get("model_type")
    if family != becomes:
        notes.append(f"a {family} is written as a {becomes}, and the new config says so")
    used = {rows.name for rows in spelling.tensors.values()}
    unused = len(base.tensors.keys() - used)
    if unused:
        notes.append(f"{plural(unused, 'tensor')} that no text goes through left out")
    return notes


def _shown(name: str, tensor: SourceTensor, rows: StoredRows) -> SourceTensor:
    """Return type and shape of one of our tensors."""
    is_scale = name.endswith(".scales")
    if rows.factor != 1.0 and is_scale and tensor.dtype not in FLOATS:
        raise UnsupportedModelError(
            f"{name} is stored as {tensor.dtype}, and cannot be multiplied by the model's factor",
            hint="convert the unquantized model that it was made from",
        )
    if rows.factor != 1.0 and name.endswith(".weight") and tensor.dtype in FLOATS:
        # exact until the new folder's type rounds it, once
        tensor = replace(tensor, dtype="F32", becomes=tensor.usual_dtype)
    if rows.stop is None:
        return tensor
    return replace(tensor, shape=(rows.stop - rows.start, *tensor.shape[1:]))


def _are_the_same(source: Source, one: str, other: str) -> bool:
    """Return whether two matrices have the same bytes, by their paths."""
    for part in QUANTIZED_PARTS:
        first, second = f"{one}.{part}", f"{other}.{part}"
        tensor = source.tensors.get(first)
        if tensor != source.tensors.get(second):
            return False
        if tensor is None:
            continue
        if not have_same_rows(tensor, partial(source.rows, first), partial(source.rows, second)):
            return False
    return True
