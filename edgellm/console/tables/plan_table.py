"""A plan for one machine: what is in memory, what is read, the speed to expect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgellm.console.rows import Row, show_rows
from edgellm.console.units import percent, plural, size, speed, speed_range


def show_plan(plan: Mapping[str, Any], *, name: str, measured: bool) -> None:
    """Write what ``Plan.as_dict`` returns.

    Args:
        plan: the plan; ``busy`` says what else the machine did, or is empty.
        name: the model's.
        measured: whether arithmetic was; else it is taken to keep up with the disk.
    """
    layers = plural(plan["layers"], "layer")
    read_for_token = "nothing: it is all in memory"
    if plan["bytes_per_token"]:
        read_for_token = size(plan["bytes_per_token"])
    prompt_tokens = plural(plan["prefill_chunk"], "prompt token")
    rows = [
        ("weights", f"{size(plan['model_bytes'])} in {layers}, embedding, norm and head"),
        *_weights_in_memory(plan, layers),
        ("KV cache", _kv_cache(plan)),
        *_draft(plan),
        *_adapter(plan),
        ("activations", f"{size(plan['working_bytes'])}, {prompt_tokens} at a time"),
        ("total", f"{size(plan['total_bytes'])} of a budget of {size(plan['budget'])}"),
        ("read per token", read_for_token),
        *_expected_speed(plan, measured=measured),
    ]
    show_rows(rows, title=name)


def _weights_in_memory(plan: Mapping[str, Any], layers: str) -> list[Row]:
    if plan["resident"]:
        return [("in memory", f"all of them: {size(plan['pinned_bytes'] + plan['outer_bytes'])}")]
    pinned = len(plan["pinned"])
    outer = "norm and head; the embedding is read by row"
    if plan["embedding_resident"]:
        outer = "embedding, norm and head"
    return [
        (
            "pinned",
            f"{pinned} of {layers} ({percent(pinned / plan['layers'])}), "
            f"{size(plan['pinned_bytes'])}",
        ),
        ("outside the layers", f"{size(plan['outer_bytes'])}: {outer}"),
        ("paging buffers", f"{plural(plan['slots'], 'slot')} of {size(plan['slot_bytes'])}"),
    ]


def _kv_cache(plan: Mapping[str, Any]) -> str:
    text = f"{size(plan['cache_bytes'])} for {plural(plan['context'], 'token')}"
    if plan["kv_bits"]:
        text += f" in {plan['kv_bits']} bits"
    if plan["kv_bits_chosen"]:
        text += ", which pin more layers (--kv-bits 16 for as usual)"
    if plan["pinned_in_8_bits"]:
        text += f"; --kv-bits 8 would pin {plan['pinned_in_8_bits']} layers"
    if plan["context_window"]:
        text += f", looking back over {plan['context_window']:,}"
    return text


def _draft(plan: Mapping[str, Any]) -> list[Row]:
    if not plan["draft_bytes"]:
        return []
    cache = size(plan["draft_cache_bytes"])
    return [("draft model", f"{size(plan['draft_bytes'])} in memory, and {cache} for its KV cache")]


def _adapter(plan: Mapping[str, Any]) -> list[Row]:
    if not plan["adapter_bytes"]:
        return []
    return [("adapter", f"{size(plan['adapter_bytes'])} in memory, beside the weights")]


def _expected_speed(plan: Mapping[str, Any], *, measured: bool) -> list[Row]:
    if not plan["tokens_per_second"]:
        return []
    limit = {"disk": "the disk"}.get(plan["bound_by"], "arithmetic")
    if not measured:
        return [("at most", f"{speed(plan['tokens_per_second'])}, limited by {limit}")]
    worst, best = 1 / plan["seconds_at_worst"], 1 / plan["seconds_at_best"]
    expected = f"{speed_range(worst, best)}, limited by {limit}"
    if plan["busy"]:
        expected += f"; {plan['busy']}, a quiet machine is nearer the upper figure"
    return [("expected", expected)]
