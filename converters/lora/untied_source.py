"""A model whose head is its embedding, shown with a head of its own that begins as the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgellm.checkpoint.quantization import QUANTIZED_PARTS, Quantization
from edgellm.converters.tensors.source import Bytes, DerivedSource, Source, SourceTensor

EMBEDDING = "model.embed_tokens"
HEAD = "lm_head"


class UntiedSource(DerivedSource):
    """A source that ties its head to the embedding, untied: the head's rows are the embedding's."""

    def __init__(self, base: Source) -> None:
        super().__init__(base)
        self.config = _untied(base.config)
        self.notes = [
            *base.notes,
            "the adapter changes the embedding or the head alone, which were one: "
            "the head is stored for itself",
        ]
        self.tensors: dict[str, SourceTensor] = dict(base.tensors)
        self._copied: dict[str, str] = {}
        for part in QUANTIZED_PARTS:
            self.tensors.pop(f"{HEAD}.{part}", None)  # which the config does not account for
            name = f"{EMBEDDING}.{part}"
            if name in base.tensors:
                self.tensors[f"{HEAD}.{part}"] = base.tensors[name]
                self._copied[f"{HEAD}.{part}"] = name
        self.forms: dict[str, Quantization] = dict(base.forms)
        if EMBEDDING in base.forms:
            self.forms[HEAD] = base.forms[EMBEDDING]

    def rows(self, name: str, start: int, stop: int) -> Bytes:
        """Read the bytes of some rows; the head's are the embedding's."""
        return self._base.rows(self._copied.get(name, name), start, stop)


def _untied(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config with a head of its own, quantized as the embedding is."""
    changed = dict(config) | {"tie_word_embeddings": False}
    for key in ("quantization", "quantization_config"):
        block = changed.get(key)
        if isinstance(block, Mapping) and EMBEDDING in block:
            changed[key] = {**block, HEAD: block[EMBEDDING]}
    return changed
