"""How a model computes here: MLX on a GPU, else the CPU kernels, else MLX on the CPU."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cache

import mlx.core as mx

from edgellm.checkpoint.buffer import DTYPES
from edgellm.checkpoint.checkpoint import Checkpoint, TensorGroup
from edgellm.checkpoint.family_configs import FAMILIES, Family
from edgellm.checkpoint.model_config import ModelConfig
from edgellm.device import machine as device
from edgellm.kernels.host import kernel_engine, unavailable
from edgellm.kernels.kernel_engine import KernelEngine
from edgellm.kv_cache.kv_format import KVFormat
from edgellm.settings import KV_FLOAT32_BITS, KV_PLAIN_BITS, LoadSettings

KERNEL_FAMILIES = frozenset(
    {"llama", "mistral", "phi3", "qwen2", "qwen3", "seed_oss"}
    | {"ministral", "smollm3", "olmo2", "olmo3", "exaone4", "hunyuan_v1_dense"}
)
"""Families whose decoder block ``models.cpu`` computes: RMS norms, a SiLU gate, scores by the root
of the head size. A family that is not here runs in MLX, with a warning that says so."""

KERNEL_MODES = frozenset({"affine"})
"""The quantization modes that there are kernels for."""


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """How a model computes.

    Attributes:
        dtype: the type of activations.
        fused_attention: whether attention runs without the matrix of scores (H, L, S) in memory.
        ring_buffers: buffers that streamed layers need to keep the disk and the arithmetic busy.
        launch_ahead: streamed layers that may still compute while the next one is launched.
        kernels: the CPU kernels; None where MLX computes.
    """

    dtype: mx.Dtype
    fused_attention: bool
    ring_buffers: int
    launch_ahead: int
    kernels: KernelEngine | None = None

    @property
    def kv_bits(self) -> int | None:
        """Bits of a number in the KV cache where none are set; None: numbers as they are computed.

        The kernels read float16 as fast as there are bytes fewer; on a CPU MLX converts all of it
        for every token.
        """
        if self.kernels is None:
            return None
        return KV_PLAIN_BITS

    @property
    def lazy(self) -> bool:
        """Whether MLX computes a layer, once all chunks of a prompt were asked for."""
        return self.kernels is None or not self.fused_attention


def arithmetic_of(checkpoint: Checkpoint, settings: LoadSettings) -> Arithmetic:
    """Return how this machine computes a model."""
    dtype = device.compute_dtype(DTYPES[checkpoint.dtype])
    family = FAMILIES.get(checkpoint.config.model_type, Family())
    if family.scaled_embedding and dtype == mx.float16:
        # Gemma's hidden states grow beyond what float16 holds
        dtype = mx.float32
    if device.has_gpu():
        # One buffer is read, one computes, and one is launched meanwhile: a GPU never waits.
        # MLX's own attention has no soft cap
        fused = checkpoint.config.attn_logit_softcapping is None
        return Arithmetic(dtype, fused_attention=fused, ring_buffers=3, launch_ahead=1)
    kernels = engine_for(settings)
    reason = missing_kernels(checkpoint.config)
    if kernels is not None and reason is not None:
        warn_slow(reason)
        kernels = None
    # a layer that is stored in a form without kernels runs in MLX, also beside others
    has_kernels = kernels is not None and all(map(_is_stored_for_kernels, checkpoint.layers))
    # A CPU computes what it is given at once: one buffer is read while the other one computes.
    return Arithmetic(
        dtype, fused_attention=has_kernels, ring_buffers=2, launch_ahead=0, kernels=kernels
    )


def engine_for(settings: LoadSettings) -> KernelEngine | None:
    """Return the CPU kernels that settings ask for.

    None where MLX computes: on a GPU, by setting, or (with one warning) where no kernels run.
    """
    if device.has_gpu() or settings.backend == "mlx":
        return None
    reason = unavailable()
    if reason is not None:
        warn_slow(reason)
        return None
    return kernel_engine(
        threads=settings.threads or device.core_count(),
        activations="float" if settings.activations == "float" else "int8",
    )


def missing_kernels(config: ModelConfig) -> str | None:
    """Return why the CPU kernels do not compute a model's block; None where they do."""
    if config.model_type in KERNEL_FAMILIES:
        return None
    return f"there are no kernels for models of type {config.model_type}"


def _is_stored_for_kernels(layer: TensorGroup) -> bool:
    forms = filter(None, layer.quantizations.values())
    return all(form.mode in KERNEL_MODES for form in forms)


@cache
def warn_slow(reason: str) -> None:
    """Warn, once a reason, that MLX computes on the CPU."""
    warnings.warn(
        f"arithmetic runs in MLX's own CPU kernels, which are slow: {reason}",
        RuntimeWarning,
        stacklevel=3,
    )


def config_for(checkpoint: Checkpoint, settings: LoadSettings) -> ModelConfig:
    """Return a model's config for texts as long as settings allow them to be."""
    config = checkpoint.config
    if settings.context_window is not None:
        return config.for_context(config.max_position_embeddings)
    return config.for_context(settings.context or config.usual_context)


def kv_format_of(checkpoint: Checkpoint, kv_bits: int | None) -> KVFormat:
    """Return how a model's keys and values are stored.

    Args:
        checkpoint: the model.
        kv_bits: None or 32 for numbers as they are computed, 16 for numbers of 16 bits, fewer for
            packed codes with scales of 16 bits.
    """
    config = checkpoint.config
    dtype = device.compute_dtype(DTYPES[checkpoint.dtype])
    kv_bits = kv_bits or KV_FLOAT32_BITS
    if kv_bits != KV_FLOAT32_BITS and dtype == mx.float32:
        dtype = mx.float16
    bits = None
    if kv_bits < KV_PLAIN_BITS:
        bits = kv_bits
    return KVFormat(config.num_key_value_heads, config.head_dim, dtype, bits=bits)
