"""A machine that waits for clusters, and computes for one at a time."""

from __future__ import annotations

import queue
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from edgellm.checkpoint.checkpoint import Checkpoint
from edgellm.device import machine as device
from edgellm.distributed.links.addresses import Address, is_here, listening_socket
from edgellm.distributed.links.handshake import HANDSHAKE_SECONDS, shake_hands
from edgellm.distributed.links.link import Link
from edgellm.distributed.links.pulse import PATIENCE_SECONDS
from edgellm.distributed.members.lobby import MAX_CALLERS, Caller, Lobby
from edgellm.distributed.members.session import Session
from edgellm.distributed.parts.digests import versions
from edgellm.distributed.parts.part import MakeReader
from edgellm.distributed.parts.wire import error_document
from edgellm.distributed.supply.held import Held, WholeFolder
from edgellm.errors import EdgeLLMError, MachineError
from edgellm.memory_plan.plan_checkpoint import budget_for
from edgellm.repeats import Repeats
from edgellm.runtime.loader import open_reader
from edgellm.settings import LoadSettings

TIDY_SECONDS = 2.0
"""A cluster that comes waits so long for the one before to be gone."""

USES = ("control", "data", "rows", "heartbeats")
"""What those may call for who come to stay."""

LOOK_SECONDS = 30.0
"""Between two looks whether the address is still this machine's."""

AGAIN_SECONDS = 0.1
"""After a caller that could not be let in."""

Say = Callable[[str], None]


