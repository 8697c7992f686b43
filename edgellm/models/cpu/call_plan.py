"""The steps of a pass through layers, remembered from token to token."""

# L new tokens

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from edgellm.kernels.kernel_engine import KernelEngine, StepArray, step_array
from edgellm.kernels.layer import KVView, LayerShape
from edgellm.kernels.layer_steps import LayerSteps
from edgellm.kernels.sequence_steps import (
    CallOfLayers,
    CallSteps,
    Partition,
    Rows,
    partition,
    write_positions,
)
from edgellm.kv_cache.cache import KVCache, LayerCache
from edgellm.kv_cache.path_cache import PathCache
from edgellm.models.cpu.kv_memory import CacheMemory, GrownCache, PathMemory, TreeMemory
from edgellm.models.cpu.linear import CpuLinear
from edgellm.models.cpu.pace import Crew, Pace

MAX_PLANS = 4
"""Plans that are remembered: of single tokens, of batches, of drafts that are verified."""


@dataclass(frozen=True, slots=True)
class _AlikeLayers:
    """Layers whose caches hold the same positions.

    Attributes:
        rows: their steps that go sequence by sequence.
        shape: theirs.
        views: of each sequence, as the first of the layers saw it.
        windows: of each sequence; None where tokens see all before them.
        parts: how the sequences attended.
    """

    rows: Rows
    shape: LayerShape
    views: Sequence[KVView]
    windows: Sequence[int | None]
    parts: Partition


class CallPlan:
    """The steps of some sequences' new tokens through layers, addresses and all.

    As long as no memory moves, the next tokens differ in their positions alone. To ask 22 layers
    for addresses takes 0.8 ms a token, and 4 ms for a batch of 8.

    Args:
        engine: whose lock the caller holds.
        layers: each with its steps.
        memories: of each layer, where the keys and values go, sequence by sequence.
        lengths: new tokens of each sequence.
        many: whether they are computed as many tokens are.
        head: computes the logits after the last layer; None where they are not asked for.
    """

    def __init__(
        self,
        engine: KernelEngine,
        layers: Sequence[LayerSteps],
        memories: Sequence[Sequence[CacheMemory]],
        lengths: Sequence[int],
        *,
        many: bool,
        head: CpuLinear | None = None,
    ) -> None:
        self._engine, self._lengths, self._many = engine, lengths, many
        views = [[memory.view for memory in own] for own in memories]
        self._call = _call(
            engine,
            lambda: [
                layer.prepare(self._sequences(own), whole_keys=many)
                for layer, own in zip(layers, views, strict=True)
            ],
            _head_steps(head, sum(lengths)),
        )
        alike: dict[tuple[int | None, ...], list[int]] = {}
        for number, own_memories in enumerate(memories):
            windows = tuple(memory.window for memory in own_memories)
            alike.setdefault(windows, []).append(number)
        self._alike = [
            _AlikeLayers(
                self._call.rows(numbers),
                layers[numbers[0]].shape,
                views[numbers[0]],
                windows,
                partition(engine, self._sequences(views[numbers[0]]), whole_keys=many),
            )
            for windows, numbers in alike.items()
        ]

    def move(self, offsets: Sequence[int]) -> bool:
        """Move on to the sequences' next tokens; false where these need other steps."""
        moves = []
        for own in self._alike:
            views = [
                _moved(view, window, offset, length)
                for view, window, offset, length in zip(
                    own.views, own.windows, offsets, self._lengths, strict=True
                )
            ]
            sequences = self._sequences(views)
            parts = partition(self._engine, sequences, whole_keys=self._many)
            if (parts.partials, parts.apart) != (own.parts.partials, own.parts.apart):
                return False
            moves.append((own, sequences, parts))
        for own, sequences, parts in moves:
            write_positions(self._engine, own.shape, own.rows, sequences, parts.splits)
        return True

    def steps(self, first: int, stop: int) -> StepArray:
        """Return the steps of the layers from one to before another, after the last the head's."""
        return self._call.steps(first, stop)

    def _sequences(self, views: Sequence[KVView]) -> list[tuple[KVView, int]]:
        return list(zip(views, self._lengths, strict=True))


class TreePlan:
    """The steps of a tree of tokens through layers; no two trees are alike.

    Args:
        engine: whose lock the caller holds.
        layers: each with its steps.
        memories: of each layer, where the keys and values go.
        levels: of the tree.
        head: as ``CallPlan`` has it.
    """

    def __init__(
        self,
        engine: KernelEngine,
        layers: Sequence[LayerSteps],
        memories: Sequence[TreeMemory],
        levels: Sequence[int],
        *,
        head: CpuLinear | None = None,
    ) -> None:
        self._call = _call(
            engine,
            lambda: [
                layer.prepare_tree(memory.branches)
                for layer, memory in zip(layers, memories, strict=True)
            ],
            _head_steps(head, len(levels)),
        )

    def steps(self, first: int, stop: int) -> StepArray:
        """Return the steps of the layers from one to before another, after the last the head's."""
        return self._call.steps(first, stop)


