"""Records of training: the memory and time that a technique takes, and its loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgellm.bench.records.doubts import Doubt, doubt_spread, spread_of
from edgellm.bench.records.fields import Count, Figure, Seconds, Several
from edgellm.bench.records.record import Record, median, quotient


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRecord(Record):
    """A technique in a backend: ``batch`` sequences a step, ``seconds`` of the timed steps.

    Attributes:
        method: ``full``, ``lora`` or ``qlora``.
        checkpointing: whether activations are computed again in the backward pass.
        accumulation: parts that a step is cut into.
        dtype: of activations, as it was asked for; None is the backend's own choice.
        arithmetic: the code path that ran.
        rank: of each low-rank change; None where all numbers are learned.
        steps: of a turn.
        step_tokens: tokens of each timed step.
        cpu_seconds: processor time of each timed step, of all threads together.
        numbers: how many are learned.
        weight_bytes: of the model in memory, what is learned included.
        gradient_bytes: of the derivatives of a step.
        optimizer_bytes: of the optimizer's state.
        start_bytes: what the process held before the model was there.
        training_peak_bytes: the most that it held once the model was there.
        allocator_peak_bytes: the most that the library itself says it had allocated in training.
        layers: of the model.
        pinned_layers: those that stayed in memory; None where nothing pages.
        losses: of each step before its update, nats a token.
        loss_after: of the first step's sequences when all steps were taken.
    """

    KIND: ClassVar[str] = "training"

    method: str = ""
    checkpointing: bool = False
    accumulation: Several = 1
    dtype: str | None = None
    arithmetic: str | None = None
    rank: Several | None = None
    steps: Count = 0
    step_tokens: tuple[Count, ...] = ()
    cpu_seconds: tuple[Seconds, ...] = ()
    numbers: Count | None = None
    weight_bytes: Count | None = None
    gradient_bytes: Count | None = None
    optimizer_bytes: Count | None = None
    start_bytes: Count | None = None
    training_peak_bytes: Count | None = None
    allocator_peak_bytes: Count | None = None
    layers: Count | None = None
    pinned_layers: Count | None = None
    losses: tuple[Figure, ...] = ()
    loss_after: Figure | None = None

    DERIVED: ClassVar[tuple[str, ...]] = (
        *("tokens_per_second", "median_seconds", "median_cpu_seconds", "activation_bytes"),
        *("loss_before", "spread", "warnings"),
    )

    @property
    def work(self) -> str:
        """The data of a step, in words."""
        return f"{self.batch} x {self.tokens} tokens"

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens of a step by its seconds, the median of the timed steps."""
        paces = [
            tokens / seconds
            for tokens, seconds in zip(self.step_tokens, self.seconds, strict=False)
            if seconds
        ]
        return median(paces)

    @property
    def median_cpu_seconds(self) -> float | None:
        """Processor time of the median step, which other programs disturb less."""
        return median(self.cpu_seconds)

    @property
    def seconds_per_token(self) -> float | None:
        """Seconds for each token that is learned from, in the median step."""
        return quotient(1.0, self.tokens_per_second)

    @property
    def activation_bytes(self) -> int | None:
        """The rest of the peak: activations, scratch of the arithmetic, and memory freed for later.

        None where a part of it is not known.
        """
        parts = (self.start_bytes, self.weight_bytes, self.gradient_bytes, self.optimizer_bytes)
        if self.training_peak_bytes is None:
            return None
        rest = self.training_peak_bytes
        for part in parts:
            if part is None:
                return None
            rest -= part
        return max(0, rest)

    @property
    def loss_before(self) -> float | None:
        """Loss of the first step's sequences before anything was learned."""
        return self.losses[0] if self.losses else None

    @property
    def spread(self) -> float | None:
        """Half the distance of slowest and fastest step, as a fraction of the median.

        Of steps with equal numbers of tokens alone: others may differ for that reason.
        """
        if len(set(self.step_tokens)) > 1:
            return None
        return spread_of(self.seconds, self.median_seconds)

    @property
    def doubts(self) -> list[Doubt]:
        """The reasons to doubt its figures."""
        return doubt_spread(self.spread)
