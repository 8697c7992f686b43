"""Windows of layers, computed for the first machine until it goes."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

from edgellm.checkpoint.checkpoint import Checkpoint
from edgellm.device.streams import borrowed_stream
from edgellm.distributed.links.lane import LaneError
from edgellm.distributed.links.link import Link
from edgellm.distributed.links.pulse import Pulse
from edgellm.distributed.members.held_caches import HeldCaches
from edgellm.distributed.members.kept_part import KeptPart
from edgellm.distributed.members.meeting import Meeting, neighbours_from
from edgellm.distributed.parts.changes import unpacked_changes
from edgellm.distributed.parts.open_rows import open_rows
from edgellm.distributed.parts.output import bounds_from
from edgellm.distributed.parts.part import (
    MakeReader,
    Part,
    arithmetic_facts,
    open_part,
    part_name,
    run_window,
    settings_from,
)
from edgellm.distributed.parts.row_pass import RowPass, gathered_columns
from edgellm.distributed.parts.rows import RowLayers, share_from
from edgellm.distributed.parts.wire import error_document, packed, unpacked
from edgellm.distributed.supply.held import Answer, Held, WholeFolder
from edgellm.distributed.supply.sample_model import measure_told
from edgellm.errors import MachineError
from edgellm.models.layers import WindowedLayers, always
from edgellm.runtime.loader import open_reader
from edgellm.runtime.step_time import measure_step
from edgellm.settings import LoadSettings

LAST_WORD_SECONDS = 0.5
"""What the first machine's word that it ends may take longer than the end of a connection."""


