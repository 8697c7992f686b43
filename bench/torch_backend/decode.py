"""Greedy steps of a model in torch: run one by one, or recorded once as a CUDA graph and replayed."""

from __future__ import annotations

from collections.abc import Callable

import torch

from edgellm.bench.torch_backend.llama import Model, StaticCache, hidden_states, logits


class Sequences:
    """Some sequences of equal length in a model: their cache, and where they stand.

    Args:
        model: the weights.
        batch: sequences.
        capacity: tokens of each.
        static: whether a step is the same arithmetic for every position, and recorded where the
            device can.
    """

    PROMPT_CHUNK = 2048
    """Tokens that go through the layers at once."""

    def __init__(self, model: Model, *, batch: int, capacity: int, static: bool) -> None:
        self.model, self.batch, self.capacity, self.static = model, batch, capacity, static
        self._cache = StaticCache(model, batch=batch, capacity=capacity)
        self.token = torch.zeros((batch, 1), dtype=torch.int64, device=model.device)
        self.position = torch.zeros((1,), dtype=torch.int64, device=model.device)
        self.offset = 0
        self._replay: Callable[[], None] | None = None

    def restart(self) -> None:
        """Forget all tokens."""
        self.offset = 0
        self.token.zero_()
        self.position.zero_()

    def prefill(
        self, tokens: torch.Tensor, *, keep: Callable[[torch.Tensor], None] | None = None
    ) -> None:
        """Send tokens (B, L) through the model, and take the likeliest next one of each.

        ``keep`` is given the hidden states (B, chunk, E) of every chunk.
        """
        hidden = None
        for chunk in tokens.to(self.model.device).split(self.PROMPT_CHUNK, dim=1):
            end = self.offset + chunk.shape[1]
            assert end <= self.capacity, "the caller asked for the room"
            positions = torch.arange(self.offset, end, device=self.model.device)
            hidden = hidden_states(self.model, chunk, self._cache, positions, seen=end)
            self.offset = end
            if keep is not None:
                keep(hidden)
        assert hidden is not None, "a prompt has tokens"
        self.token.copy_(logits(self.model, hidden[:, -1:]).argmax(-1))
        self.position.fill_(self.offset)

    def decode(self, count: int) -> list[torch.Tensor]:
        """Take ``count`` greedy steps; returns the tokens (B, 1) that went in, in a static run without waiting for them."""
        assert self.offset + count <= self.capacity, "the caller asked for the room"
        taken = []
        if self.static and self._replay is None:
            self._replay = self._recorded()
        for _ in range(count):
            taken.append(self.token.clone())
            if self._replay is not None:
                self._replay()
            else:
                self._step(self.offset + 1)
            self.offset += 1
        return taken

    def _step(self, seen: int | None) -> None:
        hidden = hidden_states(self.model, self.token, self._cache, self.position, seen=seen)
        self.token.copy_(logits(self.model, hidden).argmax(-1))
        self.position.add_(1)

    def _recorded(self) -> Callable[[], None]:
        """A step over the whole cache; on an NVIDIA GPU all its launches as one."""

        def step() -> None:
            self._step(None)

        return (
            recorded(step, (self.token, self.position))
            if self.model.device.type == "cuda"
            else step
        )


def recorded(step: Callable[[], None], state: tuple[torch.Tensor, ...]) -> Callable[[], None]:
    """A CUDA graph of ``step``; ``state`` are the tensors that it changes, which recording leaves as they are."""
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
