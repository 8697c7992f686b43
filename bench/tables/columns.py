"""Columns of each kind of record, and how records of a kind compare, in sentences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edgellm.bench.records.backend_names import OWN
from edgellm.bench.records.doubts import MAX_SHARE, MAX_SPREAD
from edgellm.bench.records.kinds import (
    AblationRecord,
    DiskRecord,
    PagingRecord,
    ParityRecord,
    QueryRecord,
)
from edgellm.bench.records.record import Record, SpeedRecord, quotient
from edgellm.bench.records.serving import ServingRecord
from edgellm.bench.records.training import TrainingRecord
from edgellm.bench.tables.text_tables import (
    Column,
    Row,
    doubted,
    megabytes,
    number,
    percent,
    seconds,
    throughput,
    yes_or_no,
)
from edgellm.console.units import count, size

DISK_COLUMNS: Mapping[str, Column] = {
    "threads": ("threads", str),
    "piece": ("chunk_bytes", megabytes),
    "GB/s": ("raw_read_gbps", number(2)),
    "past the cache": ("direct_reads", yes_or_no),
}
PAGING_COLUMNS: Mapping[str, Column] = {
    "budget": ("memory_bytes", megabytes),
    "pinned": ("pinned_layers", str),
    "of": ("layers", str),
    "read per token": ("bytes_per_token", megabytes),
    "disk GB/s": ("raw_read_gbps", number(2)),
    "s/token": ("seconds_per_token", number(3)),
    "tokens/s": ("tokens_per_second", number(2)),
    "efficiency": ("efficiency", doubted(number(3), MAX_SHARE)),
    "±": ("spread", doubted(percent, MAX_SPREAD)),
    "peak": ("peak_rss_bytes", megabytes),
}
QUERY_COLUMNS: Mapping[str, Column] = {
    "model": ("model", str),
    "bits": ("bits", str),
    "threads": ("threads", str),
    "question": ("number", str),
    "tokens": ("tokens", str),
    "seconds": ("median_seconds", number(2)),
    "tokens/s": ("tokens_per_second", number(1)),
    "score": ("score", number(1)),
    "answer begins": ("answer", lambda text: " ".join(text.split())[:40]),
}
ABLATION_COLUMNS: Mapping[str, Column] = {
    "variant": ("variant", str),
    "bits": ("bits", str),
    "budget": ("memory_bytes", megabytes),
    "tokens/s": ("tokens_per_second", number(2)),
    "s/token": ("seconds_per_token", number(4)),
    "times as long": ("slowdown", number(2)),
    "pinned": ("pinned_layers", str),
    "of": ("layers", str),
    "read per token": ("bytes_per_token", megabytes),
    "peak": ("peak_memory_bytes", megabytes),
}
PARITY_COLUMNS: Mapping[str, Column] = {
    "model": ("model", str),
    "backend": ("backend", str),
    "bits": ("bits", str),
    "tokens": ("tokens", str),
    "logits differ by": ("max_logit_difference", "{:.2g}".format),
    "KL": ("kl", "{:.2g}".format),
    "same first": ("top1_agreement", "{:.1%}".format),
    "perplexity": ("perplexity", "{:.3f}".format),
    "change": ("perplexity_change", "{:+.2%}".format),
    "same text": ("text_equal", {True: "yes", False: "no"}.__getitem__),
}
SPEED_COLUMNS: Mapping[str, Column] = {
    "model": ("model", str),
    "backend": ("backend", str),
    "bits": ("bits", str),
    "threads": ("threads", str),
    "ranks": ("tensor_parallel", str),
    "batch": ("batch", str),
    "budget": ("memory_bytes", megabytes),
    "test": ("test", str),
    "tokens/s": ("tokens_per_second", throughput),
    "±": ("spread", doubted(percent, MAX_SPREAD)),
    "first token": ("time_to_first_token", seconds),
    "step p50": ("step_p50", seconds),
    "p99": ("step_p99", seconds),
    "GB/s": ("achieved_gbps", number(1)),
    "of roofline": ("roofline_share", doubted(percent, MAX_SHARE)),
    "J/token": ("joules_per_token", lambda value: f"{value:.3g}"),
    "peak": ("peak_memory_bytes", megabytes),
}
WHERE_DIFFERENT = ("model", "bits", "threads", "ranks", "batch", "budget")
"""Columns of speeds that are shown only where records differ in them."""

WHERE_KNOWN = ("first token", "step p50", "p99", "GB/s", "of roofline", "J/token", "±")
"""Columns of speeds that are shown only where a record has something in them."""

SERVING_COLUMNS: Mapping[str, Column] = {
    "server": ("backend", str),
    "users": ("batch", str),
    "arrivals/s": ("rate", "{:g}".format),
    "tokens/s": ("tokens_per_second", throughput),
    "requests/s": ("requests_per_second", number(2)),
    "TTFT p50": ("ttft_p50", seconds),
    "TTFT p95": ("ttft_p95", seconds),
    "TTFT p99": ("ttft_p99", seconds),
    "ITL p50": ("itl_p50", seconds),
    "ITL p95": ("itl_p95", seconds),
    "ITL p99": ("itl_p99", seconds),
    "TPOT p50": ("tpot_p50", seconds),
    "E2E p50": ("latency_p50", seconds),
    "E2E p95": ("latency_p95", seconds),
    "E2E p99": ("latency_p99", seconds),
    "failed": ("failed", str),
    "counted by": ("tokens_counted", str),
    "client": ("client_share", percent),
}
"""Figures in the words of vLLM's and GuideLLM's benchmarks; ``client`` is its share of a core."""
TRAINING_COLUMNS: Mapping[str, Column] = {
    "backend": ("backend", str),
    "technique": ("test", str),
    "learned": ("numbers", count),
    "pinned": ("pinned_layers", str),
    "of": ("layers", str),
    "weights": ("weight_bytes", size),
    "activations": ("activation_bytes", size),
    "gradients": ("gradient_bytes", size),
    "optimizer": ("optimizer_bytes", size),
    "before": ("start_bytes", size),
    "peak memory": ("peak_memory_bytes", size),
    "s/step": ("median_seconds", number(3)),
    "CPU s": ("median_cpu_seconds", number(3)),
    "±": ("spread", doubted(percent, MAX_SPREAD)),
    "tokens/s": ("tokens_per_second", throughput),
    "loss before": ("loss_before", number(4)),
    "after": ("loss_after", number(4)),
}


def speed_columns(records: Sequence[Row]) -> dict[str, Column]:
    """Return the columns that tell these records apart, and those of figures that are there."""

    def is_shown(name: str, key: str) -> bool:
        values = {str(record.get(key)) for record in records}
        if name == "bits":
            values.discard("None")  # of a model that could not be opened
        if name in WHERE_DIFFERENT:
            return len(values) > 1
        if name in WHERE_KNOWN:
            return values != {"None"}
        return True

    return {name: column for name, column in SPEED_COLUMNS.items() if is_shown(name, column[0])}


def serving_columns(records: Sequence[ServingRecord]) -> dict[str, Column]:
    """Return the columns for these records: users, or arrivals where they came at a rate."""
    columns = dict(SERVING_COLUMNS)
    if any(record.rate for record in records):
        del columns["users"]
    else:
        del columns["arrivals/s"]
    return columns


def training_columns(records: Sequence[Row]) -> dict[str, Column]:
    """Return the columns of training; those of layers only where some of them are not in memory."""
    columns = dict(TRAINING_COLUMNS)
    if not any(_is_paged(record) for record in records):
        del columns["pinned"], columns["of"]
    return columns


def ratio_sentences(records: Sequence[ServingRecord]) -> list[str]:
    """Return how the first server compares with each other one, a sentence for each load."""
    first: dict[object, ServingRecord] = {}
    sentences = []
    for record in records:
        level = (record.test, record.batch, record.rate)
        before = first.setdefault(level, record)
        if before is record or not before.tokens_per_second or not record.tokens_per_second:
            continue
        times = before.tokens_per_second / record.tokens_per_second
        sentence = f"{load_text(record)}: {before.backend} has {times:.2f} times the tokens/s"
        if before.ttft_p50 and record.ttft_p50:
            share = before.ttft_p50 / record.ttft_p50
            sentence += f" and {share:.2f} times the time to the first token"
        sentences.append(f"{sentence} of {record.backend}")
    return sentences


def load_text(record: ServingRecord) -> str:
    """Return a record's load in words: ``8 users``, ``2 requests/s``."""
    if record.rate is not None:
        return f"{record.rate:g} requests/s"
    if record.batch == 1:
        return "1 user"
    return f"{record.batch} users"


