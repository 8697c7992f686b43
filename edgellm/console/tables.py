"""Facts laid out for reading: a model, a plan, the quantization errors of a conversion, the cost of an answer."""

from __future__ import annotations

import math
import sys
import textwrap
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from edgellm.console.terminal import note, out
from edgellm.console.units import count, plural, rate, seconds, share, size, speed

if TYPE_CHECKING:
    from rich.console import Console

    from edgellm.converters import ConversionReport, ExportReport

Row = tuple[str, str]

MINIMUM_WIDTH = 20
"""Columns; where values would have fewer, they stand below their names."""


def show_rows(
    rows: Iterable[Row], *, title: str | None = None, console: Console | None = None
) -> None:
    """Write names and values in two columns; lines are broken on a terminal, and left whole where a program reads them."""
    from rich.text import Text

    console = console or out()
    rows = list(rows)
    column = 2 + max(len(name) for name, _ in rows)
    width = console.width if console.is_terminal else sys.maxsize
    beside = width - column >= MINIMUM_WIDTH
    indent = column if beside else 4
    if title:
        console.print(title, style="bold", soft_wrap=True)
    for name, value in rows:
        lines = textwrap.wrap(value, width - indent, break_on_hyphens=False) or [""]
        text = f"\n{' ' * indent}".join(lines if beside else ["", *lines])
        console.print(
            Text.assemble((name.ljust(column) if beside else name, "dim"), text), soft_wrap=True
        )


def show_model(facts: Mapping[str, Any]) -> None:
    """Write what ``info.model_facts`` has found."""
    nbytes = facts["bytes"]
    layers = facts["num_hidden_layers"]
    heads = f"{facts['num_attention_heads']} heads of {facts['head_dim']}, {facts['num_key_value_heads']} for keys and values"
    rows = [
        ("type", facts["model_type"]),
        ("parameters", count(facts["parameters"])),
        (
            "shape",
            f"{plural(layers, 'layer')}, width {facts['hidden_size']}, inner width {facts['intermediate_size']}",
        ),
        (
            "attention",
            heads + (f", window {facts['sliding_window']}" if facts["sliding_window"] else ""),
        ),
        (
            "context",
            f"{facts['max_position_embeddings']:,} tokens, {size(facts['kv_cache_bytes_per_token'])} each in 16 bits",
        ),
        ("positions", _positions(facts)),
        ("stored", _stored(facts)),
        (
            "embedding",
            size(nbytes["embedding"]) + (", also the head" if facts["tie_word_embeddings"] else ""),
        ),
        ("layers", f"{size(nbytes['layers'])}, the largest {size(nbytes['largest_layer'])}"),
        ("norm and head", size(nbytes["norm"] + nbytes["head"])),
        ("all weights", f"{size(nbytes['total'])} in {plural(facts['files'], 'file')}"),
        ("tokenizer", _tokenizer(facts["tokenizer"])),
    ]
    show_rows(rows, title=facts["path"])


def show_plan(plan: Mapping[str, Any], *, name: str, measured: bool) -> None:
    """Write what ``Plan.as_dict`` says; ``measured`` is whether the arithmetic was, or is taken to keep up with the disk."""
    layers, pinned = plan["layers"], len(plan["pinned"])
    rows = [
        (
            "weights",
            f"{size(plan['model_bytes'])} in {plural(layers, 'layer')}, embedding, norm and head",
        )
    ]
    if plan["resident"]:
        rows.append(
            ("in memory", f"all of them: {size(plan['pinned_bytes'] + plan['outer_bytes'])}")
        )
    else:
        outer = (
            "embedding, norm and head"
            if plan["embedding_resident"]
            else "norm and head; the embedding is read by row"
        )
        kept = f"{pinned} of {plural(layers, 'layer')} ({share(pinned / layers)}), {size(plan['pinned_bytes'])}"
        rows += [
            ("pinned", kept),
            ("outside the layers", f"{size(plan['outer_bytes'])}: {outer}"),
            ("in transit", f"{plural(plan['slots'], 'slot')} of {size(plan['slot_bytes'])}"),
        ]
    rows += [
        (
            "KV cache",
            f"{size(plan['cache_bytes'])} for {plural(plan['context'], 'token')}{_kept(plan)}{_window(plan)}",
        ),
        *_draft(plan),
        (
            "activations",
            f"{size(plan['working_bytes'])}, {plural(plan['prefill_chunk'], 'prompt token')} at a time",
        ),
        ("together", f"{size(plan['total_bytes'])} of a budget of {size(plan['budget'])}"),
        (
            "read for a token",
            size(plan["bytes_per_token"])
            if plan["bytes_per_token"]
            else "nothing: it is all in memory",
        ),
    ]
    if plan["tokens_per_second"]:
        rows.append(
            (
                "expected" if measured else "at most",
                f"{speed(plan['tokens_per_second'])}, limited by {_limit(plan)}",
            )
        )
    show_rows(rows, title=name)


