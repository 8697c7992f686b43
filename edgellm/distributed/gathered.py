"""Machines that are there and alike, before any of them has a part of the model."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgellm.checkpoint.checkpoint import Checkpoint
from edgellm.device.streams import borrowed_stream
from edgellm.distributed.links.machines import Machine, read_machines, secret_file
from edgellm.distributed.links.secret import read_secret
from edgellm.distributed.parts.changes import changes_bytes, changes_of_rows
from edgellm.distributed.parts.digests import folder_digests, require_alike, versions
from edgellm.distributed.parts.rows import RowShare, require_rows
from edgellm.distributed.remote.peer import LookUp, Peer
from edgellm.distributed.supply.sending import lacks_folder
from edgellm.distributed.supply.told_model import told_of
from edgellm.errors import (
    ConfigError,
    EdgeLLMError,
    MemoryBudgetError,
    UnsupportedModelError,
)
from edgellm.files.given_path import given_path
from edgellm.memory_plan.plan import Plan
from edgellm.memory_plan.plan_checkpoint import budget_for, plan_for
from edgellm.models.arithmetic import arithmetic_of
from edgellm.models.layers import LayerChange
from edgellm.models.through_mlx_lm.checkpoint import AnyCheckpoint
from edgellm.reading.tuning import measure_disk
from edgellm.runtime.loader import SendProgress
from edgellm.settings import LoadSettings

if TYPE_CHECKING:
    from edgellm.adapters.unmerged import UnmergedAdapter


@dataclass(frozen=True, slots=True)
class Gathered:
    """Machines that are there and alike, before any of them has layers.

    Attributes:
        checkpoint: the model.
        settings: of the first machine, with all chosen that the others have to have alike.
        peers: the other machines.
        budgets: bytes of each machine, the first one's first.
        sending: told of what is sent to machines that have not got the model.
        adapter: runs beside the weights; None: there is none. ``settings`` name none.
        changes: its changes of each layer.
    """

    checkpoint: Checkpoint
    settings: LoadSettings
    peers: Sequence[Peer]
    budgets: Sequence[int]
    sending: SendProgress | None = None
    adapter: UnmergedAdapter | None = None
    changes: Sequence[LayerChange] = ()

    def changes_of(self, part: Iterable[int] | RowShare) -> list[LayerChange]:
        """Return the adapter's changes of some layers, or of rows of all; none without one."""
        if not self.changes:
            return []
        if isinstance(part, RowShare):
            return changes_of_rows(self.changes, self.checkpoint.config, part)
        return [self.changes[layer] for layer in part]

    def adapter_bytes(self, machine: int, own: int) -> int:
        """Return the bytes of the adapter on a machine that computes with ``own`` of them.

        The first one keeps those of all, for machines that come back.
        """
        return own if machine else changes_bytes(self.changes)

    def settings_of(self, machine: int) -> LoadSettings:
        """Return the settings that a machine's part is planned with, by its number."""
        settings = replace(self.settings, memory=self.budgets[machine])
        if machine:
            settings = replace(settings, draft=None)
        return settings


def gather(checkpoint: AnyCheckpoint, settings: LoadSettings, stack: ExitStack) -> Gathered:
    """Call all machines, and choose what they have to have alike; ``stack`` lets them go.

    Raises MemoryBudgetError where not even all memories together are enough; the rest as above.
    """
    model = _require_layers(checkpoint)
    if settings.split == "rows":
        require_rows(model, settings)
    peers = call_machines(model, settings, stack)
    budgets = [budget_for(settings), *(peer.facts["budget"] for peer in peers)]
    adapter, changes = _read_adapter(model, settings)
    settings = replace(settings, adapter=None)
    together = replace(settings, memory=sum(budgets), draft=None)
    plan = plan_for(model, together, adapter_bytes=changes_bytes(changes))
    shared = replace(settings, context=plan.context, kv_bits=plan.kv_bits, memory=budgets[0])
    return Gathered(model, shared, peers, budgets, adapter=adapter, changes=changes)


