"""Measure a model larger than its budget, and how near its speed comes to the disk's."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from edgellm.bench.machine.disk import drop_from_cache, read_all
from edgellm.bench.machine.environment import environment
from edgellm.bench.records.backend_names import OWN
from edgellm.bench.records.kinds import PagingRecord
from edgellm.bench.worker.memory_cap import capped
from edgellm.bench.worker.process import WorkerProcess
from edgellm.checkpoint.buffer import WeightBuffer
from edgellm.checkpoint.checkpoint import Checkpoint, read_checkpoint
from edgellm.console.units import size
from edgellm.device import machine as device
from edgellm.errors import BackendError, ConfigError, ReadError
from edgellm.hub.resolve import locate
from edgellm.memory_plan.plan_checkpoint import least_memory, plan_for
from edgellm.reading.tuning import tuned
from edgellm.settings import LoadSettings

WORKER = (sys.executable, "-m", "edgellm.bench.paging.worker")
SAMPLES = 3
TOKENS = 2
"""Tokens of one sample."""

FRACTIONS = (0.25, 0.5, 0.75)
"""Of the model's size: the budgets where none are given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PagingSettings:
    """How each budget is measured.

    Attributes:
        samples: repetitions, a plain read of the streamed files before, between and after them.
        tokens: tokens of each repetition.
        context: tokens that the KV cache has room for; None: as the plan decides.
        kv_bits: of a number in the KV cache; None: as the plan decides.
        threads: threads for arithmetic; None: as the machine has.
        headroom: bytes above its budget that the system lets each process have; None: as many as it
            likes.
    """

    samples: int = SAMPLES
    tokens: int = TOKENS
    context: int | None = None
    kv_bits: int | None = None
    threads: int | None = None
    headroom: int | None = None

    def cap(self, budget: int) -> int | None:
        """Return what the system holds a process of this budget to; None: nothing."""
        if self.headroom is None:
            return None
        return budget + self.headroom


def measure_paging(
    model: str,
    budgets: Sequence[int] = (),
    settings: PagingSettings | None = None,
    *,
    progress: Callable[[str], None] = lambda _: None,
) -> list[PagingRecord]:
    """Measure a model inside each budget, in a process of its own, cold.

    A budget that fails becomes a record that says why; the others are measured all the same.

    Args:
        model: a folder, a Hub id or a bundled name.
        budgets: bytes; none: ``default_budgets``.
        settings: how each is measured.
        progress: is called with each budget in words before it is measured.

    Raises:
        ModelNotFoundError, FormatError, UnsupportedModelError: the model cannot be used at all.
        ConfigError: memory is to be capped and cannot be; no budget is given, and none pages the
            model.
    """
    settings = settings or PagingSettings()
    checkpoint = read_checkpoint(locate(model))
    common: dict[str, Any] = {
        "model": model,
        "backend": OWN,
        "device": device.chip_name(),
        "test": "paging",
        "environment": environment(),
        "tokens": settings.tokens,
        "threads": settings.threads or device.core_count(),
        "bits": checkpoint.usual_bits,
        "layers": len(checkpoint.layers),
    }
    records = []
    for budget in budgets or default_budgets(checkpoint, settings):
        progress(f"{budget / 1e6:,.0f} MB")
        common |= {"memory_bytes": budget, "cap_bytes": settings.cap(budget)}
        try:
            record = PagingRecord(**common, **_measure(checkpoint, budget, settings))
        except (BackendError, ReadError) as error:
            record = PagingRecord(**common, error=error.message)
        records.append(record)
    return records


def default_budgets(checkpoint: Checkpoint, settings: PagingSettings) -> list[int]:
    """Return fractions of the model's size that it runs in and that do not hold it whole.

    Raises:
        ConfigError: none is left.
    """
    load = LoadSettings(
        context=settings.context,
        kv_bits=settings.kv_bits,
        threads=settings.threads,
        speculate="off",
    )
    least = least_memory(checkpoint, load)
    # fractions below the least become one budget
    budgets = dict.fromkeys(max(least, int(part * checkpoint.nbytes)) for part in FRACTIONS)
    paged = [
        budget
        for budget in budgets
        if not plan_for(checkpoint, replace(load, memory=budget)).resident
    ]
    if not paged:
        raise ConfigError(
            f"{checkpoint.folder.path.name} is so small that the minimum it runs in, "
            f"{size(least)}, holds the whole of it",
            hint="name a larger model, or give budgets with --memory",
        )
    return paged


def _measure(checkpoint: Checkpoint, budget: int, settings: PagingSettings) -> dict[str, Any]:
    """Return the fields of a record that are measured."""
    files = sorted({extent.file for part in checkpoint.layers for extent in part.extents})
    tuning = tuned(files)
    # cold: what an earlier run has left in the page cache would come from memory
    drop_from_cache(sorted(checkpoint.folder.path.glob("*.safetensors")))
    with _worker(settings.cap(budget)) as worker:
        loading = {
            "memory": budget,
            "context": settings.context,
            "kv_bits": settings.kv_bits,
            "threads": settings.threads,
        }
        worker.send({"folder": str(checkpoint.folder.path), "load": loading})
        loaded = worker.receive()
        plan = loaded["plan"]
        extents = [
            extent for index in plan["streamed"] for extent in checkpoint.layers[index].extents
        ]
        scratch = WeightBuffer(max((extent.nbytes for extent in extents), default=0))

        def plain_read() -> list[float]:
            if not extents:
                return []
            return [read_all(extents, tuning, scratch)]

        # before, between and after the repetitions, since disks wander
        raw_gbps = plain_read()
        seconds = []
        for _ in range(settings.samples):
            worker.send({"tokens": settings.tokens})
            seconds.append(worker.receive()["seconds"])
            raw_gbps += plain_read()
        worker.send({"tokens": 0})  # ends the decoding
        end = worker.receive()
        step = worker.receive()
    return {
        "seconds": tuple(seconds),
        "raw_gbps": tuple(raw_gbps),
        "pinned_layers": len(plan["pinned"]),
        "bytes_per_token": plan["streamed_bytes"],
        "peak_memory_bytes": end["peak_memory_bytes"],
        "direct_reads": end["direct_reads"],
        "resident_seconds": step["resident_seconds"],
        "weight_bytes_per_token": step["weight_bytes"],
        "load_seconds": loaded["load_seconds"],
    }


@contextmanager
def _worker(cap: int | None) -> Iterator[WorkerProcess]:
    """Give a worker that the system holds to ``cap`` bytes, and kill it at the end."""
    with capped(WORKER, cap) as command:
        worker = WorkerProcess(command=command, timeout=None)
        try:
            yield worker
        finally:
            worker.kill()
