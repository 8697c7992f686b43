"""A model on several machines once it is loaded: the share of each, and the plan of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgellm.device import machine as device
from edgellm.distributed.gathered import Gathered, require_same_arithmetic
from edgellm.distributed.links.machines import read_machines
from edgellm.distributed.parts.changes import packed_changes
from edgellm.distributed.parts.part import arithmetic_facts, part_name
from edgellm.distributed.remote.cluster_layers import ClusterCaches
from edgellm.distributed.remote.kept_prompts import ClusterPromptCache
from edgellm.distributed.remote.peer import Opening, Reply
from edgellm.files.given_path import given_path
from edgellm.memory_plan.plan import Plan
from edgellm.models.layers import LayerChange
from edgellm.models.model import Model
from edgellm.prompt_cache.disk_cache import PromptCache
from edgellm.reading.disk_reader import Reader


@dataclass(frozen=True, slots=True)
class MachineShare:
    """One machine, and its part of the model.

    Attributes:
        name: as the file of machines has it.
        chip: its processor or GPU.
        memory_bytes: its whole memory.
        budget_bytes: what it was given of that.
        planned_bytes: weights, KV caches and working memory there.
        layers: of how many layers it computes something.
        share: the fraction of all layers, or of the rows of each, that it computes.
        split: what is shared: ``windows`` of layers, or ``rows`` of every matrix.
    """

    name: str
    chip: str
    memory_bytes: int
    budget_bytes: int
    planned_bytes: int
    layers: int
    share: float
    split: str


@dataclass(frozen=True, slots=True)
class Opened:
    """A model on several machines.

    Attributes:
        model: the model; closing it lets the other machines go.
        plan: of all machines together.
        caches: makes the caches of a sequence.
        reader: reads this machine's layers.
        shares: each machine, this one first, with its part.
        prompt_cache: the prefix cache on disk; None where the settings want none.
    """

    model: Model
    plan: Plan
    caches: ClusterCaches
    reader: Reader
    shares: Sequence[MachineShare]
    prompt_cache: PromptCache | None


def machine_shares(
    gathered: Gathered,
    shares: Sequence[tuple[int, float]],
    plans: Sequence[Mapping[str, Any]],
    *,
    split: str,
) -> list[MachineShare]:
    """Return the machines, this one first, from layers and fraction of each, and their plans."""
    own = read_machines(given_path(gathered.settings.machines or ""))[0]
    facts: list[tuple[str, str, int]] = [
        (own.name, device.chip_name(), device.read_memory().total),
        *(
            (peer.machine.name, str(peer.facts["chip"]), int(peer.facts["memory"]))
            for peer in gathered.peers
        ),
    ]
    return [
        MachineShare(name, chip, memory, budget, int(plan["total_bytes"]), layers, fraction, split)
        for (name, chip, memory), budget, (layers, fraction), plan in zip(
            facts, gathered.budgets, shares, plans, strict=True
        )
    ]


def opening_with(head: dict[str, Any], changes: Sequence[LayerChange]) -> Opening:
    """Return the first request to a machine, with an adapter's changes of its layers."""
    if not changes:
        return Opening(head)
    told, body = packed_changes(changes)
    return Opening({**head, "changes": told}, body)


def require_answers(gathered: Gathered, replies: Sequence[Reply]) -> list[Mapping[str, Any]]:
    """Return what the other machines say of their parts. Raises ConfigError."""
    own = arithmetic_facts(gathered.checkpoint, gathered.settings)
    answers = [answer for answer, _ in replies]
    for peer, answer in zip(gathered.peers, answers, strict=True):
        require_same_arithmetic(peer.machine, own, answer["arithmetic"])
    return answers


def plans_of(local_plan: Plan, answers: Sequence[Any]) -> list[dict[str, Any]]:
    """Return each machine's plan, with its room for KV caches."""
    own = {**local_plan.as_dict(), "kv_budget": local_plan.kv_budget}
    return [own, *({**answer["plan"], "kv_budget": answer["kv_budget"]} for answer in answers)]


def kept_prompts(
    gathered: Gathered, prompts: PromptCache | None, part: Any, local_count: int
) -> ClusterPromptCache | None:
    """Return the prefix cache on disk, of which each machine keeps its part."""
    if prompts is None:
        return None
    name = part_name(part, arithmetic_facts(gathered.checkpoint, gathered.settings))
    return ClusterPromptCache(prompts, name, local_count)


def joined_plan(
    parts: Sequence[Sequence[int]], plans: Sequence[dict[str, Any]], local: Plan
) -> Plan:
    """Return the plan of all machines as if they were one; ``parts`` are each one's layers.

    A layer of which any machine reads rows is one that streams.

    The machine with the least room for KV caches, in tokens, says how many tokens all have.
    """
    pinned, streamed = [], []
    for layers, plan in zip(parts, plans, strict=True):
        pinned += [layers[place] for place in plan["pinned"]]
        streamed += [layers[place] for place in plan["streamed"]]
    cache_bytes = sum(plan["cache_bytes"] for plan in plans)
    total_bytes = sum(plan["total_bytes"] for plan in plans)
    room = min(plan["kv_budget"] / plan["cache_bytes"] for plan in plans)
    return replace(
        local,
        budget=total_bytes - cache_bytes + int(cache_bytes * room),
        resident=not streamed,
        pinned=tuple(sorted(set(pinned) - set(streamed))),
        streamed=tuple(sorted(set(streamed))),
        prefill_chunk=min(plan["prefill_chunk"] for plan in plans),
        pinned_bytes=sum(plan["pinned_bytes"] for plan in plans),
        adapter_bytes=sum(plan["adapter_bytes"] for plan in plans),
        cache_bytes=cache_bytes,
        working_bytes=sum(plan["working_bytes"] for plan in plans),
        total_bytes=total_bytes,
        model_bytes=sum(plan["model_bytes"] for plan in plans),
        streamed_bytes=sum(plan["streamed_bytes"] for plan in plans),
        weight_bytes_per_token=sum(plan["weight_bytes_per_token"] for plan in plans),
    )
