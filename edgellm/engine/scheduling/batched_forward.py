"""A forward of several sequences: one pass over the weights, each row as it is alone."""

# L new tokens of all sequences in a state, E hidden, V vocabulary

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import mlx.core as mx

from edgellm.kv_cache.cache import Cache, stored
from edgellm.models.layers import Launched, LayersInParts, Span, StagedLayers, always
from edgellm.models.model import Model


@dataclass(frozen=True, slots=True)
class SequenceInput:
    """The next tokens of one sequence.

    Attributes:
        tokens: tokens that go through the model; at least one.
        caches: the KV caches of the sequence, one per layer.
        prompt_tokens: tokens of the prompt that are not in the caches; the tokens begin with them.
        needs_logits: whether the logits after the last token are needed.
        on_states: called with the hidden states (L, E) of these tokens after all layers, in their
            order, a part at a time.
    """

    tokens: Sequence[int]
    caches: Sequence[Cache]
    prompt_tokens: int = 0
    needs_logits: bool = True
    on_states: Callable[[mx.array], None] | None = None


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Tokens of one input, at its ``place``, that go through a layer at once."""

    place: int
    tokens: Sequence[int]
    many: bool


@dataclass(slots=True)
class _PackedState:
    """Rows that go through a layer at once.

    Attributes:
        tokens: tokens of all its sequences, side by side.
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
    one token with each other, and chunks of prompts with each other. Where layers cost reads,
    everything goes through in one pass.

    Args:
        model: the model.
        inputs: of different sequences.
        prefill_chunk: maximum number of prompt tokens that go through a layer at once.
        keep_going: where it says no, the logits are None and the caches are left half-way.

    Returns:
        The logits (N, V) after the last token of those N inputs that need them, evaluated like the
        caches; and the passes over the weights.
    """
    one_pass = BatchedPass(model, inputs, prefill_chunk=prefill_chunk)
    if not one_pass.advance(keep_going=keep_going):
        return None, 0
    return one_pass.logits(), one_pass.passes


class BatchedPass:
    """A forward of several sequences that may stop between two layers, and go on later.

    The arguments are those of ``forward``.

    Attributes:
        rows: tokens that go through.
        passes: how often the weights are passed over.
        layers_left: layers that it has yet to go through.
    """

    def __init__(
        self, model: Model, inputs: Sequence[SequenceInput], *, prefill_chunk: int
    ) -> None:
        self._model = model
        self._inputs = inputs
        self._packed = _pack(model, inputs, prefill_chunk)
        self._spans = [state.spans for state in self._packed]
        self._hidden: list[mx.array] = []
        self._logits: mx.array | None = None
        self._launched: Launched | None = None
        self.rows: int = sum(len(state.tokens) for state in self._packed)
        self.passes: int = len(self._packed)
        if model.layers.streams_weights:
            self.passes = 1
        self.layers_left: int = 1  # as if they were one, where it cannot stop in between
        if isinstance(model.layers, LayersInParts):
            self.layers_left = model.layers.count

    def advance(
        self, layers: int | None = None, *, keep_going: Callable[[], bool] = always
    ) -> bool:
        """Go through the next ``layers`` layers, or all that are left; false where told to stop.

        A pass that was told to stop has left the caches half-way, and does not go on.
        """
        model, in_parts = self._model, self._model.layers
        is_shared = model.layers.streams_weights and len(self._packed) > 1
        if layers is None and not is_shared and all(map(_is_step, self._inputs)):
            self.layers_left = 0
            return self._take_steps(keep_going)
        tokens = [mx.array(state.tokens)[None] for state in self._packed]  # (1, L) each
        if not isinstance(in_parts, LayersInParts) or (layers is None and not self._hidden):
            self._hidden = model.hidden_ragged(tokens, self._spans, keep_going=keep_going)
            self.layers_left = 0
            return bool(self._hidden)
        layers = min(layers or self.layers_left, self.layers_left)
        begin = in_parts.count - self.layers_left
        part = slice(begin, begin + layers)
        states = self._hidden or [model.embed(ids) for ids in tokens]
        self._hidden = in_parts.run_part(states, self._spans, part, keep_going=keep_going)
        caches = [cache for new in self._inputs for cache in new.caches[part]]
        mx.eval(*self._hidden, *stored(caches))  # another thread may go on from here
        self.layers_left -= layers
        return bool(self._hidden)

    def launch(self, layers: StagedLayers, *, keep_going: Callable[[], bool] = always) -> None:
        """Begin to go through all layers, which are those of the model, as ``land`` ends it."""
        states = [self._model.embed(mx.array(state.tokens)[None]) for state in self._packed]
        self._launched = layers.launch(states, self._spans, keep_going=keep_going)

    def land(self) -> bool:
        """Wait until what was launched is through; false where it was told to stop."""
        assert self._launched is not None, "it was launched"
        self._hidden = self._launched.results()
        self.layers_left = 0
        return bool(self._hidden)

    def close(self) -> None:
        """End what was launched and has not landed."""
        if self._launched is not None:
            self._launched.close()

    def logits(self) -> mx.array:
        """Return the logits (N, V) after the last token of those N inputs that need them.

        It has gone through all layers. Logits and caches are evaluated.
        """
        logits = self._logits
        if logits is None:
            logits = self._logits_after_prompts()
        elif self._model.whole_pass is not None:
            mx.eval(logits)  # native calls have written to the caches' own memory
            return logits
        mx.eval(logits, *stored(cache for new in self._inputs for cache in new.caches))
        return logits

    def _take_steps(self, keep_going: Callable[[], bool]) -> bool:
        """Compute the logits of single tokens; false where told to stop."""
        parts = []
        for state in self._packed:
            # the rows of a state are the logits that are needed
            logits = self._model.step(state.tokens, state.spans, keep_going=keep_going)
            if logits is None:
                return False
            parts.append(logits)
        self._logits = parts[0]
        if len(parts) > 1:
            self._logits = mx.concatenate(parts)
        return True

    def _logits_after_prompts(self) -> mx.array:
        """Return what ``logits`` does, where the last tokens of inputs lie among others."""
        last_rows: dict[int, mx.array] = {}
        for state, rows in zip(self._packed, self._hidden, strict=True):
            end = 0  # rows of a state lie side by side, in the order of its spans
            for place, span in zip(state.inputs, state.spans, strict=True):
                end += span.length
                on_states = self._inputs[place].on_states
                if on_states is not None:
                    on_states(rows[0, end - span.length : end])
                # a later chunk of the same prompt takes the place of an earlier one
                last_rows[place] = rows[0, end - 1 : end]  # (1, E)
        needed = [last_rows[place] for place, new in enumerate(self._inputs) if new.needs_logits]
        if not needed:
            return mx.zeros((0, self._model.config.vocab_size))
        return self._model.logits(mx.concatenate(needed))


def _is_step(new: SequenceInput) -> bool:
    """Return whether an input is one token after those of its sequence, for its logits alone."""
    is_one = len(new.tokens) == 1 and new.prompt_tokens == 0
    return is_one and new.needs_logits and new.on_states is None


def _pack(model: Model, inputs: Sequence[SequenceInput], prefill_chunk: int) -> list[_PackedState]:
    """Pack the chunks of all inputs into as few states as leave each row as it would be alone.

    Prompts that are computed as many tokens share states with each other only; so do short ones
    and steps. The prompts come first: a sequence that starts over after a failure has its prompt
    and a text after it.
    """
    few_limit = model.layers.max_exact_rows or prefill_chunk
    chunks: list[_Chunk] = []
    for place, new in enumerate(inputs):
        prompt_tokens = 0
        if model.is_many(new.caches[0].offset + new.prompt_tokens):
            prompt_tokens = new.prompt_tokens
        if model.whole:
            chunks += [_Chunk(place, part, False) for part in model.cut(new.tokens, prefill_chunk)]
            continue
        chunks += _cut(place, new.tokens[:prompt_tokens], prefill_chunk, many=True)
        chunks += _cut(place, new.tokens[prompt_tokens:], few_limit, many=False)
    prompts: list[_PackedState] = []
    steps: list[_PackedState] = []
    for chunk in chunks:
        states, limit = steps, few_limit
        if chunk.many:
            states, limit = prompts, prefill_chunk
        is_full = not states or len(states[-1].tokens) + len(chunk.tokens) > limit or model.whole
        # chunks of one sequence go one after another: the later looks at the earlier one's keys
        if is_full or states[-1].inputs[-1] == chunk.place:
            states.append(_PackedState())
        state = states[-1]
        state.tokens += chunk.tokens
        caches = inputs[chunk.place].caches
        state.spans.append(Span(caches, len(chunk.tokens), chunk.many))
        state.inputs.append(chunk.place)
    return prompts + steps


def _cut(place: int, tokens: Sequence[int], size: int, *, many: bool) -> Iterator[_Chunk]:
    """Yield chunks of at most ``size`` tokens of the input at ``place``."""
    for begin in range(0, len(tokens), size):
        yield _Chunk(place, tokens[begin : begin + size], many)
