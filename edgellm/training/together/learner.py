"""A learner whose steps several machines compute, each a share."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

import mlx.core as mx

from edgellm.distributed.remote.peer import Peer, Reply
from edgellm.errors import MachineError
from edgellm.training.gradients import StepGradients
from edgellm.training.learners.learner import Learner, Losses, TrainingItem
from edgellm.training.low_rank import Change
from edgellm.training.together.link_costs import numbers_seconds
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
        memories: of the other machines by name, in words.
        notes: what a person should know of the machines, in sentences.
    """

    def __init__(
        self, own: Learner[Item], peers: Sequence[Peer], layout: Layout, shares: Shares
    ) -> None:
        self._own, self._peers, self._layout = own, peers, layout
        self.shares = shares
        self.memories: Mapping[str, str] = {}
        self.notes: Sequence[str] = ()
        # numbers whose loss was asked for last, and the machines that have them
        self._known: list[mx.array] = []
        self._knowing: set[int] = set()
        self._idle: set[int] = set()  # machines that had no share of the last step

    def facts(self) -> dict[str, Any]:
        """Return what a run that goes on needs to know of its machines."""
        return {"shares": self.shares.document()}

    def go_on(self, facts: Mapping[str, Any]) -> None:
        """Share as a run did that was saved, where it had as many machines."""
        self.shares.go_on(facts.get("shares"))

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
        with naming_what_to_do():
            self.require_all()
            shares = self.shares.of(items, step)
            self._measure_links(shares)
        self._forget()
        seconds = [0.0] * len(shares)
        own: StepGradients | None = None
        with self._asked({"ask": "derivatives", "step": step}, shares, numbers) as replies:
            if shares[0]:
                begun = time.perf_counter()
                own = self._own.gradients(shares[0], numbers, step)
                seconds[0] = time.perf_counter() - begun
            answers = replies()
        for machine, (head, _) in answers.items():
            seconds[machine] = head["seconds"]
        tokens = [sum(item.length for item in share) for share in shares]
        self.shares.ended(tokens, seconds)
        self._idle = {machine for machine, own in enumerate(tokens) if machine and not own}
        return self._joined(own, list(answers.values()), dict(zip(self.names, tokens, strict=True)))

    def loss_of(self, items: Sequence[Item], numbers: Sequence[Change]) -> Losses:
        """Return the loss of items, of all machines' shares. Raises as ``gradients`` does."""
        shares = self.shares.of(items)
        found: list[Losses] = []
        arrays = [array for change in numbers for array in change.values()]
        if [*map(id, arrays)] != [*map(id, self._known)]:
            self._forget()
        with self._asked({"ask": "losses"}, shares, numbers, self._knowing) as replies:
            if shares[0]:
                found.append(self._own.loss_of(shares[0], numbers))
            answers = replies()
        found += [_losses(head) for head, _ in answers.values()]
        self._known, self._knowing = arrays, self._knowing | answers.keys()
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

    def require_all(self) -> bool:
        """Return true, or raise MachineError where a machine is gone, whatever its share."""
        for peer in self._peers:
            peer.require_there()
        return True

    def _measure_links(self, shares: Sequence[Sequence[Item]]) -> None:
        """Measure the links of machines that had no share and have one again."""
        if self.shares.measured:
            for machine in self._idle:
                if shares[machine]:
                    peer = self._peers[machine - 1]
                    self.shares.trips[machine] = numbers_seconds(peer, self._layout.nbytes)

    def _forget(self) -> None:
        """Let all numbers be sent again."""
        self._known, self._knowing = [], set()

    def _joined(
        self, own: StepGradients | None, answers: Sequence[Reply], shares: Mapping[str, int]
    ) -> StepGradients:
        """Return the mean of all shares, each weighted by what it is the mean of.

        Derivatives are added one array after the other, this machine's first.
        """
        parts = [_losses(head) for head, _ in answers]
        sums: list[Change] = self._layout.empty()
        if own is not None:
            parts.insert(0, Losses(own.loss, own.asked, own.figures))
            sums = own.by_changes
        asked = sum(part.asked for part in parts)
        if own is not None:
            for change in sums:
                for name in change:
                    change[name] = change[name] * (own.asked / asked)
                    mx.eval(change[name])
        for head, body in answers:
            for layer, name, array in self._layout.arrays(body):
                weighted = array * (head["asked"] / asked)
                change = sums[layer]
                change[name] = change[name] + weighted if name in change else weighted
                mx.eval(change[name])
        loss = sum(part.total * part.asked for part in parts) / asked
        return StepGradients(loss, asked, sums, _means(parts, asked), shares)

    @contextmanager
    def _asked(
        self,
        head: Mapping[str, Any],
        shares: Sequence[Sequence[Item]],
        numbers: Sequence[Change],
        knowing: Collection[int] = (),
    ) -> Iterator[Callable[[], dict[int, Reply]]]:
        """Ask the others for their shares, and yield what waits for their answers.

        These come in the order of the machines, by their numbers; who has no share is not asked,
        and who is ``knowing`` is not sent the numbers again.
        """
        flat = self._layout.parts(numbers)
        others = [
            (machine, peer, packed_items(share))
            for machine, (peer, share) in enumerate(zip(self._peers, shares[1:], strict=True), 1)
            if share
        ]
        with naming_what_to_do(), ExitStack() as stack:
            answers = {
                machine: stack.enter_context(
                    peer.asking(
                        {**head, "records": share.nbytes},
                        [share] if machine in knowing else [*flat, share],
                    )
                )
                for machine, peer, share in others
            }
            yield lambda: {machine: answer(self.require_all) for machine, answer in answers.items()}


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


def _losses(head: Mapping[str, Any]) -> Losses:
    """Return the loss that a machine answered; one that is not finite has no number in JSON."""
    loss = float("nan") if head["loss"] is None else head["loss"]
    return Losses(loss, head["asked"], head["figures"])


def _means(parts: Sequence[Losses], asked: int) -> dict[str, float]:
    """Return further means of parts as those of all."""
    return {
        name: sum(part.figures[name] * part.asked for part in parts) / asked
        for name in parts[0].figures
    }
