"""Decoder layers as the model sees them: two protocols, and layers that are all in memory."""

# L new tokens of one or more sequences side by side, E hidden

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import mlx.core as mx

from edgellm.errors import ClosedError
from edgellm.kv_cache.cache import LayerCache, stored
from edgellm.models.linear import AddedProduct, Stretch

LayerSpans = Sequence[tuple[LayerCache, int]]
"""Sequences of a hidden state (1, L, E), in order: each one's cache in a layer, and its tokens."""


@dataclass(frozen=True, slots=True)
class Span:
    """Adjacent tokens of one sequence in a hidden state.

    Attributes:
        caches: the KV caches of the sequence, one per layer. With a ``PathCache`` the tokens are
            those of a trie, and the span is alone in its hidden state.
        length: tokens.
        many: whether they are computed as many tokens are, however few go through at once: kernels
            take another way for many than for few, so that a long prompt's results would depend on
            where it is cut.
        levels: of a tree of tokens (``token_tree.py``); empty where each follows the one before.
            A span with levels is alone in its hidden state.
    """

    caches: Sequence[LayerCache]
    length: int
    many: bool = False
    levels: Sequence[int] = ()


States = Iterable[mx.array]
"""Hidden states (1, L, E): chunks of prompts, or tokens of several sequences side by side. They are
gone through once, so that who makes them one by one holds none of them."""

StateSpans = Sequence[Sequence[Span]]
"""The sequences of each hidden state, in their order; none occurs twice in a state. All spans of a
state have the same ``many``."""

KeepGoing = Callable[[], bool]
"""Asked now and then in a pass; after a no, caches are left as they are, half-way."""


MIN_LONG = 64
"""Tokens from which layers are computed one by one, and not all at the end.

For this many, a layer takes longer than launching and waiting for it.
"""


def layer_spans(spans: Sequence[Span], layer: int) -> LayerSpans:
    """Return spans as layer number ``layer`` takes them."""
    return [(span.caches[layer], span.length) for span in spans]


def always() -> bool:
    """Return true: nothing asks to stop half-way."""
    return True


@dataclass(frozen=True, slots=True, eq=False)
class LayerChange:
    """A layer's change by an adapter; two are the same only if they are one object.

    Attributes:
        products: what is added to each stack's results, by its name in ``tensor_order.STACKS``.
        stretches: what they are multiplied by afterwards, where they are.
    """

    products: Mapping[str, Sequence[AddedProduct]]
    stretches: Mapping[str, Stretch] = field(default_factory=dict)

    def arrays(self) -> Iterator[mx.array]:
        """Yield all that it holds."""
        for added in self.products.values():
            for product in added:
                yield from (product.down, product.up)
        for stretch in self.stretches.values():
            yield stretch.factors
            if stretch.rest is not None:
                yield stretch.rest


class Layer(Protocol):
    """One decoder layer."""

    max_exact_rows: int
    """Up to this many tokens in a call, each gets bit for bit what it gets alone; 0: not promised.

    Where it is promised, a call with ``many`` promises it for any number of tokens.
    """

    def adapt(self, change: LayerChange | None) -> None:
        """Let the calls that follow add an adapter's change to the products; None: no more."""
        ...

    def __call__(self, hidden: mx.array, spans: LayerSpans, *, many: bool = False) -> mx.array:
        """Return hidden states (1, L, E) after this layer; new keys and values go to the caches.

        Args:
            hidden: what goes in.
            spans: whose tokens they are.
            many: as ``Span`` has it, of all of them.
        """
        ...


@runtime_checkable
class TreeLayer(Layer, Protocol):
    """A decoder layer that takes trees of tokens."""

    def run_tree(self, hidden: mx.array, cache: LayerCache, levels: Sequence[int]) -> mx.array:
        """Return hidden states (1, L, E) after this layer; each token sees those above it alone.

        Afterwards the cache holds one token a level, as ``token_tree.moves`` says.

        Args:
            hidden: what goes in.
            cache: of the sequence that the tree goes on.
            levels: of the tree.
        """
        ...


class Layers(Protocol):
    """All decoder layers, wherever their weights are."""

    streams_weights: bool
    """Whether a pass reads weights from disk: all chunks of a prompt should then share a pass."""

    async_compute: bool
    """Whether ``run`` returns before the results are there: a step can then be launched ahead."""

    max_exact_rows: int
    """The largest of the layers' ``Layer.max_exact_rows``."""

    takes_trees: bool
    """Whether spans may have ``levels``."""

    def run(
        self,
        states: States,
        spans: StateSpans,
        *,
        keep_going: KeepGoing = always,
        depth: int | None = None,
    ) -> list[mx.array]:
        """Return hidden states (1, L, E) after all layers; empty where ``keep_going`` said no.

        Args:
            states: what goes into the first layer.
            spans: the sequences in each of them.
            keep_going: asked between layers, or between states.
            depth: how many layers they go through; None for all.

        Raises:
            ClosedError: the layers were closed.
        """
        ...

    def close(self) -> None:
        """Free the weights."""
        ...


