"""Logits of a whole text, a few rows at a time."""

# L tokens, R rows at a time, E hidden, V vocabulary

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from edgellm.engine.scheduling.batched_forward import SequenceInput
from edgellm.kv_cache.cache import Cache
from edgellm.sampling.finite import require_finite
from edgellm.sampling.token_scorer import HEAD_ROWS
from edgellm.scoring.workspace import Workspace

Hold = Callable[[], AbstractContextManager[Workspace]]
"""Holds the model within."""


def logit_rows(tokens: Sequence[int], begin: int, hold: Hold) -> Generator[npt.NDArray[np.float32]]:
    """Yield logits (R, V) after each token from place ``begin`` on, HEAD_ROWS at a time.

    The model is held while something is computed, not while the caller reads.

    Raises:
        NotFiniteError: they are not finite numbers.
        EdgeLLMError: it was cancelled.
    """
    caches: list[Cache] = []
    place = 0
    while place < len(tokens):
        with hold() as workspace:
            if not caches:
                caches = workspace.context.make_caches(len(tokens))
            end = len(tokens)
            if workspace.context.model.whole:  # its states are logits
                end = min(place + HEAD_ROWS, end)
            hidden = _states(tokens[place:end], len(tokens) - place, caches, workspace)
        if end == len(tokens):
            caches = []  # nothing comes after the last states
        for start in range(max(begin, place), end, HEAD_ROWS):
            with hold() as workspace:
                logits = workspace.context.model.logits(
                    hidden[start - place : start - place + HEAD_ROWS]
                )
                rows: npt.NDArray[np.float32] = np.array(logits.astype(mx.float32))
            require_finite(rows.max(axis=-1))
            yield rows
        place = end


def _states(
    tokens: Sequence[int], prompt_tokens: int, caches: Sequence[Cache], workspace: Workspace
) -> mx.array:
    """Return the hidden states (L, E) of a text's next tokens after all layers."""
    parts: list[mx.array] = []
    new = SequenceInput(
        tokens, caches, prompt_tokens=prompt_tokens, needs_logits=False, on_states=parts.append
    )
    workspace.forward([new])
    hidden = mx.concatenate(parts)
    mx.eval(hidden)  # another thread may go on from here
    return hidden
