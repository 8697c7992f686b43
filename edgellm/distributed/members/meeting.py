"""How a machine comes by its lanes to the others: it calls those behind it, and is called."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from edgellm.distributed.links.addresses import Address, require_private
from edgellm.distributed.links.call import call
from edgellm.distributed.links.handshake import HANDSHAKE_SECONDS
from edgellm.distributed.links.lane import Lane
from edgellm.distributed.links.link import Link
from edgellm.distributed.links.machines import Machine
from edgellm.distributed.links.mesh import Mesh
from edgellm.distributed.links.pulse import Pulse
from edgellm.distributed.parts.wire import raise_error
from edgellm.errors import MachineError

ROWS, HEARTBEATS = "rows", "heartbeats"
"""What a connection between two of the other machines is for."""

_HINT = (
    "with --split rows each machine has to reach all others: name addresses in hosts.json that "
    "do, or leave out --split"
)

_Call = tuple[int, int, str]
"""A mesh, the place of the machine that has called, and what for."""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Another machine, as this one is told of it.

    Attributes:
        machine: its name, and where it listens.
        session: by which it knows connections of this cluster.
    """

    machine: Machine
    session: str


def neighbours_from(told: Sequence[Sequence[Any]]) -> list[Neighbour]:
    """Return machines as the first one has told of them. Raises ConfigError."""
    return [
        Neighbour(Machine(str(name), Address(require_private(host), int(port))), str(session))
        for name, host, port, session in told
    ]


class Meeting:
    """Connections that other machines have opened, until there is a mesh of them.

    Args:
        secret: of the cluster.
        name: the first machine's.
    """

    def __init__(self, secret: bytes, name: str) -> None:
        self._secret = secret
        self._name = name
        self._came: dict[_Call, Link] = {}
        self._changed = threading.Condition()
        self._mesh: Mesh | None = None
        self._is_over = False

    def attach(self, link: Link, head: Mapping[str, Any]) -> None:
        """Take a connection that another machine has opened, or end it if this is over."""
        called = int(head["mesh"]), int(head["from"]), str(head["for"])
        with self._changed:
            if self._is_over:
                link.close()
                return
            link.send({})
            self._came[called] = link
            self._changed.notify_all()

    def join(self, number: int, place: int, others: Sequence[Neighbour]) -> Mesh:
        """Return a new mesh; the one before is closed.

        Args:
            number: of the mesh.
            place: of this machine; the first one's is 0.
            others: all machines but the first, this one among them.

        Raises:
            MachineError: one of them cannot be reached, or does not come.
        """
        self._drop(number)
        lanes: dict[int, Lane] = {}
        pulses: list[Pulse] = []
        try:
            for other in range(place + 1, len(others) + 1):
                there = others[other - 1]
                lane = self._call(there, ROWS, number, place).become_lane(there.machine.name)
                lanes[other] = lane
                beats = self._call(there, HEARTBEATS, number, place)
                pulses.append(Pulse(beats, lane.fail, _nothing))
            for other in range(place):
                name = others[other - 1].machine.name if other else self._name
                lanes[other] = lane = self._take((number, other, ROWS), name).become_lane(name)
                if other:  # the first one has heartbeats already
                    beats = self._take((number, other, HEARTBEATS), name)
                    pulses.append(Pulse(beats, lane.fail, _nothing))
        except BaseException:
            Mesh(place, lanes, pulses).close()
            raise
        with self._changed:
            self._mesh = mesh = Mesh(place, lanes, pulses)
            if self._is_over:
                mesh.fail("the first machine is gone")
        return mesh

    def break_off(self) -> None:
        """Let no other machine wait for rows of a pass that has failed here."""
        if self._mesh is not None:
            self._mesh.fail("the pass was broken off")

    def fail(self, reason: str) -> None:
        """Let nobody wait any more, from any thread."""
        with self._changed:
            self._is_over = True
            if self._mesh is not None:
                self._mesh.fail(reason)
            self._changed.notify_all()

    def close(self) -> None:
        """End all connections."""
        self.fail("the connection was closed here")
        self._drop(None)

    def _drop(self, number: int | None) -> None:
        """End the mesh that there is, and connections for others than that of this number."""
        with self._changed:
            mesh, self._mesh = self._mesh, None
            for called in [called for called in self._came if called[0] != number]:
                self._came.pop(called).close()
        if mesh is not None:
            mesh.close()

    def _call(self, there: Neighbour, use: str, number: int, place: int) -> Link:
        machine = there.machine
        try:
            link = call(machine, self._secret)
            try:
                link.set_timeout(HANDSHAKE_SECONDS)
                link.send({"for": use, "session": there.session, "mesh": number, "from": place})
                answer, _ = link.receive()
                raise_error(answer, machine.name)
            except BaseException:
                link.close()
                raise
        except MachineError as error:
            to_there = f"machine {machine.name} cannot be reached at {machine.address}: "
            raise MachineError(
                f"it cannot reach machine {machine.name} at {machine.address}: "
                f"{error.message.removeprefix(to_there)}",
                hint=_HINT,
            ) from error
        return link

    def _take(self, called: _Call, name: str) -> Link:
        with self._changed:
            is_there = partial(self._came.__contains__, called)
            self._changed.wait_for(lambda: self._is_over or is_there(), HANDSHAKE_SECONDS)
            if not is_there() or self._is_over:
                raise MachineError(f"machine {name} has not called it", hint=_HINT)
            link = self._came.pop(called)
        link.name = name
        return link


def _nothing(_: Mapping[str, Any]) -> None:
    """Take no notice of what comes with heartbeats: nothing does."""
