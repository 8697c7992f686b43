"""An adapter in LLaMA's words: its changes as those of the matrices that the model becomes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from edgellm.checkpoint.dialects.names import PREFIXES, Spelling, StoredRows
from edgellm.converters.lora.changes import Adapter, Replacement, TokenRows
from edgellm.converters.lora.peft_config import EMBEDDING

Parts = list[tuple[str, StoredRows]]
"""Names of ours, each with the rows of a stored tensor that it is."""

HEAD = "lm_head.weight"
SEEING = tuple(prefix for prefix in PREFIXES if "language_model." in prefix)


def in_our_words(adapter: Adapter, spelling: Spelling) -> Adapter:
    """Return the changes of a family's tensors as those of ours.

    They are taken apart, ordered and multiplied as the tensors are. What the model does not have
    under such a name stays as it is.

    Args:
        adapter: as it is stored.
        spelling: of its base.
    """
    index: dict[str, Parts] = {}
    for ours, rows in spelling.tensors.items():
        for name in {rows.name, spelling.called[rows.name]}:
            index.setdefault(name, []).append((ours, rows))
    for ours, rows in spelling.tensors.items():
        # mlx-lm takes some matrices apart itself, and multiplies outside of them
        index.setdefault(ours, [(ours, replace(rows, start=0, stop=None))])
    embedding = spelling.tensors.get(f"{EMBEDDING}.weight")
    if embedding is not None:
        # the head of a model that has none is the embedding
        index.setdefault(HEAD, [(HEAD, embedding)])

    def parts(name: str) -> Iterator[tuple[str, StoredRows]]:
        for prefix in SEEING:
            if name.startswith(prefix):
                name = f"model.{name.removeprefix(prefix)}"
        name = name.removeprefix("language_model.")
        yield from index.get(name, [(name, StoredRows(name))])

    def paths(path: str) -> Iterator[tuple[str, StoredRows]]:
        for ours, rows in parts(f"{path}.weight"):
            yield ours.removesuffix(".weight"), rows

    return replace(
        adapter,
        changes={
            ours: replace(change, part=rows)
            for path, change in adapter.changes.items()
            for ours, rows in paths(path)
        },
        replacements={
            ours: Replacement(brought.tensor, rows)
            for name, brought in adapter.replacements.items()
            for ours, rows in parts(name)
        },
        saved_bases=frozenset(ours for name in adapter.saved_bases for ours, _ in parts(name)),
        token_rows={
            ours: TokenRows(brought.ids, brought.tensor, rows.factor)
            for path, brought in adapter.token_rows.items()
            for ours, rows in paths(path)
        },
    )
