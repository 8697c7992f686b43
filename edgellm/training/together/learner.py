"""A learner whose steps several machines compute, each a share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

import mlx.core as mx

from edgellm.distributed.remote.peer import Peer, Reply
from edgellm.errors import MachineError
from edgellm.models.layers import always
from edgellm.training.gradients import StepGradients
from edgellm.training.learners.learner import Learner, Losses, TrainingItem
from edgellm.training.low_rank import Change
from edgellm.training.together.messages import Layout, packed_items
from edgellm.training.together.shares import Shares

Item = TypeVar("Item", bound=TrainingItem)

HERE = "here"
"""What this machine is called where shares are shown."""


class TogetherLearner(Generic[Item]):
    """A learner of this machine beside those of others, whose derivatives are summed.

    The numbers are this machine's: it takes the steps, and sends them with each share. So the
    others have nothing that could differ, or be lost. A step is one message there and one back.

    Args:
        own: this machine's learner; it is closed with this one.
        peers: the other machines, which are open for training; likewise.
        layout: of the numbers.
        shares: who gets what.

    Attributes:
        shares: as above.
        notes: what a person should know of the machines.
    """

    def __init__(
        self, own: Learner[Item], peers: Sequence[Peer], layout: Layout, shares: Shares
    ) -> None:
        self._own, self._peers, self._layout = own, peers, layout
        self.shares = shares
        self.notes: list[str] = []

    def facts(self) -> dict[str, Any]:
        """Return what a run that goes on needs to know of its machines."""
        return {"paces": self.shares.paces if self.shares.measured else None}

    def go_on(self, facts: Mapping[str, Any]) -> None:
        """Share as a run did that was saved, where it had as many machines."""
        paces = facts.get("paces")
        if isinstance(paces, list) and len(paces) == len(self.names):
            self.shares.go_on(paces)

    @property
    def names(self) -> list[str]:
        """The machines' names, this one first."""
        return [HERE, *(peer.machine.name for peer in self._peers)]

    def initial(self) -> list[Change]:
        """Return the numbers as training begins."""
        return self._own.initial()

    def gradients(
        self, items: Sequence[Item], numbers: Sequence[Change], step: int
    ) -> StepGradients:
        """Return the loss of a step and its derivatives, of all machines' shares.

        Raises:
            MachineError: a machine is gone.
            ReadError: a layer cannot be read, here or there.
        """
        shares = self.shares.of(items)
        asked = {"ask": "derivatives", "step": step}
        parts: list[StepGradients] = []
        seconds = [0.0]
        with self._asked(asked, shares, numbers) as replies:
            if shares[0]:
                begun = time.perf_counter()
                parts.append(self._own.gradients(shares[0], numbers, step))
                seconds[0] = time.perf_counter() - begun
            for answer in replies():
                seconds.append(0.0)
                if answer is not None:
                    head, body = answer
                    by_changes = self._layout.changes(body)
                    parts.append(
                        StepGradients(
                            _number(head["loss"]), head["asked"], by_changes, head["figures"]
                        )
                    )
                    seconds[-1] = head["seconds"]
        tokens = [sum(item.length for item in share) for share in shares]
        self.shares.ended(tokens, seconds)
        return _joined(parts, dict(zip(self.names, tokens, strict=True)))

    def loss_of(self, items: Sequence[Item], numbers: Sequence[Change]) -> Losses:
        """Return the loss of items, of all machines' shares. Raises as ``gradients`` does."""
        shares = self.shares.of(items)
        found: list[Losses] = []
        with self._asked({"ask": "losses"}, shares, numbers) as replies:
            if shares[0]:
                found.append(self._own.loss_of(shares[0], numbers))
            for answer in replies():
                if answer is not None:
                    head, _ = answer
                    found.append(Losses(_number(head["loss"]), head["asked"], head["figures"]))
        asked = sum(each.asked for each in found)
        return Losses(sum(each.total for each in found), asked, _means(found, asked))

    def write(self, folder: Path, numbers: Sequence[Change]) -> None:
        """Write what was learned. Raises ConversionError."""
        self._own.write(folder, numbers)

    def close(self) -> None:
        """Free the model here, and let the other machines go."""
        self._own.close()
        for peer in self._peers:
            peer.close()

    def _part(self, head: Mapping[str, Any], body: memoryview) -> StepGradients:
        """Return what another machine answered."""
        loss = _number(head["loss"])
        return StepGradients(loss, head["asked"], self._layout.changes(body), head["figures"])

    @contextmanager
    def _asked(
        self, head: Mapping[str, Any], shares: Sequence[Sequence[Item]], numbers: Sequence[Change]
    ) -> Iterator[Callable[[], list[Reply | None]]]:
        """Ask the others for their shares, and yield what waits for their answers in order.

        Who has no share is not asked: None.
        """
        flat = self._layout.parts(numbers)
        with naming_what_to_do(), ExitStack() as stack:
            answers = [
                stack.enter_context(peer.asking(head, [*flat, packed_items(share)]))
                if share
                else None
                for peer, share in zip(self._peers, shares[1:], strict=True)
            ]
            yield lambda: [None if answer is None else answer(always) for answer in answers]


@contextmanager
def naming_what_to_do() -> Iterator[None]:
    """Hold work of several machines: the error of one that is gone says what to do."""
    try:
        yield
    except MachineError as error:
        raise MachineError(
            error.message,
            hint="start it again there (edgellm cluster join), and go on from the last save with "
            "--resume; --resume also takes other machines, or this one alone",
        ) from error


def _number(value: float | None) -> float:
    """Return a loss that was sent; one that is not finite has no number in JSON."""
    return float("nan") if value is None else value


def _joined(parts: Sequence[StepGradients], shares: Mapping[str, int]) -> StepGradients:
    """Return the mean of parts of a step, each weighted by what it is the mean of."""
    asked = sum(part.asked for part in parts)
    sums: list[Change] = [{} for _ in parts[0].by_changes]
    for part in parts:
        weight = part.asked / asked
        for total, own in zip(sums, part.by_changes, strict=True):
            for name, array in own.items():
                weighted = array * weight
                total[name] = total[name] + weighted if name in total else weighted
                mx.eval(total[name])
    loss = sum(part.loss * part.asked for part in parts) / asked
    return StepGradients(loss, asked, sums, _means(parts, asked), shares)


def _means(parts: Sequence[StepGradients] | Sequence[Losses], asked: int) -> dict[str, float]:
    """Return further means of parts as those of all."""
    return {
        name: sum(part.figures[name] * part.asked for part in parts) / asked
        for name in parts[0].figures
    }