class PathPlan:
    """The steps of tokens of a trie through layers; no two calls are alike.

    Args:
        engine: whose lock the caller holds.
        layers: each with its steps.
        memories: of each layer, where the keys and values go.
    """

    def __init__(
        self,
        engine: KernelEngine,
        layers: Sequence[LayerSteps],
        memories: Sequence[PathMemory],
    ) -> None:
        self._call = _call(
            engine,
            lambda: [
                layer.prepare_paths(memory.view, memory.branches)
                for layer, memory in zip(layers, memories, strict=True)
            ],
            _head_steps(None, 0),
        )

    def steps(self, first: int, stop: int) -> StepArray:
        """Return the steps of the layers from one to before another."""
        return self._call.steps(first, stop)


def _head_steps(head: CpuLinear | None, tokens: int) -> Callable[[], StepArray]:
    if head is None:
        return lambda: step_array([])
    return lambda: head.steps(tokens)


def _call(
    engine: KernelEngine,
    prepare: Callable[[], Sequence[CallSteps]],
    prepare_head: Callable[[], StepArray],
) -> CallOfLayers:
    """Return the steps of a call when the working memory to which they point has settled."""
    # a layer's first steps can move it, and those of the layers before point there, too
    version = -1
    while version != engine.workspace.version:
        version = engine.workspace.version
        calls = prepare()
        last = prepare_head()
    return CallOfLayers(calls, last)


def _moved(view: KVView, window: int | None, offset: int, length: int) -> KVView:
    """Return a view for new tokens from a position on."""
    end = offset + length
    if window is None:
        window = end
    return replace(view, position=offset, length=end, window=window)


Memory = CacheMemory | GrownCache | TreeMemory | PathMemory
"""Takes the new tokens of a sequence into its cache."""


class KnownCalls:
    """The pace of the calls through some layers, and their last plans.

    Plans are found by where the memory of the sequences is.
    """

    def __init__(self) -> None:
        self.pace: Pace = Pace()
        self._crews: dict[int, Crew] = {}
        self._plans: dict[tuple[int, ...], CallPlan] = {}

    def crew(self, engine: KernelEngine, tokens: int) -> Crew:
        """Return who chooses the number of threads of passes of this many tokens."""
        if tokens not in self._crews:
            self._crews[tokens] = Crew(engine.threads)
        return self._crews[tokens]

    def plan(
        self,
        engine: KernelEngine,
        layers: Sequence[LayerSteps],
        caches: Sequence[Sequence[LayerCache]],
        lengths: Sequence[int],
        *,
        many: bool,
        levels: Sequence[int] = (),
        head: CpuLinear | None = None,
    ) -> tuple[CallPlan | TreePlan | PathPlan, list[list[Memory]]]:
        """Return the steps of a call, and what takes the new tokens into the caches.

        The arguments are those of ``CallPlan``, and of each layer the sequences' caches;
        ``levels`` are as ``Span`` has them.

        Raises:
            BackendError: there are no kernels for a cache.
        """
        if levels:
            trees = [TreeMemory(cache, levels) for (cache,) in caches]
            return TreePlan(engine, layers, trees, levels, head=head), [[tree] for tree in trees]
        paths = [
            PathMemory(cache) for own in caches for cache in own if isinstance(cache, PathCache)
        ]
        if paths:
            assert many, "tokens of a trie are computed as many are"
            return PathPlan(engine, layers, paths), [[memory] for memory in paths]
        grown = _grown(caches, lengths)
        key: tuple[int, ...] = ()
        if grown is not None:
            numbers = (cache.storage for own in grown for cache in own)
            key = (engine.workspace.version, many, head is None, *lengths, *numbers)
            plan = self._plans.get(key)
            if plan is not None and plan.move([cache.offset for cache in grown[0]]):
                return plan, [list(own) for own in grown]
        memories = [
            [CacheMemory(cache, length) for cache, length in zip(own, lengths, strict=True)]
            for own in caches
        ]
        plan = CallPlan(engine, layers, memories, lengths, many=many, head=head)
        if grown is not None and not many:
            # making steps can move the workspace
            self._plans[(engine.workspace.version, *key[1:])] = plan
            if len(self._plans) > MAX_PLANS:
                del self._plans[next(iter(self._plans))]
        return plan, [list(own) for own in memories]


def _grown(
    caches: Sequence[Sequence[LayerCache]], lengths: Sequence[int]
) -> list[list[GrownCache]] | None:
    """Make room for new tokens; None where a cache has none, or is at another position.

    What a cache without room holds has to be copied beside the new tokens.
    """
    grown = []
    for own in caches:
        of_layer = []
        for cache, first, length in zip(own, caches[0], lengths, strict=True):
            if not isinstance(cache, KVCache) or cache.offset != first.offset:
                return None
            if not cache.reserve(length):
                return None
            of_layer.append(GrownCache(cache, length))
        grown.append(of_layer)
    return grown
