"""Facts about models and completions as plain data, for tables and for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgellm.checkpoint.checkpoint import Checkpoint, TensorGroup, read_checkpoint
from edgellm.checkpoint.quantization import Quantization
from edgellm.files.given_path import given_path
from edgellm.hub.names import HubName, parse_hub_name
from edgellm.hub.resolve import bundled_names, locate
from edgellm.models.through_mlx_lm.checkpoint import (
    AnyCheckpoint,
    MLXLMCheckpoint,
    any_checkpoint_of,
    read_any_checkpoint,
)
from edgellm.models.through_mlx_lm.library import mlx_lm_name

if TYPE_CHECKING:
    from edgellm.converters import ConversionReport, ExportReport
    from edgellm.generation.output import Token
    from edgellm.generation.stats import Stats
    from edgellm.memory_plan.plan import Plan
    from edgellm.tokenizer import Tokenizer


def inspect_model(model: str | Path) -> tuple[AnyCheckpoint, bool]:
    """Return what is known of a model without its weights, and whether they are on this machine.

    Of a Hub repository that was never downloaded, headers and config are fetched: some 100 KB.

    Raises:
        ModelNotFoundError, DownloadError, FormatError, UnsupportedModelError, ReadError: as
        ``load``.
    """
    name = str(model)
    hub_name = parse_hub_name(name)
    is_local = given_path(model).exists() or name in bundled_names()
    if is_local or hub_name is None:
        return read_any_checkpoint(locate(model)), True
    if hub_name.is_gguf:
        return _inspect_gguf(hub_name)
    from edgellm.hub.cached_files import cached_folder
    from edgellm.hub.remote_folder import remote_folder

    folder = cached_folder(hub_name.repository, None)
    if folder is not None:
        return read_any_checkpoint(folder), True
    return any_checkpoint_of(remote_folder(hub_name.repository)), False


def _inspect_gguf(name: HubName) -> tuple[Checkpoint, bool]:
    """Return what is known of a GGUF file on the Hub as the folder that is made of it."""
    from edgellm.converters.gguf_on_hub.cached_conversion import find_converted
    from edgellm.converters.gguf_on_hub.preview import preview_gguf

    folder, place = find_converted(name)
    if folder is not None:
        return read_checkpoint(folder), True
    return preview_gguf(place), False


def model_facts(checkpoint: AnyCheckpoint, tokenizer: Tokenizer | None) -> dict[str, Any]:
    """Return the shape of a model, and the bytes of each of its parts, where they are known."""
    if isinstance(checkpoint, MLXLMCheckpoint):
        return _whole_model_facts(checkpoint, tokenizer)
    config = checkpoint.config
    layer_parameters = _count(config.tensor_shapes())
    parameters = config.num_hidden_layers * layer_parameters + _count(config.outer_shapes())
    layer_bytes = [layer.nbytes for layer in checkpoint.layers]
    # keys and values of every layer, in 16 bits
    kv_numbers = 2 * config.num_key_value_heads * config.head_dim * config.num_hidden_layers
    return {
        "path": str(checkpoint.folder.path),
        "model_type": config.model_type,
        "parameters": parameters,
        "num_hidden_layers": config.num_hidden_layers,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.max_position_embeddings,
        "sliding_window": config.sliding_window,
        "sliding_layers": len(config.sliding_layers),
        "nope_layers": len(config.nope_layers),
        "rope_theta": config.rope_theta,
        "rope_scaling": asdict(config.rope_scaling) if config.rope_scaling else None,
        "tie_word_embeddings": config.tie_word_embeddings,
        "dtype": checkpoint.dtype,
        "quantization": _usual_quantization(checkpoint),
        "bits_per_parameter": checkpoint.nbytes * 8 / parameters,
        "bytes": {
            "embedding": checkpoint.embed_tokens.nbytes,
            "layers": sum(layer_bytes),
            "largest_layer": max(layer_bytes),
            "norm": checkpoint.norm.nbytes,
            "head": checkpoint.lm_head.nbytes if checkpoint.lm_head else 0,
            "total": checkpoint.nbytes,
        },
        "kv_cache_bytes_per_token": 2 * kv_numbers,
        "files": len(
            {extent.file for group in _tensor_groups(checkpoint) for extent in group.extents}
        ),
        "tokenizer": tokenizer_facts(tokenizer) if tokenizer else None,
    }


def _whole_model_facts(checkpoint: MLXLMCheckpoint, tokenizer: Tokenizer | None) -> dict[str, Any]:
    """Return what is known of a model that mlx-lm runs, and mlx-lm's version."""
    config = checkpoint.config
    growth = checkpoint.caches
    return {
        "path": str(checkpoint.folder.path),
        "runs_through": mlx_lm_name(),
        "model_type": config.model_type,
        "parameters": checkpoint.parameters,
        "num_hidden_layers": config.num_hidden_layers,
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.max_position_embeddings,
        "dtype": checkpoint.dtype,
        "bits": checkpoint.usual_bits,
        "bits_per_parameter": checkpoint.weight_bytes * 8 / checkpoint.parameters,
        "bytes": {"total": checkpoint.nbytes, "in_memory": checkpoint.weight_bytes},
        "kv_cache_bytes_per_token": sum(token_bytes for token_bytes, _ in growth.windows),
        "files": len({tensor.file for tensor in checkpoint.folder.tensors.values()}),
        "tokenizer": tokenizer_facts(tokenizer) if tokenizer else None,
    }


