"""Prefill: a prompt goes through the model in chunks."""

# L tokens of a chunk, V vocabulary

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import mlx.core as mx

from edgellm.generation.not_finite import require_finite_logits
from edgellm.generation.stats import Progress
from edgellm.kv_cache.cache import Cache, stored
from edgellm.models.layers import Span, always
from edgellm.models.model import Model


def prefill(
    model: Model,
    tokens: Sequence[int],
    caches: Sequence[Cache],
    *,
    prefill_chunk: int,
    progress: Progress | None = None,
    generated: int = 0,
    keep_going: Callable[[], bool] = always,
    on_states: Callable[[mx.array], None] | None = None,
) -> mx.array | None:
    """Send a prompt through the model, and return the logits (1, V) after its last token.

    Layers that cost reads get all chunks at once, so that one pass over the weights serves any
    prompt. Else the chunks go one after another, so that activations stay small and the prompt can
    be left half-way.

    Args:
        model: the model.
        tokens: at least one.
        caches: one per layer; the tokens' keys and values go there.
        prefill_chunk: maximum number of tokens that go through a layer at once.
        progress: is brought up to date as chunks are done; None where nobody looks.
        generated: how many of the sequence's last tokens were generated: they are computed as in
            decode steps.
        keep_going: asked before each chunk and between layers; where it says no, the result is
            None.
        on_states: called with the hidden states (L, E) of each chunk.
    """
    chunks = _chunks_of(model, tokens, caches, prefill_chunk, generated)
    progress = progress or Progress(len(tokens))
    groups = [[chunk] for chunk in chunks]
    if model.layers.streams_weights:
        groups = [chunks]
    hidden = None
    for group in groups:
        progress.report_prefill()
        if not keep_going():
            return None
        ids = [chunk for chunk, _ in group]
        spans = [[Span(caches, chunk.shape[1], many)] for chunk, many in group]
        before = caches[0].offset
        states = model.hidden_ragged(ids, spans, keep_going=keep_going)
        if not states:
            # some layers have these tokens and others do not
            for cache in caches:
                cache.trim(before)
            return None
        if on_states is not None:
            for state in states:
                on_states(state[0])
        hidden = states[-1]
        progress.forwards += len(group)
        progress.prefill_done += sum(chunk.shape[1] for chunk in ids)
        if group is not groups[-1]:
            # the next chunk's activations take the place of these, and its last state is not needed
            mx.eval(*stored(caches))
    assert hidden is not None, "a prompt has a token"
    logits = model.logits(hidden[:, -1])
    # nothing stays lazy: MLX's streams belong to threads, and another may go on from here
    mx.eval(logits, *stored(caches))
    progress.prefill_ended_at = time.perf_counter()
    return logits


def all_logits(
    model: Model, tokens: Sequence[int], caches: Sequence[Cache], *, prefill_chunk: int
) -> mx.array:
    """Return the logits (N, V) in float32 after each of N tokens; arguments as ``prefill`` has.

    Raises:
        NotFiniteError: they are not finite numbers.
    """
    chunks = _chunks(tokens, prefill_chunk)
    many = model.is_many(len(tokens))
    states = model.hidden(chunks, [caches] * len(chunks), many=many)
    logits = mx.concatenate([model.logits(state[0]) for state in states]).astype(mx.float32)
    largest = mx.max(logits, axis=-1)
    # nothing stays lazy, as above
    mx.eval(logits, largest, *stored(caches))
    require_finite_logits(largest, caches)
    return logits


def _chunks_of(
    model: Model,
    tokens: Sequence[int],
    caches: Sequence[Cache],
    prefill_chunk: int,
    generated: int,
) -> list[tuple[mx.array, bool]]:
    """Return the ids (1, L) of chunks, and whether each is computed as many tokens are."""
    prompt_tokens = max(0, len(tokens) - generated)
    if model.whole:
        prompt_tokens = len(tokens)
    # by the length of the whole: where it is cut, or what of it a cache held, changes nothing
    many = model.is_many(caches[0].offset + prompt_tokens)
    few = model.layers.max_exact_rows or prefill_chunk
    prompt = model.cut(tokens[:prompt_tokens], prefill_chunk)
    steps = [tokens[begin : begin + few] for begin in range(prompt_tokens, len(tokens), few)]
    chunks = [(chunk, many) for chunk in prompt] + [(chunk, False) for chunk in steps]
    return [(mx.array(list(chunk))[None], is_many) for chunk, is_many in chunks]


def _chunks(tokens: Sequence[int], size: int) -> list[mx.array]:
    """Return the ids (1, L) of chunks of ``size`` tokens; the last one may be shorter."""
    return [
        mx.array(list(tokens[begin : begin + size]))[None] for begin in range(0, len(tokens), size)
    ]
