"""Facts about models and answers as plain data, for tables and for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgellm.checkpoint.checkpoint import Checkpoint, TensorGroup, read_checkpoint
from edgellm.checkpoint.quantization import Quantization
from edgellm.hub.resolve import bundled_names, is_hub_id, locate

if TYPE_CHECKING:
    from edgellm.converters import ConversionReport, ExportReport
    from edgellm.generation.output import Token
    from edgellm.generation.stats import Stats
    from edgellm.plan.plan import Plan
    from edgellm.tokenizer import Tokenizer


def inspect_model(model: str | Path) -> tuple[Checkpoint, bool]:
    """What is known of a model without its weights, and whether they are on this machine.

    A Hub repository that was never downloaded is looked through over the network, a few hundred KB
    of it.

    Raises:
        ModelNotFoundError, DownloadError, FormatError, UnsupportedModelError, ReadError: as
        ``load``.
    """
    name = str(model)
    if not Path(model).expanduser().exists() and name not in bundled_names() and is_hub_id(name):
        from edgellm.hub.remote_checkpoint import remote_checkpoint

        folder = _cached(name)
        return (read_checkpoint(folder), True) if folder else (remote_checkpoint(name), False)
    return read_checkpoint(locate(model)), True


def _cached(repository: str) -> Path | None:
    """The folder of a repository whose weights were downloaded before."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(repository, "config.json")
    folder = Path(config).parent if isinstance(config, str) else None
    return folder if folder and any(folder.glob("model*.safetensors")) else None


def model_facts(checkpoint: Checkpoint, tokenizer: Tokenizer | None) -> dict[str, Any]:
    """The shape of a model, and what each of its parts weighs. Sizes in bytes."""
    config = checkpoint.config
    parameters = config.num_hidden_layers * _count(config.tensor_shapes()) + _count(
        config.outer_shapes()
    )
    layers = [layer.nbytes for layer in checkpoint.layers]
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
        "rope_theta": config.rope_theta,
        "rope_scaling": asdict(config.rope_scaling) if config.rope_scaling else None,
        "tie_word_embeddings": config.tie_word_embeddings,
        "dtype": checkpoint.dtype,
        "quantization": _usual_quantization(checkpoint),
        "bits_per_parameter": checkpoint.nbytes * 8 / parameters,
        "bytes": {
            "embedding": checkpoint.embed_tokens.nbytes,
            "layers": sum(layers),
            "largest_layer": max(layers),
            "norm": checkpoint.norm.nbytes,
            "head": checkpoint.lm_head.nbytes if checkpoint.lm_head else 0,
            "total": checkpoint.nbytes,
        },
        "kv_cache_bytes_per_token": config.num_hidden_layers
        * (2 * config.num_key_value_heads * config.head_dim * 2),
        "files": len({extent.file for part in _parts(checkpoint) for extent in part.extents}),
        "tokenizer": tokenizer_facts(tokenizer) if tokenizer else None,
    }


def tokenizer_facts(tokenizer: Tokenizer) -> dict[str, Any]:
    """What a tokenizer is."""
    return {
        "vocab_size": tokenizer.vocab_size,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_ids": sorted(tokenizer.eos_token_ids),
        "chat_template": tokenizer.chat_template is not None,
    }


def answer_facts(stats: Stats, plan: Plan) -> dict[str, Any]:
    """What an answer has cost, and what follows from it. Sizes in bytes, times in seconds, ``read_gbps`` in 10^9 bytes/s.

    ``efficiency`` is the share of the time in which the disk was reading for it: 1 where the disk
    is the limit and never rests, None where everything is in memory.
    """
    computed = stats.prompt_tokens - stats.cached_tokens
    elapsed = stats.prefill_seconds + stats.decode_seconds
    layers = len(plan.pinned) + len(plan.streamed)
    return asdict(stats) | {
        "tokens_per_second": stats.decode_tokens_per_second,
        "tokens_per_weight_pass": stats.tokens_per_weight_pass,
        "acceptance": stats.acceptance,
        "prompt_tokens_per_second": computed / stats.prefill_seconds
        if stats.prefill_seconds > 0
        else None,
        "read_gbps": stats.bytes_read / stats.read_seconds / 1e9
        if stats.read_seconds > 0
        else None,
        "pinned_layers": len(plan.pinned),
        "pinned_share": len(plan.pinned) / layers,
        "efficiency": None
        if plan.resident or elapsed <= 0
        else min(1.0, stats.read_seconds / elapsed),
        "budget_bytes": plan.budget,
        "context": plan.context,
    }


def completion_facts(tokens: Sequence[Token], plan: Plan, *, logprobs: bool) -> dict[str, Any]:
    """A whole answer; the last token must have closed it."""
    last = tokens[-1]
    assert last.stats is not None, "the last token says what the answer has cost"
    facts: dict[str, Any] = {
        "text": "".join(token.text for token in tokens),
        "finish_reason": last.finish_reason,
    }
    if logprobs:
        facts["tokens"] = [
            {"id": token.id, "text": token.text, "logprob": token.logprob} for token in tokens
        ]
    return facts | answer_facts(last.stats, plan)


def conversion_facts(report: ConversionReport) -> dict[str, Any]:
    """What a conversion has made."""
    exceptions = {
        path: form.as_config() if form else None for path, form in report.exceptions.items()
    }
    return {
        "path": str(report.path),
        "weight_bytes": report.weight_bytes,
        "dtype": report.dtype,
        "quantization": report.quantization.as_config() if report.quantization else None,
        "exceptions": exceptions,
        "kept_files": report.kept_files,
        "merged": report.merged,
        "errors": dict(report.errors) if report.errors is not None else None,
    }


def export_facts(report: ExportReport) -> dict[str, Any]:
    """What an export has made."""
    return {
        "path": str(report.path),
        "file_bytes": report.file_bytes,
        "matrices": dict(report.kinds),
        "errors": dict(report.errors),
        "notes": list(report.notes),
    }


def _parts(checkpoint: Checkpoint) -> list[TensorGroup]:
    head = [checkpoint.lm_head] if checkpoint.lm_head else []
    return [checkpoint.embed_tokens, *checkpoint.layers, checkpoint.norm, *head]


def _count(shapes: Mapping[str, tuple[int, ...]]) -> int:
    return sum(prod(shape) for shape in shapes.values())


def _usual_quantization(checkpoint: Checkpoint) -> dict[str, Any] | None:
    """The form that most matrices have, and how many have another."""
    forms = [form for part in _parts(checkpoint) for form in part.quantizations.values()]
    kinds: list[Quantization | None] = sorted(set(forms), key=lambda kind: -forms.count(kind))
    usual = kinds[0] if kinds else None
    if usual is None and len(kinds) < 2:
        return None
    others = {str(kind.bits) if kind else "none": forms.count(kind) for kind in kinds[1:]}
    return {
        **(usual.as_config() if usual else {"bits": 16}),
        "matrices": forms.count(usual),
        "others": others,
    }
