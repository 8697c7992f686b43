"""LoRA adapters as they are found: PEFT's and mlx-lm's, read as changes of a model's matrices."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgellm.checkpoint.folder import inside
from edgellm.checkpoint.quantization import FLOATS
from edgellm.checkpoint.safetensors_file import read_header
from edgellm.converters.huggingface.torch_file import TorchTensor, read_rows, read_torch_file
from edgellm.converters.tensors.floats import Floats, floats
from edgellm.errors import FormatError, ModelNotFoundError, UnsupportedModelError
from edgellm.files.strict_json import read_json, shown

ADAPTER_CONFIG = "adapter_config.json"
NAME_FOLDER = f"name the folder that holds {ADAPTER_CONFIG}"
PEFT_FILES = ("adapter_model.safetensors", "adapter_model.bin")
MLX_FILE = "adapters.safetensors"

PEFT_NAME = re.compile(
    r"(?:base_model\.model\.)?(.+)\.(lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector)(?:\.default)?(?:\.weight)?"
)
PEFT_WHOLE = re.compile(
    r"(?:base_model\.model\.)?(.+?)(?:\.modules_to_save(?:\.default)?|\.base_layer)?\.(weight|bias)"
)
MLX_NAME = re.compile(r"(.+)\.(lora_a|lora_b|m)")

CHANGED_BASES = ("pissa", "olora", "corda", "loftq")
"""Ways to begin that also change the base, which then no longer is the one that everybody has."""


@dataclass(frozen=True, slots=True)
class LowRank:
    """A matrix's change, ``scale * up @ down``, and with DoRA the length that each row has afterwards.

    ``up`` is (rows, rank) and ``down`` (rank, columns), each stored so or turned.
    """

    up: TorchTensor
    down: TorchTensor
    up_turned: bool
    down_turned: bool
    scale: float
    magnitude: TorchTensor | None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the matrix that it changes."""
        rows, columns = _shape(self.up, self.up_turned)[0], _shape(self.down, self.down_turned)[1]
        return rows, columns

    def applied(self, weight: Floats, up: Floats, down: Floats, magnitude: Floats | None) -> Floats:
        """Some rows of the matrix with the change; ``up`` and ``magnitude`` are those rows' own."""
        changed: Floats = (weight + (np.float32(self.scale) * up) @ down).astype(
            np.float32, copy=False
        )
        if magnitude is None:
            return changed
        lengths = np.linalg.norm(changed, axis=1)
        stretched = changed * (magnitude / np.where(lengths > 0, lengths, np.float32(1)))[:, None]
        return stretched.astype(np.float32, copy=False)


@dataclass(frozen=True, slots=True)
class Adapter:
    """What an adapter changes: matrices by their path, and tensors that it brings whole, by their name."""

    changes: Mapping[str, LowRank]
    whole: Mapping[str, TorchTensor]
    files: tuple[Path, ...]


def read_adapter(path: Path) -> Adapter:
    """Look an adapter's folder through.

    Raises:
        ModelNotFoundError: there is no such folder.
        FormatError: a file is missing or damaged, or a part of a change is missing.
        UnsupportedModelError: it changes a model in another way than LoRA and DoRA do.
        ReadError: a file cannot be read.
    """
    if not path.is_dir():
        raise ModelNotFoundError(f"there is no folder {path}", hint=NAME_FOLDER)
    if not (path / ADAPTER_CONFIG).exists():
        raise FormatError(f"{path} has no {ADAPTER_CONFIG}", hint=NAME_FOLDER)
    config = read_json(inside(path, ADAPTER_CONFIG))
    name = next((name for name in (*PEFT_FILES, MLX_FILE) if (path / name).exists()), None)
    if name is None:
        raise FormatError(
            f"{path} has neither {PEFT_FILES[0]} nor {MLX_FILE}", hint="name the adapter's folder"
        )
    file = inside(path, name)
    tensors = (
        read_torch_file(file)
        if file.suffix == ".bin"
        else {name: TorchTensor(info, None) for name, info in read_header(file)[0].items()}
    )
    for key, tensor in tensors.items():
        if tensor.info.dtype not in FLOATS or not 1 <= len(tensor.info.shape) <= 2:
            raise FormatError(
                f"{shown(key)} of {file} is {tensor.info.dtype} {tensor.info.shape}, which no adapter has"
            )
    changes, whole = (
        _read_mlx(config, tensors, file) if name == MLX_FILE else _read_peft(config, tensors, file)
    )
    if not changes and not whole:
        raise FormatError(f"{file} holds no adapter")
    return Adapter(changes, whole, (file, path / ADAPTER_CONFIG))


def whole_values(tensor: TorchTensor) -> Floats:
    """A whole tensor in float32. Raises ReadError."""
    rows = tensor.info.shape[0]
    return floats(read_rows(tensor, 0, rows), tensor.info.dtype).reshape(tensor.info.shape)


