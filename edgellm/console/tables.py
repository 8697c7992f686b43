"""Facts laid out for reading: a model, a plan, what was converted, the cost of a completion."""

from __future__ import annotations

import math
import sys
import textwrap
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from edgellm.console.terminal import note, out
from edgellm.console.units import (
    count,
    percent,
    plural,
    rate,
    seconds,
    short_time,
    size,
    speed,
    speed_range,
)
from edgellm.errors import escape_controls

if TYPE_CHECKING:
    from rich.console import Console

    from edgellm.converters import ConversionReport, ExportReport

Row = tuple[str, str]

MOSTLY_KEPT = 0.9
"""The share of an adapter's change from which nobody is told how to keep more of it."""

MINIMUM_WIDTH = 20
"""Columns; where values would have fewer, they stand below their names."""


def show_rows(
    rows: Iterable[Row], *, title: str | None = None, console: Console | None = None
) -> None:
    """Write names and values in two columns, to standard output if no console is given.

    Lines are broken on a terminal, and left whole where a program reads them.
    """
    from rich.text import Text

    console = console or out()
    rows = list(rows)
    width = sys.maxsize
    if console.is_terminal:
        width = console.width
        rows = [(escape_controls(name), escape_controls(value)) for name, value in rows]
    name_width = 2 + max(len(name) for name, _ in rows)
    beside = width - name_width >= MINIMUM_WIDTH
    indent = name_width if beside else 4
    if title:
        console.print(title, style="bold", soft_wrap=True)
    for name, value in rows:
        lines = textwrap.wrap(value, width - indent, break_on_hyphens=False)
        label = name.ljust(name_width)
        if not beside:
            label = name
            lines.insert(0, "")
        text = f"\n{' ' * indent}".join(lines)
        console.print(Text.assemble((label, "dim"), text), soft_wrap=True)


def show_model(facts: Mapping[str, Any]) -> None:
    """Write what ``facts.model_facts`` returns."""
    nbytes = facts["bytes"]
    layers = plural(facts["num_hidden_layers"], "layer")
    if "runs_through" in facts:
        show_rows(_whole_model_rows(facts, layers), title=facts["path"])
        return
    widths = f"width {facts['hidden_size']}, inner width {facts['intermediate_size']}"
    cache_bytes = size(facts["kv_cache_bytes_per_token"])
    embedding = size(nbytes["embedding"])
    if facts["tie_word_embeddings"]:
        embedding += ", also the head"
    rows = [
        ("type", facts["model_type"]),
        ("parameters", count(facts["parameters"])),
        ("shape", f"{layers}, {widths}"),
        ("attention", _attention(facts)),
        ("context", f"{facts['max_position_embeddings']:,} tokens, {cache_bytes} each in 16 bits"),
        ("positions", _positions(facts)),
        ("stored", _stored(facts)),
        ("embedding", embedding),
        ("layers", f"{size(nbytes['layers'])}, the largest {size(nbytes['largest_layer'])}"),
        ("norm and head", size(nbytes["norm"] + nbytes["head"])),
        ("all weights", f"{size(nbytes['total'])} in {plural(facts['files'], 'file')}"),
        ("tokenizer", _tokenizer(facts["tokenizer"])),
    ]
    show_rows(rows, title=facts["path"])


def _whole_model_rows(facts: Mapping[str, Any], layers: str) -> list[tuple[str, str]]:
    """Return the rows of a model that another library runs."""
    nbytes = facts["bytes"]
    cache_bytes = size(facts["kv_cache_bytes_per_token"])
    stored = f"{facts['dtype']}, most in {facts['bits']} bits"
    return [
        ("type", facts["model_type"]),
        ("runs through", facts["runs_through"]),
        ("parameters", count(facts["parameters"])),
        ("shape", layers),
        ("context", f"{facts['max_position_embeddings']:,} tokens, {cache_bytes} each"),
        ("stored", f"{stored}; {facts['bits_per_parameter']:.2f} bits per parameter"),
        ("all weights", f"{size(nbytes['total'])} in {plural(facts['files'], 'file')}"),
        ("in memory", size(nbytes["in_memory"])),
        ("tokenizer", _tokenizer(facts["tokenizer"])),
    ]


def _attention(facts: Mapping[str, Any]) -> str:
    text = (
        f"{facts['num_attention_heads']} heads of {facts['head_dim']}, "
        f"{facts['num_key_value_heads']} for keys and values"
    )
    if facts["sliding_window"]:
        text += f", window {facts['sliding_window']}"
        if facts["sliding_layers"] < facts["num_hidden_layers"]:
            text += f" in {facts['sliding_layers']} of {facts['num_hidden_layers']} layers"
    return text


def _positions(facts: Mapping[str, Any]) -> str:
    text = f"rotary, base {facts['rope_theta']:g}"
    scaling = facts["rope_scaling"]
    if scaling:
        text += f", stretched by {scaling['factor']:g} ({scaling['kind']})"
    if facts["nope_layers"]:
        text += f"; none in {facts['nope_layers']} of {facts['num_hidden_layers']} layers"
    return text


def _stored(facts: Mapping[str, Any]) -> str:
    """Say in which bits most matrices are, which are in others, and what is not quantized."""
    bits_per_parameter = f"{facts['bits_per_parameter']:.2f} bits per parameter"
    form = facts["quantization"]
    if form is None:
        return f"{facts['dtype']}, {bits_per_parameter}"
    text = "unquantized"
    if "group_size" in form:
        text = f"{form['bits']} bits in groups of {form['group_size']} ({form['mode']})"
    exceptions = []
    for kind, number in form["others"].items():
        bits = "unquantized" if kind == "none" else f"in {kind} bits"
        exceptions.append(f"{number} {bits}")
    if exceptions:
        text += f", of the matrices {', '.join(exceptions)}"
    return f"{text}, the rest {facts['dtype']}; {bits_per_parameter}"


