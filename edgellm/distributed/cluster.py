"""A model on several machines becomes an ``LLM``, which knows no difference."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from edgellm.checkpoint.checkpoint import Checkpoint
from edgellm.device.streams import borrowed_stream
from edgellm.distributed.links.machines import Machine, read_machines, secret_file
from edgellm.distributed.links.secret import read_secret
from edgellm.distributed.parts.cut import Cut, choose_counts, cut_layers
from edgellm.distributed.parts.digests import folder_digests, require_alike, versions
from edgellm.distributed.parts.part import MakeReader, arithmetic_facts, shared_settings
from edgellm.distributed.remote.peer import Peer
from edgellm.distributed.remote.remote_layers import ClusterCaches, RemoteLayers
from edgellm.errors import ConfigError, UnsupportedModelError
from edgellm.files.given_path import given_path
from edgellm.memory_plan.plan import Plan
from edgellm.memory_plan.plan_checkpoint import budget_for, plan_for
from edgellm.models.model import Model
from edgellm.models.through_mlx_lm.checkpoint import AnyCheckpoint
from edgellm.reading.disk_reader import Reader
from edgellm.reading.tuning import measure_disk
from edgellm.runtime.caches import LayerCaches
from edgellm.runtime.loader import LoadProgress, load_model, open_reader
from edgellm.settings import LoadSettings


@dataclass(frozen=True, slots=True)
class Gathered:
    """Machines that are there and alike, before any of them has layers.

    Attributes:
        checkpoint: the model.
        settings: of the first machine, with all chosen that the others have to have alike.
        peers: the other machines.
        budgets: bytes of each machine, the first one's first.
    """

    checkpoint: Checkpoint
    settings: LoadSettings
    peers: Sequence[Peer]
    budgets: Sequence[int]


@dataclass(frozen=True, slots=True)
class Opened:
    """A model on several machines.

    Attributes:
        model: the model; closing it lets the other machines go.
        plan: of all machines together.
        local_plan: of this machine's part.
        caches: makes the caches of a sequence.
        reader: reads this machine's layers.
    """

    model: Model
    plan: Plan
    local_plan: Plan
    caches: ClusterCaches
    reader: Reader


def open_cluster(
    checkpoint: AnyCheckpoint,
    settings: LoadSettings,
    *,
    progress: LoadProgress | None = None,
    cut: Cut | None = None,
    make_reader: MakeReader = open_reader,
) -> Opened:
    """Load a model on this machine and those that ``settings.machines`` names.

    Args:
        checkpoint: the model.
        settings: as for ``load``; memory and threads are this machine's.
        progress: told of the bytes that arrive here.
        cut: which machine has which layers; None: by their memories and disks.
        make_reader: opens what reads this machine's layers.

    Raises:
        MachineError: a machine cannot be reached, refuses, or is not like this one.
        ConfigError, MemoryBudgetError, ReadError: as ``load``, here or there.
    """
    with ExitStack() as on_failure:
        gathered = gather(checkpoint, settings, on_failure)
        if cut is None:
            cut = choose_cut(gathered)
        opened = _open_parts(gathered, cut, make_reader, progress, on_failure)
        on_failure.pop_all()
    return opened


def gather(checkpoint: AnyCheckpoint, settings: LoadSettings, stack: ExitStack) -> Gathered:
    """Call all machines, and choose what they have to have alike; ``stack`` lets them go.

    Raises MemoryBudgetError where not even all memories together are enough; the rest as above.
    """
    model = _require_layers(checkpoint, settings)
    hosts = given_path(settings.machines or "")
    machines, secret = read_machines(hosts)[1:], read_secret(secret_file(hosts))
    own = folder_digests(model.folder.path)
    peers = []
    for machine in machines:
        peer = Peer(machine, secret)
        stack.callback(peer.close)
        require_alike(machine.name, versions(), peer.facts["versions"], "version")
        require_alike(machine.name, own, peer.facts["files"], "file")
        peers.append(peer)
    budgets = [budget_for(settings), *(peer.facts["budget"] for peer in peers)]
    plan = plan_for(model, replace(settings, memory=sum(budgets), draft=None))
    shared = replace(settings, context=plan.context, kv_bits=plan.kv_bits, memory=budgets[0])
    return Gathered(model, shared, peers, budgets)


def choose_cut(gathered: Gathered) -> Cut:
    """Return which machine has which layers; disks are measured only where one has to read."""
    plan_of, count = part_planner(gathered), len(gathered.checkpoint.layers)
    machines = len(gathered.budgets)
    counts = choose_counts(count, machines, plan_of, None)
    if all(plan_of(machine, layers).resident for machine, layers in enumerate(counts)):
        return cut_layers(counts, in_turns=False)
    counts = choose_counts(count, machines, plan_of, disk_rates(gathered))
    return cut_layers(counts, in_turns=True)


def part_planner(gathered: Gathered) -> Callable[[int, int], Plan]:
    """Return what plans a machine's part by its number and how many layers it has."""
    known: dict[tuple[int, int], Plan] = {}

    def plan_of(machine: int, layers: int) -> Plan:
        if (machine, layers) not in known:
            own = replace(gathered.settings, memory=gathered.budgets[machine])
            part = gathered.checkpoint.with_layers(range(layers))
            if machine:
                own = replace(own, draft=None)
            known[machine, layers] = plan_for(part, own, layers_only=machine > 0)
        return known[machine, layers]

    return plan_of


