"""A loaded model, as it reads given texts: logits, scores, hidden states, embeddings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from edgellm.checkpoint.model_config import CommonConfig
from edgellm.device.bound_to_process import BoundToProcess
from edgellm.device.model_lock import ModelLock
from edgellm.device.place import Place
from edgellm.engine.scheduling.context import EngineContext
from edgellm.errors import EdgeLLMError
from edgellm.generation.prefill import all_logits
from edgellm.generation.prompt import Prompt, check_prompt, token_ids
from edgellm.memory_plan.plan import Plan
from edgellm.models.model import Model
from edgellm.prompt_cache.prefix_cache import PrefixCache
from edgellm.scoring.embeddings import POOLINGS, Pooling, embed, hidden_states
from edgellm.scoring.logit_rows import logit_rows
from edgellm.scoring.pairs import encode_pairs
from edgellm.scoring.score_stream import ScoreStream
from edgellm.scoring.scorer import Score
from edgellm.scoring.workspace import Workspace
from edgellm.setting_values import choice, listed, truth, whole_number
from edgellm.settings.argument_names import check_names
from edgellm.tokenizer import Tokenizer


@check_names
class ScoringModel(BoundToProcess, ABC):
    """The methods of ``LLM`` after which nothing is generated; ``LLM`` sets the attributes."""

    config: CommonConfig
    tokenizer: Tokenizer
    plan: Plan
    model: Model
    prefix_cache: PrefixCache
    _lock: ModelLock

    @property
    @abstractmethod
    def context(self) -> int:
        """Maximum number of tokens of prompt and completion together."""

    def logits(self, tokens: Sequence[int]) -> mx.array:
        """Return the logits (L, V) in float32 after each of L tokens, to measure quality.

        They take memory on top of the budget.

        Raises:
            NotFiniteError: they are not finite numbers.
        """
        tokens = token_ids(tokens, self.tokenizer)
        self._check(tokens)
        with self._lock.acquire() as place, place.computing():
            lease = self.prefix_cache.begin(tokens, len(tokens), reuse=False)
            try:
                return all_logits(
                    self.model, tokens, lease.caches, prefill_chunk=self.plan.prefill_chunk
                )
            finally:
                lease.drop()

    def stream_logits(
        self, tokens: Sequence[int], *, begin: int = 0
    ) -> Generator[npt.NDArray[np.float32]]:
        """Return an iterator over the rows of ``logits``, in parts (R, V) of at most 64 rows.

        Beside the rows of a part, only hidden states are in memory, not the logits of all tokens.
        Each part is computed when it is asked for; others may use the model in between.

        Args:
            tokens: token ids.
            begin: the first row that is wanted.

        Raises:
            ContextError, ClosedError, NotFiniteError, ReadError: as ``stream`` does.
            EdgeLLMError: it was cancelled.
        """
        ids = token_ids(tokens, self.tokenizer)
        self._check(ids)
        begin = whole_number("begin", begin, 0, len(ids) - 1)
        return logit_rows(ids, begin, self._workspace)

    def score(self, pairs: Iterable[tuple[Prompt, Prompt]]) -> list[Score]:
        """Return how likely the model finds continuations after their contexts, in their order.

        What pairs begin with in common is computed once, in the memory of the longest pair alone,
        and many pairs share a pass over the weights. A score does not depend on other pairs.

        Args:
            pairs: a context and a continuation each: two texts, or two lists of token ids. Texts
                are encoded as one, which is cut after the context's own tokens; blanks at the end
                of a context belong to the continuation, and an empty context is the token that
                begins a text. That is the rule of lm-evaluation-harness.

        Raises:
            ConfigError: a pair is something else, or its continuation has no token of its own.
            ContextError: a pair is longer than the context and one more token, after which nothing
                is computed.
            ClosedError, NotFiniteError, ReadError: as ``stream`` does.
            EdgeLLMError: it was cancelled.
        """
        with self.stream_scores(pairs) as stream:
            scores = dict(stream)
        return [scores[place] for place in range(len(scores))]

    def stream_scores(self, pairs: Iterable[tuple[Prompt, Prompt]]) -> ScoreStream:
        """Return the scores of ``score`` as they come, each with its pair's place.

        They come wave by wave, in the order that shares most, so that who stops early has lost a
        wave at most; ``ScoreStream.stats`` counts the work. Nothing is computed before the first
        one is asked for. Arguments and errors are those of ``score``.
        """
        encoded = encode_pairs(pairs, self.tokenizer)
        for place, pair in enumerate(encoded):
            self._check(pair.tokens[:-1], f"pairs[{place}]")  # nothing is asked after the last one
            self._check(pair.tokens[-1:], f"pairs[{place}]")
        return ScoreStream(encoded, self._engine_context())

    def hidden_states(self, prompt: Prompt, layer: int = -1) -> npt.NDArray[np.float32]:
        """Return the hidden states (L, E) of the L tokens of a prompt.

        Args:
            prompt: a text or token ids.
            layer: 0 is the embeddings, N the output of layer N; the last number and -1 are the
                output of the final norm. transformers numbers ``hidden_states`` the same way.

        Raises:
            ConfigError: there is no such layer.
            UnsupportedModelError: the model runs through mlx-lm, which gives no hidden states.
            ContextError, ClosedError, ReadError: as ``stream`` does.
            EdgeLLMError: it was cancelled.
        """
        tokens = token_ids(prompt, self.tokenizer)
        self._check(tokens)
        with self._workspace() as workspace:
            return hidden_states(tokens, workspace, layer=layer)

    def embed(
        self, texts: Iterable[Prompt], *, pooling: Pooling = "mean", normalize: bool = True
    ) -> npt.NDArray[np.float32]:
        """Return one vector (E,) per text, as an array (N, E).

        Args:
            texts: texts or token ids.
            pooling: over the states after the final norm: their ``mean``, the token that begins a
                text included, or that of the ``last`` token.
            normalize: scale each vector to length 1.

        Raises:
            ConfigError: an argument is of another kind.
            UnsupportedModelError, ContextError, ClosedError, ReadError: as ``hidden_states`` does.
            EdgeLLMError: it was cancelled.
        """
        return Embedding(self).compute(texts, pooling=pooling, normalize=normalize)

    @abstractmethod
    def _engine_context(self) -> EngineContext:
        """Return the model, as engines and scorers take it."""

    @contextmanager
    def _workspace(self, place: Place | None = None) -> Iterator[Workspace]:
        """Hold the model, and all memory for KV caches; in a place that is given, or a new one."""
        with self._lock.acquire(place) as held, held.computing():
            self.prefix_cache.clear()
            yield Workspace(self._engine_context(), held.keep_going)

    def _check(self, ids: Sequence[int], name: str = "") -> None:
        self._lock.require_open()
        try:
            check_prompt(ids, self.config, context=self.context)
        except EdgeLLMError as error:
            if not name:
                raise
            raise type(error)(f"{name}: {error.message}", hint=error.hint) from None


class Embedding:
    """The work of ``LLM.embed``, which another thread may end.

    Args:
        model: the model.
    """

    def __init__(self, model: ScoringModel) -> None:
        self._model = model
        self._place = model._lock.place()

    def compute(
        self, texts: Iterable[Prompt], *, pooling: Pooling, normalize: bool
    ) -> npt.NDArray[np.float32]:
        """Return one vector per text; arguments and errors are those of ``LLM.embed``."""
        model = self._model
        choice("pooling", pooling, POOLINGS)
        truth("normalize", normalize)
        encoded = [
            token_ids(text, model.tokenizer) for text in listed("texts", texts, "a list of texts")
        ]
        for place, ids in enumerate(encoded):
            model._check(ids, f"texts[{place}]")
        with model._workspace(self._place) as workspace:
            return embed(encoded, workspace, pooling=pooling, normalize=normalize)

    def cancel(self) -> None:
        """End it, wherever it is."""
        self._place.cancel()
