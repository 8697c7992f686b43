"""The backend ``mlx-lm``: mlx-lm on the same folder."""

# B sequences at once, L tokens, V words of the vocabulary

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from edgellm.bench.backends.registry import RuntimeSettings
from edgellm.checkpoint.checkpoint import Checkpoint
from edgellm.checkpoint.folder import CONFIG
from edgellm.device import machine
from edgellm.files.strict_json import read_json
from edgellm.models.through_mlx_lm.checkpoint import MLXLMCheckpoint, read_any_checkpoint

DTYPES = {"float32": mx.float32, "bfloat16": mx.bfloat16, "float16": mx.float16}
PREFILL_CHUNK = 2048
"""Prompt tokens at once, as mlx-lm's own generation has them."""


class MLXLMRuntime:
    """A folder as mlx-lm loads it.

    Without a GPU its floats become float32 unless ``dtype`` says otherwise.
    """

    def __init__(self, model: str, settings: RuntimeSettings) -> None:
        from mlx_lm.utils import load_model

        dtype = settings.dtype or (None if machine.has_gpu() else "float32")
        checkpoint = read_any_checkpoint(Path(model))
        self.weight_bytes_per_token: int | None = None
        if isinstance(checkpoint, MLXLMCheckpoint):
            corrections = checkpoint.settings
        else:
            corrections = corrected_settings(checkpoint)
            self.weight_bytes_per_token = checkpoint.token_weight_bytes
        self._model: Any = load_model(Path(model), model_config=corrections)[0]
        if dtype is not None:
            self._model.set_dtype(DTYPES[dtype])
        mx.eval(self._model.parameters())
        self._cache: list[Any] = []
        self._token = mx.array([0])
        self.device: str = machine.chip_name()
        self.arithmetic: str = f"mlx {machine.backend_name()}, {dtype or 'as stored'}"

    def begin(self, *, batch: int, capacity: int) -> None:
        """Make empty caches; they grow by themselves, and take any batch."""
        del batch, capacity
        from mlx_lm.models.cache import make_prompt_cache

        self._cache = make_prompt_cache(self._model)

    def prefill(self, tokens: npt.NDArray[np.int64]) -> None:
        """Append tokens (B, L) to the sequences, in chunks."""
        ids = mx.array(tokens)
        for begin in range(0, ids.shape[1], PREFILL_CHUNK):
            logits = self._model(ids[:, begin : begin + PREFILL_CHUNK], cache=self._cache)
            mx.eval([cache.state for cache in self._cache])
        self._token = mx.argmax(logits[:, -1], axis=-1)
        mx.eval(self._token)

    def decode(self, count: int) -> None:
        """Take greedy steps, each launched before the last is waited for, as mlx-lm itself does."""
        for _ in range(count):
            token = self._token
            self._token = mx.argmax(self._model(token[:, None], cache=self._cache)[:, -1], axis=-1)
            mx.async_eval(self._token)
            mx.eval(token)
        mx.eval(self._token)

    def last_tokens(self) -> list[int]:
        """Return the newest token of each sequence."""
        return cast("list[int]", self._token.tolist())

    def logits(self, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        """Return the logits (L, V) after each token of one sequence, from empty caches."""
        return np.array(self._model(mx.array([list(tokens)]))[0].astype(mx.float32))

    def close(self) -> None:
        """Free the model."""
        self._cache, self._model = [], None
        mx.clear_cache()


def corrected_settings(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what mlx-lm 0.32.2 would read otherwise than transformers does.

    It knows ``rope_parameters`` for few families, and would take theta 10000 where transformers 5
    wrote them alone; it ties a head that is stored apart; of yarn it reads no attention_factor.
    """
    config = checkpoint.config
    scaling = None
    if config.rope_scaling is not None:
        scaling = config.rope_scaling.as_config()
    settings: dict[str, Any] = {
        "rope_theta": config.rope_theta,
        "rope_scaling": scaling,
        "tie_word_embeddings": config.tie_word_embeddings,
    }
    text = read_json(checkpoint.folder.path / CONFIG).get("text_config")
    if isinstance(text, dict):
        return {"text_config": text | settings}
    return settings
