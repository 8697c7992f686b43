"""Measure what each part of edgellm is worth, by leaving out one at a time."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgellm.bench.machine.environment import environment
from edgellm.bench.records.backend_names import OWN
from edgellm.bench.records.kinds import AblationRecord
from edgellm.bench.speed.timing import token_ids
from edgellm.bench.speed.variants import make_model, variants_folder
from edgellm.bench.worker.process import WorkerProcess
from edgellm.bench.worker.protocol import error_sentence
from edgellm.bench.worker.status import DoingCallback, Status, StatusCallback
from edgellm.checkpoint.checkpoint import Checkpoint, read_checkpoint
from edgellm.device import machine as device
from edgellm.errors import BackendError, EdgeLLMError, MemoryBudgetError
from edgellm.files.locations import temporary_folder
from edgellm.hub.resolve import locate
from edgellm.memory_plan.plan_checkpoint import plan_for
from edgellm.settings import LoadSettings

WORKER = (sys.executable, "-m", "edgellm.bench.ablation.worker")
FRACTIONS = tuple(share / 20 for share in range(10, 81))
"""Budgets that are tried, of a model's size, until one pages it with a layer pinned."""


@dataclass(frozen=True, slots=True)
class Ablation:
    """A way to run a model.

    Attributes:
        title: in words.
        without: the part that is left out; None: nothing.
        paged: whether a budget makes it stream layers.
    """

    title: str
    without: str | None
    paged: bool


ABLATIONS = (
    Ablation("all parts", None, paged=False),
    Ablation("no KV cache", "cache", paged=False),
    Ablation("no quantization", "quantization", paged=False),
    Ablation("paged, all parts", None, paged=True),
    Ablation("paged, no prefetch", "prefetch", paged=True),
    Ablation("paged, no pinning", "pinning", paged=True),
)
"""What is measured; all parts come before the ablations that are compared with them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AblationSettings:
    """How each ablation is measured.

    Attributes:
        memory: the budget of the paged ones; None: about half the model, or the least that it runs
            in.
        prompt_tokens: before them; a model without a KV cache computes these again for every
            token.
        tokens: tokens of a repetition.
        repetitions: of each ablation; one more warms up.
        threads: threads for arithmetic; None: as the machine has.
        timeout: seconds in which a worker must send a message.
    """

    memory: int | None = None
    prompt_tokens: int = 64
    tokens: int = 8
    repetitions: int = 3
    threads: int | None = None
    timeout: float = 900.0

    def load_settings(self, memory: int | None) -> LoadSettings:
        """Return how a model is loaded inside a budget, with room for the prompt and the tokens."""
        context = self.prompt_tokens + self.tokens + 1
        return LoadSettings(memory=memory, context=context, threads=self.threads)


def measure_ablations(
    model: str, settings: AblationSettings, *, progress: StatusCallback = lambda _: None
) -> Generator[AblationRecord]:
    """Yield a record for each ablation.

    One that fails says why in its record, and the others are measured all the same.

    Raises:
        ModelNotFoundError, FormatError, UnsupportedModelError: the model cannot be used at all.
    """
    checkpoint = read_checkpoint(locate(model))
    common: dict[str, Any] = {
        "model": model,
        "backend": OWN,
        "device": device.chip_name(),
        "test": "ablation",
        "environment": environment(),
        "threads": settings.threads or device.core_count(),
        "tokens": settings.tokens,
        "prompt_tokens": settings.prompt_tokens,
    }
    bits = {"quantization": 16}
    all_parts: dict[bool, float] = {}  # seconds, resident and paged
    for number, ablation in enumerate(ABLATIONS, 1):
        common |= {"variant": ablation.title, "without": ablation.without}
        common["bits"] = bits.get(ablation.without or "", checkpoint.usual_bits)
        title = f"{model}, {ablation.title}"

        def report(doing: str, number: int = number, title: str = title) -> None:
            progress(Status(number, len(ABLATIONS), title, doing))

        try:
            result = _measure(checkpoint, ablation, settings, report)
        except EdgeLLMError as error:
            yield AblationRecord(**common, error=error_sentence(error))
            continue
        if ablation.without is None:
            all_parts[ablation.paged] = statistics.median(result["seconds"])
        yield AblationRecord(**common, **result, whole_seconds=all_parts.get(ablation.paged))


def paged_budget(checkpoint: Checkpoint, settings: AblationSettings) -> int:
    """Return bytes in which the model streams some layers and pins others.

    Raises:
        BackendError: there is no such budget.
    """
    if settings.memory is not None:
        return settings.memory
    for fraction in FRACTIONS:
        budget = int(fraction * checkpoint.nbytes)
        try:
            plan = plan_for(checkpoint, settings.load_settings(budget))
        except MemoryBudgetError:
            continue
        if plan.pinned and not plan.resident:
            return budget
    raise BackendError(
        "the model is too small to be paged", hint="name a larger one, or a budget with --memory"
    )


def _measure(
    checkpoint: Checkpoint, ablation: Ablation, settings: AblationSettings, report: DoingCallback
) -> dict[str, Any]:
    """Return the fields of a record that are measured."""
    if ablation.without != "quantization":
        return _time_in_worker(checkpoint, checkpoint.folder.path, ablation, settings, report)
    if not any(form for part in checkpoint.layers for form in part.quantizations.values()):
        raise BackendError(
            "its weights are not quantized", hint="convert it first: edgellm convert MODEL DEST"
        )
    report("dequantizing")
    with temporary_folder(variants_folder()) as scratch:
        plain = scratch / "16bit"
        make_model(plain, "convert", str(checkpoint.folder.path), str(plain), "--bits", "16")
        return _time_in_worker(checkpoint, plain, ablation, settings, report)


def _time_in_worker(
    checkpoint: Checkpoint,
    folder: Path,
    ablation: Ablation,
    settings: AblationSettings,
    report: DoingCallback,
) -> dict[str, Any]:
    budget = None
    if ablation.paged:
        budget = paged_budget(checkpoint, settings)
    load = settings.load_settings(budget)
    prompt = token_ids(settings.prompt_tokens, checkpoint.config.vocab_size, 1)[0].tolist()
    report("loading")
    with WorkerProcess(timeout=settings.timeout, command=WORKER) as worker:
        loading = {"memory": load.memory, "context": load.context, "threads": load.threads}
        worker.send({"folder": str(folder), "load": loading, "without": ablation.without})
        plan = worker.receive()
        if ablation.paged and plan["resident"]:
            raise BackendError("the budget holds the whole model", hint="give less with --memory")
        count = settings.repetitions
        doings = ["warming up", *(f"repetition {n + 1} of {count}" for n in range(count))]
        samples = []
        for doing in doings:
            report(doing)
            worker.send({"prompt": prompt, "tokens": settings.tokens})
            samples.append(worker.receive())
    return {
        "seconds": tuple(sample["seconds"] for sample in samples[1:]),
        "memory_bytes": budget,
        "peak_memory_bytes": samples[-1]["peak_memory_bytes"],
        "pinned_layers": plan["pinned"],
        "layers": plan["layers"],
        "bytes_per_token": plan["streamed_bytes"],
    }