class Member:
    """Listens at an address until it is closed.

    Args:
        held: the model that it has layers of, or what is here of it.
        settings: its own memory and threads.
        address: where it listens, and nowhere else.
        secret: of the cluster.
        say: is told, in a line, what happens.
        make_reader: opens what reads the layers.
        make_session: what answers a cluster.

    Raises:
        MachineError: the address is taken, or not this machine's.
    """

    def __init__(
        self,
        held: Checkpoint | Held,
        settings: LoadSettings,
        address: Address,
        secret: bytes,
        *,
        say: Say,
        make_reader: MakeReader = open_reader,
        make_session: Callable[..., Session] = Session,
    ) -> None:
        budget = budget_for(settings)
        self._held: Held = WholeFolder(held) if isinstance(held, Checkpoint) else held
        # what is free changes, and what the first machine was told does not
        self._settings = replace(settings, memory=budget)
        self._secret = secret
        self._say = say
        self._make_reader, self._make_session = make_reader, make_session
        self._facts = {
            "versions": versions(),
            "files": self._held.files(),
            "budget": budget,
            "chip": device.chip_name(),
            "memory": device.read_memory().total,
            "system": device.system_name(),
        }
        self._sessions: queue.SimpleQueue[tuple[str, Session] | None] = queue.SimpleQueue()
        self._current: tuple[str, Session] | None = None
        self._closed = False
        self._free = threading.Condition()
        self._lobby, self._repeats = Lobby(), Repeats()
        self._address, self._has_address = address, True
        self._listener = listening_socket(address, MAX_CALLERS)
        self._listener.settimeout(LOOK_SECONDS)
        threading.Thread(target=self._accept, name="edgellm-cluster", daemon=True).start()

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._listener.getsockname()[1])

    def serve(self) -> None:
        """Compute for one cluster after another, until it is closed."""
        while (asked := self._sessions.get()) is not None:
            _, session = asked
            # one that calls again and again, since it refuses what is here, fills no log
            self._repeats.say(f"{session.name} has come", self._say)
            try:
                session.serve(PATIENCE_SECONDS)
                self._repeats.say(f"{session.name} has gone", self._say)
            except MachineError as error:
                self._repeats.say(error.message, self._say)
            finally:
                with self._free:
                    self._current = None
                    self._free.notify_all()

    def close(self) -> None:
        """Stop listening, from any thread; ``serve`` returns."""
        with self._free:  # a cluster that was let in before is served, and its connections end
            self._closed = True
            self._sessions.put(None)
        _shut(self._listener)

    def _accept(self) -> None:
        while True:
            try:
                connection, (host, *_) = self._listener.accept()
            except TimeoutError:
                self._look_for_address()
                continue
            except OSError:
                if self._closed:
                    return
                time.sleep(AGAIN_SECONDS)  # one caller has gone already, or files are short
                continue
            caller = self._lobby.enter(connection, host)
            threading.Thread(target=self._greet, args=(caller,), daemon=True).start()

    def _look_for_address(self) -> None:
        """Say where this machine has lost its address, or got it back: nobody else tells it."""
        had, self._has_address = self._has_address, is_here(self._address)
        if had and not self._has_address:
            self._say(
                f"this machine no longer has the address {self._address.host}: nobody reaches it; "
                "if it has another one now, start edgellm cluster join with that, and write it "
                "into the file of machines"
            )
        elif self._has_address and not had:
            self._say(f"this machine has the address {self._address.host} again")

    def _greet(self, caller: Caller) -> None:
        """Learn what a caller wants, once it has proved that it knows the secret."""
        connection, name = caller.connection, caller.host
        is_known = False
        try:
            try:
                keys = shake_hands(connection, self._secret, calls=False, name=name)
                is_known = True
            finally:
                self._lobby.leave(caller, is_known=is_known)
            link = Link(connection, keys, name)
            link.set_timeout(HANDSHAKE_SECONDS)
            head, _ = link.receive()
            if not self._welcome(link, head):
                link.close()
        except (EdgeLLMError, OSError, ValueError) as error:
            why = getattr(error, "message", str(error))
            if caller.is_sent_away:
                why = "it had proved nothing when others came"
            self._refuse(caller, why)
        except (KeyError, TypeError):
            self._refuse(caller, "it asks in another form; run one version of edgellm everywhere")

    def _refuse(self, caller: Caller, why: str) -> None:
        name = caller.host
        self._repeats.say(f"refused {name}: {why}", self._say, of=f"refused {name}")
        caller.connection.close()

    def _welcome(self, link: Link, head: Mapping[str, Any]) -> bool:
        """Answer a caller; return whether its connection is kept."""
        with self._free:
            if head.get("for") == "control":
                # a cluster that has only just ended is still being tidied up
                self._free.wait_for(lambda: self._current is None, TIDY_SECONDS)
            if self._closed:
                return False
            current = self._current
            match head.get("for"):
                case "status":
                    link.send({**self._facts, "busy": current is not None})
                    return False
                case "data" | "rows" | "heartbeats" if current is not None and (
                    secrets.compare_digest(current[0], str(head.get("session")))
                ):
                    if head["for"] == "data":
                        link.set_timeout(None)
                        current[1].attach(link)
                    else:
                        current[1].attach_lane(link, head)
                    return True
                case "data":
                    return False
                case "control" if current is None:
                    token = secrets.token_hex(16)
                    link.send({**self._facts, "session": token})
                    session = self._make_session(
                        link,
                        self._held,
                        self._settings,
                        secret=self._secret,
                        make_reader=self._make_reader,
                    )
                    self._current = token, session
                    self._sessions.put(self._current)
                    return True
        link.send(error_document(_no_room(head)))
        return False


def _no_room(head: Mapping[str, Any]) -> MachineError:
    """Return why a caller who knows the secret is not let in."""
    if head.get("for") not in USES:
        return MachineError(
            "it does not know what it was called for",
            hint="run the same version of edgellm on all machines",
        )
    return MachineError(
        "it computes for another cluster",
        hint="wait until that one ends, or give each its own --port",
    )


def _shut(listener: socket.socket) -> None:
    # wakes who accepts; macOS does not let listeners be shut down
    with suppress(OSError):
        listener.shutdown(socket.SHUT_RDWR)
    listener.close()
