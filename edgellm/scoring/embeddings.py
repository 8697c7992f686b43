"""Hidden states of a text, and embeddings: one vector a text, pooled of them."""

# L tokens, E hidden

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from edgellm.engine.scheduling.batched_forward import SequenceInput
from edgellm.errors import ConfigError, UnsupportedModelError
from edgellm.models.model import Model
from edgellm.scoring.workspace import Workspace
from edgellm.setting_values import is_int, shown

Pooling = Literal["mean", "last"]
POOLINGS = ("mean", "last")


class _Pooled:
    """The sum and the last of a text's states after the final norm, which come in parts."""

    def __init__(self, model: Model) -> None:
        self._norm = model.norm
        self._sum: npt.NDArray[np.float64] | None = None
        self._last: npt.NDArray[np.float32] | None = None
        self._count = 0

    def add(self, hidden: mx.array) -> None:
        """Take hidden states (L, E) of the next tokens."""
        states: npt.NDArray[np.float32] = np.array(self._norm(hidden).astype(mx.float32))
        total = states.sum(axis=0, dtype=np.float64)
        if self._sum is not None:
            total += self._sum
        self._sum = total
        self._last = states[-1]
        self._count += len(states)

    def vector(self, pooling: Pooling) -> npt.NDArray[np.float32]:
        """Return the vector (E,) of the text."""
        assert self._sum is not None, "a text has a token"
        assert self._last is not None, "and a last one"
        if pooling == "last":
            return self._last
        return (self._sum / self._count).astype(np.float32)


def embed(
    texts: Sequence[Sequence[int]], workspace: Workspace, *, pooling: Pooling, normalize: bool
) -> npt.NDArray[np.float32]:
    """Return one vector (E,) per text, pooled of its states after the final norm.

    Args:
        texts: token ids.
        workspace: the model.
        pooling: ``mean`` of all tokens' states, or the ``last`` token's.
        normalize: divide each vector by its Euclidean length.
    """
    context = workspace.context
    require_states(context.model)
    vectors: list[npt.NDArray[np.float32]] = []
    for wave in _waves(texts, workspace):
        pooled = {place: _Pooled(context.model) for place in wave}
        workspace.forward(
            [
                SequenceInput(
                    texts[place],
                    context.make_caches(len(texts[place])),
                    prompt_tokens=len(texts[place]),
                    needs_logits=False,
                    on_states=pooled[place].add,
                )
                for place in wave
            ]
        )
        vectors += [states.vector(pooling) for states in pooled.values()]
    rows = np.array(vectors, dtype=np.float32)
    if normalize and len(rows):
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        rows /= np.maximum(lengths, np.finfo(np.float32).tiny)
    return rows


def hidden_states(
    tokens: Sequence[int], workspace: Workspace, *, layer: int
) -> npt.NDArray[np.float32]:
    """Return the hidden states (L, E) of a text, numbered as transformers numbers them.

    0 are the embeddings, N those after layer N; the last, which is also -1, come after all layers
    and the final norm.

    Raises:
        ConfigError: there is no such layer.
        UnsupportedModelError: the states of the model are out of reach.
        EdgeLLMError: it was cancelled.
    """
    model = workspace.context.model
    require_states(model)
    layers = model.config.num_hidden_layers
    if not is_int(layer) or not -layers - 1 <= layer <= layers:
        raise ConfigError(
            f"layer is {shown(layer)}; it must be between {-layers - 1} and {layers}",
            hint="0 is the embeddings, -1 the output of all layers and the final norm",
        )
    depth = layer % (layers + 1)
    chunk = workspace.prefill_chunk
    chunks = [
        mx.array(list(tokens[begin : begin + chunk]))[None]
        for begin in range(0, len(tokens), chunk)
    ]
    caches = workspace.context.make_caches(len(tokens))
    states = model.hidden(
        chunks,
        [caches] * len(chunks),
        many=model.is_many(len(tokens)),
        keep_going=workspace.keep_going,
        depth=depth,
    )
    workspace.require_whole(states)
    hidden = mx.concatenate([state[0] for state in states])
    if depth == layers:
        hidden = model.norm(hidden)
    return np.array(hidden.astype(mx.float32))


def require_states(model: Model) -> None:
    """Raise UnsupportedModelError where the hidden states of a model are out of reach."""
    if model.whole:
        raise UnsupportedModelError(
            "this model runs through mlx-lm, which gives logits but no hidden states",
            hint="score and logprobs work; for embeddings, take a family that edgellm runs itself",
        )


def _waves(texts: Sequence[Sequence[int]], workspace: Workspace) -> list[list[int]]:
    """Return the places of texts that go through the model together, in their order."""
    context = workspace.context
    waves: list[list[int]] = []
    tokens = nbytes = 0
    for place, text in enumerate(texts):
        own_bytes = context.kv_bytes(len(text))
        tokens += len(text)
        nbytes += own_bytes
        fits = tokens <= workspace.wave_tokens and nbytes <= context.plan.kv_budget
        if waves and fits:
            waves[-1].append(place)
        else:
            waves.append([place])
            tokens, nbytes = len(text), own_bytes
    return waves