class Session:
    """A cluster that this machine computes for.

    Args:
        control: the connection of heartbeats, on which it may also be told to stop.
        held: the model, or what is here of it.
        settings: this machine's own: its memory and threads.
        secret: of the cluster, for machines that it calls itself.
        make_reader: opens what reads the layers.
    """

    def __init__(
        self,
        control: Link,
        held: Checkpoint | Held,
        settings: LoadSettings,
        *,
        secret: bytes,
        make_reader: MakeReader = open_reader,
    ) -> None:
        self.name: str = control.name
        self._held: Held = WholeFolder(held) if isinstance(held, Checkpoint) else held
        self._settings = settings
        self._make_reader = make_reader
        self._data: Link | None = None
        self._has_data = threading.Event()
        self._attaching = threading.Lock()
        # the first machine is gone, or this has ended
        self._is_over = False
        self._part: Part[WindowedLayers] | Part[RowLayers] | None = None
        self._meeting = Meeting(secret, control.name)
        self._rows: RowPass | None = None
        self._kept: KeptPart | None = None
        self._caches = HeldCaches()
        self._stopped = 0
        self._ended = threading.Event()
        self._pulse = Pulse(control, self._lose, self._obey)

    def attach(self, data: Link) -> None:
        """Give it the connection of its work, which is closed with it, or at once if it is over."""
        with self._attaching:
            if self._is_over:
                data.close()
            else:
                self._data = data
        self._has_data.set()

    def attach_lane(self, link: Link, head: Mapping[str, Any]) -> None:
        """Give it a connection to another machine, or to the first one, for its rows."""
        self._meeting.attach(link, head)

    def serve(self, patience: float) -> None:
        """Answer until the other side ends it; raise MachineError where it is gone instead."""
        try:
            if not self._has_data.wait(patience) or self._data is None:
                raise MachineError(f"{self.name} was here, and went before it asked for anything")
            while True:
                self._serve_one(self._data)
        except MachineError:
            # the word for it comes over the other connection, perhaps a little later
            if not self._ended.wait(LAST_WORD_SECONDS):
                raise
        finally:
            self._close()

    def _serve_one(self, data: Link) -> None:
        """Answer a request; nothing of it is held until the next one."""
        head, body = data.receive()
        try:
            answer, parts = self._answer(head, body)
        except Exception as error:  # whatever it is, the first machine has to know
            answer, parts = error_document(error), ()
            if head["ask"] in ("rows", "logits"):
                self._meeting.break_off()
        data.send(answer, *parts)

    def _answer(self, head: Mapping[str, Any], body: memoryview) -> Answer:
        self._caches.take_notes(head["notes"], None if self._part is None else self._part.caches)
        match head["ask"]:
            case "run":
                return self._run(head, body)
            case "rows" | "logits":
                return self._run_rows(head, body)
            case "meet":
                return self._meet(head)
            case "open":
                return self._open(head, body), ()
            case "disk":
                answer: Any = self._held.disk_rate()
            case "arithmetic":
                answer = self._measure_arithmetic(head)
            case "can trim":
                caches = self._caches[head["cache"]]
                answer = all(cache.can_trim(head["offset"]) for cache in caches)
            case "kept":
                caches = self._caches[head["cache"]]
                assert self._kept is not None, "the first machine has asked for it"
                answer = self._kept.answer(head["do"], head["tokens"], caches)
            case "finite":
                layers = [cache.finite_layers() for cache in self._caches[head["cache"]]]
                answer = [finite for layer in layers for finite in layer]
            case "echo":
                return {}, [memoryview(bytes(head["back"])) if "back" in head else body]
            case _:
                return self._held.answer(head, body)
        return {"answer": answer}, ()

    @property
    def _checkpoint(self) -> Checkpoint:
        """The model, of which no more than was opened may be here."""
        return self._held.checkpoint

    def _measure_arithmetic(self, head: Mapping[str, Any]) -> float:
        """Return bytes of weights per second, of this model or of one that is told."""
        settings = settings_from(head["settings"], self._settings)
        with borrowed_stream():
            if "model" in head:
                return measure_told(head["model"], settings)
            reader = self._held.step_reader()
            return measure_step(self._checkpoint, settings, reader=reader).weights_per_second

    def _open(self, head: Mapping[str, Any], body: memoryview) -> Mapping[str, Any]:
        """Load the layers; return the plan and how they compute."""
        self._free()
        self._held.prepare(head)
        settings = settings_from(head["settings"], self._settings)
        part: Part[WindowedLayers] | Part[RowLayers]
        with borrowed_stream():
            changes = unpacked_changes(head["changes"], body) if "changes" in head else []
            if "rows" in head:
                share = share_from(head["rows"])
                part = open_rows(
                    self._checkpoint,
                    share,
                    settings,
                    output=bounds_from(head["output"]),
                    changes=changes,
                    make_reader=self._make_reader,
                )
            else:
                part = open_part(
                    self._checkpoint,
                    head["layers"],
                    settings,
                    make_reader=self._make_reader,
                    changes=changes,
                )
        self._part = part
        facts = arithmetic_facts(self._checkpoint, settings)
        self._kept = None
        if head.get("keeps") is not None:
            named = head["rows"] if "rows" in head else head["layers"]
            self._kept = KeptPart(head["keeps"], part_name(named, facts))
        return {
            "plan": part.plan.as_dict(),
            "kv_budget": part.plan.kv_budget,
            "arithmetic": facts,
            "takes_trees": part.layers.takes_trees,
        }

    def _run(self, head: Mapping[str, Any], body: memoryview) -> Answer:
        assert self._part is not None, "it was opened"
        layers = self._part.layers
        assert not isinstance(layers, RowLayers), "with whole layers"
        number = head["number"]
        window = range(*head["layers"])
        spans = self._caches.spans(head, window)
        with borrowed_stream():
            states = run_window(
                layers,
                unpacked(head["states"], body),
                spans,
                window,
                lambda: self._stopped != number and not self._is_over,
            )
            shapes, parts = packed(states)
        return {"states": shapes}, parts

    def _meet(self, head: Mapping[str, Any]) -> Answer:
        """Open lanes to all other machines, for the rows that were opened."""
        assert self._part is not None, "it was opened"
        layers = self._part.layers
        assert isinstance(layers, RowLayers), "with rows"
        mesh = self._meeting.join(head["mesh"], head["place"], neighbours_from(head["machines"]))
        shares = [share_from(share) for share in head["shares"]]
        columns = gathered_columns(self._checkpoint.config, shares)
        output = head["output"] and list(map(bounds_from, head["output"]))
        self._rows = RowPass(layers, mesh, columns, output)
        return {}, ()

    def _run_rows(self, head: Mapping[str, Any], body: memoryview) -> Answer:
        assert self._rows is not None, "it has met the others"
        with borrowed_stream():
            rows = np.frombuffer(body, np.float32).reshape(-1, self._checkpoint.config.hidden_size)
            try:
                if head["ask"] == "logits":
                    self._rows.logits(rows)
                    return {}, ()
                spans = self._caches.spans(head, range(len(self._checkpoint.layers)))
                depth, wants = head["depth"], head["logits"]
                self._rows.run(rows, spans, keep_going=always, depth=depth, wants_logits=wants)
            except LaneError as error:  # the machine that it is about may say more
                return {**error_document(error), "is_sequel": True}, ()
        return {}, ()

    def _obey(self, message: Mapping[str, Any]) -> None:
        self._stopped = int(message.get("stop", 0))
        if message.get("end"):
            self._ended.set()

    def _lose(self, reason: str) -> None:
        with self._attaching:
            self._is_over = True
            if self._data is not None:
                self._data.fail(reason)
        self._meeting.fail(reason)
        self._has_data.set()

    def _free(self) -> None:
        self._caches.clear()
        self._rows = None
        if self._part is not None:
            self._part.close()
            self._part = None

    def _close(self) -> None:
        with self._attaching:
            self._is_over = True
        self._pulse.close()
        if self._data is not None:
            self._data.close()
        self._meeting.close()
        self._held.close()
        self._free()
