"""The backends ``llama.cpp`` and ``llama.cpp-plain``: llama.cpp on a GGUF file."""

# B sequences at once, L tokens, V words of the vocabulary

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from edgellm.bench.backends.registry import RuntimeSettings
from edgellm.device import machine
from edgellm.errors import BackendError

PREFILL_CHUNK = 512
"""Tokens in one call, and in one product: llama.cpp's own default."""

EVERY_LAYER = 999
"""Layers that go to the GPU: more than any model has."""

CONTEXT_MULTIPLE = 256
"""Tokens of a sequence's cache are rounded up to it."""


class LlamaCppRuntime:
    """A GGUF file in llama.cpp, on the GPU where it was built for one.

    Args:
        model: the file.
        settings: of these, the threads.
        repack: whether llama.cpp may keep a second copy of the weights, laid out for the processor.
    """

    def __init__(self, model: str, settings: RuntimeSettings, *, repack: bool = True) -> None:
        import llama_cpp as c

        self._c: Any = c
        self._quiet = c.llama_log_callback(_ignore)
        c.llama_log_set(self._quiet, None)
        c.llama_backend_init()
        parameters = c.llama_model_default_params()
        parameters.use_extra_bufts = repack
        parameters.n_gpu_layers = EVERY_LAYER
        self._threads = settings.threads or machine.core_count()
        self._model: Any = c.llama_model_load_from_file(os.fsencode(model), parameters)
        if not self._model:
            raise BackendError(
                f"llama.cpp cannot load {model}",
                hint="the file may be damaged, or newer than llama-cpp-python",
            )
        self.vocabulary: int = c.llama_vocab_n_tokens(c.llama_model_get_vocab(self._model))
        self._context: Any = None
        self._batch: Any = None
        self._context_shape = (0, 0)  # batch and capacity that it was made for
        self._tokens: npt.NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._position = 0
        self.device: str = machine.chip_name()
        self.arithmetic: str = f"llama.cpp {_model_name(c, self._model)}"
        if c.llama_supports_gpu_offload():
            self.arithmetic += ", GPU"
        elif not repack:
            self.arithmetic += ", as in the file"
        self.weight_bytes_per_token: int | None = _weight_bytes(Path(model))

    def begin(self, *, batch: int, capacity: int) -> None:
        """Make empty caches; a context that is too small or of another batch is replaced."""
        if (
            self._context is None
            or self._context_shape[0] != batch
            or self._context_shape[1] < capacity
        ):
            self._make_context(batch, capacity)
        else:
            self._c.llama_memory_clear(self._c.llama_get_memory(self._context), True)
        self._position = 0

    def prefill(self, tokens: npt.NDArray[np.int64]) -> None:
        """Append tokens (B, L), and compute the logits after the last of each sequence alone."""
        batch, length = tokens.shape
        step = max(1, PREFILL_CHUNK // batch)
        for begin in range(0, length, step):
            part = tokens[:, begin : begin + step]
            rows = self._compute(part, last_only=begin + step >= length)
        self._tokens = self._likeliest(rows)

    def decode(self, count: int) -> None:
        """Take greedy steps."""
        for _ in range(count):
            self._tokens = self._likeliest(self._compute(self._tokens[:, None], last_only=True))

    def last_tokens(self) -> list[int]:
        """Return the newest token of each sequence."""
        return cast("list[int]", self._tokens.tolist())

    def logits(self, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        """Return the logits (L, V) after each token of one sequence, from empty caches."""
        self.begin(batch=1, capacity=len(tokens) + 1)
        rows = []
        for begin in range(0, len(tokens), PREFILL_CHUNK):
            part = np.asarray(tokens[begin : begin + PREFILL_CHUNK], dtype=np.int64)[None]
            self._compute(part, last_only=False, all_rows=True)
            rows += [self._row(place).copy() for place in range(part.shape[1])]
        return np.stack(rows)

    def close(self) -> None:
        """Free the model."""
        if self._context is not None:
            self._c.llama_batch_free(self._batch)
            self._c.llama_free(self._context)
            self._context = None
        if self._model:
            self._c.llama_model_free(self._model)
            self._model = None

    def _make_context(self, batch: int, capacity: int) -> None:
        c = self._c
        if self._context is not None:
            c.llama_batch_free(self._batch)
            c.llama_free(self._context)
        settings = c.llama_context_default_params()
        settings.n_ctx = batch * math.ceil(capacity / CONTEXT_MULTIPLE) * CONTEXT_MULTIPLE
        settings.n_batch = settings.n_ubatch = max(PREFILL_CHUNK, batch)
        settings.n_seq_max = batch
        settings.n_threads = settings.n_threads_batch = self._threads
        settings.kv_unified = False
        self._context = c.llama_init_from_model(self._model, settings)
        if not self._context:
            raise BackendError(
                f"llama.cpp has no room for {batch} sequences of {capacity} tokens",
                hint="take fewer with --batch, or shorter ones",
            )
        self._batch = c.llama_batch_init(max(PREFILL_CHUNK, batch), 0, 1)
        self._context_shape = (batch, capacity)

    def _compute(
        self, tokens: npt.NDArray[np.int64], *, last_only: bool, all_rows: bool = False
    ) -> list[int]:
        """Compute tokens (B, L) after those before; return the rows that have logits."""
        batch, (sequences, length) = self._batch, tokens.shape
        rows = []
        for sequence in range(sequences):
            for place in range(length):
                row = sequence * length + place
                wanted = all_rows or (last_only and place == length - 1)
                batch.token[row] = int(tokens[sequence, place])
                batch.pos[row] = self._position + place
                batch.n_seq_id[row] = 1
                batch.seq_id[row][0] = sequence
                batch.logits[row] = wanted
                if wanted:
                    rows.append(row)
        batch.n_tokens = sequences * length
        status = self._c.llama_decode(self._context, batch)
        if status:
            raise BackendError(
                f"llama.cpp failed to compute {batch.n_tokens} tokens: status {status}"
            )
        self._c.llama_synchronize(self._context)
        self._position += length
        return rows

    def _likeliest(self, rows: Sequence[int]) -> npt.NDArray[np.int64]:
        return np.array([int(self._row(row).argmax()) for row in rows], dtype=np.int64)

    def _row(self, row: int) -> npt.NDArray[np.float32]:
        """Return the logits (V,) of a row of the batch, in llama.cpp's own memory."""
        pointer = self._c.llama_get_logits_ith(self._context, row)
        logits: npt.NDArray[np.float32] = np.ctypeslib.as_array(
            ctypes.cast(pointer, ctypes.POINTER(ctypes.c_float)), (self.vocabulary,)
        )
        return logits


class LlamaCppPlainRuntime(LlamaCppRuntime):
    """llama.cpp with the weights as they lie in the file, which runs where some builds crash."""

    def __init__(self, model: str, settings: RuntimeSettings) -> None:
        super().__init__(model, settings, repack=False)


def _model_name(c: Any, model: Any) -> str:
    """Return llama.cpp's words for the architecture, the size and the type of the weights."""
    text = ctypes.create_string_buffer(256)
    c.llama_model_desc(model, text, len(text))
    return text.value.decode(errors="replace")


def _weight_bytes(path: Path) -> int:
    """Return the bytes of the file's tensors, without an embedding that is not the head too."""
    from gguf import GGUFReader

    sizes = {tensor.name: int(tensor.n_bytes) for tensor in GGUFReader(path).tensors}
    if "output.weight" in sizes:
        sizes.pop("token_embd.weight", None)
    return sum(sizes.values())


def _ignore(level: int, text: bytes, data: ctypes.c_void_p) -> None:
    """Drop a line of llama.cpp's log."""
    del level, text, data
