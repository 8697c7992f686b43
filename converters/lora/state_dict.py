"""LoRA without a config of its own: LitGPT's ``lit_model.pth.lora``, and what loralib saves.

Both have a module's factors beside its own name, ``lora_A`` (rank, columns) and ``lora_B``
(rows, rank). Where queries, keys and values are one matrix, those of them that are changed lie one
below the other in both. The layouts are those of litgpt 0.5.13 and loralib 0.1.2.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgellm.checkpoint.folder import inside
from edgellm.checkpoint.quantization import FLOATS
from edgellm.converters.huggingface.torch_file import TorchTensor, read_torch_file
from edgellm.converters.litgpt.tensor_names import (
    INTERLEAVED_QKV,
    LIT_LLAMA_QKV,
    huggingface_paths,
)
from edgellm.converters.litgpt.yaml_file import read_yaml
from edgellm.converters.lora.changes import Adapter, Factor, LowRank, Replacement
from edgellm.converters.lora.peft_config import EMBEDDING, is_finite
from edgellm.errors import ConfigError, FormatError, UnsupportedModelError
from edgellm.files.strict_json import quoted

HYPERPARAMETERS = "hyperparameters.yaml"
NAME = re.compile(r"(.+)\.(lora_A|lora_B|bias)")
PARTS = ("q", "k", "v")
SWITCHES = {"lora_query": "q", "lora_key": "k", "lora_value": "v"}
MEMBER = "model"
"""Where Fabric saves the weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterSettings:
    """Numbers of an adapter that a file without a config does not tell.

    Attributes:
        alpha: what divided by the rank is the scale of the change; None: the file tells.
        parts: of q, k and v those that a fused matrix's change has; None: the file tells, or all.
    """

    alpha: float | None = None
    parts: Sequence[str] | None = None

    def __post_init__(self) -> None:
        """Check both."""
        if self.alpha is not None and not is_finite(self.alpha):
            raise ConfigError(
                f"the adapter's alpha is {self.alpha}", hint="give the number of its training"
            )
        parts = self.parts
        if parts is not None and (not parts or list(parts) != [p for p in PARTS if p in parts]):
            raise ConfigError(
                f"the adapter's parts are {','.join(parts)!r}",
                hint="name those of q,k,v that it changes, in this order",
            )

    def require_none(self, path: Path) -> None:
        """Raise ConfigError where something is set, for an adapter with a config."""
        if self != FILES_TELL:
            raise ConfigError(
                f"{path} already says its alpha and its modules",
                hint="leave out --adapter-alpha and --adapter-parts",
            )


FILES_TELL = AdapterSettings()
"""The settings of an adapter that has all in its files."""


@dataclass(frozen=True, slots=True)
class BaseShape:
    """The model that an adapter belongs to: shapes of its matrices by path, and a head's rows."""

    matrices: Mapping[str, tuple[int, int]]
    head_dim: int


@dataclass(frozen=True, slots=True)
class Module:
    """A changed module of a file: its path there, and its two factors."""

    path: str
    down: TorchTensor
    up: TorchTensor
    file: Path

    @property
    def rank(self) -> int:
        """The columns of ``lora_B``."""
        return self.up.info.shape[1]


def read_state_dict(file: Path, settings: AdapterSettings, base: BaseShape) -> Adapter:
    """Read a LoRA's weight file, without the values.

    Args:
        file: of PyTorch.
        settings: what the file does not tell; LitGPT's ``hyperparameters.yaml`` beside it does.
        base: the model.

    Raises:
        ConfigError: alpha is not known, or which parts of a fused matrix are changed.
        FormatError: it is damaged, or half of a change is missing.
        UnsupportedModelError: it holds anything but such changes.
        ReadError: it cannot be read.
    """
    files = [file]
    beside = file.with_name(HYPERPARAMETERS)
    rank = None
    if beside.exists():
        settings.require_none(beside)
        rank, settings = _hyperparameters(read_yaml(inside(file.parent, HYPERPARAMETERS)), beside)
        files.append(beside)
    alpha = settings.alpha
    if alpha is None:
        raise ConfigError(
            f"{file} does not say the alpha of its changes",
            hint="give the number of its training: --adapter-alpha 16",
        )
    modules, biases = _read_modules(file)
    changes: dict[str, LowRank] = {}
    for module in modules:
        if rank not in (None, module.rank):
            raise FormatError(
                f"{beside} says lora_r: {rank}, and {quoted(module.path)} has {module.rank}"
            )
        for target, (up, down) in _changes(module, settings, base).items():
            changes[target] = LowRank(up, down, alpha / down.shape[0], None)
    if not changes:
        raise FormatError(f"{file} holds no adapter")
    own_head = "lm_head" in changes or EMBEDDING in changes
    replacements = {name: Replacement(bias) for name, bias in biases.items()}
    return Adapter(changes, replacements, frozenset(), {}, tuple(files), own_head=own_head)


