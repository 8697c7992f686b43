"""mlx-lm's model in the place of decoder layers: tokens go in, logits come out."""

# L new tokens, V vocabulary

from __future__ import annotations

from typing import Any

import mlx.core as mx

from edgellm.checkpoint.model_config import CommonConfig
from edgellm.device import machine as device
from edgellm.errors import ClosedError
from edgellm.models.layers import KeepGoing, States, StateSpans, always
from edgellm.models.model import Model
from edgellm.models.through_mlx_lm.cache import MLXLMCache


class WholeModel:
    """mlx-lm's model as ``Layers``, whose states are token ids (1, L), then logits (1, L, V)."""

    streams_weights = False
    takes_trees = False
    max_exact_rows = 0

    def __init__(self, model: Any) -> None:
        self._model = model
        # a CPU gains little by steps that are launched ahead, and pays for one past the end
        self.async_compute: bool = device.has_gpu()

    def run(
        self,
        states: States,
        spans: StateSpans,
        *,
        keep_going: KeepGoing = always,
        depth: int | None = None,
    ) -> list[mx.array]:
        """Return the logits (1, L, V) of token ids; empty where ``keep_going`` said no."""
        assert depth is None, "it is one piece"
        if self._model is None:
            raise ClosedError("the model was closed")
        results = []
        for tokens, (span,) in zip(states, spans, strict=True):
            if not keep_going():
                return []
            (cache,) = span.caches
            assert isinstance(cache, MLXLMCache), "its own maker makes no others"
            results.append(cache.logits(tokens))
        return results

    def close(self) -> None:
        """Free the weights."""
        self._model = None
        mx.clear_cache()


class _TokenIds:
    """The embedding is a part of the whole model: token ids go into it as they are."""

    def __call__(self, tokens: mx.array) -> mx.array:
        return tokens

    def close(self) -> None:
        """Do nothing: there are no files."""


class _Logits:
    """So are the norm and the output matrix: logits have come out of it."""

    def __init__(self, out_features: int) -> None:
        self.out_features = out_features

    def __call__(self, x: mx.array) -> mx.array:
        return x


def model_of(config: CommonConfig, model: Any) -> Model:
    """Return mlx-lm's model as edgellm's."""
    logits = _Logits(config.vocab_size)
    return Model(
        config,
        embed_tokens=_TokenIds(),
        layers=WholeModel(model),
        norm=logits,
        head=logits,
        whole=True,
    )
