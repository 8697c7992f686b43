"""Greedy decoding in torch: steps one by one, or recorded once as a CUDA graph and replayed."""

from __future__ import annotations

from collections.abc import Callable

import torch

from edgellm.bench.torch_backend.llama import Model, StaticCache, hidden_states, logits


class Sequences:
    """Sequences of equal length in a model: their cache, and where they stand.

    Args:
        model: the weights.
        batch: sequences.
        capacity: tokens that each has room for.
        static: whether every step is the same arithmetic whatever the position, and is recorded
            where the device can.
    """

    PREFILL_CHUNK = 2048
    """Tokens that go through the layers at once."""

    def __init__(self, model: Model, *, batch: int, capacity: int, static: bool) -> None:
        self.batch: int
        self.capacity: int
        self.model: Model
        self.static: bool
        self.model, self.batch, self.capacity, self.static = model, batch, capacity, static
        self._cache = StaticCache(model, batch=batch, capacity=capacity)
        self.token: torch.Tensor = torch.zeros((batch, 1), dtype=torch.int64, device=model.device)
        self.position: torch.Tensor = torch.zeros((1,), dtype=torch.int64, device=model.device)
        self.offset: int = 0
        self._static_step: Callable[[], None] | None = None

    def restart(self) -> None:
        """Forget all tokens; the cache and a recorded graph stay."""
        self.offset = 0
        self.token.zero_()
        self.position.zero_()

    def prefill(
        self, tokens: torch.Tensor, *, on_hidden: Callable[[torch.Tensor], None] = lambda _: None
    ) -> None:
        """Append tokens (B, L) to the sequences, and take the likeliest next one of each.

        ``on_hidden`` is called with the hidden states (B, chunk, E) of every chunk.
        """
        for chunk in tokens.to(self.model.device).split(self.PREFILL_CHUNK, dim=1):
            end = self.offset + chunk.shape[1]
            assert end <= self.capacity, "more tokens than there is room for"
            positions = torch.arange(self.offset, end, device=self.model.device)
            hidden = hidden_states(self.model, chunk, self._cache, positions, seen=end)
            self.offset = end
            on_hidden(hidden)
        self.token.copy_(logits(self.model, hidden[:, -1:]).argmax(-1))
        self.position.fill_(self.offset)

    def decode(self, count: int) -> list[torch.Tensor]:
        """Take ``count`` greedy steps, waiting for no GPU, and return the tokens that went in.

        Each is (B, 1); the newest, which no step has gone on from, is ``token``.
        """
        assert self.offset + count <= self.capacity, "more tokens than there is room for"
        if self.static and self._static_step is None:
            self._static_step = self._make_static_step()
        tokens = []
        for _ in range(count):
            tokens.append(self.token.clone())
            if self._static_step is not None:
                self._static_step()
            else:
                self._step(self.offset + 1)
            self.offset += 1
        return tokens

    def _step(self, seen: int | None) -> None:
        hidden = hidden_states(self.model, self.token, self._cache, self.position, seen=seen)
        self.token.copy_(logits(self.model, hidden).argmax(-1))
        self.position.add_(1)

    def _make_static_step(self) -> Callable[[], None]:
        """Return a step over the whole cache; on an NVIDIA GPU all its launches are one."""

        def step() -> None:
            self._step(None)

        if self.model.device.type != "cuda":
            return step
        return record_graph(step, (self.token, self.position))


def record_graph(step: Callable[[], None], state: tuple[torch.Tensor, ...]) -> Callable[[], None]:
    """Record ``step`` as a CUDA graph and return what replays it.

    ``state`` are the tensors that the step changes; recording leaves them as they are.
    """
    before = [tensor.clone() for tensor in state]

    def restore() -> None:
        for tensor, value in zip(state, before, strict=True):
            tensor.copy_(value)

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        # kernels are chosen and workspaces made at first use, which a graph cannot hold
        for _ in range(2):
            step()
            restore()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    restore()
    replay: Callable[[], None] = graph.replay
    return replay
