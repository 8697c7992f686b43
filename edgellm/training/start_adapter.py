"""An adapter that a run begins with, and what it says of the changes that are learned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import mlx.core as mx
import numpy as np

from edgellm.adapters.forms import alpha_of, usual
from edgellm.adapters.unmerged import UnmergedAdapter, open_unmerged
from edgellm.checkpoint.checkpoint import Checkpoint
from edgellm.checkpoint.folder import ADAPTER_CONFIG, LAYER_PREFIX, inside
from edgellm.converters.lora.changes import finite
from edgellm.converters.tensors.floats import Floats
from edgellm.errors import ConfigError
from edgellm.files.strict_json import read_json
from edgellm.training.low_rank import MODULES, Change, LoraSettings, matrix_name, short_names


@dataclass(frozen=True, slots=True)
class Start:
    """The adapter that a run is to begin with.

    Attributes:
        folder: of an adapter, PEFT's or mlx-lm's.
        given: settings of the adapter that must be as they are asked for, by the names of
            ``LoraSettings``; the others follow from it.
    """

    folder: Path
    given: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class StartAdapter:
    """An adapter that fits a model; its numbers are not read yet.

    Attributes:
        lora: what it changes, and how.
        opened: its files.
    """

    lora: LoraSettings
    opened: UnmergedAdapter

    def numbers(self) -> list[Change]:
        """Read each layer's numbers.

        Raises:
            FormatError: one is infinite or not a number.
            ReadError: a file cannot be read.
        """
        changes: list[Change] = []
        for layer in range(self.opened.layers):
            own: Change = {}
            for target in self.lora.targets:
                path = f"{LAYER_PREFIX}{matrix_name(layer, target)}"
                stored = self.opened.changes.get(path)
                if stored is None:
                    continue
                own[f"{target}.lora_A"] = _array(stored.down.values(), path)
                up = stored.up_values()
                with np.errstate(over="ignore", invalid="ignore"):
                    finite(up * np.float32(stored.scale), path)  # as it runs
                own[f"{target}.lora_B"] = _array(up, path)
                lengths = stored.magnitude_values()
                if lengths is not None:
                    own[f"{target}.lora_magnitude_vector"] = _array(lengths, path)
            changes.append(own)
        mx.eval(changes)
        return changes


def open_start(start: Start, checkpoint: Checkpoint, asked: LoraSettings) -> StartAdapter:
    """Return the adapter that a run begins with.

    Args:
        start: which, and what must be as it is asked for.
        checkpoint: the model.
        asked: settings, of which those that are not given follow from the adapter.

    Raises:
        ConfigError: the adapter is otherwise than was asked for.
        ModelNotFoundError: there is no such folder.
        FormatError: it is damaged, or belongs to another model.
        UnsupportedModelError: it changes more than layers' matrices, or began with another base.
        ReadError: a file cannot be read.
    """
    opened = open_unmerged(start.folder, checkpoint)
    lora = _settings_of(opened, asked)
    _require_same(start, lora, asked, checkpoint.config.num_hidden_layers)
    return StartAdapter(lora, opened)


def _settings_of(opened: UnmergedAdapter, asked: LoraSettings) -> LoraSettings:
    """Return the settings of an adapter's changes; what is usual in it goes before exceptions."""
    config = read_json(inside(opened.path, ADAPTER_CONFIG))
    rslora = bool(config.get("use_rslora"))
    names = {path.removeprefix(LAYER_PREFIX): change for path, change in opened.changes.items()}
    ranks = {name: change.down.shape[0] for name, change in names.items()}
    alphas = {
        name: alpha_of(change.scale, ranks[name], rslora=rslora) for name, change in names.items()
    }
    rank, alpha = usual(ranks.values()), usual(alphas.values())
    inner = {name.partition(".")[2] for name in names}
    targets = tuple(target for target in MODULES.values() if target in inner)
    first = min(int(name.partition(".")[0]) for name in names)
    every = [
        matrix_name(layer, target) for layer in range(first, opened.layers) for target in targets
    ]
    return replace(
        asked,
        rank=rank,
        alpha=alpha,
        targets=targets,
        layers=opened.layers - first if first else None,
        rslora=rslora,
        dora=any(change.magnitude is not None for change in names.values()),
        ranks={name: own for name, own in ranks.items() if own != rank},
        alphas={name: own for name, own in alphas.items() if own != alpha},
        left_out=[name for name in every if name not in names],
    )


def _require_same(start: Start, found: LoraSettings, asked: LoraSettings, layers: int) -> None:
    """Raise ConfigError where an adapter is otherwise than was asked for."""
    said = _by_option(asked, layers)
    for name, (option, value) in _by_option(found, layers).items():
        if name in start.given and said[name][1] != value:
            raise ConfigError(
                f"{option} is {_shown(said[name][1])}, and the adapter {start.folder} has "
                f"{_shown(value)}",
                hint=f"leave out {option}, which then follows from the adapter, or begin without "
                "--start-from",
            )


def _by_option(lora: LoraSettings, layers: int) -> Mapping[str, tuple[str, object]]:
    """Return settings, by their names, with the options that say them."""
    ranks, alphas = {lora.rank, *lora.ranks.values()}, {lora.alpha, *lora.alphas.values()}
    return {
        "rank": ("--rank", sorted(ranks)),
        "alpha": ("--alpha", sorted(alphas)),
        "targets": ("--on", short_names(lora.targets)),
        "layers": ("--layers", lora.layers or layers),
        "rslora": ("--rslora", lora.rslora),
        "dora": ("--dora", lora.dora),
    }


def _shown(value: object) -> str:
    if isinstance(value, list):
        return " and ".join(f"{each:g}" for each in value)
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)


def _array(values: Floats, path: str) -> mx.array:
    return mx.array(np.ascontiguousarray(finite(values, path), dtype=np.float32))
