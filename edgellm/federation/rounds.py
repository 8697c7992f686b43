"""The server's side: one round after another is asked for, averaged and saved."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from edgellm.checkpoint.checkpoint import Checkpoint
from edgellm.checkpoint.folder import ADAPTER_CONFIG, CONFIG
from edgellm.device.machine import peak_process_memory
from edgellm.errors import ConfigError, EdgeLLMError, MachineError
from edgellm.federation.aggregation import Contribution, Mean, mean_of_products, mean_of_ups
from edgellm.federation.factors import UP, Numbers, as_changes, as_floats, layout_of
from edgellm.federation.fleet import Fleet, RoundReport, Rounds
from edgellm.federation.local_learning import shapes_digest
from edgellm.federation.saved_rounds import FILE, SavedRounds, read_rounds
from edgellm.federation.task import Answer, Kind, Lesson, Task
from edgellm.training.adapter_folder import write_adapter
from edgellm.training.low_rank import initial_changes
from edgellm.training.start_adapter import Start, open_start

LOOK_SECONDS = 0.2

TRIES = 3
"""Rounds in a row without enough answers, before a federation gives up."""

END_SECONDS = 120.0
"""What clients may take at the end: they may tell a last loss, and write what was learned."""

Say = Callable[[str], None]


class Federation:
    """An adapter that is learned by clients, and saved after each round.

    Args:
        checkpoint: the model; its weights are not read.
        folder: that the adapter goes to.
        lesson: how clients learn.
        rounds: how many, and with whom.
        base: the model's name, for those who open the adapter.
        start: the adapter that it begins with; None: one that changes nothing.
        resume: go on with the one in ``folder``.
        say: tells a person what happens.

    Attributes:
        state: where it is.
        lesson: how clients learn; rank and matrices follow from a start.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        folder: Path,
        lesson: Lesson,
        rounds: Rounds,
        *,
        base: str,
        start: Start | None = None,
        resume: bool = False,
        say: Say = print,
    ) -> None:
        self._folder, self._rounds, self._base, self._say = folder, rounds, base, say
        config = checkpoint.config
        numbers: Numbers | None = None
        if start is not None:
            opened = open_start(start, checkpoint, lesson.settings.lora)
            _require_plain_start(opened.lora)
            lesson = replace(lesson, settings=replace(lesson.settings, lora=opened.lora))
            numbers = as_floats(opened.numbers())
        self.lesson: Lesson = lesson
        lora, seed = lesson.settings.lora, lesson.settings.seed
        self._layout = layout_of(config, lora)
        self._spare = as_floats(initial_changes(config, lora, seed))
        self._shapes = shapes_digest(config)
        facts = {
            "model": self._shapes,
            "lesson": lesson.as_plain(),
            "start": None if start is None else str(start.folder),
        }
        if resume:
            self.state: SavedRounds = read_rounds(folder, facts, self._layout.size)
            if self.state.round > rounds.rounds:
                raise ConfigError(
                    f"the federation in {folder} has had {self.state.round} rounds, and was asked "
                    f"for {rounds.rounds}",
                    hint="give more --rounds",
                )
        else:
            _require_free(folder)
            row = self._layout.row_of(self._spare if numbers is None else numbers)
            self.state = SavedRounds(0, row, facts)

    def run(self, fleet: Fleet) -> Iterator[RoundReport]:
        """Yield each round that is left as it ends; it is saved by then.

        Raises:
            MachineError: too few clients are there, or answer.
            ConversionError: the disk refuses.
        """
        self.save()
        tries = 0
        while self.state.round < self._rounds.rounds:
            begun = time.monotonic()
            clients = self._gathered(fleet)
            report = self._round(fleet, clients, begun)
            if isinstance(report, RoundReport):
                tries = 0
                yield report
                continue
            tries += 1
            why = "; ".join(report.values())
            if tries == TRIES:
                raise MachineError(
                    f"{TRIES} times too few clients have answered: {why}",
                    hint="see what they say; the same command with --resume goes on from here",
                )
            self._say(f"round {self.state.round + 1} begins again: {why}")
        self._end(fleet)

    def save(self) -> None:
        """Write where it is, and its adapter. Raises ConversionError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self.state.write(self._folder)
        numbers = self._layout.numbers_of(self.state.row, "this server")
        write_adapter(self._folder, as_changes(numbers), self.lesson.settings.lora, base=self._base)

    def _gathered(self, fleet: Fleet) -> Sequence[str]:
        """Return the clients of a round: in the first all, later those that are there."""
        wanted = self._rounds.clients if self.state.round == 0 else self._rounds.least
        ends = time.monotonic() + self._rounds.wait
        said = False
        while True:
            present = fleet.present()
            if len(present) >= wanted:
                return present
            if time.monotonic() > ends:
                break
            if not said:
                self._say(f"{len(present)} of {wanted} clients are there")
                said = True
            time.sleep(LOOK_SECONDS)
        if len(present) >= self._rounds.least:
            self._say(f"going on with {len(present)} of {wanted} clients; others may come later")
            return present
        raise MachineError(
            f"{len(present)} of {self._rounds.least} clients are there, after "
            f"{self._rounds.wait:.0f} s",
            hint="start them (edgellm federate client), or use a longer --wait; with --resume this "
            "goes on from here",
        )

    def _round(
        self, fleet: Fleet, clients: Sequence[str], begun: float
    ) -> RoundReport | Mapping[str, str]:
        """Return a round that is over, or why too few have answered."""
        sent, received = fleet.traffic()
        before = self._layout.numbers_of(self.state.row, "this server")
        answers: dict[str, Answer] = {}
        learned: dict[str, Contribution] = {}
        failed: dict[str, str] = {}
        expected = self._layout.only(UP) if self.lesson.freeze_a else self._layout
        for name, answer in fleet.ask(self._task("learn"), clients, self._rounds.timeout):
            try:
                if isinstance(answer, EdgeLLMError):
                    raise answer
                numbers = expected.numbers_of(answer.numbers, name)
            except EdgeLLMError as error:
                failed[name] = error.message
                self._say(f"{error.message}: the mean is that of the others")
                continue
            answers[name] = answer
            learned[name] = Contribution(answer.weight, numbers)
        if len(learned) < self._rounds.least:
            return failed or {"": "nobody has answered"}
        # sums round in an order that does not depend on who was first
        parts = [learned[name] for name in sorted(learned)]
        mean = self._mean(parts, before)
        after = fleet.traffic()
        report = RoundReport(
            round=self.state.round + 1,
            clients={
                name: {
                    "weight": answer.weight,
                    "seconds": answer.seconds,
                    "memory": answer.memory,
                    **answer.figures,
                }
                for name, answer in sorted(answers.items())
            },
            failed=failed,
            lost=mean.lost,
            lost_of_round=mean.lost_of_round,
            sent=after[0] - sent,
            received=after[1] - received,
            seconds=time.monotonic() - begun,
            memory=peak_process_memory(),
        )
        self.state.row = self._layout.row_of(mean.numbers)
        self.state.round += 1
        self.state.history.append(asdict(report))
        self.save()
        return report

    def _mean(self, parts: Sequence[Contribution], before: Numbers) -> Mean:
        if self.lesson.freeze_a:
            return mean_of_ups(parts, before)
        return mean_of_products(parts, before, self._spare)

    def _end(self, fleet: Fleet) -> None:
        """Tell the clients that are there that it is over, and what was learned."""
        losses = []
        for name, answer in fleet.ask(self._task("end"), fleet.present(), END_SECONDS):
            if isinstance(answer, EdgeLLMError):
                self._say(f"at the end: {answer.message}")
            elif "valid" in answer.figures:
                losses.append(f"{name} {answer.figures['valid']:.4f}")
        if losses:
            self._say(f"nats on records that are not learned: {', '.join(sorted(losses))}")

    def _task(self, kind: Kind) -> Task:
        return Task(
            kind=kind,
            round=self.state.round + (kind == "learn"),
            rounds=self._rounds.rounds,
            lesson=self.lesson.as_plain(),
            shapes=self._shapes,
            numbers=self.state.row,
        )


def _require_plain_start(lora: Any) -> None:
    if lora.ranks or lora.alphas or lora.left_out or lora.dora:
        raise ConfigError(
            "a federation begins with an adapter of one rank and one alpha for all matrices, and "
            "no DoRA",
            hint="make one: edgellm adapter extract, or begin without --start-from",
        )


def _require_free(folder: Path) -> None:
    """Raise ConfigError where a federation would write over something."""
    if (folder / FILE).exists():
        raise ConfigError(
            f"{folder} holds a federation already",
            hint="go on with it: --resume; or name another folder",
        )
    for name, held in ((ADAPTER_CONFIG, "an adapter"), (CONFIG, "a model")):
        if (folder / name).exists():
            raise ConfigError(f"{folder} holds {held} already", hint="name another folder")