def _open_parts(
    gathered: Gathered,
    cut: Cut,
    make_reader: MakeReader,
    progress: LoadProgress | None,
    on_failure: ExitStack,
) -> Opened:
    """Load each machine's layers."""
    checkpoint, settings, peers = gathered.checkpoint, gathered.settings, gathered.peers
    own_part = checkpoint.with_layers(cut.layers[0])
    local_plan = plan_for(own_part, settings)
    arithmetic = arithmetic_facts(checkpoint, settings)
    answers = []
    openings = [
        {"ask": "open", "layers": list(layers), "settings": shared_settings(settings)}
        for layers in cut.layers[1:]
    ]
    for peer, opening in zip(peers, openings, strict=True):
        answer, _ = peer.request(opening)
        _require_same_arithmetic(peer.machine, arithmetic, answer["arithmetic"])
        answers.append(answer)
    reader = make_reader(own_part, local_plan)
    on_failure.callback(reader.close)
    with borrowed_stream():
        model = load_model(own_part, local_plan, reader, settings, progress=progress)
    local = model.layers
    model.config = checkpoint.config
    model.whole_pass = None  # it knows this machine's layers alone
    model.layers = RemoteLayers(
        local,
        len(cut.layers[0]),
        peers,
        cut.windows,
        openings=openings,
        streams_weights=any(not plan["resident"] for plan in _plans(local_plan, answers)),
        takes_trees=local.takes_trees and all(answer["takes_trees"] for answer in answers),
    )
    caches = ClusterCaches(
        LayerCaches(own_part, local_plan),
        [
            (peer, LayerCaches(checkpoint.with_layers(layers), local_plan))
            for peer, layers in zip(peers, cut.layers[1:], strict=True)
        ],
    )
    plan = joined_plan(cut, _plans(local_plan, answers), local_plan)
    return Opened(model, plan, local_plan, caches, reader)


def _plans(local_plan: Plan, answers: Sequence[Any]) -> list[dict[str, Any]]:
    """Return each machine's plan, with its room for KV caches."""
    own = {**local_plan.as_dict(), "kv_budget": local_plan.kv_budget}
    return [own, *({**answer["plan"], "kv_budget": answer["kv_budget"]} for answer in answers)]


def joined_plan(cut: Cut, plans: Sequence[dict[str, Any]], local: Plan) -> Plan:
    """Return the plan of all machines as if they were one.

    The machine with the least room for KV caches, in tokens, says how many tokens all have.
    """
    pinned, streamed = [], []
    for layers, plan in zip(cut.layers, plans, strict=True):
        pinned += [layers[place] for place in plan["pinned"]]
        streamed += [layers[place] for place in plan["streamed"]]
    cache_bytes = sum(plan["cache_bytes"] for plan in plans)
    total_bytes = sum(plan["total_bytes"] for plan in plans)
    room = min(plan["kv_budget"] / plan["cache_bytes"] for plan in plans)
    return replace(
        local,
        budget=total_bytes - cache_bytes + int(cache_bytes * room),
        resident=not streamed,
        pinned=tuple(sorted(pinned)),
        streamed=tuple(sorted(streamed)),
        prefill_chunk=min(plan["prefill_chunk"] for plan in plans),
        pinned_bytes=sum(plan["pinned_bytes"] for plan in plans),
        cache_bytes=cache_bytes,
        working_bytes=sum(plan["working_bytes"] for plan in plans),
        total_bytes=total_bytes,
        model_bytes=sum(plan["model_bytes"] for plan in plans),
        streamed_bytes=sum(plan["streamed_bytes"] for plan in plans),
        weight_bytes_per_token=sum(plan["weight_bytes_per_token"] for plan in plans),
    )


def _require_layers(checkpoint: AnyCheckpoint, settings: LoadSettings) -> Checkpoint:
    """Return the checkpoint if it and the settings can be spread over machines."""
    if not isinstance(checkpoint, Checkpoint):
        raise UnsupportedModelError(
            "models that mlx-lm computes run on one machine",
            hint="leave out --machines, or choose a model that edgellm computes itself",
        )
    if settings.adapter is not None:
        raise ConfigError(
            "an adapter runs on one machine",
            hint="merge it into the weights: edgellm convert MODEL FOLDER --adapter ADAPTER",
        )
    if settings.prompt_cache:
        raise ConfigError(
            "the prefix cache of several machines is not kept on disk", hint="leave out --cache"
        )
    return checkpoint


def _require_same_arithmetic(machine: Machine, own: dict[str, str], other: dict[str, str]) -> None:
    for key, what in (("numbers", "numbers of type"), ("kernels", "activations of kind")):
        if own[key] != other[key]:
            raise ConfigError(
                f"machine {machine.name} computes with {what} {other[key]}, "
                f"and this one with {own[key]}",
                hint="use --activations float or --backend mlx, which all machines then do",
            )
    if own["instructions"] != other["instructions"]:
        warnings.warn(
            f"machine {machine.name} computes with {other['instructions']} instructions and this "
            f"one with {own['instructions']}: results may differ in their last bits",
            stacklevel=3,
        )


def disk_rates(gathered: Gathered) -> list[float]:
    """Measure the disks of all machines: bytes per second."""
    files = {extent.file for layer in gathered.checkpoint.layers for extent in layer.extents}
    rates = [measure_disk(sorted(files))]
    for peer in gathered.peers:
        answer, _ = peer.request({"ask": "disk"})
        rates.append(float(answer["answer"]))
    return rates