@runtime_checkable
class WindowedLayers(Layers, Protocol):
    """Layers through which a pass goes window by window, in their order."""

    def run_part(
        self,
        states: States,
        spans: StateSpans,
        part: slice,
        *,
        keep_going: KeepGoing = always,
    ) -> list[mx.array]:
        """Return hidden states (1, L, E) after a part of the layers; the rest as in ``run``."""
        ...


@runtime_checkable
class LayersInParts(WindowedLayers, Protocol):
    """Layers between two of which a pass may stop, let others through, and go on later."""

    count: int
    """How many they are."""


@runtime_checkable
class LosableLayers(Layers, Protocol):
    """Layers of which some may be lost in a pass, with their caches, and come back without them."""

    def are_back(self, keep_going: KeepGoing) -> bool:
        """Wait for what was lost; return whether all is there again.

        False where nothing was lost, where it does not come back in time, or ``keep_going`` said
        no. What sequences had in their caches has to be computed again.
        """
        ...


class Launched(Protocol):
    """Hidden states that are under way, while others may be launched."""

    def results(self) -> list[mx.array]:
        """Wait for what ``Layers.run`` returns, or raises; called once."""
        ...

    def close(self) -> None:
        """End it: nobody wants it any more."""
        ...


@runtime_checkable
class StagedLayers(Layers, Protocol):
    """Layers in several places, in each of which may be the tokens of other sequences at a time."""

    stages: int
    """How many places; in one, nothing is gained by launching."""

    def launch(
        self, states: States, spans: StateSpans, *, keep_going: KeepGoing = always
    ) -> Launched:
        """Do what ``run`` does, but return when this thread has done its part.

        What is under way at a time has no sequence in common, and nobody changes its caches.
        """
        ...


def come_back(layers: Layers, keep_going: KeepGoing) -> bool:
    """Return whether layers that were lost in a pass are there again, as ``are_back`` says."""
    return isinstance(layers, LosableLayers) and layers.are_back(keep_going)


def caches_in_part(spans: StateSpans, part: slice) -> list[LayerCache]:
    """Return the caches of all sequences in a part of the layers."""
    return [cache for state_spans in spans for span in state_spans for cache in span.caches[part]]


def spans_in_part(spans: Sequence[Span], part: slice) -> list[Span]:
    """Return spans with the caches of a part of the layers."""
    if part == slice(None):
        return list(spans)
    return [replace(span, caches=span.caches[part]) for span in spans]


class ResidentLayers:
    """Layers whose weights are all in memory."""

    streams_weights = False
    takes_trees = False

    def __init__(self, layers: Sequence[Layer], *, async_compute: bool = True) -> None:
        self._layers = list(layers)
        self.count: int = len(self._layers)
        self.max_exact_rows: int = max((layer.max_exact_rows for layer in layers), default=0)
        self.async_compute = async_compute
        self._closed = False

    def run(
        self,
        states: States,
        spans: StateSpans,
        *,
        keep_going: KeepGoing = always,
        depth: int | None = None,
    ) -> list[mx.array]:
        """Return hidden states (1, L, E) after all layers; empty where ``keep_going`` said no."""
        return self.run_part(states, spans, slice(depth), keep_going=keep_going)

    def run_part(
        self,
        states: States,
        spans: StateSpans,
        part: slice,
        *,
        keep_going: KeepGoing = always,
    ) -> list[mx.array]:
        """Return hidden states (1, L, E) after a part of the layers; the rest as in ``run``."""
        if self._closed:
            raise ClosedError("the model was closed")
        states = list(states)
        spans = [spans_in_part(state_spans, part) for state_spans in spans]
        is_long = sum(hidden.shape[1] for hidden in states) >= MIN_LONG
        computing: list[mx.array] = []
        for index, layer in enumerate(self._layers[part]):
            if not keep_going():
                return []
            states = [
                layer(hidden, layer_spans(state_spans, index), many=state_spans[0].many)
                for hidden, state_spans in zip(states, spans, strict=True)
            ]
            if is_long:
                # launched before the layer before it is waited for: a GPU always has its next work
                # at hand, and after a no at most two layers go on
                caches = caches_in_part(spans, slice(index, index + 1))
                launched = [*states, *stored(caches)]
                mx.async_eval(*launched)
                mx.eval(*computing)
                computing = launched
        return states

    def close(self) -> None:
        """Free the weights."""
        self._closed = True
        self._layers.clear()
