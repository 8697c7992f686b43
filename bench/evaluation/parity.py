"""Whether models or backends say the same: the logits that each has for one text, compared with those of the first."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from edgellm.bench.backends.registry import RuntimeSettings, backend_named
from edgellm.bench.evaluation.divergence import Comparison
from edgellm.bench.machine.environment import environment
from edgellm.bench.records.record import Record
from edgellm.bench.speed.variants import GGUF, prepare_variant
from edgellm.bench.worker.process import WorkerProcess
from edgellm.bench.worker.status import Status, StatusCallback
from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.errors import BackendError, ConfigError, EdgeLLMError
from edgellm.hub.resolve import locate
from edgellm.tokenizer import Tokenizer

RUN = (sys.executable, "-m", "edgellm.bench.evaluation.parity_worker")
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParitySettings:
    """What is compared.

    Attributes:
        text: that the models are led through, token by token, whatever they would have said.
        tokens: of it, at the most.
        window: tokens that are led through together; each window begins anew.
        prompt_tokens: the beginning of the text that greedy texts go on from.
        new_tokens: of a greedy text.
        timeout: seconds in which a worker must say something.
        runtime: how each runtime loads.
    """

    text: str
    tokens: int = 256
    window: int = 512
    prompt_tokens: int = 16
    new_tokens: int = 32
    timeout: float = 900.0
    runtime: RuntimeSettings = field(default_factory=RuntimeSettings)


@dataclass(frozen=True, slots=True)
class Side:
    """A model in a backend."""

    model: str
    backend: str

    @property
    def title(self) -> str:
        """What a person sees of it."""
        return f"{self.backend}, {self.model}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ParityRecord(Record):
    """How one model in one backend differs from the reference; ``tokens`` were compared.

    Attributes:
        arithmetic: which path ran.
        reference_model: the model that it is compared with.
        reference_backend: where that ran.
        reference_bits: of its weights.
        reference_arithmetic: which path it ran.
        max_logit_difference: the largest, of all words after all tokens.
        kl: the Kullback-Leibler divergence from the reference, in nats, the mean over tokens.
        kl_max: the same of the worst token.
        top1_agreement: share of tokens after which both hold the same word for the likeliest.
        perplexity: of the text.
        reference_perplexity: what the reference finds.
        text_equal: whether the greedy texts are the same, token by token.
        equal_tokens: with which they begin alike.
        text: what this one says, greedily.
        reference_text: what the reference says.
    """

    KIND: ClassVar[str] = "parity"
    DERIVED: ClassVar[tuple[str, ...]] = ("perplexity_change",)

    arithmetic: str | None = None
    reference_model: str = ""
    reference_backend: str = ""
    reference_bits: int | None = None
    reference_arithmetic: str | None = None
    max_logit_difference: float | None = None
    kl: float | None = None
    kl_max: float | None = None
    top1_agreement: float | None = None
    perplexity: float | None = None
    reference_perplexity: float | None = None
    text_equal: bool | None = None
    equal_tokens: int | None = None
    text: str | None = None
    reference_text: str | None = None

    @property
    def perplexity_change(self) -> float | None:
        """What the perplexity is above the reference's, as a share of it."""
        if self.perplexity is None or not self.reference_perplexity:
            return None
        return self.perplexity / self.reference_perplexity - 1


def sides_of(models: Sequence[str], backends: Sequence[str]) -> list[Side]:
    """Every model in every backend; the first is what the others are compared with.

    Raises:
        ConfigError: there is no such backend, or nothing to compare.
    """
    for name in backends:
        backend_named(name)
    sides = list(dict.fromkeys(Side(model, backend) for model in models for backend in backends))
    if len(sides) < 2:
        raise ConfigError(
            "one model in one backend has nothing to be compared with",
            hint="add --backend mlx,cpu, or a second model",
        )
    return sides


def compare(
    sides: Sequence[Side], settings: ParitySettings, *, progress: StatusCallback = lambda _: None
) -> Generator[ParityRecord]:
    """Yield a record for each side but the first, as it is compared with that one; one that fails says why.

    Raises:
        EdgeLLMError: the reference itself fails.
    """
    tokenizer, ids = _tokens(sides, settings)
    windows = [
        ids[begin : begin + settings.window] for begin in range(0, len(ids), settings.window)
    ]

    def said(number: int) -> Say:
        return lambda doing: progress(Status(number, len(sides), sides[number - 1].title, doing))

    with tempfile.TemporaryDirectory(prefix="edgellm-parity-") as folder:
        reference = _Answer.of(sides[0], settings, windows, Path(folder), said(1))
        for number, side in enumerate(sides[1:], 2):
            try:
                with tempfile.TemporaryDirectory(prefix="edgellm-parity-") as other:
                    answer = _Answer.of(side, settings, windows, Path(other), said(number))
                    yield _record(reference, answer, windows, tokenizer)
            except EdgeLLMError as error:
                sentence = f"{error.message} ({error.hint})" if error.hint else error.message
                yield ParityRecord(
                    **reference.as_reference(), **_identity(side), device="", error=sentence
                )