def _hyperparameters(said: Mapping[str, Any], file: Path) -> tuple[int, AdapterSettings]:
    """Return the rank, and what scales and places the changes, as LitGPT's training saved them."""
    rank, alpha = said.get("lora_r"), said.get("lora_alpha")
    if type(rank) is not int or rank < 1 or not is_finite(alpha):
        raise FormatError(
            f"{file} says lora_r: {quoted(rank)} and lora_alpha: {quoted(alpha)}",
            hint="name the folder that litgpt finetune_lora has made",
        )
    parts = [part for key, part in SWITCHES.items() if said.get(key)]
    return rank, AdapterSettings(alpha=alpha, parts=parts or None)


def _read_modules(file: Path) -> tuple[Sequence[Module], Mapping[str, TorchTensor]]:
    """Return the changed modules, and trained biases by name."""
    found: dict[str, dict[str, TorchTensor]] = {}
    biases = {}
    for name, tensor in read_torch_file(file, member=MEMBER).items():
        parsed = NAME.fullmatch(name)
        if parsed is None:
            raise UnsupportedModelError(
                f"{file} holds {quoted(name)}, which is not part of a LoRA",
                hint="save the changes alone, with loralib.lora_state_dict",
            )
        dtype, shape = tensor.info.dtype, tensor.info.shape
        if dtype not in FLOATS or len(shape) != 2 - (parsed[2] == "bias") or 0 in shape:
            raise FormatError(f"{quoted(name)} of {file} is {dtype} {shape}, which no LoRA has")
        if parsed[2] == "bias":
            biases[_bias(parsed[1], name, file)] = tensor
        else:
            found.setdefault(parsed[1], {})[parsed[2]] = tensor
    modules = []
    for path, parts in found.items():
        if len(parts) < 2:
            raise FormatError(f"{file} has only half of the change of {quoted(path)}")
        modules.append(Module(path, parts["lora_A"], parts["lora_B"], file))
    return modules, biases


def _bias(path: str, name: str, file: Path) -> str:
    targets = huggingface_paths(path) or [path]
    if len(targets) > 1:
        raise UnsupportedModelError(
            f"{file} holds {quoted(name)}, the trained bias of a fused matrix",
            hint="merge it with what made it, and convert the result",
        )
    return f"{targets[0]}.bias"


def _changes(
    module: Module, settings: AdapterSettings, base: BaseShape
) -> Mapping[str, tuple[Factor, Factor]]:
    """Return the matrices that a module's factors change, each with its own two factors."""
    path, down, up = module.path, module.down, module.up
    if path.endswith(f".{INTERLEAVED_QKV}"):
        raise UnsupportedModelError(
            f"{module.file} is of a LitGPT before 0.5.4, whose versions placed the changes of "
            "queries, keys and values differently",
            hint="merge it with the LitGPT that made it (litgpt merge_lora), and convert that",
        )
    targets = huggingface_paths(path) or [path]
    if len(targets) > 1:
        return _changes_of_parts(module, targets, settings, base)
    [target] = targets
    if module.rank != down.info.shape[0]:
        raise FormatError(
            f"the two parts of the change of {quoted(path)} in {module.file} have the ranks "
            f"{module.rank} and {down.info.shape[0]}",
            hint="fused queries, keys and values are known by the names of LitGPT and Lit-LLaMA",
        )
    if target == EMBEDDING:
        # of an embedding A is (rank, tokens) and B (features, rank): A.T @ B.T changes it
        return {target: (Factor(down, transposed=True), Factor(up, transposed=True))}
    return {target: (Factor(up, transposed=False), Factor(down, transposed=False))}


def _changes_of_parts(
    module: Module, targets: Sequence[str], settings: AdapterSettings, base: BaseShape
) -> Mapping[str, tuple[Factor, Factor]]:
    """Return the factors of those of queries, keys and values that a fused matrix's ones change."""
    down, up, rank = module.down, module.up, module.rank
    count, rest = divmod(down.info.shape[0], rank)
    parts = settings.parts
    if parts is None and count == len(PARTS):
        parts = PARTS
    if parts is None:
        raise ConfigError(
            f"{module.file} changes {count} of queries, keys and values, and does not say which",
            hint="name them: --adapter-parts q,v",
        )
    chosen = [target for part, target in zip(PARTS, targets, strict=True) if part in parts]
    rows = [base.matrices.get(target, (0, 0))[0] for target in chosen]
    if rest or count != len(parts) or sum(rows) != up.info.shape[0]:
        raise FormatError(
            f"the change of {quoted(module.path)} in {module.file} is {up.info.shape} and "
            f"{down.info.shape}, which does not fit {','.join(parts)} with {rows} rows",
            hint="it may belong to another model, or change other parts (--adapter-parts)",
        )
    found = {}
    start = 0
    for index, (target, length) in enumerate(zip(chosen, rows, strict=True)):
        pairs = None
        if module.path.endswith(LIT_LLAMA_QKV) and target != targets[2]:
            pairs = base.head_dim
        found[target] = (
            Factor(up, transposed=False, rows=(start, start + length), pairs=pairs),
            Factor(down, transposed=False, rows=(index * rank, (index + 1) * rank)),
        )
        start += length
    return found
