"""Which stored rows are which tensor of ours: names, prefixes, and matrices that are fused."""

# a path is a tensor's name without its last part: ``model.layers.3.self_attn.q_proj``

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from edgellm.checkpoint.dialects.config_values import head_dim_of
from edgellm.checkpoint.dialects.families import (
    DIALECTS,
    VALUE_HEAD,
    Dialect,
    factors,
    in_llamas_words,
    row_counts,
)
from edgellm.checkpoint.dialects.wrappers import OTHER_PARTS, WRAPPERS, text_part
from edgellm.errors import FormatError
from edgellm.files.strict_json import quoted

OUR_PREFIX = "model."
PREFIXES = ("model.", "", "language_model.model.", "model.language_model.")
"""What stands before ``layers.0``: ours; nothing where a model was saved without its head; and the
two ways of models that see, of which the language model is a part."""

SAVED_BY = ("", "_orig_mod.", "module.", "base_model.model.", "model.")
"""What stands before all of that where a model was saved out of torch.compile, out of a wrapper for
several processors, out of PEFT, or as a part of another module."""

EMBEDDING, HEAD = "model.embed_tokens", "lm_head"
HEADS = ("lm_head.", "language_model.lm_head.")
INNER = ("embed_tokens.", "layers.", "norm.")
ROTATED = ("self_attn.q_proj", "self_attn.k_proj")
BLOCKS = ("quantization", "quantization_config")

Shapes = Mapping[str, tuple[int, ...]]
"""Shapes of tensors by their stored names."""


@dataclass(frozen=True, slots=True)
class StoredRows:
    """Rows of a stored tensor that make one of ours.

    Attributes:
        name: the name of the stored tensor.
        start: the first row.
        stop: the row behind the last; None: all of them.
        factor: what their numbers are multiplied by.
        head_dim: rows of a head whose halves lie as pairs; None: they lie as ours do.
    """

    name: str
    start: int = 0
    stop: int | None = None
    factor: float = 1.0
    head_dim: int | None = None

    @property
    def lie_as_ours(self) -> bool:
        """Whether the stored bytes are ours, and nothing has to be computed."""
        return self.factor == 1.0 and self.head_dim is None


@dataclass(frozen=True, slots=True)
class Spelling:
    """A model in LLaMA's words.

    Attributes:
        config: as LLaMA, or the family that it runs as, would say it.
        tensors: what each of our tensors is made of, by our names.
        called: what each stored tensor would be called in a model of its family alone.
    """

    config: dict[str, Any]
    tensors: Mapping[str, StoredRows]
    called: Mapping[str, str]


def spelled(config: Mapping[str, Any], shapes: Shapes) -> Spelling:
    """Return a model's config and tensors in LLaMA's words; no weight is looked at.

    Raises:
        FormatError: a tensor or a number is not what the config says.
        UnsupportedModelError: a model of a known family that does what edgellm does not.
    """
    stored = said = text_part(config)
    family = str(said.get("model_type"))
    dialect = DIALECTS.get(family, Dialect())
    if family in DIALECTS:
        said = in_llamas_words(said, dialect)
    tensors: dict[str, StoredRows] = {}
    paths: dict[str, list[str]] = {}
    called: dict[str, str] = {}
    for name, rows in _renamed(shapes, is_wrapper=str(config.get("model_type")) in WRAPPERS):
        called[rows.name] = name
        for ours, part in _split(name, rows, shapes[rows.name], dialect, said):
            if ours in tensors:
                raise FormatError(
                    f"tensors {quoted(tensors[ours].name)} and {quoted(rows.name)} mean the same",
                    hint="take the model as its makers publish it",
                )
            tensors[ours] = part
            paths.setdefault(_path(rows.name), []).append(_path(ours))
    if said.get("tie_word_embeddings") is True and f"{EMBEDDING}.weight" not in tensors:
        # of two matrices that are one, some save the head
        tensors = {
            f"{EMBEDDING}{name.removeprefix(HEAD)}" if _path(name) == HEAD else name: rows
            for name, rows in tensors.items()
        }
        paths |= {stored: [EMBEDDING] for stored, ours in paths.items() if ours == [HEAD]}
    if dialect.pairs:
        head_dim = head_dim_of(said)
        tensors = {
            name: replace(rows, head_dim=head_dim) if _path(name).endswith(ROTATED) else rows
            for name, rows in tensors.items()
        }
    if dialect.multiplied:
        by_path = factors(stored, own_head="lm_head.weight" in tensors)
        tensors = {name: _multiplied(name, rows, by_path) for name, rows in tensors.items()}
    return Spelling(_respelled_exceptions(said, paths), tensors, called)