def _read_adapter(
    model: Checkpoint, settings: LoadSettings
) -> tuple[UnmergedAdapter | None, Sequence[LayerChange]]:
    """Read the adapter that settings name, and its changes of all layers. Raises as ``load``."""
    if settings.adapter is None:
        return None, ()
    # most models have none, and what reads one takes time to import
    from edgellm.adapters.unmerged import open_unmerged

    adapter = open_unmerged(settings.adapter, model)
    with borrowed_stream():
        return adapter, adapter.layer_changes(arithmetic_of(model, settings).dtype)


def machines_of(settings: LoadSettings) -> list[Machine]:
    """Return the machines that settings name, this one first. Raises ConfigError."""
    return read_machines(given_path(settings.machines or ""))


def call_machines(model: Checkpoint, settings: LoadSettings, stack: ExitStack) -> list[Peer]:
    """Call the other machines; ``stack`` lets them go. One that lacks the model is told of it.

    Raises MachineError where one cannot be reached, refuses, or is not like this one.
    """
    machines = machines_of(settings)
    path = given_path(settings.machines or "")
    secret = read_secret(secret_file(path))
    own = folder_digests(model.folder.path)
    peers = []
    for number, machine in enumerate(machines[1:], 1):
        peer = Peer(machine, secret, look_up=_looking_up(path, number, machine, secret))
        stack.callback(peer.close)
        require_alike(machine.name, versions(), peer.facts["versions"], "version")
        if not lacks_folder(peer):
            require_alike(machine.name, own, peer.facts["files"], "file")
        else:
            peer.request({"ask": "model", "model": told_of(model)})
        peers.append(peer)
    return peers


def _looking_up(path: Path, number: int, machine: Machine, secret: bytes) -> LookUp:
    """Return what finds a machine and the secret in their files, or as they were.

    A machine may have another address by the time that it is back, and ``cluster start`` makes
    another secret each time.
    """

    def look_up() -> tuple[Machine, bytes]:
        try:
            found, now = read_machines(path)[number], read_secret(secret_file(path))
        except (EdgeLLMError, IndexError):
            return machine, secret
        return replace(found, name=machine.name), now

    return look_up


def part_planner(gathered: Gathered) -> Callable[[int, int], Plan]:
    """Return what plans a machine's part by its number and how many layers it has."""
    known: dict[tuple[int, int], Plan] = {}

    def plan_of(machine: int, layers: int) -> Plan:
        if (machine, layers) not in known:
            part = gathered.checkpoint.with_layers(range(layers))
            own = layers * max((changes_bytes([change]) for change in gathered.changes), default=0)
            with named(gathered, machine):
                known[machine, layers] = plan_for(
                    part,
                    gathered.settings_of(machine),
                    layers_only=machine > 0,
                    adapter_bytes=gathered.adapter_bytes(machine, own),
                )
        return known[machine, layers]

    return plan_of


@contextmanager
def named(gathered: Gathered, machine: int) -> Iterator[None]:
    """Let a MemoryBudgetError say which other machine's budget is too small."""
    try:
        yield
    except MemoryBudgetError as error:
        if machine == 0:
            raise
        name = gathered.peers[machine - 1].machine.name
        raise MemoryBudgetError(f"machine {name}: {error.message}", hint=error.hint) from error


def _require_layers(checkpoint: AnyCheckpoint) -> Checkpoint:
    """Return the checkpoint if it can be spread over machines."""
    if not isinstance(checkpoint, Checkpoint):
        raise UnsupportedModelError(
            "models that mlx-lm computes run on one machine",
            hint="leave out --machines, or choose a model that edgellm computes itself",
        )
    return checkpoint


def require_same_arithmetic(machine: Machine, own: dict[str, str], other: dict[str, str]) -> None:
    """Raise ConfigError where another machine computes otherwise; warn where it might."""
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


def disk_rate(model: Checkpoint, peer: Peer | None) -> float:
    """Measure the disk of another machine, or of this one: bytes per second."""
    if peer is not None:
        answer, _ = peer.request({"ask": "disk"})
        return float(answer["answer"])
    return measure_disk(sorted({extent.file for layer in model.layers for extent in layer.extents}))
