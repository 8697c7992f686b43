"""Another machine of the cluster, as the first one talks to it."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from edgellm.distributed.links.call import call
from edgellm.distributed.links.handshake import HANDSHAKE_SECONDS
from edgellm.distributed.links.lane import Lane
from edgellm.distributed.links.link import ASK_SECONDS
from edgellm.distributed.links.machines import Machine
from edgellm.distributed.links.pulse import PATIENCE_SECONDS, Pulse
from edgellm.distributed.parts.wire import raise_error
from edgellm.errors import EdgeLLMError, MachineError
from edgellm.models.layers import KeepGoing, always

Request = tuple[int, Mapping[str, Any], Sequence[memoryview], threading.Event]
Reply = tuple[Mapping[str, Any], memoryview]
LookUp = Callable[[], tuple[Machine, bytes]]


@dataclass(frozen=True, slots=True)
class Opening:
    """The first request to a machine, which is asked again when it comes back.

    Attributes:
        head: what it is asked.
        body: an adapter's numbers, if there is one.
    """

    head: Mapping[str, Any]
    body: Sequence[memoryview] = ()


class ChangedError(MachineError):
    """A machine has come back with other files or versions, and will not have those of before."""


class Peer:
    """Two connections to a machine: one for its heart and for stopping it, one for its work.

    Requests go through a thread of their own, so that an exception out of nowhere, as Ctrl-C is
    one, never leaves half a frame behind.

    Args:
        machine: which one.
        secret: of the cluster.
        look_up: says both anew, before a machine that was lost is called; None: they stay.

    Attributes:
        machine: as above.
        facts: what it said of itself when it was called first.
        session: by which it knows connections of this cluster.
        is_lost: whether it is gone; ``join_again`` brings it back.
        generation: how many times it has come back, each time without caches.

    Raises:
        MachineError: it cannot be reached, is busy, or refuses.
    """

    def __init__(self, machine: Machine, secret: bytes, *, look_up: LookUp | None = None) -> None:
        self.machine = machine
        self._look_up = look_up
        self.is_lost: bool = False
        self.generation: int = 0
        self._secret = secret
        self._notes: deque[list[Any]] = deque()
        self._turn = threading.Lock()
        self._asked = 0
        self._to_stop = 0
        self._closed = False
        self._missed: EdgeLLMError | None = None
        self.facts: Mapping[str, Any] = self._connect()

    @property
    def heard_at(self) -> float:
        """When it was last heard before it was lost, by ``time.monotonic``."""
        return self._pulse.heard_at

    def join_again(
        self, opening: Opening, *, seconds: float = PATIENCE_SECONDS
    ) -> Mapping[str, Any]:
        """Connect to a machine that was lost, and return what it answers to ``opening``.

        Args:
            opening: the first request.
            seconds: that it may take until it has answered the call.

        Raises:
            MachineError: it is not there, or another one than it was.
            EdgeLLMError: what it answered.
        """
        self._disconnect()
        self._notes.clear()
        if self._look_up is not None:
            self.machine, self._secret = self._look_up()
        facts = self._connect(seconds)
        if any(facts[key] != self.facts[key] for key in ("versions", "files")):
            self._disconnect()
            raise ChangedError(
                f"machine {self.machine.name} has come back with other files or versions",
                hint="load the model again",
            )
        self.generation += 1
        self.is_lost = False
        try:
            answer, _ = self.request(opening.head, opening.body)
        except BaseException:
            self.is_lost = True
            raise
        return answer

    def _connect(self, seconds: float = PATIENCE_SECONDS) -> Mapping[str, Any]:
        """Connect to the machine, and return what it says of itself. Raises MachineError."""
        control = call(self.machine, self._secret, seconds=seconds)
        try:
            control.set_timeout(seconds)
            control.send({"for": "control"})
            facts, _ = control.receive()
            raise_error(facts, self.machine.name)
            self.session: str = facts["session"]
            self._data = call(self.machine, self._secret, seconds=seconds)
            try:
                self._data.send({"for": "data", "session": self.session})
            except BaseException:
                self._data.close()
                raise
        except BaseException:
            control.close()
            raise
        self._missed = None
        self._requests: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._replies: queue.SimpleQueue[tuple[int, Reply | EdgeLLMError]] = queue.SimpleQueue()
        self._lane: Lane | None = None
        self._pulse = Pulse(control, self._lose, lambda _: None)
        self._thread = threading.Thread(
            target=self._exchange, name=f"edgellm-peer-{self.machine.name}", daemon=True
        )
        self._thread.start()
        return facts

    def call_lane(self, head: Mapping[str, Any]) -> Lane:
        """Return a lane to the machine, which ends with its heartbeats. Raises MachineError."""
        try:
            return self._called_lane(head)
        except MachineError:
            # it may have ended the session, and said so to nobody who was waiting
            self.is_lost = True
            raise

    def _called_lane(self, head: Mapping[str, Any]) -> Lane:
        link = call(self.machine, self._secret)
        try:
            link.set_timeout(HANDSHAKE_SECONDS)
            link.send({"for": "rows", "session": self.session, **head})
            answer, _ = link.receive()
            raise_error(answer, self.machine.name)
            self._lane = link.become_lane(self.machine.name)
        except BaseException:
            link.close()
            raise
        return self._lane

    def note(self, *change: Any) -> None:
        """Tell the machine of a change of its caches, before the next request; from any thread."""
        self._notes.append(list(change))

    def request(
        self,
        head: Mapping[str, Any],
        body: Sequence[memoryview] = (),
        *,
        keep_going: KeepGoing = always,
    ) -> Reply:
        """Return what the machine answers, with all that was noted done before.

        After a no of ``keep_going`` the machine is asked to stop, and answers soon.

        Raises:
            MachineError: it is gone.
            EdgeLLMError: what it answered.
        """
        with self.asking(head, body) as answer:
            return answer(keep_going)

    @contextmanager
    def asking(
        self, head: Mapping[str, Any], body: Sequence[memoryview] = ()
    ) -> Iterator[Callable[[KeepGoing], Reply]]:
        """Ask as ``request`` does, and yield what waits for the answer and returns it."""
        with self._turn:
            number = self._ask(head, body)

            def answer(keep_going: KeepGoing) -> Reply:
                reply = self._wait(number, keep_going)
                if isinstance(reply, EdgeLLMError):
                    self.is_lost = True
                    raise reply
                raise_error(reply[0], self.machine.name)
                return reply

            yield answer

    def wait_until_asked(self) -> None:
        """Wait until the last request has been sent, or the machine is gone.

        The thread that sends it gets neither the interpreter nor, on a machine of one core, the
        processor from who computes.
        """
        while not self._is_sent.wait(ASK_SECONDS) and self._thread.is_alive():
            continue

    def _ask(self, head: Mapping[str, Any], body: Sequence[memoryview]) -> int:
        if self.is_lost:
            raise MachineError(f"machine {self.machine.name} is gone")
        while not self._replies.empty():
            self._replies.get()  # nobody waits for what was asked before
        notes = []
        while self._notes:
            notes.append(self._notes.popleft())
        self._asked += 1
        number = self._asked
        self._is_sent = threading.Event()
        asked = {**head, "notes": notes, "number": number}
        self._requests.put((number, asked, body, self._is_sent))
        return number

    def _wait(self, number: int, keep_going: KeepGoing) -> Reply | EdgeLLMError:
        try:
            while True:
                try:
                    answered, reply = self._replies.get(timeout=ASK_SECONDS)
                except queue.Empty:
                    if not self._thread.is_alive() and self._replies.empty():
                        return MachineError(f"machine {self.machine.name} was let go")
                    if not keep_going():
                        self._to_stop = number
                    continue
                if answered == number:
                    return reply
        except BaseException:
            self._to_stop = number
            raise

    def require_there(self) -> None:
        """Raise MachineError where the machine is gone, whether it is asked something or not."""
        if self._missed is not None:
            raise self._missed

    def close(self) -> None:
        """End the connections; the machine frees the layers and waits for the next cluster."""
        if self._closed:
            return
        self._closed = True
        self._disconnect()

    def _disconnect(self) -> None:
        self._requests.put(None)
        with suppress(MachineError):
            self._pulse.send({"end": True})
        self._pulse.close()
        # the thread may still wait for its file's number, which close gives to the next one
        self._data.fail("the connection was closed here")
        self._thread.join()
        self._data.close()

    def _lose(self, reason: str) -> None:
        if self._missed is None:  # it may be asked nothing now
            self._missed = MachineError(f"machine {self.machine.name} is gone: {reason}")
        self._data.fail(reason)
        if self._lane is not None:
            self._lane.fail(reason)

    def _exchange(self) -> None:
        while (asked := self._requests.get()) is not None:
            self._converse(*asked)
            del asked  # what was sent is not held until the next request

    def _converse(
        self,
        number: int,
        head: Mapping[str, Any],
        body: Sequence[memoryview],
        is_sent: threading.Event,
    ) -> None:
        """Send a request, and note the answer."""
        stopped = False

        def stop_if_asked() -> None:
            nonlocal stopped
            if self._to_stop == number and not stopped:
                stopped = True
                self._pulse.send({"stop": number})

        try:
            try:
                self._data.send(head, *body)
            finally:
                is_sent.set()
            self._replies.put((number, self._data.receive(stop_if_asked)))
        except EdgeLLMError as error:
            self._missed = error
            self._replies.put((number, error))


@contextmanager
def opening_all(
    peers: Sequence[Peer], openings: Sequence[Opening]
) -> Iterator[Callable[[], list[Reply]]]:
    """Open the parts of several machines at once; yields and raises as ``asking_all`` does."""
    with ExitStack() as asked:
        answers = [
            asked.enter_context(peer.asking(opening.head, opening.body))
            for peer, opening in zip(peers, openings, strict=True)
        ]
        yield lambda: [answer(always) for answer in answers]


@contextmanager
def asking_all(
    peers: Sequence[Peer], heads: Sequence[Mapping[str, Any]], body: Sequence[memoryview] = ()
) -> Iterator[Callable[[], list[Reply]]]:
    """Ask several machines at once, and yield what waits for all their answers and returns them.

    Args:
        peers: the machines.
        heads: what each of them is asked.
        body: the same for all.

    Raises:
        MachineError: one is gone.
        EdgeLLMError: what one answered.
    """
    with ExitStack() as asked:
        answers = [
            asked.enter_context(peer.asking(head, body))
            for peer, head in zip(peers, heads, strict=True)
        ]
        yield lambda: [answer(always) for answer in answers]