def fused_path(path: str, family: object) -> str:
    """Return the path of the matrix in whose rows a family's files hold one of ours.

    It mostly is our own.
    """
    dialect = DIALECTS.get(family) if isinstance(family, str) else None
    if dialect is not None:
        for whole, members in dialect.made_of.items():
            for member in members:
                if path.endswith(f".{member}"):
                    return path.removesuffix(member) + whole
    return path


def has_fused_layers(config: Mapping[str, Any]) -> bool:
    """Return whether a family's files hold several of a layer's matrices in one."""
    family = text_part(config).get("model_type")
    return isinstance(family, str) and family in DIALECTS and bool(DIALECTS[family].made_of)


def _path(name: str) -> str:
    return name.rpartition(".")[0]


def _renamed(shapes: Shapes, *, is_wrapper: bool) -> Iterable[tuple[str, StoredRows]]:
    """Yield our name of each stored tensor, without those that no text goes through."""
    outer, prefix = "", OUR_PREFIX
    for candidate in product(SAVED_BY, PREFIXES):
        if f"{''.join(candidate)}embed_tokens.weight" in shapes:
            outer, prefix = candidate
            break
    unused: tuple[str, ...] = (VALUE_HEAD,)
    if is_wrapper:
        unused += OTHER_PARTS
    for name in shapes:
        ours = name.removeprefix(outer)
        if ours.startswith(tuple(prefix + inner for inner in INNER)):
            ours = OUR_PREFIX + ours.removeprefix(prefix)
        elif ours.startswith(HEADS):
            ours = ours.removeprefix("language_model.")
        elif ours.removeprefix(OUR_PREFIX).startswith(unused):
            continue
        yield ours, StoredRows(name)


def _split(
    name: str, rows: StoredRows, shape: tuple[int, ...], dialect: Dialect, config: Mapping[str, Any]
) -> Iterable[tuple[str, StoredRows]]:
    """Yield the tensors of ours that lie in a stored one: mostly itself."""
    path, _, part = name.rpartition(".")
    _, _, inner = path.removeprefix(OUR_PREFIX + "layers.").partition(".")
    members = dialect.made_of.get(inner)
    if members is None:
        yield name, rows
        return
    counts = row_counts(config)
    if shape[:1] != (sum(counts[member] for member in members),):
        raise FormatError(
            f"tensor {quoted(rows.name)} has the shape {shape}; "
            f"it should have {sum(counts[member] for member in members)} rows",
            hint="download the model again: its config.json may be another model's",
        )
    start = 0
    for member in members:
        stop = start + counts[member]
        yield f"{path.removesuffix(inner)}{member}.{part}", replace(rows, start=start, stop=stop)
        start = stop


def _multiplied(name: str, rows: StoredRows, by_path: Mapping[str, float]) -> StoredRows:
    for end, factor in by_path.items():
        if _path(name).endswith(end):
            return replace(rows, factor=factor)
    return rows


def _respelled_exceptions(config: dict[str, Any], paths: Mapping[str, list[str]]) -> dict[str, Any]:
    """Return a config whose exceptions of quantization are under our paths."""
    for key in BLOCKS:
        block = config.get(key)
        if isinstance(block, Mapping):
            config[key] = {
                ours: value for path, value in block.items() for ours in paths.get(path, [path])
            }
    return config