def _read_peft(
    config: Mapping[str, Any], tensors: Mapping[str, TorchTensor], file: Path
) -> tuple[dict[str, LowRank], dict[str, TorchTensor]]:
    _require_plain(config)
    parts: dict[str, dict[str, TorchTensor]] = {}
    whole = {}
    for name, tensor in tensors.items():
        if found := PEFT_NAME.fullmatch(name):
            parts.setdefault(found[1], {})[found[2].removeprefix("lora_")] = tensor
        elif (found := PEFT_WHOLE.fullmatch(name)) and "lora_" not in name:
            whole[f"{found[1]}.{found[2]}"] = tensor
        else:
            raise UnsupportedModelError(
                f"{file} holds {shown(name)}, which is no part of LoRA or DoRA"
            )
    changes = {}
    for path, part in parts.items():
        embedding = "embedding_A" in part
        down, up = (part.get(f"embedding_{letter}" if embedding else letter) for letter in "AB")
        if down is None or up is None:
            raise FormatError(f"{file} has only half of the change of {shown(path)}")
        if embedding:  # A is (rank, tokens), B (features, rank)
            down, up = up, down
        rank = _shape(up, embedding)[1]
        scale = _scale(config, path, rank)
        changes[path] = _checked(
            LowRank(up, down, embedding, embedding, scale, part.get("magnitude_vector")), path, file
        )
    return changes, whole


def _require_plain(config: Mapping[str, Any]) -> None:
    """Refuse what would be merged wrongly."""
    kind = config.get("peft_type", "LORA")
    if kind != "LORA":
        raise UnsupportedModelError(
            f"the adapter is of type {shown(kind)}", hint="edgellm merges LoRA and DoRA"
        )
    begun = config.get("init_lora_weights")
    if isinstance(begun, str) and begun.lower().startswith(CHANGED_BASES):
        raise UnsupportedModelError(
            f"the adapter began by {shown(begun)}, which changes the base model too",
            hint="save it again with PEFT's path_initial_model_for_weight_conversion, which makes it plain LoRA",
        )
    if config.get("lora_bias") or config.get("alora_invocation_tokens"):
        raise UnsupportedModelError(
            "the adapter has biases of its own, or works from some token on; it cannot be merged"
        )


def _scale(config: Mapping[str, Any], path: str, rank: int) -> float:
    """lora_alpha / r, or over the root of r; ``alpha_pattern`` names modules with an alpha of their own."""
    alpha = config.get("lora_alpha", 8)
    patterns = config.get("alpha_pattern")
    for pattern, value in patterns.items() if isinstance(patterns, Mapping) else ():
        if path == pattern or path.endswith(f".{pattern}"):
            alpha = value
            break
    if (
        isinstance(alpha, bool)
        or not isinstance(alpha, int | float)
        or not math.isfinite(alpha)
        or rank < 1
    ):
        raise FormatError(f"{ADAPTER_CONFIG}: lora_alpha is {shown(alpha)}")
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _read_mlx(
    config: Mapping[str, Any], tensors: Mapping[str, TorchTensor], file: Path
) -> tuple[dict[str, LowRank], dict[str, TorchTensor]]:
    kind = config.get("fine_tune_type", "lora")
    if kind not in ("lora", "dora", "full"):
        raise UnsupportedModelError(
            f"the adapter is of type {shown(kind)}", hint="edgellm merges LoRA and DoRA"
        )
    parameters = config.get("lora_parameters")
    scale = parameters.get("scale") if isinstance(parameters, Mapping) else None
    parts: dict[str, dict[str, TorchTensor]] = {}
    whole = {}
    for name, tensor in tensors.items():
        found = None if kind == "full" else MLX_NAME.fullmatch(name)
        if found:
            parts.setdefault(found[1], {})[found[2]] = tensor
        else:
            whole[name] = tensor
    if parts and (
        isinstance(scale, bool) or not isinstance(scale, int | float) or not math.isfinite(scale)
    ):
        raise FormatError(f"{ADAPTER_CONFIG}: the scale in lora_parameters is {shown(scale)}")
    changes = {}
    for path, part in parts.items():
        if not {"lora_a", "lora_b"} <= part.keys():
            raise FormatError(f"{file} has only half of the change of {shown(path)}")
        a, b = part["lora_a"], part["lora_b"]
        # a is (tokens, rank), b (rank, features); else (in, rank), (rank, out)
        embedding = path.endswith("embed_tokens")
        up, down = (a, b) if embedding else (b, a)
        change = LowRank(up, down, not embedding, not embedding, float(scale or 0), part.get("m"))
        changes[path] = _checked(change, path, file)
    return changes, whole


def _checked(change: LowRank, path: str, file: Path) -> LowRank:
    if len(change.up.info.shape) != 2 or len(change.down.info.shape) != 2:
        raise FormatError(f"the change of {shown(path)} in {file} is no product of two matrices")
    inner = _shape(change.up, change.up_turned)[1], _shape(change.down, change.down_turned)[0]
    if inner[0] != inner[1] or not inner[0]:
        raise FormatError(
            f"the two parts of the change of {shown(path)} in {file} have the ranks {inner[0]} and {inner[1]}"
        )
    if change.magnitude is not None and math.prod(change.magnitude.info.shape) != change.shape[0]:
        raise FormatError(
            f"the lengths for {shown(path)} in {file} are {change.magnitude.info.shape}"
        )
    return change


def _shape(tensor: TorchTensor, turned: bool) -> tuple[int, ...]:
    shape = tensor.info.shape
    return shape[::-1] if turned else shape
