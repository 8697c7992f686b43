"""The cost of a completion: times, passes over the weights, memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgellm.console.rows import Row
from edgellm.console.units import percent, plural, rate, seconds, size, speed


def cost_rows(facts: Mapping[str, Any]) -> list[Row]:
    """Return what ``facts.generation_facts`` says of a completion, as rows."""
    prompt = plural(facts["prompt_tokens"], "token")
    if facts["cached_tokens"]:
        prompt += f" ({facts['cached_tokens']:,} cached)"
    tokens = plural(facts["completion_tokens"], "token")
    if facts["tokens_per_second"]:
        tokens += f", {speed(facts['tokens_per_second'])}"
    return [
        ("prompt", f"{prompt} in {seconds(facts['prefill_seconds'])}"),
        ("answer", tokens),
        *_speculation(facts),
        *_paging(facts),
        ("weights in memory", size(facts["resident_bytes"])),
        ("peak memory", f"{size(facts['peak_memory_bytes'])}, of the whole process"),
    ]


def _speculation(facts: Mapping[str, Any]) -> list[Row]:
    if not facts["drafted_tokens"]:
        return []
    passes = f"{facts['tokens_per_weight_pass']:.2f} tokens per pass over the weights"
    drafted = plural(facts["drafted_tokens"], "draft token")
    return [("speculation", f"{passes}, {percent(facts['acceptance'])} of {drafted} accepted")]


def _paging(facts: Mapping[str, Any]) -> list[Row]:
    if facts["efficiency"] is None:  # all weights are in memory
        return []
    read = f"{size(facts['bytes_read'])} in {facts['weight_passes']:.1f} passes"
    if facts["read_gbps"]:
        read += f", {rate(facts['read_gbps'] * 1e9)}"
    return [
        ("read from disk", read),
        ("pinned", f"{percent(facts['pinned_share'])} of the layers"),
        ("efficiency", f"the disk was busy {percent(facts['efficiency'])} of the time"),
    ]
