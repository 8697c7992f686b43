"""A forward of several sequences: one pass over the weights, each row as it is alone."""

# L new tokens of all sequences in a state, E hidden, V vocabulary

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import mlx.core as mx

from edgellm.kv_cache.cache import Cache, stored
from edgellm.models.layers import Span, always
from edgellm.models.model import Model


@dataclass(frozen=True, slots=True)
class SequenceInput:
    """The next tokens of one sequence.

    Attributes:
        tokens: that go through the model; at least one.
        caches: of the sequence, one a layer.
        needs_logits: whether the logits after the last token are needed.
    """

    tokens: Sequence[int]
    caches: Sequence[Cache]
    needs_logits: bool = True


@dataclass(slots=True)
class _PackedState:
    """Rows that go through a layer at once.

    Attributes:
        tokens: of all its sequences, side by side.
        spans: whose they are.
        inputs: for each span, the place of its input.
    """

    tokens: list[int] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)


def forward(
    model: Model,
    inputs: Sequence[SequenceInput],
    *,
    prefill_chunk: int,
    keep_going: Callable[[], bool] = always,
) -> tuple[mx.array | None, int]:
    """Send the next tokens of some sequences through the model, and fill their caches.

    Rows of several sequences share a product where that leaves each as it would be alone: steps of
    one token with each other, and chunks of prompts with each other. Prompts are cut where
    ``generation.prefill`` cuts them. Where layers cost reads, everything goes through in one pass.

    Args:
        model: the model.
        inputs: of different sequences.
        prefill_chunk: prompt tokens that go through a layer at once, at the most.
        keep_going: where it says no, the logits are None and the caches are left half-way.

    Returns:
        The logits (N, V) after the last token of those N inputs that need them, evaluated like the
        caches; and the passes over the weights.
    """
    max_exact_rows = model.layers.max_exact_rows
    states = _pack(inputs, max_exact_rows=max_exact_rows, prefill_chunk=prefill_chunk)
    tokens = [mx.array(state.tokens)[None] for state in states]  # (1, L) each
    spans = [state.spans for state in states]
    hidden = model.hidden_ragged(tokens, spans, keep_going=keep_going)  # (1, L, E) each
    if not hidden:
        return None, 0
    last_rows: dict[int, mx.array] = {}
    for state, rows in zip(states, hidden, strict=True):
        end = 0  # rows of a state lie side by side, in the order of its spans
        for place, span in zip(state.inputs, state.spans, strict=True):
            end += span.length
            # a later chunk of the same prompt takes the place of an earlier one
            last_rows[place] = rows[0, end - 1 : end]  # (1, E)
    needed = [last_rows[place] for place, new in enumerate(inputs) if new.needs_logits]
    logits = _logits(model, needed)
    mx.eval(logits, *stored(cache for new in inputs for cache in new.caches))
    passes = len(states)
    if model.layers.streams_weights:
        passes = 1
    return logits, passes


def _logits(model: Model, rows: list[mx.array]) -> mx.array:
    """Return the logits (N, V) of N rows (1, E), as many at once as leave each as it is alone."""
    if not rows:
        return mx.zeros((0, model.config.vocab_size))
    at_once = model.layers.max_exact_rows or len(rows)
    return mx.concatenate(
        [
            model.logits(mx.concatenate(rows[begin : begin + at_once]))
            for begin in range(0, len(rows), at_once)
        ]
    )


def _pack(
    inputs: Sequence[SequenceInput], *, max_exact_rows: int, prefill_chunk: int
) -> list[_PackedState]:
    """Pack the chunks of all inputs into as few states as leave each row as it would be alone.

    A product of up to ``max_exact_rows`` rows takes another way than one of more, so those chunks
    that alone would take the first way share states with each other only. The states of large
    chunks come first, so that a prompt's short end comes after the chunks before it.
    """
    large: list[_PackedState] = []
    small: list[_PackedState] = []
    for place, begin, tokens in _chunks(inputs, prefill_chunk):
        states = large
        limit = prefill_chunk
        if len(tokens) <= max(1, max_exact_rows):
            states = small
            limit = max_exact_rows or prefill_chunk
        is_full = not states or len(states[-1].tokens) + len(tokens) > limit
        # chunks of one sequence go one after another: the later looks at the earlier one's keys
        if is_full or (begin > 0 and states[-1].inputs[-1] == place):
            states.append(_PackedState())
        state = states[-1]
        state.tokens += tokens
        state.spans.append(Span(inputs[place].caches, len(tokens)))
        state.inputs.append(place)
    return large + small


def _chunks(
    inputs: Sequence[SequenceInput], prefill_chunk: int
) -> Iterator[tuple[int, int, list[int]]]:
    """Yield each input's place, and the beginnings and tokens of its chunks."""
    for place, new in enumerate(inputs):
        for begin in range(0, len(new.tokens), prefill_chunk):
            yield place, begin, list(new.tokens[begin : begin + prefill_chunk])
