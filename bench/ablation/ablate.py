"""What each part of edgellm is worth: tokens a second with all of them, and with one left out at a time."""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from edgellm.bench.machine.environment import environment
from edgellm.bench.records.record import Record
from edgellm.bench.speed.timing import token_ids
from edgellm.bench.speed.variants import prepare_variant, run_command, variants_folder
from edgellm.bench.worker.process import WorkerProcess
from edgellm.bench.worker.status import Status, StatusCallback
from edgellm.checkpoint.checkpoint import Checkpoint, read_checkpoint
from edgellm.device import machine as device
from edgellm.errors import BackendError, EdgeLLMError, MemoryBudgetError
from edgellm.hub.resolve import locate
from edgellm.plan.planner import plan_for
from edgellm.settings import LoadSettings

RUN = (sys.executable, "-m", "edgellm.bench.ablation.worker")
SHARES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.4, 1.6, 2.0, 3.0, 4.0)
"""Of a model's size: the least budget of these in which it is paged with a layer pinned is the usual one."""


@dataclass(frozen=True, slots=True)
class Variant:
    """A way to run a model: ``without`` names what is left out, and ``paged`` whether a budget makes it stream."""

    title: str
    without: str | None
    paged: bool


VARIANTS = (
    Variant("all parts", None, paged=False),
    Variant("no KV cache", "cache", paged=False),
    Variant("no quantization", "quantization", paged=False),
    Variant("paged, all parts", None, paged=True),
    Variant("paged, no prefetch", "prefetch", paged=True),
    Variant("paged, no pinning", "pinning", paged=True),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AblationSettings:
    """How each variant is measured.

    Attributes:
        memory: the budget of the paged ones; None: about half the model, or the least that it runs
            in.
        prompt_tokens: that come before, and that a model without a KV cache computes anew for every
            token.
        tokens: of a repetition.
        repetitions: of each variant; one more warms up.
        threads: of arithmetic; None: as the machine has.
        timeout: seconds in which a worker must say something.
    """

    memory: int | None = None
    prompt_tokens: int = 64
    tokens: int = 8
    repetitions: int = 3
    threads: int | None = None
    timeout: float = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AblationRecord(Record):
    """A model with one part left out.

    Attributes:
        variant: in words.
        without: what is left out; None: nothing.
        whole_seconds: a repetition of the variant that has all parts took, the median.
        prompt_tokens: that came before.
        pinned_layers: those that stayed in memory.
        layers: of the model.
        bytes_per_token: read from disk for a token.
    """

    KIND: ClassVar[str] = "ablation"
    DERIVED: ClassVar[tuple[str, ...]] = (*Record.DERIVED, "seconds_per_token", "slowdown")

    variant: str = ""
    without: str | None = None
    whole_seconds: float | None = None
    prompt_tokens: int = 0
    pinned_layers: int | None = None
    layers: int | None = None
    bytes_per_token: int | None = None

    @property
    def seconds_per_token(self) -> float | None:
        """Of the median repetition."""
        seconds = self.median_seconds
        return seconds / self.tokens if seconds else None

    @property
    def slowdown(self) -> float | None:
        """How many times as long it takes without the part."""
        seconds = self.median_seconds
        return seconds / self.whole_seconds if seconds and self.whole_seconds else None


def measure_ablations(
    model: str, settings: AblationSettings, *, progress: StatusCallback = lambda _: None
) -> Generator[AblationRecord]:
    """Yield a record for each variant; one that fails says why, and the others are measured all the same.

    Raises:
        ModelNotFoundError, FormatError, UnsupportedModelError: the model cannot be used at all.
    """
    checkpoint = read_checkpoint(locate(model))
    where, bits = environment(), prepare_variant(model, None, "mlx").bits
    whole: dict[bool, float] = {}
    for number, variant in enumerate(VARIANTS, 1):
        common: dict[str, Any] = {
            "model": model,
            "backend": "mlx",
            "device": device.chip_name(),
            "test": "ablation",
            "environment": where,
            "threads": settings.threads or device.core_count(),
            "tokens": settings.tokens,
            "prompt_tokens": settings.prompt_tokens,
            "bits": 16 if variant.without == "quantization" else bits,
            "variant": variant.title,
            "without": variant.without,
        }

        def say(doing: str, at: int = number, title: str = variant.title) -> None:
            progress(Status(at, len(VARIANTS), f"{model}, {title}", doing))

        try:
            found = _measure(checkpoint, variant, settings, say)
        except EdgeLLMError as error:
            sentence = f"{error.message} ({error.hint})" if error.hint else error.message
            yield AblationRecord(**common, error=sentence)
            continue
        if variant.without is None:
            whole[variant.paged] = statistics.median(found["seconds"])
        yield AblationRecord(**common, **found, whole_seconds=whole.get(variant.paged))


def paged_budget(checkpoint: Checkpoint, settings: AblationSettings) -> int:
    """Bytes in which the model streams some layers and pins others. Raises BackendError where it cannot be so."""
    if settings.memory is not None:
        return settings.memory
    for share in SHARES:
        budget = int(share * checkpoint.nbytes)
        try:
            plan = plan_for(checkpoint, _loading(settings, budget))
        except MemoryBudgetError:
            continue
        if plan.pinned and not plan.resident:
            return budget
    raise BackendError(
        "the model is too small to be paged", hint="name a larger one, or a budget with --memory"
    )


def _loading(settings: AblationSettings, memory: int | None) -> LoadSettings:
    context = settings.prompt_tokens + settings.tokens + 1
    return LoadSettings(memory=memory, context=context, threads=settings.threads)


def _measure(
    checkpoint: Checkpoint, variant: Variant, settings: AblationSettings, say: Callable[[str], None]
) -> dict[str, Any]:
    if variant.without != "quantization":
        return _timed(checkpoint, checkpoint.folder.path, variant, settings, say)
    if not any(form for part in checkpoint.layers for form in part.quantizations.values()):
        raise BackendError("its weights are not quantized")
    say("dequantizing")
    variants_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="ablate-", dir=variants_folder()) as place:
        plain = Path(place) / "16bit"
        run_command(["convert", str(checkpoint.folder.path), str(plain), "--bits", "16"], plain)
        return _timed(checkpoint, plain, variant, settings, say)


