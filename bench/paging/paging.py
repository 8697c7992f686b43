"""Tokens a second of a model larger than its budget, and how near they come to what the disk allows."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from edgellm.bench.machine.disk import drop_from_cache, read_all
from edgellm.bench.machine.environment import environment
from edgellm.bench.records.record import Record, median
from edgellm.bench.worker.memory_cap import capped
from edgellm.checkpoint.buffer import WeightBuffer
from edgellm.checkpoint.checkpoint import Checkpoint, read_checkpoint
from edgellm.checkpoint.quantization import quantization_of
from edgellm.device import machine as device
from edgellm.errors import BackendError, ConfigError, EdgeLLMError, ReadError
from edgellm.hub.resolve import locate
from edgellm.plan.plan import megabytes
from edgellm.plan.planner import least_memory, plan_for
from edgellm.reading.tuning import tuned
from edgellm.settings import LoadSettings

SAMPLES = 3
TOKENS = 2
"""Tokens of one sample."""

SHARES = (0.25, 0.5, 0.75)
"""Of the model's size: the budgets where none are given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PagingSettings:
    """How each budget is measured.

    Attributes:
        samples: repetitions, a plain read of the streamed files before, between and after them.
        tokens: of each repetition.
        context: that the KV cache has room for; None: as the plan decides.
        threads: of arithmetic; None: as the machine has.
        headroom: bytes above its budget that the system lets each process have; None: as many as it
            likes.
    """

    samples: int = SAMPLES
    tokens: int = TOKENS
    context: int | None = None
    threads: int | None = None
    headroom: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PagingRecord(Record):
    """Tokens of a model inside a budget of memory.

    Attributes:
        layers: of the model.
        pinned_layers: those that stayed in memory.
        bytes_per_token: read from disk for a token.
        raw_gbps: GB a second of plain reads of the same files, before and after each repetition:
            one more than those.
        resident_seconds: of one token, were all weights in memory.
        load_seconds: until the first token could begin.
        direct_reads: whether reads went past the page cache.
        cap_bytes: what the system held the process to; None: nothing.
    """

    KIND: ClassVar[str] = "paging"

    layers: int | None = None
    pinned_layers: int | None = None
    bytes_per_token: int | None = None
    raw_gbps: tuple[float, ...] = ()
    resident_seconds: float | None = None
    load_seconds: float | None = None
    direct_reads: bool | None = None
    cap_bytes: int | None = None

    DERIVED: ClassVar[tuple[str, ...]] = (
        *Record.DERIVED,
        "raw_read_gbps",
        "seconds_per_token",
        "efficiency",
        "peak_rss_bytes",
    )

    @property
    def raw_read_gbps(self) -> float | None:
        """GB a second of plain reads, the median."""
        return median(self.raw_gbps)

    @property
    def efficiency(self) -> float | None:
        """The physical limit of a repetition over its measured time: 1 is the limit.

        The limit is ``max(missed bytes / raw disk rate, resident step time)``. Each repetition is
        compared with the plain reads just before and just after it, since disks wander; the
        median.
        """
        if not self.seconds or self.resident_seconds is None or self.bytes_per_token is None:
            return None
        fractions = []
        for number, seconds in enumerate(self.seconds):
            limit = self.resident_seconds
            around = self.raw_gbps[number : number + 2]
            if around:
                limit = max(limit, self.bytes_per_token / (statistics.mean(around) * 1e9))
            fractions.append(limit * self.tokens / seconds)
        return statistics.median(fractions)

    @property
    def roofline_share(self) -> float | None:
        """The same as efficiency."""
        return self.efficiency

    @property
    def peak_rss_bytes(self) -> int | None:
        """The most that the process held."""
        return self.peak_memory_bytes


def measure_paging(
    model: str,
    budgets: Sequence[int] = (),
    settings: PagingSettings | None = None,
    *,
    progress: Callable[[str], None] = lambda _: None,
) -> list[PagingRecord]:
    """Measure a model inside each budget, in a process of its own, cold.

    A budget that fails becomes a record that says why; the others are measured all the same.

    Raises:
        ModelNotFoundError, FormatError, UnsupportedModelError: the model cannot be used at all.
        ConfigError: memory is to be capped and cannot be; no budget is given, and none pages the
            model.
    """
    settings = settings or PagingSettings()
    checkpoint = read_checkpoint(locate(model))
    where = environment()
    records = []
    for budget in budgets or default_budgets(checkpoint, settings):
        progress(f"{budget / 1e6:,.0f} MB")
        common: dict[str, Any] = {
            "model": model,
            "backend": "mlx",
            "device": device.chip_name(),
            "test": "paging",
            "environment": where,
            "tokens": settings.tokens,
            "threads": settings.threads or device.core_count(),
            "bits": _bits(checkpoint),
            "memory_bytes": budget,
            "layers": len(checkpoint.layers),
            "cap_bytes": budget + settings.headroom if settings.headroom is not None else None,
        }
        try:
            found = _measure(checkpoint, budget, settings)
        except (BackendError, ReadError) as error:
            found = {"error": error.message}
        records.append(PagingRecord(**common | found))
    return records


