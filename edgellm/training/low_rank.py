"""Low-rank changes of a model's matrices (Hu et al. 2021, LoRA, arXiv:2106.09685)."""

# I in, O out, R rank

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import mlx.core as mx
import numpy as np

from edgellm.checkpoint.model_config import ModelConfig
from edgellm.checkpoint.tensor_order import STACKS
from edgellm.errors import ConfigError
from edgellm.setting_values import number, whole_number

MODULES: Mapping[str, str] = {
    member.rpartition(".")[2].removesuffix("_proj"): member
    for members in STACKS.values()
    for member in members
}
"""The matrices of a layer by the short names that options give them: ``q``, ``gate``."""

GROUPS: Mapping[str, tuple[str, ...]] = {
    "attention": ("q", "k", "v", "o"),
    "mlp": ("gate", "up", "down"),
    "all": tuple(MODULES),
}
"""Several of them by one name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraSettings:
    """The matrices that are changed, and how.

    Attributes:
        rank: of each change.
        alpha: the change is scaled by ``alpha / rank``; with ``rslora``, by its root.
        dropout: fraction of a change's inputs that are left out at each step.
        targets: names inside a layer (``self_attn.q_proj``).
        layers: how many of the last layers are changed; None: all.
        rslora: whether the scale is ``alpha / sqrt(rank)`` (Kalajdzievski 2023).
        dora: whether the length of each changed row is learned for itself (Liu et al. 2024, DoRA,
            arXiv:2402.09353).
        ranks: of matrices that have their own, by ``matrix_name``.
        alphas: likewise.
        left_out: names of matrices that are not changed, though layers and targets are.
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.05
    targets: tuple[str, ...] = (MODULES["q"], MODULES["v"])
    layers: int | None = None
    rslora: bool = False
    dora: bool = False
    ranks: Mapping[str, int] = field(default_factory=dict)
    alphas: Mapping[str, float] = field(default_factory=dict)
    left_out: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Check that there is a change to learn. Raises ConfigError."""
        whole_number("rank", self.rank, 1, 1 << 20)
        number("alpha", self.alpha, -1e30, 1e30)
        if self.alpha == 0:
            raise ConfigError(
                "alpha is 0, and so is every change that is learned",
                hint="give --alpha 32, for example, or begin with another adapter",
            )
        number("dropout", self.dropout, 0, 0.99)

    @property
    def scale(self) -> float:
        """The factor of a change that has no rank and no alpha of its own."""
        return self._scale(self.rank, self.alpha)

    def rank_of(self, layer: int, target: str) -> int:
        """Return the rank of a matrix's change; 0: it is not changed."""
        name = matrix_name(layer, target)
        if target not in self.targets or name in self.left_out:
            return 0
        return self.ranks.get(name, self.rank)

    def scale_of(self, layer: int, target: str) -> float:
        """Return the factor of a matrix's change."""
        name = matrix_name(layer, target)
        return self._scale(self.ranks.get(name, self.rank), self.alphas.get(name, self.alpha))

    def _scale(self, rank: int, alpha: float) -> float:
        return alpha / (math.sqrt(rank) if self.rslora else rank)


Change = dict[str, mx.array]
"""A layer's numbers: ``NAME.lora_A`` (R, I) and ``NAME.lora_B`` (O, R) of each target; with DoRA
also the lengths of its rows, ``NAME.lora_magnitude_vector`` (O,)."""


def matrix_name(layer: int, target: str) -> str:
    """Return what a layer's matrix is called: ``0.self_attn.q_proj``."""
    return f"{layer}.{target}"


def targets_named(text: str) -> tuple[str, ...]:
    """Return the matrices of a list with commas: ``q,v``, ``attention``, ``all``.

    Raises:
        ConfigError: a name stands for none.
    """
    names: list[str] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        short = part.removesuffix("_proj")
        found = GROUPS.get(short, (short,))
        if not all(name in MODULES for name in found):
            known = ", ".join([*MODULES, *GROUPS])
            raise ConfigError(f"there is no matrix {part!r}", hint=f"name some of {known}")
        names += found
    if not names:
        raise ConfigError("no matrix is named", hint="name some: q,v")
    return tuple(MODULES[name] for name in MODULES if name in names)


def short_names(targets: Sequence[str]) -> str:
    """Return matrices as options name them, with commas."""
    return ",".join(name for name, member in MODULES.items() if member in targets)


def first_changed(settings: LoraSettings, layers: int) -> int:
    """Return the number of the first layer that is changed. Raises ConfigError."""
    if settings.layers is None:
        return 0
    if not 1 <= settings.layers <= layers:
        raise ConfigError(
            f"{settings.layers} layers are to be trained, and the model has {layers}",
            hint=f"give a number from 1 to {layers}",
        )
    return layers - settings.layers


def initial_changes(config: ModelConfig, settings: LoraSettings, seed: int) -> list[Change]:
    """Return each layer's factors as training begins: A is drawn evenly, B is zero.

    The bounds of A are ``1 / sqrt(I)``, those of PEFT and of torch's linear layers.
    """
    shapes = config.tensor_shapes()
    first = first_changed(settings, config.num_hidden_layers)
    changes: list[Change] = []
    for layer in range(config.num_hidden_layers):
        own: Change = {}
        if layer >= first:
            for place, target in enumerate(settings.targets):
                rank = settings.rank_of(layer, target)
                if not rank:
                    continue
                out_features, in_features = shapes[f"{target}.weight"]
                bound = 1 / math.sqrt(in_features)
                # a key of its own, so that a choice of targets does not move the others' numbers
                draws = np.random.Generator(np.random.Philox(key=(seed << 32) + layer * 64 + place))
                a = draws.uniform(-bound, bound, (rank, in_features)).astype(np.float32)
                own[f"{target}.lora_A"] = mx.array(a)
                own[f"{target}.lora_B"] = mx.zeros((out_features, rank))
        changes.append(own)
    mx.eval(changes)
    return changes


def change_shapes(config: ModelConfig, settings: LoraSettings) -> list[dict[str, tuple[int, ...]]]:
    """Return the shapes of each layer's numbers by name, before any is there.

    Raises ConfigError.
    """
    shapes = config.tensor_shapes()
    count = config.num_hidden_layers
    first = first_changed(settings, count)
    found: list[dict[str, tuple[int, ...]]] = [{} for _ in range(count)]
    for layer in range(first, count):
        for target in settings.targets:
            rank = settings.rank_of(layer, target)
            if not rank:
                continue
            out_features, in_features = shapes[f"{target}.weight"]
            found[layer][f"{target}.lora_A"] = (rank, in_features)
            found[layer][f"{target}.lora_B"] = (out_features, rank)
            if settings.dora:
                found[layer][f"{target}.lora_magnitude_vector"] = (out_features,)
    return found


def count_learned(config: ModelConfig, settings: LoraSettings) -> int:
    """Return how many numbers are learned, before any is there. Raises ConfigError."""
    shapes = change_shapes(config, settings)
    return sum(math.prod(shape) for own in shapes for shape in own.values())


def count_numbers(changes: Sequence[Change]) -> int:
    """Return how many numbers are learned."""
    return sum(array.size for change in changes for array in change.values())
