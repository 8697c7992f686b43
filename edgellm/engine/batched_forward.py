"""Tokens of several sequences through the model together: one pass over the weights, and each row as it would be alone."""

# L new tokens of all sequences, E hidden, V vocabulary

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import mlx.core as mx

from edgellm.kv_cache.cache import Cache, stored
from edgellm.models.llama import Model, Span, always


@dataclass(frozen=True, slots=True)
class Feed:
    """The next tokens of one sequence, its caches, one a layer, and whether the logits after the last token are wanted."""

    tokens: Sequence[int]
    caches: Sequence[Cache]
    wanted: bool = True


@dataclass(slots=True)
class _State:
    """Rows that go through a layer at once."""

    tokens: list[int] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    feeds: list[int] = field(default_factory=list)


def feed(
    model: Model, feeds: Sequence[Feed], *, chunk: int, keep_going: Callable[[], bool] = always
) -> tuple[mx.array | None, int]:
    """Send the next tokens of some sequences through the model; their keys and values go into their caches.

    Rows of several sequences share a product where that leaves each as it would be alone: steps of
    one token with each other, and chunks of prompts with each other. Prompts are cut where
    ``generate.prefill`` cuts them. Where layers cost reads, everything goes through in one pass.

    Args:
        model: the model.
        feeds: of different sequences.
        chunk: prompt tokens that go through a layer at once, at the most.
        keep_going: where it says no, the logits are None and the caches are left half-way.

    Returns:
        Logits (wanted feeds, V) after each wanted feed's last token, evaluated like the caches; and
        passes over the weights.
    """
    states = _packed(feeds, max_exact_rows=model.layers.max_exact_rows, chunk=chunk)
    tokens = [mx.array(state.tokens)[None] for state in states]
    hidden = model.hidden_ragged(tokens, [state.spans for state in states], keep_going=keep_going)
    if not hidden:
        return None, 0
    last: dict[int, mx.array] = {}
    for state, rows in zip(states, hidden, strict=True):
        end = 0
        for number, span in zip(state.feeds, state.spans, strict=True):
            end += span.length
            last[number] = rows[0, end - 1 : end]
    wanted = [last[number] for number, one in enumerate(feeds) if one.wanted]
    at_once = model.layers.max_exact_rows or max(1, len(wanted))
    logits = [
        model.logits(mx.concatenate(wanted[at : at + at_once]))
        for at in range(0, len(wanted), at_once)
    ]
    together = mx.concatenate(logits) if logits else mx.zeros((0, model.config.vocab_size))
    mx.eval(together, *stored(cache for one in feeds for cache in one.caches))
    return together, 1 if model.layers.streams_weights else len(states)


def _packed(feeds: Sequence[Feed], *, max_exact_rows: int, chunk: int) -> list[_State]:
    """The states: large ones first, so that a prompt's short end comes after its chunks."""
    packed: dict[bool, list[_State]] = {False: [], True: []}
    for number, begin, tokens in _pieces(feeds, chunk):
        small = len(tokens) <= max(1, max_exact_rows)
        kind, limit = packed[small], max_exact_rows if small and max_exact_rows else chunk
        full = not kind or len(kind[-1].tokens) + len(tokens) > limit
        # a sequence's chunks follow each other
        if full or (begin > 0 and kind[-1].feeds[-1] == number):
            kind.append(_State())
        kind[-1].tokens += tokens
        kind[-1].spans.append(Span(feeds[number].caches, len(tokens)))
        kind[-1].feeds.append(number)
    return packed[False] + packed[True]


def _pieces(feeds: Sequence[Feed], chunk: int) -> Iterator[tuple[int, int, list[int]]]:
    """Each feed's number, and the beginnings and tokens of its chunks."""
    for number, one in enumerate(feeds):
        for begin in range(0, len(one.tokens), chunk):
            yield number, begin, list(one.tokens[begin : begin + chunk])