def default_budgets(checkpoint: Checkpoint, settings: PagingSettings) -> list[int]:
    """Shares of the model's size, none below what it runs in, without those that hold the whole model.

    Raises:
        ConfigError: none is left.
    """
    load = LoadSettings(context=settings.context, threads=settings.threads, speculate="off")
    least = least_memory(checkpoint, load)
    wished = dict.fromkeys(max(least, int(share * checkpoint.nbytes)) for share in SHARES)
    found = [
        budget
        for budget in wished
        if not plan_for(checkpoint, replace(load, memory=budget)).resident
    ]
    if not found:
        raise ConfigError(
            f"{checkpoint.folder.path.name} is so small that the least it runs in, {megabytes(least)}, holds the whole of it",
            hint="name a larger model, or give budgets with --memory",
        )
    return found


def _measure(checkpoint: Checkpoint, budget: int, settings: PagingSettings) -> dict[str, Any]:
    files = sorted({extent.file for part in checkpoint.layers for extent in part.extents})
    tuning = tuned(files)
    drop_from_cache(sorted(checkpoint.folder.path.glob("*.safetensors")))
    load = LoadSettings(memory=budget, context=settings.context, threads=settings.threads)
    cap = budget + settings.headroom if settings.headroom is not None else None
    with _process(checkpoint, load, cap) as run:
        begun = run.hear()
        plan = begun["plan"]
        extents = [
            extent for index in plan["streamed"] for extent in checkpoint.layers[index].extents
        ]
        scratch = WeightBuffer(max((extent.nbytes for extent in extents), default=0))

        def plain_read() -> list[float]:
            return [read_all(extents, tuning, scratch)] if extents else []

        raw, seconds = plain_read(), []
        for _ in range(settings.samples):
            seconds.append(run.ask(settings.tokens)["seconds"])
            raw += plain_read()
        end = run.ask(0)
        step = run.hear()
    return {
        "seconds": tuple(seconds),
        "raw_gbps": tuple(raw),
        "pinned_layers": len(plan["pinned"]),
        "bytes_per_token": plan["streamed_bytes"],
        "peak_memory_bytes": end["peak_memory_bytes"],
        "direct_reads": end["direct_reads"],
        "resident_seconds": step["resident_seconds"],
        "weight_bytes_per_token": step["weight_bytes"],
        "load_seconds": begun["load_seconds"],
    }


class _Run:
    """A ``pagedrun`` process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, tokens: int) -> dict[str, Any]:
        """Have it decode so many tokens, or end its answer; returns what it says next."""
        assert self._process.stdin is not None, "it was opened with a pipe"
        try:
            self._process.stdin.write(f"{tokens}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # what it died of is heard next
        return self.hear()

    def hear(self) -> dict[str, Any]:
        """What it says next. Raises BackendError where it says that it failed, or is gone."""
        assert self._process.stdout is not None, "it was opened with a pipe"
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            # A shell reports a child that signal 9 ended as 137.
            killed = code in {-9, 137}
            raise BackendError(
                "the system ended the process: it took too much memory"
                if killed
                else f"it ended with code {code}"
            )
        found: dict[str, Any] = json.loads(line)
        if "error" in found:
            raise BackendError(found["error"])
        return found


@contextmanager
def _process(checkpoint: Checkpoint, load: LoadSettings, cap: int | None) -> Iterator[_Run]:
    settings = {"memory": load.memory, "context": load.context, "threads": load.threads}
    command = [
        sys.executable,
        "-m",
        "edgellm.bench.paging.worker",
        str(checkpoint.folder.path),
        json.dumps(settings),
    ]
    with (
        capped(command, cap) as capped_command,
        subprocess.Popen(
            capped_command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process,
    ):
        try:
            yield _Run(process)
        finally:
            process.kill()


def _bits(checkpoint: Checkpoint) -> int | None:
    try:
        usual = quantization_of(checkpoint.folder.config, "")
    except EdgeLLMError:
        return None
    return usual.bits if usual else 16