def tokenizer_facts(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return what a tokenizer is."""
    return {
        "vocab_size": tokenizer.vocab_size,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_ids": sorted(tokenizer.eos_token_ids),
        "chat_template": tokenizer.chat_template is not None,
    }


def generation_facts(stats: Stats, plan: Plan) -> dict[str, Any]:
    """Return what a generation has cost, and figures that follow from it.

    Sizes in bytes, times in seconds, ``read_gbps`` in 10^9 bytes/s. ``efficiency`` is the share of
    the time in which the disk was reading for it: 1 where the disk is the limit and never rests,
    None where everything is in memory.
    """
    computed_tokens = stats.prompt_tokens - stats.cached_tokens
    efficiency = None
    if not plan.resident:
        efficiency = _rate(stats.read_seconds, stats.prefill_seconds + stats.decode_seconds)
    if efficiency is not None:
        efficiency = min(1.0, efficiency)
    layers = len(plan.pinned) + len(plan.streamed)
    return asdict(stats) | {
        "tokens_per_second": stats.decode_tokens_per_second,
        "tokens_per_weight_pass": stats.tokens_per_weight_pass,
        "acceptance": stats.acceptance,
        "prompt_tokens_per_second": _rate(computed_tokens, stats.prefill_seconds),
        "read_gbps": _rate(stats.bytes_read / 1e9, stats.read_seconds),
        "pinned_layers": len(plan.pinned),
        "pinned_share": len(plan.pinned) / layers,
        "efficiency": efficiency,
        "budget_bytes": plan.budget,
        "context": plan.context,
    }


def completion_facts(tokens: Sequence[Token], plan: Plan, *, logprobs: bool) -> dict[str, Any]:
    """Return a whole completion with what it cost; the last token must have closed it."""
    last = tokens[-1]
    assert last.stats is not None, "the last token says what the completion has cost"
    facts: dict[str, Any] = {
        "text": "".join(token.text for token in tokens),
        "finish_reason": last.finish_reason,
    }
    if logprobs:
        facts["tokens"] = [
            {"id": token.id, "text": token.text, "logprob": token.logprob} for token in tokens
        ]
    return facts | generation_facts(last.stats, plan)


def conversion_facts(report: ConversionReport) -> dict[str, Any]:
    """Return what a conversion has made."""
    return {
        "path": str(report.path),
        "weight_bytes": report.weight_bytes,
        "dtype": report.dtype,
        "quantization": _as_config(report.quantization),
        "exceptions": {path: _as_config(form) for path, form in report.exceptions.items()},
        "kept_files": report.kept_files,
        "merged": report.merged,
        "errors": dict(report.errors) if report.errors is not None else None,
    }


def export_facts(report: ExportReport) -> dict[str, Any]:
    """Return what an export has made."""
    return {
        "path": str(report.path),
        "file_bytes": report.file_bytes,
        "matrices": dict(report.kinds),
        "errors": dict(report.errors),
        "notes": list(report.notes),
        "merged": report.merged,
        "change_kept": report.change_kept,
    }


def _rate(amount: float, seconds: float) -> float | None:
    """Return an amount a second; None where no time passed."""
    if seconds <= 0:
        return None
    return amount / seconds


def _as_config(form: Quantization | None) -> dict[str, Any] | None:
    if form is None:
        return None
    return form.as_config()


def _tensor_groups(checkpoint: Checkpoint) -> list[TensorGroup]:
    groups = [checkpoint.embed_tokens, *checkpoint.layers, checkpoint.norm]
    if checkpoint.lm_head:
        groups.append(checkpoint.lm_head)
    return groups


def _count(shapes: Mapping[str, tuple[int, ...]]) -> int:
    return sum(prod(shape) for shape in shapes.values())


def _usual_quantization(checkpoint: Checkpoint) -> dict[str, Any] | None:
    """Return the form that most matrices have, and how many have another; None: all are plain."""
    forms = [form for group in _tensor_groups(checkpoint) for form in group.quantizations.values()]
    counts = Counter(forms).most_common()
    if not counts or (len(counts) == 1 and counts[0][0] is None):
        return None
    (usual, matrices), *others = counts
    config = _as_config(usual) or {"bits": 16}
    return config | {
        "matrices": matrices,
        "others": {_bits_name(form): count for form, count in others},
    }


def _bits_name(form: Quantization | None) -> str:
    if form is None:
        return "none"
    return str(form.bits)
