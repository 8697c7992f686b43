"""Some of a model's layers on one machine, and the windows in which tokens go through them."""

# L new tokens, E hidden

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

import mlx.core as mx

from edgellm.checkpoint.checkpoint import Checkpoint
from edgellm.distributed.parts.changes import changes_bytes
from edgellm.kv_cache.cache import stored
from edgellm.memory_plan.plan import Plan
from edgellm.memory_plan.plan_checkpoint import plan_for
from edgellm.models.arithmetic import arithmetic_of
from edgellm.models.layers import (
    KeepGoing,
    LayerChange,
    States,
    StateSpans,
    WindowedLayers,
    caches_in_part,
)
from edgellm.reading.disk_reader import Reader
from edgellm.runtime.caches import LayerCaches
from edgellm.runtime.loader import load_layers, open_reader
from edgellm.settings import LoadSettings

MakeReader = Callable[[Checkpoint, Plan], Reader]
"""Opens what reads a part's layers."""

SHARED_SETTINGS = (
    "context",
    "context_window",
    "kv_bits",
    "activations",
    "backend",
    "prefill_chunk",
    "beams",
)
"""Settings of the first machine that all others compute by; memory and threads are their own."""


class Closable(Protocol):
    """Layers that can be freed."""

    def close(self) -> None:
        """Free the weights."""
        ...


LayersT = TypeVar("LayersT", bound=Closable)


@dataclass(frozen=True, slots=True)
class Part(Generic[LayersT]):
    """Layers, or rows of them, that were loaded on one machine.

    Attributes:
        layers: those.
        caches: makes their KV caches.
        plan: how they lie in memory.
        reader: of those that stream.
    """

    layers: LayersT
    caches: LayerCaches
    plan: Plan
    reader: Reader

    def close(self) -> None:
        """Free the weights, and close files."""
        self.layers.close()
        self.reader.close()


def open_part(
    checkpoint: Checkpoint,
    numbers: Sequence[int],
    settings: LoadSettings,
    *,
    make_reader: MakeReader = open_reader,
    changes: Sequence[LayerChange] = (),
) -> Part[WindowedLayers]:
    """Load some layers of a model and nothing else; errors are those of ``load``.

    With ``changes`` an adapter runs beside them.
    """
    checkpoint = checkpoint.with_layers(numbers)
    nbytes = changes_bytes(changes)
    plan = plan_for(checkpoint, settings, layers_only=True, adapter_bytes=nbytes)
    with ExitStack() as on_failure:
        reader = make_reader(checkpoint, plan)
        on_failure.callback(reader.close)
        layers = load_layers(checkpoint, plan, reader, settings, changes)
        on_failure.pop_all()
    return Part(layers, LayerCaches(checkpoint, plan), plan, reader)


def run_window(
    layers: WindowedLayers, states: States, spans: StateSpans, window: range, keep_going: KeepGoing
) -> list[mx.array]:
    """Return hidden states (1, L, E) after adjacent layers; empty where ``keep_going`` said no.

    Nothing is left lazy: another machine waits for it.
    """
    part = slice(window.start, window.stop)
    results = layers.run_part(states, spans, part, keep_going=keep_going)
    mx.eval(results, stored(caches_in_part(spans, part)))
    return results


def arithmetic_facts(checkpoint: Checkpoint, settings: LoadSettings) -> dict[str, str]:
    """Return how a machine computes, in words: machines that differ have other results."""
    arithmetic = arithmetic_of(checkpoint, settings)
    facts = {"numbers": str(arithmetic.dtype), "kernels": "MLX's", "instructions": ""}
    if arithmetic.kernels is not None:
        facts["kernels"] = arithmetic.kernels.activations
        facts["instructions"] = arithmetic.kernels.isa.name
    return facts


def part_name(part: Any, facts: Mapping[str, str]) -> str:
    """Return words for what a machine has, and how it computes, that no other part has.

    Args:
        part: its layers, or its rows.
        facts: ``arithmetic_facts``.
    """
    return json.dumps([part, facts], sort_keys=True)


def shared_settings(settings: LoadSettings) -> dict[str, Any]:
    """Return the settings that other machines are told."""
    return {name: getattr(settings, name) for name in SHARED_SETTINGS}


def settings_from(told: Mapping[str, Any], own: LoadSettings) -> LoadSettings:
    """Return a machine's settings: its own, and those that it was told. Raises ConfigError."""
    return replace(own, **{name: told[name] for name in SHARED_SETTINGS if name in told})
