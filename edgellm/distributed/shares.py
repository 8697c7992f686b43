"""The machines of a cluster with their parts of the model, once it is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgellm.device import machine as device
from edgellm.distributed.gathered import Gathered
from edgellm.distributed.links.machines import read_machines
from edgellm.files.given_path import given_path


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