def _timed(
    checkpoint: Checkpoint,
    folder: Path,
    variant: Variant,
    settings: AblationSettings,
    say: Callable[[str], None],
) -> dict[str, Any]:
    budget = paged_budget(checkpoint, settings) if variant.paged else None
    load = _loading(settings, budget)
    say("loading")
    worker = WorkerProcess(timeout=settings.timeout, command=RUN)
    try:
        loading = {"memory": load.memory, "context": load.context, "threads": load.threads}
        worker.send({"folder": str(folder), "load": loading, "without": variant.without})
        plan = _heard(worker)
        if variant.paged and plan["resident"]:
            raise BackendError("the budget holds the whole model", hint="give less with --memory")
        prompt = token_ids(settings.prompt_tokens, checkpoint.config.vocab_size, 1)[0].tolist()
        samples = []
        for number in range(settings.repetitions + 1):
            say(f"repetition {number} of {settings.repetitions}" if number else "warming up")
            worker.send({"prompt": prompt, "tokens": settings.tokens})
            samples.append(_heard(worker))
    finally:
        worker.close()
    return {
        "seconds": tuple(sample["seconds"] for sample in samples[1:]),
        "memory_bytes": budget,
        "peak_memory_bytes": samples[-1]["peak_memory_bytes"],
        "pinned_layers": plan["pinned"],
        "layers": plan["layers"],
        "bytes_per_token": plan["streamed_bytes"],
    }


def _heard(worker: WorkerProcess) -> Mapping[str, Any]:
    found = worker.receive()
    if "error" in found:
        raise BackendError(found["error"], hint=found["hint"])
    return found
