"""Load tests in tables, and how servers compare, in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgellm.bench.records.serving import ServingRecord
from edgellm.bench.tables.text_tables import Column, number, percent, seconds, throughput

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


def serving_columns(records: Sequence[ServingRecord]) -> dict[str, Column]:
    """Return the columns for these records: users, or arrivals where they came at a rate."""
    columns = dict(SERVING_COLUMNS)
    if any(record.rate for record in records):
        del columns["users"]
    else:
        del columns["arrivals/s"]
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
