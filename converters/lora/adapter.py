"""LoRA adapters, PEFT's and mlx-lm's, read as changes of a model's matrices."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgellm.checkpoint.folder import ADAPTER_CONFIG, inside
from edgellm.checkpoint.quantization import FLOATS
from edgellm.checkpoint.safetensors_file import read_header
from edgellm.converters.huggingface.torch_file import TorchTensor, read_torch_file
from edgellm.converters.lora.changes import Adapter, Factor, LowRank, Replacement, TokenRows
from edgellm.converters.lora.peft_config import (
    EMBEDDING,
    as_lora,
    flag,
    is_finite,
    require_mergeable,
    scales_of,
    token_ids_of,
)
from edgellm.converters.lora.state_dict import AdapterSettings, BaseShape, read_state_dict
from edgellm.converters.tensors.file_rows import LITGPT_ADAPTER, LITGPT_FILE
from edgellm.errors import FormatError, ModelNotFoundError, UnsupportedModelError
from edgellm.files.strict_json import quoted, read_json

NAME_FOLDER = f"name the folder that holds {ADAPTER_CONFIG}"
PEFT_FILES = ("adapter_model.safetensors", "adapter_model.bin")
MLX_FILE = "adapters.safetensors"

PEFT_NAME = re.compile(
    r"(?:base_model\.model\.)?(.+)\."
    r"(lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector)"
    r"(?:\.default)?(?:\.weight)?"
)
PEFT_TOKEN_ROWS = re.compile(
    r"(?:base_model\.model\.)?(.+?)(?:\.token_adapter)?\.trainable_tokens_delta(?:\.default)?"
)
PEFT_REPLACEMENT = re.compile(
    r"(?:base_model\.model\.)?(.+?)(?:\.modules_to_save(?:\.default)?|(\.base_layer))?\.(weight|bias)"
)
TIED = (EMBEDDING, "lm_head")
"""The matrices that are one in many models."""

MLX_NAME = re.compile(r"(.+)\.(lora_a|lora_b|m)")

MLX_PARAMETERS = frozenset({"rank", "scale", "dropout", "keys", "alpha"})
"""What mlx-lm writes of a change; ``alpha`` it once wrote and never read. Of the rest of its config
it reads the kind alone, and so do we: it holds all options of the training."""


def open_adapter(path: Path, base: BaseShape, settings: AdapterSettings) -> Adapter:
    """Read an adapter in whatever form it is, without the values.

    Args:
        path: a folder of PEFT's, mlx-lm's or LitGPT's, or the weight file of LitGPT or loralib.
        base: the model that it belongs to.
        settings: what a file without a config does not tell.

    Raises:
        ConfigError: the settings are missing, or the adapter itself tells them.
        ModelNotFoundError, FormatError, UnsupportedModelError, ReadError: as ``read_adapter``.
    """
    if path.is_file() and path.suffix != ".safetensors":
        return read_state_dict(path, settings, base)
    if (path / LITGPT_ADAPTER).exists():
        return read_state_dict(inside(path, LITGPT_ADAPTER), settings, base)
    settings.require_none(path)
    return read_adapter(path)


def read_adapter(path: Path) -> Adapter:
    """Read the folder of an adapter that has a config, without the values.

    Raises:
        ModelNotFoundError: there is no such folder.
        FormatError: a file is missing or damaged, or a part of a change is missing.
        UnsupportedModelError: it changes a model in another way than LoRA and DoRA do.
        ReadError: a file cannot be read.
    """
    if not path.is_dir():
        raise ModelNotFoundError(f"there is no folder {path}", hint=NAME_FOLDER)
    if any(path.glob(f"{LITGPT_FILE}.adapter*")):
        raise UnsupportedModelError(
            f"{path} holds a LLaMA-Adapter of LitGPT's, whose prompts no weight can hold",
            hint="edgellm merges LoRA and DoRA",
        )
    if not (path / ADAPTER_CONFIG).exists():
        # PEFT has a folder for each of several adapters, trainers have one for each save
        inside_of = sorted(found.parent.name for found in path.glob(f"*/{ADAPTER_CONFIG}"))
        hint = f"name a folder in it: {', '.join(inside_of[:5])}" if inside_of else NAME_FOLDER
        raise FormatError(f"{path} has no {ADAPTER_CONFIG}", hint=hint)
    config = read_json(inside(path, ADAPTER_CONFIG))
    names = [name for name in (*PEFT_FILES, MLX_FILE) if (path / name).exists()]
    if not names:
        hint = "name the adapter's folder"
        saves = sorted(file.name for file in path.glob(f"*_{MLX_FILE}"))
        if saves:  # of steps, where a training of mlx-lm's did not end
            hint = f"copy the last save to that name: {saves[-1]}"
        raise FormatError(f"{path} has neither {PEFT_FILES[0]} nor {MLX_FILE}", hint=hint)
    file = inside(path, names[0])
    tensors = _read_tensors(file)
    files = (file, path / ADAPTER_CONFIG)
    if file.name == MLX_FILE:
        changes, replacements = _read_mlx(config, tensors, file)
        # mlx-lm's change of an embedding is one of the head that it is
        adapter = Adapter(changes, replacements, frozenset(), {}, files, own_head=False)
    else:
        adapter = _read_peft(config, tensors, files)
    if not adapter.changes and not adapter.replacements and not adapter.token_rows:
        raise FormatError(f"{file} holds no adapter")
    return adapter


def _read_tensors(file: Path) -> dict[str, TorchTensor]:
    if file.suffix == ".bin":
        tensors = read_torch_file(file)
    else:
        tensors = {name: TorchTensor(info, None) for name, info in read_header(file)[0].items()}
    for name, tensor in tensors.items():
        dtype, shape = tensor.info.dtype, tensor.info.shape
        if dtype not in FLOATS or not 1 <= len(shape) <= 2:
            raise FormatError(f"{quoted(name)} of {file} is {dtype} {shape}, which no adapter has")
    return tensors


def _read_peft(
    config: Mapping[str, Any], tensors: Mapping[str, TorchTensor], files: tuple[Path, ...]
) -> Adapter:
    config = as_lora(config)
    require_mergeable(config)
    file = files[0]
    parts: dict[str, dict[str, TorchTensor]] = {}
    replacements = {}
    token_rows = {}
    saved_bases = set()
    alone = set()  # paths of what is changed for itself
    for name, tensor in tensors.items():
        if found := PEFT_NAME.fullmatch(name):
            parts.setdefault(found[1], {})[found[2].removeprefix("lora_")] = tensor
            alone.add(found[1])
        elif found := PEFT_TOKEN_ROWS.fullmatch(name):
            token_rows[found[1]] = _token_rows(config, found[1], tensor, file)
        elif (found := PEFT_REPLACEMENT.fullmatch(name)) and "lora_" not in name:
            replacements[f"{found[1]}.{found[3]}"] = Replacement(tensor)
            if found[2]:
                saved_bases.add(f"{found[1]}.{found[3]}")
            else:
                alone.add(found[1])
        else:
            raise UnsupportedModelError(
                f"{file} holds {quoted(name)}, which is not part of LoRA or DoRA",
                hint="merge it with PEFT (merge_and_unload), and convert the result",
            )
    changes = _peft_changes(config, parts, file)
    own_head = not alone.isdisjoint(TIED) or TIED[1] in token_rows
    return Adapter(
        changes, replacements, frozenset(saved_bases), token_rows, files, own_head=own_head
    )


def _token_rows(config: Mapping[str, Any], path: str, tensor: TorchTensor, file: Path) -> TokenRows:
    ids = token_ids_of(config, path)
    shape = tensor.info.shape
    if len(shape) != 2 or shape[0] != len(ids):
        raise FormatError(
            f"{file} has rows of tokens for {quoted(path)} in the shape {shape}; "
            f"{ADAPTER_CONFIG} names {len(ids)} tokens"
        )
    return TokenRows(tuple(ids), tensor)


def _peft_changes(
    config: Mapping[str, Any], parts: Mapping[str, Mapping[str, TorchTensor]], file: Path
) -> dict[str, LowRank]:
    dora = flag(config, "use_dora")
    factors = {}
    for path, part in parts.items():
        _check_lengths(path, file, dora=dora, found="magnitude_vector" in part)
        embedding = "embedding_A" in part
        # of an embedding A is (rank, tokens) and B (features, rank), so that A.T @ B.T changes it
        up, down = part.get("B"), part.get("A")
        if embedding:
            up, down = part["embedding_A"], part.get("embedding_B")
        if up is None or down is None:
            raise FormatError(f"{file} has only half of the change of {quoted(path)}")
        factors[path] = Factor(up, embedding), Factor(down, embedding)
        _check_factors(*factors[path], path, file)
    scales = scales_of(config, {path: up.shape[1] for path, (up, _) in factors.items()})
    changes = {}
    for path, (up_factor, down_factor) in factors.items():
        magnitude = parts[path].get("magnitude_vector")
        by_column = up_factor.transposed
        change = LowRank(up_factor, down_factor, scales[path], magnitude, by_column)
        changes[path] = _checked(change, path, file)
    return changes


def _read_mlx(
    config: Mapping[str, Any], tensors: Mapping[str, TorchTensor], file: Path
) -> tuple[dict[str, LowRank], dict[str, Replacement]]:
    kind = config.get("fine_tune_type", "lora")
    if kind not in ("lora", "dora", "full"):
        raise UnsupportedModelError(
            f"the adapter is of type {quoted(kind)}", hint="edgellm merges LoRA and DoRA"
        )
    parameters = config.get("lora_parameters") or {}
    if not isinstance(parameters, Mapping):
        raise FormatError(f"{ADAPTER_CONFIG}: lora_parameters is {quoted(parameters)}")
    for key in parameters.keys() - MLX_PARAMETERS:
        if parameters[key]:  # what is off has no effect, whatever it is
            raise UnsupportedModelError(
                f"{ADAPTER_CONFIG} says {quoted(key)} in lora_parameters, which mlx-lm does not",
                hint="fuse it with what made it (mlx_lm.fuse), and convert the result",
            )
    scale: Any = parameters.get("scale")
    dora = kind == "dora" or flag(config, "use_dora")  # as it was said before fine_tune_type
    parts: dict[str, dict[str, TorchTensor]] = {}
    replacements = {}
    for name, tensor in tensors.items():
        found = MLX_NAME.fullmatch(name)
        if found and kind != "full":
            parts.setdefault(found[1], {})[found[2]] = tensor
        else:
            replacements[name] = Replacement(tensor)
    if parts and not is_finite(scale):
        raise FormatError(f"{ADAPTER_CONFIG}: the scale in lora_parameters is {quoted(scale)}")
    changes = {}
    for path, part in parts.items():
        if not {"lora_a", "lora_b"} <= part.keys():
            raise FormatError(f"{file} has only half of the change of {quoted(path)}")
        _check_lengths(path, file, dora=dora, found="m" in part)
        embedding = path.endswith("embed_tokens")
        # of an embedding a is (tokens, rank) and b (rank, features); else (in, rank), (rank, out)
        up, down = Factor(part["lora_b"], transposed=True), Factor(part["lora_a"], transposed=True)
        if embedding:
            up = Factor(part["lora_a"], transposed=False)
            down = Factor(part["lora_b"], transposed=False)
        _check_factors(up, down, path, file)
        changes[path] = _checked(LowRank(up, down, float(scale), part.get("m")), path, file)
    return changes, replacements


def _check_lengths(path: str, file: Path, *, dora: bool, found: bool) -> None:
    """Refuse a change whose rows' lengths are there or not, against what the config says."""
    if dora and not found:
        raise FormatError(f"{file} lacks DoRA's lengths for {quoted(path)}")
    if found and not dora:
        raise FormatError(
            f"{file} has DoRA's lengths for {quoted(path)}, and {ADAPTER_CONFIG} says that it is "
            "plain LoRA",
            hint=f"set use_dora in {ADAPTER_CONFIG} if it is DoRA",
        )


def _check_factors(up: Factor, down: Factor, path: str, file: Path) -> None:
    if len(up.shape) != 2 or len(down.shape) != 2:
        raise FormatError(f"the change of {quoted(path)} in {file} is not a product of matrices")
    if up.shape[1] != down.shape[0] or not up.shape[1]:
        raise FormatError(
            f"the two parts of the change of {quoted(path)} in {file} have the ranks "
            f"{up.shape[1]} and {down.shape[0]}"
        )


def _checked(change: LowRank, path: str, file: Path) -> LowRank:
    magnitude = change.magnitude
    lengths = change.shape[int(change.by_column)]
    if magnitude is not None and math.prod(magnitude.info.shape) != lengths:
        raise FormatError(f"the lengths for {quoted(path)} in {file} are {magnitude.info.shape}")
    return change
