"""A model folder checked against its config: what each layer reads, and how it is stored."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgellm.checkpoint.buffer import BufferLayout, Extent, place_tensors
from edgellm.checkpoint.dialects.config_values import listed_ids
from edgellm.checkpoint.dialects.names import spelled
from edgellm.checkpoint.folder import (
    DOWNLOAD_AGAIN,
    LAYER_NAME,
    LAYER_PREFIX,
    ModelFolder,
    open_folder,
)
from edgellm.checkpoint.model_config import ModelConfig
from edgellm.checkpoint.quantization import (
    QUANTIZED_PARTS,
    Quantization,
    require_unquantized,
    stored_quantization,
)
from edgellm.checkpoint.safetensors_file import TensorInfo, hold_the_same
from edgellm.console.units import plural
from edgellm.errors import FormatError, UnsupportedModelError


@dataclass(frozen=True, slots=True)
class TensorGroup:
    """Tensors that are read together: a layer, or one of the parts outside the layers.

    Attributes:
        layout: where they lie in a buffer.
        extents: what is read to there.
        quantizations: how each matrix is stored, by its name inside the group; that of a group
            which is one matrix is empty.
        tensors: by their names inside the group (``self_attn.q_proj.weight``, or ``weight``).
    """

    layout: BufferLayout
    extents: tuple[Extent, ...]
    quantizations: Mapping[str, Quantization | None]
    tensors: Mapping[str, TensorInfo]

    @property
    def nbytes(self) -> int:
        """Bytes that are read."""
        return sum(extent.nbytes for extent in self.extents)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model folder with all that is known before a weight is read.

    Attributes:
        folder: the files.
        config: the model's numbers.
        layers: tensors of each decoder layer.
        embed_tokens: of the token embedding.
        norm: of the final norm.
        lm_head: of the output matrix; None where the embedding serves as it.
        dtype: the type of the unquantized tensors, by the format's code.
        eos_token_ids: tokens that end a text.
    """

    folder: ModelFolder
    config: ModelConfig
    layers: tuple[TensorGroup, ...]
    embed_tokens: TensorGroup
    norm: TensorGroup
    lm_head: TensorGroup | None
    dtype: str
    eos_token_ids: frozenset[int]

    @property
    def output_matrix(self) -> TensorGroup:
        """The matrix that makes logits: ``lm_head``, or the embedding that serves as it."""
        return self.lm_head or self.embed_tokens

    def with_layers(self, numbers: Sequence[int]) -> Checkpoint:
        """Return the same model with some of its layers alone, in rising order."""
        layers = tuple(self.layers[number] for number in numbers)
        return replace(self, layers=layers, config=self.config.with_layers(numbers))

    @property
    def groups(self) -> list[TensorGroup]:
        """All tensors, as a token goes through them."""
        groups = [self.embed_tokens, *self.layers, self.norm]
        if self.lm_head is not None:
            groups.append(self.lm_head)
        return groups

    @property
    def nbytes(self) -> int:
        """Bytes of all weights."""
        return sum(group.nbytes for group in self.groups)

    @property
    def usual_bits(self) -> int:
        """Bits of most matrices of the layers; 16 stands for all that is not quantized."""
        forms = [form for layer in self.layers for form in layer.quantizations.values()]
        counts = Counter(form.bits if form else 16 for form in forms)
        return min(counts, key=lambda bits: (-counts[bits], bits))

    @property
    def token_weight_bytes(self) -> int:
        """Bytes of the weights that one token goes through: all but the embedding's other rows."""
        layer_bytes = sum(layer.nbytes for layer in self.layers)
        return layer_bytes + self.norm.nbytes + self.output_matrix.nbytes


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a model folder's config and headers, and check them.

    Raises:
        ModelNotFoundError, ReadError: as ``folder.open_folder``.
        FormatError: likewise; or a tensor is missing, or has another type or shape than the config
            says.
        UnsupportedModelError: the model is valid, but of a kind that edgellm does not run.
    """
    return checkpoint_of(open_folder(path))


def checkpoint_of(folder: ModelFolder) -> Checkpoint:
    """Check a folder's tensors against its config. Raises as ``read_checkpoint``."""
    folder = _in_llamas_words(folder)
    config = ModelConfig.from_dict(_head_as_stored(folder))
    _tell_of_further_layers(folder, config.num_hidden_layers)
    layer_shapes = config.tensor_shapes()
    layers = tuple(
        _group(folder, f"{LAYER_PREFIX}{index}.", layer_shapes)
        for index in range(config.num_hidden_layers)
    )
    outer = {
        name: _group(folder, name.removesuffix("weight"), {"weight": shape})
        for name, shape in config.outer_shapes().items()
    }
    norm = outer["model.norm.weight"]
    return Checkpoint(
        folder=folder,
        config=config,
        layers=layers,
        embed_tokens=outer["model.embed_tokens.weight"],
        norm=norm,
        lm_head=outer.get("lm_head.weight"),
        dtype=norm.tensors["weight"].dtype,
        eos_token_ids=end_tokens(folder, config.vocab_size),
    )


