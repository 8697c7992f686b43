"""A learner: the numbers that a trainer moves, whatever they are, and their loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

from edgellm.training.gradients import StepGradients
from edgellm.training.low_rank import Change


class TrainingItem(Protocol):
    """A part of the data: a step has some of them, in an order that is drawn."""

    @property
    def length(self) -> int:
        """Tokens that go through the model."""

    @property
    def line(self) -> int:
        """The line of the record in its file; 0: it is of several, or of none."""


@dataclass(frozen=True, slots=True)
class Losses:
    """The loss of some items.

    Attributes:
        total: the sum over all that is asked.
        asked: how much that is: tokens that are learned, or pairs.
        figures: what else a person wants to know, by name: means over what is asked.
    """

    total: float
    asked: int
    figures: Mapping[str, float] = field(default_factory=dict)


Item_contra = TypeVar("Item_contra", bound=TrainingItem, contravariant=True)


class Learner(Protocol[Item_contra]):
    """Numbers of an open model, and the loss that they lower.

    Numbers are lists of named arrays; the trainer holds them, and a learner keeps none.
    """

    def initial(self) -> list[Change]:
        """Return the numbers as training begins."""

    def gradients(
        self, items: Sequence[Item_contra], numbers: Sequence[Change], step: int
    ) -> StepGradients:
        """Return the loss of a step and its derivatives by the numbers.

        Args:
            items: of the step.
            numbers: at which they are taken.
            step: its number from 0, which dropout follows from.

        Raises:
            ReadError: a layer cannot be read; the next call begins anew.
        """

    def loss_of(self, items: Sequence[Item_contra], numbers: Sequence[Change]) -> Losses:
        """Return the loss of items; nothing is dropped."""

    def write(self, folder: Path, numbers: Sequence[Change]) -> None:
        """Write what was learned, as others open it, in the place of what was there.

        Raises:
            ConversionError: the disk refuses.
        """

    def close(self) -> None:
        """Free the model."""
