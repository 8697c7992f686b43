"""The backend ``edgellm``: edgellm itself, on whatever MLX has here."""

# B sequences at once, L tokens, V words of the vocabulary

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from edgellm.bench.backends.cluster_facts import cluster_fields
from edgellm.bench.backends.registry import RuntimeSettings
from edgellm.bench.machine.rates import Rates
from edgellm.checkpoint.checkpoint import Checkpoint
from edgellm.device import machine
from edgellm.engine.scheduling.batched_forward import SequenceInput, forward
from edgellm.generation.decode import generate_steps
from edgellm.generation.prefill import prefill
from edgellm.generation.stats import Progress
from edgellm.kv_cache.cache import Cache
from edgellm.llm import LLM
from edgellm.models.arithmetic import arithmetic_of
from edgellm.models.through_mlx_lm.checkpoint import (
    AnyCheckpoint,
    MLXLMCheckpoint,
    read_any_checkpoint,
)
from edgellm.models.through_mlx_lm.library import mlx_lm_name
from edgellm.open_llm import load
from edgellm.settings import LoadSettings, Sampling

Activations = Literal["auto", "int8", "float"]
READ_BYTES = 1 << 30
"""Far more than caches hold."""

SIZE = 4096
"""Rows and columns of the matrices."""

PASSES = 8


class MLXRuntime:
    """A folder as ``edgellm.load`` loads it: resident, or paged inside a budget of memory."""

    def __init__(self, model: str, settings: RuntimeSettings) -> None:
        checkpoint = read_any_checkpoint(Path(model))
        loading = load_settings(checkpoint, settings)
        self._llm: LLM = load(model, loading)
        self._model, self._chunk = self._llm.model, self._llm.plan.prefill_chunk
        self._caches: list[list[Cache]] = []
        self._tokens: list[int] = []
        self._logits: mx.array | None = None
        self.device: str = machine.chip_name()
        self.arithmetic: str = describe_arithmetic(
            checkpoint, loading, paged=not self._llm.plan.resident
        )
        self.weight_bytes_per_token: int | None = None
        if isinstance(checkpoint, Checkpoint):
            self.weight_bytes_per_token = checkpoint.token_weight_bytes

    def begin(self, *, batch: int, capacity: int) -> None:
        """Make empty caches for ``batch`` sequences with room for ``capacity`` tokens each."""
        self._caches = [
            self._llm.caches.make(capacity=capacity, reserve=capacity) for _ in range(batch)
        ]
        self._tokens, self._logits = [], None

    def prefill(self, tokens: npt.NDArray[np.int64]) -> None:
        """Append tokens (B, L); several sequences share the passes over the weights."""
        rows: list[list[int]] = tokens.tolist()
        if len(rows) == 1:
            self._logits = prefill(self._model, rows[0], self._caches[0], prefill_chunk=self._chunk)
        else:
            self._logits = self._forward(rows, len(rows[0]))
        self._tokens = []

    def decode(self, count: int) -> None:
        """Take greedy steps: one sequence as ``generate`` does, several as the engine does."""
        self._tokens = self.last_tokens()
        if len(self._tokens) > 1:
            for _ in range(count):
                self._tokens = _likeliest(self._forward([[token] for token in self._tokens], 0))
            return
        steps = generate_steps(
            self._model,
            self._tokens,
            self._caches[0],
            Sampling(),
            prefill_chunk=self._chunk,
            limit=count,
            progress=Progress(1),
            generated=1,
        )
        for step in steps:
            self._tokens = [step.token]

    def _forward(self, rows: Sequence[Sequence[int]], prompt_tokens: int) -> mx.array:
        inputs = [
            SequenceInput(tokens, caches, prompt_tokens)
            for tokens, caches in zip(rows, self._caches, strict=True)
        ]
        logits, _ = forward(self._model, inputs, prefill_chunk=self._chunk)
        assert logits is not None, "nobody cancels it"
        return logits

    def last_tokens(self) -> list[int]:
        """Return the newest token of each sequence."""
        if not self._tokens:
            assert self._logits is not None, "a generation comes after a prompt"
            self._tokens = _likeliest(self._logits)
        return self._tokens

    def logits(self, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        """Return the logits (L, V) after each token of one sequence, from empty caches."""
        return np.array(self._llm.logits(tokens), dtype=np.float32)

    def close(self) -> None:
        """Free the model."""
        self._caches, self._logits = [], None
        del self._model
        self._llm.close()

    def cluster_fields(self) -> dict[str, Any]:
        """Return what a record says of several machines; nothing of one. Raises MachineError."""
        return cluster_fields(self._llm)

    def measure_rates(self) -> Rates | None:
        """Read and multiply on the GPU that MLX computes on; None where that is the processor."""
        if not machine.has_gpu():
            return None
        data = mx.ones((READ_BYTES // 4,), dtype=mx.float32)
        matrix = mx.ones((SIZE, SIZE), dtype=mx.bfloat16)
        mx.eval(data, matrix)
        reading = READ_BYTES / _fastest(lambda: mx.max(data))
        return Rates(reading, 2 * SIZE**3 / _fastest(lambda: matrix @ matrix))

    def peak_device_memory(self) -> int | None:
        """Return MLX's own count on a GPU with memory of its own.

        None on Apple's, whose memory is in the process's footprint, and on a processor.
        """
        if machine.backend_name() != "cuda":
            return None
        return mx.get_peak_memory()


def _likeliest(logits: mx.array) -> list[int]:
    """Return the tokens (B,) of the largest logits (B, V)."""
    return list(cast("list[int]", mx.argmax(logits, axis=-1).tolist()))


def load_settings(checkpoint: AnyCheckpoint, settings: RuntimeSettings) -> LoadSettings:
    """Return the settings that edgellm loads a model with; MLX has its own count of threads."""
    context = settings.context
    if context is not None:
        context = min(context, checkpoint.config.max_position_embeddings)
    threads = settings.threads
    if isinstance(checkpoint, MLXLMCheckpoint):
        threads = None
    return LoadSettings(
        threads=threads,
        memory=settings.memory,
        context=context,
        activations=cast("Activations", settings.activations),
        kv_bits=settings.kv_bits,
        adapter=settings.adapter,
        machines=settings.machines,
        split=settings.split,
    )


def describe_arithmetic(checkpoint: AnyCheckpoint, settings: LoadSettings, *, paged: bool) -> str:
    """Return the path that computes, in words: ``int8 kernels, avx512-vnni``."""
    if isinstance(checkpoint, MLXLMCheckpoint):
        return f"mlx {machine.backend_name()}, as stored, through {mlx_lm_name()}"
    arithmetic = arithmetic_of(checkpoint, settings)
    if arithmetic.kernels is None:
        path = f"mlx {machine.backend_name()}, {str(arithmetic.dtype).removeprefix('mlx.core.')}"
    else:
        path = f"{arithmetic.kernels.activations} kernels, {arithmetic.kernels.isa.name}"
    if settings.kv_bits is not None:
        path += f", KV cache of {settings.kv_bits} bits"
    if settings.adapter is not None:
        path += f", adapter {Path(settings.adapter).name}"
    if paged:
        path += ", paged"
    return path


def _fastest(work: Callable[[], mx.array]) -> float:
    """Return the seconds of the fastest of ``PASSES``."""
    best = float("inf")
    for _ in range(PASSES):
        begun = time.perf_counter()
        mx.eval(work())
        best = min(best, time.perf_counter() - begun)
    return best