def end_tokens(folder: ModelFolder, vocab_size: int) -> frozenset[int]:
    """Return the tokens that end a text; an id that is none of the vocabulary's is said."""
    ends: set[int] = set()
    for raw in (folder.config, folder.generation_config):
        for token in listed_ids(raw.get("eos_token_id")):
            if 0 <= token < vocab_size:
                ends.add(token)
                continue
            warnings.warn(
                f"eos_token_id is {token}, and the vocabulary has {vocab_size} tokens: "
                "taken as none",
                UserWarning,
                stacklevel=3,
            )
    return frozenset(ends)


def _tell_of_further_layers(folder: ModelFolder, count: int) -> None:
    """Warn of layers that are stored past the last one: transformers leaves them out, too."""
    indices = {int(found[1]) for found in map(LAYER_NAME.match, folder.tensors) if found}
    further = [index for index in indices if index >= count]
    if further:
        layers = plural(len(further), "layer")
        warnings.warn(
            f"the files have {layers} that the config does not count: left out",
            UserWarning,
            stacklevel=3,
        )


def _in_llamas_words(folder: ModelFolder) -> ModelFolder:
    """Return a folder with config and tensors called as LLaMA's, fused matrices taken apart.

    Raises UnsupportedModelError where that needs weights to be computed.
    """
    spelling = spelled(folder.config, {name: item.shape for name, item in folder.tensors.items()})
    if not all(rows.lie_as_ours for rows in spelling.tensors.values()):
        raise UnsupportedModelError(
            f"weights of models of type {folder.config.get('model_type')} "
            "have to be converted before they run",
            hint="convert the model first: edgellm convert SOURCE DEST",
        )
    tensors = {
        name: folder.tensors[rows.name].part(name, rows.start, rows.stop)
        for name, rows in spelling.tensors.items()
    }
    return replace(folder, config=spelling.config, tensors=tensors)


def _head_as_stored(folder: ModelFolder) -> dict[str, Any]:
    """Return a folder's config with the head tied or not, as its tensors have it.

    Where the config ties the head and another one is stored, that one is the head, as it is to
    transformers 5. In a repository that is not here yet, a head that is stored counts.
    """
    raw = dict(folder.config)
    head = {part: folder.tensors.get(f"lm_head.{part}") for part in QUANTIZED_PARTS}
    if head["weight"] is None:
        # no output matrix and nothing said: mlx-lm writes folders so
        if raw.get("tie_word_embeddings") is None:
            raw["tie_word_embeddings"] = True
        return raw
    if raw.get("tie_word_embeddings") is True:
        raw["tie_word_embeddings"] = folder.path.is_dir() and all(
            _same(tensor, folder.tensors.get(f"model.embed_tokens.{part}"))
            for part, tensor in head.items()
        )
    return raw


def _same(one: TensorInfo | None, other: TensorInfo | None) -> bool:
    if one is None or other is None:
        return one is other
    return hold_the_same(one, other)


def _group(folder: ModelFolder, prefix: str, shapes: Mapping[str, tuple[int, ...]]) -> TensorGroup:
    """Return the tensors under ``prefix`` that the config asks for; others are left alone."""
    tensors: dict[str, TensorInfo] = {}
    quantizations: dict[str, Quantization | None] = {}
    for name, shape in shapes.items():
        if name.endswith("weight") and len(shape) == 2:
            # "self_attn.q_proj.weight" -> "self_attn.q_proj.", and "weight" -> ""
            stem = name.removesuffix("weight")
            parts = {
                part: folder.tensors[f"{prefix}{stem}{part}"]
                for part in QUANTIZED_PARTS
                if f"{prefix}{stem}{part}" in folder.tensors
            }
            path = f"{prefix}{stem}".rstrip(".")
            quantizations[stem.rstrip(".")] = stored_quantization(
                folder.config, path, parts, (shape[0], shape[1])
            )
            tensors |= {f"{stem}{part}": tensor for part, tensor in parts.items()}
        else:
            tensors[name] = _vector(folder, prefix + name, shape)
    layout, extents = place_tensors(tensors)
    return TensorGroup(layout, extents, quantizations, tensors)


def _vector(folder: ModelFolder, name: str, shape: tuple[int, ...]) -> TensorInfo:
    """Return a norm's weight or a bias, once it is what the config needs."""
    tensor = folder.tensors.get(name)
    if tensor is None:
        raise FormatError(f"tensor {name} is missing", hint=DOWNLOAD_AGAIN)
    require_unquantized(name, tensor.dtype, tensor.shape, shape)
    return tensor
