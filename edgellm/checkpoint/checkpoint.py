"""A folder's weights, checked against its config and laid out: what each layer needs read, and how it is stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgellm.checkpoint.buffer import BufferLayout, Extent, place_tensors
from edgellm.checkpoint.folder import ModelFolder, TensorInfo, open_folder
from edgellm.checkpoint.model_config import ModelConfig, token_ids
from edgellm.checkpoint.quantization import FLOATS, Quantization, stored_quantization
from edgellm.errors import FormatError, UnsupportedModelError


@dataclass(frozen=True, slots=True)
class TensorGroup:
    """Tensors that are read together: a layer, or one of the parts outside the layers."""

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
    """All that is known of a model before a weight is read."""

    folder: ModelFolder
    config: ModelConfig
    layers: tuple[TensorGroup, ...]
    embed_tokens: TensorGroup
    norm: TensorGroup
    lm_head: TensorGroup | None
    """None where the embedding serves as head."""

    dtype: str
    """The type of the unquantized tensors, by the format's code."""

    eos_token_ids: frozenset[int]

    @property
    def output_matrix(self) -> TensorGroup:
        """The matrix that makes logits: ``lm_head``, or the embedding that serves as it."""
        return self.lm_head or self.embed_tokens

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
    def token_weight_bytes(self) -> int:
        """Bytes of the weights that one token goes through: all but the embedding's other rows."""
        layer_bytes = sum(layer.nbytes for layer in self.layers)
        return layer_bytes + self.norm.nbytes + self.output_matrix.nbytes


def read_checkpoint(path: Path) -> Checkpoint:
    """Look a model folder through.

    Raises:
        ModelNotFoundError, FormatError, UnsupportedModelError, ReadError: as ``store.open_folder``;
        a tensor is missing or has another type or shape than the config says.
    """
    return checkpoint_of(open_folder(path))


def checkpoint_of(folder: ModelFolder) -> Checkpoint:
    """Check a folder's tensors against its config, and lay them out."""
    raw = dict(folder.config)
    if raw.get("tie_word_embeddings") is None and "lm_head.weight" not in folder.tensors:
        raw["tie_word_embeddings"] = True  # no head and nothing said: mlx-lm writes folders so
    config = ModelConfig.from_dict(raw)
    shapes = config.tensor_shapes()
    layers = tuple(
        _part(folder, f"model.layers.{index}.", shapes) for index in range(config.num_hidden_layers)
    )
    outer = {
        name: _part(folder, name.removesuffix("weight"), {"weight": shape})
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
        eos_token_ids=config.eos_token_ids
        | token_ids(folder.generation_config.get("eos_token_id")),
    )


def _part(folder: ModelFolder, prefix: str, shapes: Mapping[str, tuple[int, ...]]) -> TensorGroup:
    """The tensors under ``prefix`` that the config asks for; others in the folder are left alone."""
    wanted: dict[str, TensorInfo] = {}
    quantizations: dict[str, Quantization | None] = {}
    for name, shape in shapes.items():
        base = name.removesuffix("weight").rstrip(".")
        stem = f"{prefix}{base}." if base else prefix
        if name.endswith("weight") and len(shape) == 2:
            parts = {
                part: folder.tensors[stem + part]
                for part in ("weight", "scales", "biases")
                if stem + part in folder.tensors
            }
            form = stored_quantization(folder.config, stem.rstrip("."), parts, (shape[0], shape[1]))
            quantizations[base] = form
            wanted |= {f"{base}.{part}".lstrip("."): tensor for part, tensor in parts.items()}
        else:
            wanted[name] = _vector(folder, prefix + name, shape)
    for name, tensor in wanted.items():
        if tensor.dtype == "F64":
            raise UnsupportedModelError(
                f"{prefix}{name} is stored as F64",
                hint="convert the model: edgellm convert SOURCE DEST",
            )
    layout, extents = place_tensors(wanted)
    return TensorGroup(layout, extents, quantizations, wanted)


def _vector(folder: ModelFolder, name: str, shape: tuple[int, ...]) -> TensorInfo:
    tensor = folder.tensors.get(name)
    if tensor is None:
        raise FormatError(f"tensor {name} is missing", hint="download or convert the model again")
    if tensor.shape != shape or tensor.dtype not in FLOATS:
        raise FormatError(
            f"tensor {name} is {tensor.dtype} {tensor.shape}; the config needs {shape} in one of {', '.join(FLOATS)}"
        )
    return tensor
