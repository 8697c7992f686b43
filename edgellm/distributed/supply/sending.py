"""The first machine sends each other one what that lacks of its part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from edgellm.checkpoint.checkpoint import Checkpoint
from edgellm.distributed.parts.digests import KeptDigests, kept_digests
from edgellm.distributed.remote.peer import Peer
from edgellm.distributed.supply.part_file import PartFile, Wanted, part_files
from edgellm.distributed.supply.told_model import told_of
from edgellm.errors import MachineError
from edgellm.models.layers import always
from edgellm.runtime.loader import SendProgress


def lacks_folder(peer: Peer) -> bool:
    """Return whether a machine has not got the whole folder."""
    return not peer.facts["files"]


def supplied(
    checkpoint: Checkpoint,
    peers: Sequence[Peer],
    parts: Sequence[Wanted],
    progress: SendProgress | None = None,
) -> list[dict[str, Any]]:
    """Send machines what they lack; return what each has to be told when it opens its part.

    Args:
        checkpoint: the model.
        peers: the machines.
        parts: of each, its layers, or its rows of all of them.
        progress: told how far it is.

    Raises:
        MachineError: a machine is gone, or what it has is not what is here; says which layer.
        ConversionError: a machine's disk is full, or refuses.
        ReadError: a file cannot be read here.
    """
    tellings: list[dict[str, Any]] = []
    with kept_digests() as kept:
        sendings = []
        for peer, part in zip(peers, parts, strict=True):
            if not lacks_folder(peer):
                tellings.append({})
                continue
            sending = _Sending(peer, part_files(checkpoint, part), part.head, kept)
            sendings.append(sending)
            tellings.append(sending.telling)
        for sending in sendings:
            sending.look()
        _send(sendings, progress or (lambda *_: None))
        for sending in sendings:
            sending.telling |= {
                "model": told_of(checkpoint),
                "layers": [file.layer for file in sending.files],
                "digests": [file.digest(kept) for file in sending.files],
            }
    return tellings


@dataclass(frozen=True, slots=True)
class _Chunk:
    head: Mapping[str, Any]
    body: bytes


class _Sending:
    """The files of one machine's part, and those that it lacks."""

    def __init__(
        self, peer: Peer, files: Sequence[PartFile], head: Mapping[str, Any], kept: KeptDigests
    ) -> None:
        self.peer = peer
        self.files = files
        self.telling: dict[str, Any] = {}
        self.total = 0
        self.sent = 0
        self._head = head
        self._kept = kept
        self._lacking: list[tuple[PartFile, int]] = []

    def look(self) -> None:
        """Ask what is there. Raises MachineError where that is another model's."""
        layers = [file.layer for file in self.files]
        answer, _ = self.peer.request({"ask": "held", "layers": layers, **self._head})
        for file, state in zip(self.files, answer["answer"], strict=True):
            if state["sha256"] is not None:
                if state["sha256"] == file.digest(self._kept):
                    continue
                if state["carried"]:
                    raise MachineError(
                        f"{file.title} on machine {self.peer.machine.name} "
                        "is another one than here",
                        hint=f"remove its file {file.name} there, and it is sent; or make the "
                        "part again: edgellm cluster part MODEL FOLDER --layers ...",
                    )
            start = state["bytes"] if state["bytes"] < file.nbytes else 0
            self._lacking.append((file, start))
            self.total += file.nbytes - start
        if self.total:
            self.peer.request({"ask": "room", "bytes": self.total})

    def chunks(self) -> Iterator[_Chunk]:
        """Yield what is sent. Raises ReadError."""
        for file, start in self._lacking:
            head = {"ask": "take", "layers": [file.layer], **self._head}
            digest = file.digest(self._kept)
            place = start
            for body in file.read(start):
                yield _Chunk({**head, "at": place, "sha256": digest}, body)
                place += len(body)


def _send(sendings: Sequence[_Sending], progress: SendProgress) -> None:
    """Send each machine its next piece, while the one after it is read."""
    under_way = [(sending, sending.chunks()) for sending in sendings if sending.total]
    chunks = [next(pieces) for _, pieces in under_way]
    while under_way:
        with ExitStack() as asked:
            answers = [
                asked.enter_context(sending.peer.asking(chunk.head, [memoryview(chunk.body)]))
                for (sending, _), chunk in zip(under_way, chunks, strict=True)
            ]
            following = [next(pieces, None) for _, pieces in under_way]
            for (sending, _), chunk, answer in zip(under_way, chunks, answers, strict=True):
                answer(always)
                sending.sent += len(chunk.body)
                progress(sending.peer.machine.name, sending.sent, sending.total)
        under_way = [one for one, chunk in zip(under_way, following, strict=True) if chunk]
        chunks = [chunk for chunk in following if chunk]