def _identity(side: Side) -> dict[str, Any]:
    return {
        "model": side.model,
        "backend": side.backend,
        "test": "parity",
        "environment": environment(),
    }


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a side said: the files of its logits, one a window, and its greedy tokens."""

    side: Side
    bits: int | None
    device: str
    arithmetic: str
    files: tuple[Path, ...]
    greedy: tuple[int, ...]

    @classmethod
    def of(
        cls,
        side: Side,
        settings: ParitySettings,
        windows: Sequence[Sequence[int]],
        folder: Path,
        say: Say,
    ) -> _Answer:
        say("loading")
        variant = prepare_variant(side.model, None, side.backend)
        threads = settings.runtime.threads
        worker = WorkerProcess(
            timeout=settings.timeout,
            command=RUN,
            variables={"OMP_NUM_THREADS": str(threads)} if threads else {},
            crash_hint=backend_named(side.backend).crash_hint,
        )
        try:
            worker.send(
                {
                    "backend": side.backend,
                    "model": str(variant.path),
                    "settings": asdict(settings.runtime),
                }
            )
            found = _heard(worker)
            files = []
            for number, window in enumerate(windows):
                say(f"tokens from {number * settings.window} on")
                files.append(folder / f"{number}.npy")
                worker.send({"tokens": list(window), "file": str(files[-1])})
                _heard(worker)
            say("going on by itself")
            worker.send(
                {"tokens": list(windows[0][: settings.prompt_tokens]), "count": settings.new_tokens}
            )
            greedy = _heard(worker)["greedy"]
        finally:
            worker.close()
        return cls(
            side, variant.bits, found["device"], found["arithmetic"], tuple(files), tuple(greedy)
        )

    def as_reference(self) -> dict[str, Any]:
        return {
            "reference_model": self.side.model,
            "reference_backend": self.side.backend,
            "reference_bits": self.bits,
            "reference_arithmetic": self.arithmetic,
        }


def _heard(worker: WorkerProcess) -> Mapping[str, Any]:
    found = worker.receive()
    if "error" in found:
        raise BackendError(found["error"], hint=found["hint"])
    return found


def _record(
    reference: _Answer, answer: _Answer, windows: Sequence[Sequence[int]], tokenizer: Tokenizer
) -> ParityRecord:
    comparison = Comparison()
    for own, other, ids in zip(reference.files, answer.files, windows, strict=True):
        comparison.add(np.load(own, mmap_mode="r"), np.load(other, mmap_mode="r"), ids)
    pairs = zip(reference.greedy, answer.greedy, strict=True)
    alike = next(
        (number for number, (one, two) in enumerate(pairs) if one != two), len(answer.greedy)
    )
    return ParityRecord(
        **reference.as_reference(),
        **_identity(answer.side),
        **comparison.as_fields(),
        device=answer.device,
        bits=answer.bits,
        arithmetic=answer.arithmetic,
        text_equal=alike == len(answer.greedy),
        equal_tokens=alike,
        text=tokenizer.decode(answer.greedy),
        reference_text=tokenizer.decode(reference.greedy),
    )


def _tokens(sides: Sequence[Side], settings: ParitySettings) -> tuple[Tokenizer, list[int]]:
    """The first folder's tokenizer, and the text's token ids, which all folders must agree on.

    Raises:
        ConfigError: there is no folder, the text is too short, or folders split it differently.
    """
    models = [
        model for model in dict.fromkeys(side.model for side in sides) if Path(model).suffix != GGUF
    ]
    if not models:
        raise ConfigError(
            "a GGUF file alone does not say how a text is split",
            hint="name the folder that it came from first",
        )
    found: list[tuple[Tokenizer, list[int]]] = []
    for model in models:
        checkpoint = read_checkpoint(locate(model))
        tokenizer = Tokenizer.from_folder(
            checkpoint.folder.path, vocab_size=checkpoint.config.vocab_size
        )
        found.append((tokenizer, tokenizer.encode(settings.text)[: settings.tokens]))
        if found[-1][1] != found[0][1]:
            raise ConfigError(
                f"{model} and {models[0]} split the text differently",
                hint="compare models of one vocabulary",
            )
    if len(found[0][1]) <= settings.prompt_tokens:
        raise ConfigError(
            f"the text has {len(found[0][1])} tokens; {settings.prompt_tokens + 1} are the least"
        )
    return found[0]