def show_conversion(report: ConversionReport, *, listed: bool) -> None:
    """Write what was made to standard error and, if it is wanted, a table of quantization errors to standard output."""
    if report.errors and listed:
        rows = [
            (path, f"{error:.5f}")
            for path, error in sorted(report.errors.items(), key=lambda item: -item[1])
        ]
        show_rows(rows, title="relative error of each quantized matrix, the largest first")
    form = report.quantization
    stored = f"{form.bits} bits in groups of {form.group_size}" if form else report.dtype
    others = sorted(
        {item.bits for item in report.exceptions.values() if item is not None}
        - {form.bits if form else 0}
    )
    mixed = f", others of {', '.join(map(str, others))}" if others else ""
    note(f"{report.path}: {size(report.weight_bytes)}, {stored}{mixed}")
    if report.merged:
        note(f"the adapter has changed {plural(report.merged, 'tensor')}")
    if report.errors:
        worst = max(report.errors, key=report.errors.__getitem__)
        mean = math.sqrt(sum(error**2 for error in report.errors.values()) / len(report.errors))
        note(
            f"relative error of quantizing: {mean:.5f}, at most {report.errors[worst]:.5f} in {worst}"
        )
    if report.kept_files:
        note(f"{plural(report.kept_files, 'file')} of an earlier run that was stopped went into it")


def show_export(report: ExportReport) -> None:
    """Write a table of what changed to standard output if anything did, and what was made to standard error."""
    if report.errors:
        rows = [
            (path, f"{error:.5f}")
            for path, error in sorted(report.errors.items(), key=lambda item: -item[1])
        ]
        show_rows(
            rows,
            title="relative error of each matrix that is not exactly what it was, the largest first",
        )
    kinds = ", ".join(f"{count} in {kind}" for kind, count in report.kinds.items())
    exact = "" if report.errors else ", none of them changed"
    note(f"{report.path}: {size(report.file_bytes)}; matrices: {kinds}{exact}")


def cost_rows(facts: Mapping[str, Any]) -> list[Row]:
    """What ``info.answer_facts`` says of an answer."""
    reused = f" ({facts['cached_tokens']:,} of them known)" if facts["cached_tokens"] else ""
    prompt = (
        f"{plural(facts['prompt_tokens'], 'token')}{reused} in {seconds(facts['prefill_seconds'])}"
    )
    tokens = plural(facts["completion_tokens"], "token")
    if facts["tokens_per_second"]:
        tokens += f", {speed(facts['tokens_per_second'])}"
    rows = [("prompt", prompt), ("answer", tokens)]
    if facts["drafted_tokens"]:
        right = f"{share(facts['acceptance'])} of {plural(facts['drafted_tokens'], 'guessed token')} right"
        rows.append(
            ("speculation", f"{facts['tokens_per_weight_pass']:.2f} tokens a weight pass, {right}")
        )
    if facts["efficiency"] is not None:
        reading = f", {rate(facts['read_gbps'] * 1e9)}" if facts["read_gbps"] else ""
        passes = f"{facts['weight_passes']:.1f} passes"
        rows += [
            ("read from disk", f"{size(facts['bytes_read'])} in {passes}{reading}"),
            ("pinned", f"{share(facts['pinned_share'])} of the layers"),
            ("efficiency", f"the disk was busy {share(facts['efficiency'])} of the time"),
        ]
    rows += [
        ("weights in memory", size(facts["resident_bytes"])),
        ("peak memory", f"{size(facts['peak_memory_bytes'])}, of the whole process"),
    ]
    return rows


def _positions(facts: Mapping[str, Any]) -> str:
    scaling = facts["rope_scaling"]
    text = f"rotary, base {facts['rope_theta']:g}"
    return f"{text}, stretched by {scaling['factor']:g} ({scaling['kind']})" if scaling else text


def _stored(facts: Mapping[str, Any]) -> str:
    form = facts["quantization"]
    bits = f"{facts['bits_per_parameter']:.2f} bits a parameter"
    if form is None:
        return f"{facts['dtype']}, {bits}"
    usual = (
        f"{form['bits']} bits in groups of {form['group_size']} ({form['mode']})"
        if "group_size" in form
        else "unquantized"
    )
    others = ", ".join(f"{number} {_bits(kind)}" for kind, number in form["others"].items())
    return (
        f"{usual}"
        + (f", of the matrices {others}" if others else "")
        + f", the rest {facts['dtype']}; {bits}"
    )


def _bits(kind: str) -> str:
    return "unquantized" if kind == "none" else f"in {kind} bits"


def _tokenizer(facts: Mapping[str, Any] | None) -> str:
    if facts is None:
        return "not downloaded"
    template = "with a chat template" if facts["chat_template"] else "without a chat template"
    return f"{facts['vocab_size']:,} tokens, {template}"


def _kept(plan: Mapping[str, Any]) -> str:
    return f" in {plan['kv_bits']} bits" if plan["kv_bits"] else ""


def _window(plan: Mapping[str, Any]) -> str:
    return f", looking back over {plan['context_window']:,}" if plan["context_window"] else ""


def _draft(plan: Mapping[str, Any]) -> list[Row]:
    if not plan["draft_bytes"]:
        return []
    return [
        (
            "draft model",
            f"{size(plan['draft_bytes'])} in memory, and {size(plan['draft_cache_bytes'])} for its KV cache",
        )
    ]


def _limit(plan: Mapping[str, Any]) -> str:
    return "the disk" if plan["bound_by"] == "disk" else "arithmetic"
