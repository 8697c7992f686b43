"""Tasks of a server and answers of clients: numbers, and plain data beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from edgellm.converters.tensors.floats import Floats
from edgellm.errors import ConfigError, FormatError
from edgellm.setting_values import choice, number, truth, whole_number
from edgellm.training.data.conversations import Template
from edgellm.training.low_rank import MODULES, LoraSettings
from edgellm.training.optimizer import RateSettings
from edgellm.training.run.settings import TrainSettings

PROTOCOL = 1
"""Another number is another form of tasks and answers."""

Kind = Literal["learn", "end"]

STAGES = ("sft", "text")
"""What a federation learns; preferences it does not."""


SCHEDULES = ("cosine", "linear", "constant")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """How clients learn, the same on all of them in all rounds.

    Attributes:
        settings: of a round's steps; ``steps`` and ``epochs`` are those of a round.
        freeze_a: whether the factors A stay as they began (Sun et al. 2024, FFA-LoRA,
            arXiv:2403.12313): then a mean of B's is the mean of the products.
        template: that records are written in; None: each client's own.
        max_tokens: of a record.
    """

    settings: TrainSettings
    freeze_a: bool = False
    template: Template | None = None
    max_tokens: int = 1024

    def __post_init__(self) -> None:
        """Check what a federation cannot learn. Raises ConfigError."""
        choice("stage", self.settings.stage, STAGES)
        if self.settings.lora.dora:
            raise ConfigError(
                "lengths of rows (DoRA) have no mean that belongs to the mean of changes",
                hint="leave out --dora",
            )

    def as_plain(self) -> dict[str, Any]:
        """Return all of it for a JSON document."""
        settings = self.settings
        lora = asdict(settings.lora)
        for name in ("ranks", "alphas", "left_out", "dora"):
            del lora[name]
        return {
            "stage": settings.stage,
            "lora": {**lora, "targets": list(settings.lora.targets)},
            "rates": asdict(settings.rates),
            "epochs": settings.epochs,
            "steps": settings.steps,
            "batch": settings.batch,
            "seed": settings.seed,
            "freeze_a": self.freeze_a,
            "template": self.template,
            "max_tokens": self.max_tokens,
        }


def lesson_from(plain: Mapping[str, Any]) -> Lesson:
    """Return the lesson that a server has written. Raises FormatError."""
    try:
        lora, rates = dict(plain["lora"]), dict(plain["rates"])
        targets = tuple(choice("target", one, list(MODULES.values())) for one in lora["targets"])
        template, steps = plain["template"], plain["steps"]
        if template is not None:
            choice("template", template, ("chat", "alpaca", "plain"))
        if steps is not None:
            whole_number("steps", steps, 1, 1 << 40)
        layers = lora["layers"]
        if layers is not None:
            whole_number("layers", layers, 1, 1 << 20)
        truth("rslora", lora["rslora"])
        settings = TrainSettings(
            stage=choice("stage", plain["stage"], STAGES),
            lora=LoraSettings(**{**lora, "targets": targets}),
            rates=RateSettings(
                **{**rates, "schedule": choice("schedule", rates["schedule"], SCHEDULES)}
            ),
            epochs=whole_number("epochs", plain["epochs"], 1, 1 << 40),
            steps=steps,
            batch=whole_number("batch", plain["batch"], 1, 1 << 20),
            seed=whole_number("seed", plain["seed"], 0, (1 << 31) - 1),
        )
        return Lesson(
            settings=settings,
            freeze_a=truth("freeze_a", plain["freeze_a"]),
            template=template,
            max_tokens=whole_number("max_tokens", plain["max_tokens"], 2, 1 << 31),
        )
    except (ConfigError, KeyError, TypeError, ValueError) as error:
        raise FormatError(
            f"the server asks for what this edgellm does not know: {error}",
            hint="use the same version of edgellm on all machines",
        ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A task of a server for a client.

    Attributes:
        kind: to learn a round, or that the last one is over.
        round: its number, from 1.
        rounds: of the federation.
        lesson: as ``Lesson.as_plain`` has it.
        shapes: digest of the shapes that changes must have.
        numbers: the factors so far, both of them, as a row.
    """

    kind: Kind
    round: int
    rounds: int
    lesson: Mapping[str, Any]
    shapes: str
    numbers: Floats

    def as_plain(self) -> dict[str, Any]:
        """Return all but the numbers for a JSON document."""
        return {
            "protocol": PROTOCOL,
            "kind": self.kind,
            "round": self.round,
            "rounds": self.rounds,
            "lesson": dict(self.lesson),
            "shapes": self.shapes,
        }


def task_from(plain: Mapping[str, Any], numbers: Floats) -> Task:
    """Return the task that a server has written. Raises FormatError."""
    _require_protocol(plain)
    try:
        lesson = plain["lesson"]
        if not isinstance(lesson, dict):
            raise TypeError("its lesson is no object")
        return Task(
            kind=choice("kind", plain["kind"], ("learn", "end")),
            round=whole_number("round", plain["round"], 0, 1 << 31),
            rounds=whole_number("rounds", plain["rounds"], 1, 1 << 31),
            lesson=lesson,
            shapes=str(plain["shapes"]),
            numbers=numbers,
        )
    except (ConfigError, KeyError, TypeError) as error:
        raise _unknown("server", error) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The answer of a client that has learned.

    Attributes:
        numbers: its factors as a row: both, or the B's alone where A is frozen; none at the end.
        weight: in the mean: records that were learned, or 1 where that is nobody's business.
        seconds: that learning took.
        memory: the most that its process held, in bytes.
        figures: what else is told, by name: losses, unless they are private.
    """

    numbers: Floats
    weight: float
    seconds: float
    memory: int
    figures: Mapping[str, float] = field(default_factory=dict)

    def as_plain(self) -> dict[str, Any]:
        """Return all but the numbers for a JSON document."""
        return {
            "protocol": PROTOCOL,
            "weight": self.weight,
            "seconds": self.seconds,
            "memory": self.memory,
            "figures": dict(self.figures),
        }


FIGURES = ("loss", "valid", "epsilon", "delta")
"""What a client may tell besides, in nats a token where it is a loss."""


def answer_from(plain: Mapping[str, Any], numbers: Floats) -> Answer:
    """Return the answer that a client has written. Raises FormatError."""
    _require_protocol(plain)
    try:
        figures = plain["figures"]
        return Answer(
            numbers=numbers,
            weight=number("weight", plain["weight"], 0, 1e12, low_excluded=True),
            seconds=number("seconds", plain["seconds"], 0, 1e12),
            memory=whole_number("memory", plain["memory"], 0, 1 << 60),
            figures={
                name: number(name, figures[name], -1e30, 1e30)
                for name in FIGURES
                if name in figures
            },
        )
    except (ConfigError, KeyError, TypeError) as error:
        raise _unknown("client", error) from error


def _require_protocol(plain: Mapping[str, Any]) -> None:
    if plain.get("protocol") != PROTOCOL:
        raise FormatError(
            "the other side speaks another version of edgellm's federation",
            hint="use the same version of edgellm on all machines",
        )


def _unknown(side: str, error: Exception) -> FormatError:
    return FormatError(
        f"what the {side} sent is not what edgellm writes: {error}",
        hint="use the same version of edgellm on all machines",
    )
