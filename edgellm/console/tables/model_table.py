"""A model: its shape, how it is stored, the bytes of its parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgellm.console.rows import show_rows
from edgellm.console.units import count, plural, size


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
