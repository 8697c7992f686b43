"""AdamW and its rate: the step that numbers take from their derivatives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import mlx.core as mx
import numpy as np

from edgellm.setting_values import number
from edgellm.training.low_rank import Change

Schedule = Literal["cosine", "linear", "constant"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RateSettings:
    """How far numbers move.

    Attributes:
        rate: the highest learning rate.
        schedule: how it falls after the warm-up: to 0 as a cosine or a line, or not at all.
        warmup: fraction of all steps in which it rises from 0.
        decay: weight decay, apart from the derivatives (Loshchilov and Hutter, arXiv:1711.05101).
        clip: the largest norm of all derivatives together; larger ones are scaled down. 0: any.
        beta1: of the mean of derivatives.
        beta2: of the mean of their squares.
        eps: added to the root of that.
    """

    rate: float = 2e-4
    schedule: Schedule = "cosine"
    warmup: float = 0.03
    decay: float = 0.01
    clip: float = 1.0
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    def __post_init__(self) -> None:
        """Check that all are numbers. Raises ConfigError."""
        for name in ("rate", "warmup", "decay", "clip", "beta1", "beta2", "eps"):
            number(name, getattr(self, name), 0, 1e30)

    def at(self, step: int, steps: int) -> float:
        """Return the rate of a step, from 0, of so many (as transformers' schedules have it)."""
        warm = math.ceil(self.warmup * steps)
        if step < warm:
            return self.rate * step / max(1, warm)
        if self.schedule == "constant":
            return self.rate
        done = (step - warm) / max(1, steps - warm)
        if self.schedule == "linear":
            return self.rate * max(0.0, 1 - done)
        return self.rate * max(0.0, 0.5 * (1 + math.cos(math.pi * done)))


@dataclass(slots=True)
class AdamW:
    """The state of AdamW with both moments' bias corrected, all in float32.

    Norms and biases do not decay, as in transformers' trainer: what has fewer than two axes.

    Attributes:
        settings: the numbers that it is made of.
        step: steps taken.
        means: of derivatives, shaped as the changes.
        squares: means of their squares.
    """

    settings: RateSettings
    step: int = 0
    means: list[Change] = field(default_factory=list)
    squares: list[Change] = field(default_factory=list)

    def move(
        self, changes: Sequence[Change], gradients: Sequence[Change], rate: float, factor: float
    ) -> None:
        """Take a step: the numbers are replaced one by one, and so are their moments.

        Args:
            changes: the numbers.
            gradients: their derivatives.
            rate: of learning.
            factor: what derivatives are multiplied by.
        """
        if not any(self.means):  # nor where a run was saved before its first step
            self.means = [_zeros(change) for change in changes]
            self.squares = [_zeros(change) for change in changes]
        self.step += 1
        one, two = self.settings.beta1, self.settings.beta2
        first, second = 1 - one**self.step, 1 - two**self.step
        for change, by_change, means, squares in zip(
            changes, gradients, self.means, self.squares, strict=True
        ):
            for name in change:
                numbers, gradient = change[name], by_change[name]
                if factor != 1.0:
                    gradient = gradient * factor
                mean = one * means[name] + (1 - one) * gradient
                square = two * squares[name] + (1 - two) * mx.square(gradient)
                direction = (mean / first) / (mx.sqrt(square / second) + self.settings.eps)
                if numbers.ndim > 1:
                    numbers = numbers * (1 - rate * self.settings.decay)
                change[name] = numbers - rate * direction
                means[name], squares[name] = mean, square
                # one by one, so that memory holds one array's old numbers beside its new ones
                mx.eval(change[name], mean, square)


def norm_of(gradients: Sequence[Change]) -> float:
    """Return the Euclidean norm of all derivatives together."""
    arrays = (np.array(array) for change in gradients for array in change.values())
    return math.sqrt(sum(float(np.square(array, dtype=np.float64).sum()) for array in arrays))


def clip_factor(norm: float, most: float) -> float:
    """Return what derivatives are scaled by so that their norm is ``most`` at most; 0: as it is."""
    if not most or norm <= most:
        return 1.0
    # as torch has it: a norm of exactly the limit is not scaled up by rounding
    return most / (norm + 1e-6)


def _zeros(change: Change) -> Change:
    return {name: mx.zeros_like(array) for name, array in change.items()}
