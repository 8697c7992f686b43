"""A model that mlx-lm runs: its needs in memory, and the settings that it cannot follow."""

from __future__ import annotations

from dataclasses import dataclass

from edgellm.checkpoint.buffer import DTYPES
from edgellm.device import machine as device
from edgellm.errors import ConfigError
from edgellm.memory_plan.memory_estimate import MemoryEstimate
from edgellm.memory_plan.plan import caches_of
from edgellm.models.through_mlx_lm.cache import CacheGrowth
from edgellm.models.through_mlx_lm.checkpoint import MLXLMCheckpoint
from edgellm.models.through_mlx_lm.library import mlx_lm_name
from edgellm.settings import LoadSettings

USUAL_WIDTH = 4096
"""Of a token's state, where a config does not say it."""

STATES_OF_A_LAYER = 32
"""Widths of a state that live at once in a layer, counted generously: queries, keys and values
twice, and what the experts of a token make."""

USUAL_HEADS = 32
"""Of a layer, where a config does not say it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeModelEstimate(MemoryEstimate):
    """The needs of a model whose layers cannot be streamed.

    Attributes:
        caches: how those of a sequence grow.
        sequences: sequences that have caches at once.
        prefill_chunk: prompt tokens that go through at once.
    """

    caches: CacheGrowth
    sequences: int
    prefill_chunk: int

    @property
    def streams(self) -> bool:
        """Whether layers can be read again for every token."""
        return False

    def kv_bytes(self, context: int) -> int:
        """Return the bytes of all caches for ``context`` tokens."""
        return self.sequences * self.caches.nbytes(context, self.prefill_chunk)


def estimate_whole(checkpoint: MLXLMCheckpoint, settings: LoadSettings) -> WholeModelEstimate:
    """Return what a model takes in memory.

    Raises:
        ConfigError: a setting is of what mlx-lm's models do not have here.
    """
    refuse_settings(checkpoint, settings)
    item_bytes = DTYPES[checkpoint.dtype].size
    layers = checkpoint.config.num_hidden_layers
    width = checkpoint.hidden_size or USUAL_WIDTH
    score_bytes = 0
    if not device.has_gpu():
        score_bytes = 2 * item_bytes * (checkpoint.attention_heads or USUAL_HEADS)
    return WholeModelEstimate(
        layer_bytes=(checkpoint.weight_bytes // layers,) * layers,
        embedding_bytes=checkpoint.weight_bytes % layers,
        embedding_row_bytes=0,
        norm_bytes=0,
        lm_head_bytes=0,
        tied=False,
        layer_kv_bytes=0,
        windows=(),
        hidden_bytes=width * item_bytes,
        layer_activation_bytes=STATES_OF_A_LAYER * width * item_bytes,
        score_bytes=score_bytes,
        max_context=checkpoint.config.max_position_embeddings,
        caches=checkpoint.caches,
        sequences=caches_of(settings.beams),
        prefill_chunk=settings.prefill_chunk,
    )


def refuse_settings(checkpoint: MLXLMCheckpoint, settings: LoadSettings) -> None:
    """Raise ConfigError for a setting that rests on layers of edgellm's own."""
    asked = {
        "kv_bits": settings.kv_bits is not None,
        "context_window": settings.context_window is not None,
        "prompt_cache": settings.prompt_cache is not False,
        "draft": settings.draft is not None,
        "threads": settings.threads is not None,
        f"speculate {settings.speculate}": settings.speculate == "ngram",
        f"activations {settings.activations}": settings.activations != "auto",
    }
    for name, is_asked in asked.items():
        if is_asked:
            raise ConfigError(
                f"{name} is not for a model of type {checkpoint.config.model_type}, "
                f"which runs through {mlx_lm_name()}",
                hint="leave it out",
            )
