"""A model that mlx-lm runs is read and evaluated, and it is said what it does without."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import mlx.core as mx

from edgellm.memory_plan.plan import Plan
from edgellm.models.model import Model
from edgellm.models.through_mlx_lm import library
from edgellm.models.through_mlx_lm.cache import MLXLMCache, MLXLMCaches
from edgellm.models.through_mlx_lm.checkpoint import MLXLMCheckpoint
from edgellm.models.through_mlx_lm.model import model_of
from edgellm.runtime.caches import CacheMaker
from edgellm.runtime.loader import LoadProgress

READ_AT_ONCE = 256 << 20
"""Bytes of weights that are evaluated together, so that progress is seen."""


def load_whole(
    checkpoint: MLXLMCheckpoint, plan: Plan, *, progress: LoadProgress | None = None
) -> tuple[Model, CacheMaker]:
    """Read all weights; return the model, and what makes its caches.

    Args:
        checkpoint: what is read.
        plan: for which there is memory.
        progress: told of the bytes that have arrived.

    Raises:
        UnsupportedModelError: mlx-lm does not take the model.
    """
    say_what_is_missing(checkpoint)
    path = checkpoint.folder.path
    model = library.open_model(path, settings=checkpoint.settings)
    done = 0
    with library.renamed_errors(f"cannot read {path}"):
        for part in _parts(library.arrays_in(model.parameters())):
            mx.eval(part)
            done += sum(array.nbytes for array in part)
            if progress is not None:
                progress(done, checkpoint.weight_bytes)
        # what is not a parameter (frequencies, masks) must not stay lazy: streams belong to threads
        mx.eval(library.arrays_in([_own_values(module) for module in model.modules()]))
    caches = MLXLMCaches(model, checkpoint.caches, plan.prefill_chunk)
    with library.renamed_errors(f"cannot run {path} here"):
        # operations that MLX lacks on this machine are found now, and not in the middle of a chat
        tried = MLXLMCache(model)
        for tokens in ([0, 0], [0]):
            mx.eval(tried.logits(mx.array([tokens])), tried.arrays)
    return model_of(checkpoint.config, model), caches


def say_what_is_missing(checkpoint: MLXLMCheckpoint) -> None:
    """Warn, in one line, that mlx-lm runs a model, and without what."""
    warnings.warn(
        f"models of type {checkpoint.config.model_type} run through {library.mlx_lm_name()}: "
        "whole in memory and one sequence at a time, without paging, CPU kernels, "
        "speculative decoding, a quantized KV cache or a prompt cache on disk",
        UserWarning,
        stacklevel=4,
    )


def _parts(arrays: Sequence[mx.array]) -> Iterator[list[mx.array]]:
    """Yield arrays in parts of about ``READ_AT_ONCE`` bytes."""
    part: list[mx.array] = []
    nbytes = 0
    for array in arrays:
        part.append(array)
        nbytes += array.nbytes
        if nbytes >= READ_AT_ONCE:
            yield part
            part, nbytes = [], 0
    if part:
        yield part


def _own_values(module: Any) -> list[Any]:
    """Return what a module holds itself: its entries, and attributes beside them."""
    return [*module.values(), *vars(module).values()]
