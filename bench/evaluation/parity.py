"""Compare models or backends: the logits of each for one text with those of the first."""

from __future__ import annotations

import sys
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from edgellm.bench.backends.registry import RuntimeSettings, backend_named
from edgellm.bench.evaluation.divergence import LogitComparison
from edgellm.bench.machine.environment import environment
from edgellm.bench.records.kinds import ParityRecord
from edgellm.bench.speed.variants import GGUF, prepare_variant
from edgellm.bench.worker.process import WorkerProcess
from edgellm.bench.worker.protocol import error_sentence
from edgellm.bench.worker.status import DoingCallback, Status, StatusCallback
from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.errors import ConfigError, EdgeLLMError
from edgellm.files.locations import temporary_folder
from edgellm.hub.resolve import locate
from edgellm.tokenizer import Tokenizer

WORKER = (sys.executable, "-m", "edgellm.bench.evaluation.parity_worker")


@dataclass(frozen=True, slots=True, kw_only=True)
class ParitySettings:
    """How much of which text is compared, and how runtimes load.

    Attributes:
        text: that the models are led through, token by token, whatever they would have said.
        tokens: maximum number of its tokens.
        window: tokens that are led through together; each window starts over.
        prompt_tokens: the beginning of the text that greedy texts go on from.
        new_tokens: of a greedy text.
        timeout: seconds in which a worker must send a message.
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
        """Backend and model in words."""
        return f"{self.backend}, {self.model}"


def sides_of(models: Sequence[str], backends: Sequence[str]) -> list[Side]:
    """Return every model in every backend; the first is the reference.

    Raises:
        ConfigError: there is no such backend, or nothing to compare.
    """
    for name in backends:
        backend_named(name)
    sides = list(dict.fromkeys(Side(model, backend) for model in models for backend in backends))
    if len(sides) < 2:
        raise ConfigError(
            "a single model in a single backend has nothing to be compared with",
            hint="add --backend edgellm,cpu, or a second model",
        )
    return sides


def compare(
    sides: Sequence[Side], settings: ParitySettings, *, progress: StatusCallback = lambda _: None
) -> Generator[ParityRecord]:
    """Yield a record for each side but the first, as it is compared with that one.

    One that fails says why in its record.

    Raises:
        EdgeLLMError: the reference itself fails.
    """
    tokenizer, ids = _tokenize(sides, settings)
    windows = [
        ids[begin : begin + settings.window] for begin in range(0, len(ids), settings.window)
    ]

    def run(number: int, folder: Path) -> _Outputs:
        side = sides[number]

        def report(doing: str) -> None:
            progress(Status(number + 1, len(sides), side.title, doing))

        return _run_side(side, settings, windows, folder, report)

    with temporary_folder() as reference_folder:
        reference = run(0, reference_folder)
        for number, side in enumerate(sides[1:], 1):
            try:
                with temporary_folder() as folder:
                    yield _record(reference, run(number, folder), windows, tokenizer)
            except EdgeLLMError as error:
                common = _common_fields(reference, side)
                yield ParityRecord(**common, device="", error=error_sentence(error))


@dataclass(frozen=True, slots=True)
class _Outputs:
    """A side's logits and greedy tokens.

    Attributes:
        side: the model and its backend.
        bits: bits of its weights.
        device: the device that it ran on.
        arithmetic: the code path that ran.
        files: of logits (L, V), one a window.
        greedy: tokens after the prompt.
    """

    side: Side
    bits: int | None
    device: str
    arithmetic: str
    files: tuple[Path, ...]
    greedy: tuple[int, ...]


def _run_side(
    side: Side,
    settings: ParitySettings,
    windows: Sequence[Sequence[int]],
    folder: Path,
    report: DoingCallback,
) -> _Outputs:
    """Run a model in a process of its own; logits go to files in the folder."""
    report("loading")
    variant = prepare_variant(side.model, None, side.backend)
    process = WorkerProcess(
        timeout=settings.timeout,
        command=WORKER,
        threads=settings.runtime.threads,
        crash_hint=backend_named(side.backend).crash_hint,
    )
    with process as worker:
        order = {"backend": side.backend, "model": str(variant.path)}
        worker.send(order | {"settings": asdict(settings.runtime)})
        loaded = worker.receive()
        files = []
        for number, window in enumerate(windows):
            report(f"tokens from {number * settings.window} on")
            files.append(folder / f"{number}.npy")
            worker.send({"tokens": list(window), "file": str(files[-1])})
            worker.receive()
        report("going on by itself")
        prompt = windows[0][: settings.prompt_tokens]
        worker.send({"tokens": list(prompt), "count": settings.new_tokens})
        greedy = worker.receive()["greedy"]
    return _Outputs(
        side, variant.bits, loaded["device"], loaded["arithmetic"], tuple(files), tuple(greedy)
    )


def _record(
    reference: _Outputs, other: _Outputs, windows: Sequence[Sequence[int]], tokenizer: Tokenizer
) -> ParityRecord:
    comparison = LogitComparison()
    for one, two, ids in zip(reference.files, other.files, windows, strict=True):
        comparison.add(np.load(one, mmap_mode="r"), np.load(two, mmap_mode="r"), ids)
    equal_tokens = _common_length(reference.greedy, other.greedy)
    return ParityRecord(
        **_common_fields(reference, other.side),
        **comparison.as_fields(),
        device=other.device,
        bits=other.bits,
        arithmetic=other.arithmetic,
        text_equal=equal_tokens == len(other.greedy),
        equal_tokens=equal_tokens,
        text=tokenizer.decode(other.greedy),
        reference_text=tokenizer.decode(reference.greedy),
    )


def _common_fields(reference: _Outputs, side: Side) -> dict[str, Any]:
    """Return the fields of a record that are known before the side has run."""
    return {
        "model": side.model,
        "backend": side.backend,
        "test": "parity",
        "environment": environment(),
        "reference_model": reference.side.model,
        "reference_backend": reference.side.backend,
        "reference_bits": reference.bits,
        "reference_arithmetic": reference.arithmetic,
    }


def _common_length(first: Sequence[int], second: Sequence[int]) -> int:
    """Return with how many equal tokens both begin."""
    pairs = zip(first, second, strict=True)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _tokenize(sides: Sequence[Side], settings: ParitySettings) -> tuple[Tokenizer, list[int]]:
    """Return the first folder's tokenizer, and the text's token ids, on which all must agree.

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
    tokenizer = _tokenizer(models[0])
    ids = tokenizer.encode(settings.text)[: settings.tokens]
    for model in models[1:]:
        if _tokenizer(model).encode(settings.text)[: settings.tokens] != ids:
            raise ConfigError(
                f"{model} and {models[0]} split the text differently",
                hint="compare models of one vocabulary",
            )
    if len(ids) <= settings.prompt_tokens:
        raise ConfigError(
            f"the text has {len(ids)} tokens; at least {settings.prompt_tokens + 1} are needed",
            hint="give a longer one with --text",
        )
    return tokenizer, ids


def _tokenizer(model: str) -> Tokenizer:
    checkpoint = read_checkpoint(locate(model))
    return Tokenizer.from_folder(checkpoint.folder.path, vocab_size=checkpoint.config.vocab_size)