def training_sentences(records: Sequence[TrainingRecord]) -> list[str]:
    """Return how edgellm's first record of each method compares with every other library's."""
    own: dict[tuple[str, str], TrainingRecord] = {}
    for record in records:
        if record.backend == OWN and not record.error:
            own.setdefault((record.model, record.method), record)
    sentences = []
    for record in records:
        ours = own.get((record.model, record.method))
        if ours is None or record.backend == OWN or record.error:
            continue
        pace = quotient(ours.tokens_per_second, record.tokens_per_second)
        peak = quotient(ours.peak_memory_bytes, record.peak_memory_bytes)
        if pace and peak:
            sentences.append(
                f"{ours.test}: {OWN} has {pace:.2f} times the tokens/s and {peak:.2f} times the "
                f"peak of {record.backend}, {record.test}"
            )
    return sentences


def _is_paged(record: Row) -> bool:
    pinned = record.get("pinned_layers")
    return pinned is not None and pinned < record.get("layers")


COLUMNS: Mapping[str, Callable[[Sequence[Any]], Mapping[str, Column]]] = {
    SpeedRecord.KIND: speed_columns,
    Record.KIND: speed_columns,  # the first version's, which wrote no kind
    ServingRecord.KIND: serving_columns,
    TrainingRecord.KIND: training_columns,
    QueryRecord.KIND: lambda _: QUERY_COLUMNS,
    ParityRecord.KIND: lambda _: PARITY_COLUMNS,
    AblationRecord.KIND: lambda _: ABLATION_COLUMNS,
    PagingRecord.KIND: lambda _: PAGING_COLUMNS,
    DiskRecord.KIND: lambda _: DISK_COLUMNS,
}
"""By kind, what returns the columns of some records; evaluations have tables of their own."""

SENTENCES: Mapping[str, Callable[[Sequence[Any]], list[str]]] = {
    ServingRecord.KIND: ratio_sentences,
    TrainingRecord.KIND: training_sentences,
}
"""By kind, what compares some records."""