def _tokenizer(facts: Mapping[str, Any] | None) -> str:
    if facts is None:
        return "not downloaded"
    text = f"{facts['vocab_size']:,} tokens"
    if facts["chat_template"]:
        return f"{text}, with a chat template"
    return f"{text}, without a chat template"


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


def show_cluster(plan: Mapping[str, Any]) -> None:
    """Write what ``ClusterForecast.as_dict`` returns."""
    rows = []
    for kind, forecast in plan["kinds"].items():
        rows.append((f"by {kind}", _cluster_speed(forecast)))
        rows += [(f"  {one['name']}", _machine_part(kind, one)) for one in forecast["machines"]]
        if forecast["output_matrix"]:
            rows.append(("  output matrix", forecast["output_matrix"]))
    rows += [(f"by {kind}", f"not possible: {why}") for kind, why in plan["refused"].items()]
    rows += [
        ("context", plural(plan["context"], "token")),
        ("chosen", f"{plan['split']}: {plan['reason']}"),
    ]
    show_rows(rows, title=plan["model"])


def _cluster_speed(forecast: Mapping[str, Any]) -> str:
    arithmetic, link, read = (
        short_time(forecast[f"{name}_seconds"]) for name in ("arithmetic", "link", "read")
    )
    text = f"{speed(forecast['tokens_per_second'])} at most: arithmetic {arithmetic}, links {link}"
    if forecast["read_seconds"]:
        text += f"; meanwhile disks read for {read}"
    if forecast["windows"]:
        return f"{text}; {plural(forecast['windows'], 'window')}"
    return text


def _machine_part(kind: str, machine: Mapping[str, Any]) -> str:
    """Return in words what a machine of a cluster holds, reads and computes."""
    layers = plural(len(machine["layers"]), "layer")
    held = layers if kind == "windows" else f"{percent(machine['share'])} of {layers}"
    text = f"{held}, {size(machine['total_bytes'])} of {size(machine['budget'])}; "
    if machine["adapter_bytes"]:
        text += f"{size(machine['adapter_bytes'])} of that for the adapter; "
    if machine["streamed_bytes"]:
        text += f"{machine['pinned']} in memory, {size(machine['streamed_bytes'])} read per token "
        text += f"at {rate(machine['disk_bytes_per_second'])}; "
    text += f"computes {rate(machine['weights_per_second'])}"
    if machine["trip_seconds"]:
        text += f"; {short_time(machine['trip_seconds'])} there and back"
    return text


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


def show_conversion(report: ConversionReport, *, listed: bool) -> None:
    """Write what was made to standard error.

    If it is ``listed``, a table of quantization errors goes to standard output.
    """
    if report.errors and listed:
        title = "relative error of each quantized matrix, the largest first"
        show_rows(_error_rows(report.errors), title=title)
    usual = report.quantization
    stored = report.dtype
    usual_bits = None
    if usual:
        stored = f"{usual.bits} bits in groups of {usual.group_size}"
        usual_bits = usual.bits
    other_bits = {item.bits for item in report.exceptions.values() if item is not None}
    if other_bits - {usual_bits}:
        stored += f", others of {', '.join(map(str, sorted(other_bits - {usual_bits})))}"
    note(f"{report.path}: {size(report.weight_bytes)}, {stored}")
    if report.merged:
        note(f"the adapter has changed {plural(report.merged, 'tensor')}")
    if report.change_kept is not None:
        kept = f"{_kept(report.change_kept)} of its change is left in {usual_bits} bits"
        if report.change_kept < MOSTLY_KEPT:
            kept += "; all of it runs beside the base, unmerged: edgellm generate BASE --adapter"
        note(kept)
    if report.errors:
        worst = max(report.errors, key=report.errors.__getitem__)
        mean = math.sqrt(sum(error**2 for error in report.errors.values()) / len(report.errors))
        note(
            f"relative error of quantizing: {mean:.5f}, "
            f"at most {report.errors[worst]:.5f} in {worst}"
        )
    if report.kept_files:
        note(f"{plural(report.kept_files, 'file')} of an earlier run that was stopped went into it")


def show_export(report: ExportReport) -> None:
    """Write what was made to standard error, and a table of what changed to standard output."""
    if report.merged:
        kept = ""
        if report.change_kept is not None:
            kept = f"; {_kept(report.change_kept)} of its change is left"
        note(f"the adapter has changed {plural(report.merged, 'tensor')}, unquantized here{kept}")
    kinds = ", ".join(f"{number} in {kind}" for kind, number in report.kinds.items())
    line = f"{report.path}: {size(report.file_bytes)}; matrices: {kinds}"
    if not report.errors:
        changed = "nothing else" if report.merged else "none of them"
        note(f"{line}; {changed} has changed")
        return
    title = "relative error of each matrix that is not exactly what it was, the largest first"
    show_rows(_error_rows(report.errors), title=title)
    note(line)


def _kept(share: float) -> str:
    # of a change far below the rounding, chance can make it less than nothing or more than all
    return percent(min(max(share, 0.0), 1.0))


def _error_rows(errors: Mapping[str, float]) -> list[Row]:
    descending = sorted(errors.items(), key=lambda item: -item[1])
    return [(path, f"{error:.5f}") for path, error in descending]


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
