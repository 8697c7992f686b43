"""The backends ``cpu`` and ``cuda``: a folder's own quantized weights, computed by torch."""

# B sequences at once, L tokens, V vocabulary

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import numpy.typing as npt
import torch

from edgellm.bench.backends.registry import RuntimeSettings
from edgellm.bench.machine.rates import Rates
from edgellm.bench.torch_backend.cuda import CUDALinearFactory
from edgellm.bench.torch_backend.decode import Sequences
from edgellm.bench.torch_backend.linear import CPULinearFactory, LinearFactory
from edgellm.bench.torch_backend.llama import Model, logits
from edgellm.bench.torch_backend.loader import load_model
from edgellm.bench.torch_backend.shard import WHOLE, Shard
from edgellm.bench.torch_backend.weights import DTYPES
from edgellm.checkpoint.checkpoint import Checkpoint, read_checkpoint
from edgellm.device import machine
from edgellm.errors import BackendError, ClosedError
from edgellm.hub.resolve import locate


class TorchRuntime:
    """A model in memory, computed by torch."""

    device = "torch"

    def __init__(
        self,
        factory: LinearFactory,
        checkpoint: Checkpoint,
        *,
        shard: Shard = WHOLE,
        static: bool = False,
    ) -> None:
        loaded = load_model(checkpoint, factory, shard)
        self._model: Model | None = loaded.model
        self._static = static
        self._sequences: Sequences | None = None
        self.weight_bytes_per_token: int | None = loaded.weight_bytes_per_token
        dtype = str(factory.dtype).removeprefix("torch.")
        self.arithmetic: str = ", ".join([f"torch {dtype}", *sorted(factory.notes)])

    @property
    def model(self) -> Model:
        """The weights. Raises ClosedError."""
        if self._model is None:
            raise ClosedError("the model was closed")
        return self._model

    def begin(self, *, batch: int, capacity: int) -> None:
        """Make empty caches for sequences of ``capacity`` tokens each. Raises ClosedError."""
        model, sequences = self.model, self._sequences
        with torch.inference_mode():
            if sequences and (sequences.batch, sequences.capacity) == (batch, capacity):
                sequences.restart()  # a graph that was recorded for it stays good
                return
            self._sequences = None  # its memory is free before the new one takes some
            self._sequences = Sequences(model, batch=batch, capacity=capacity, static=self._static)

    def prefill(self, tokens: npt.NDArray[np.int64]) -> None:
        """Append tokens (B, L) to the sequences, and compute the logits after the last ones."""
        with torch.inference_mode():
            self._begun.prefill(torch.from_numpy(tokens))
        self._wait()

    def decode(self, count: int) -> None:
        """Take ``count`` greedy steps, each of one token a sequence."""
        with torch.inference_mode():
            self._begun.decode(count)
        self._wait()

    def last_tokens(self) -> list[int]:
        """Return the newest token of each sequence."""
        return cast("list[int]", self._begun.token[:, 0].tolist())

    def logits(self, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        """Return the logits (L, V) after each token of one sequence, from empty caches."""
        self.begin(batch=1, capacity=len(tokens))
        chunks: list[npt.NDArray[np.float32]] = []

        def keep_logits(hidden: torch.Tensor) -> None:
            chunks.append(logits(self.model, hidden[0]).float().cpu().numpy())

        with torch.inference_mode():
            self._begun.prefill(torch.tensor([list(tokens)]), on_hidden=keep_logits)
        return np.concatenate(chunks)

    def greedy(self, tokens: Sequence[int], count: int) -> list[int]:
        """Return the ``count`` likeliest tokens after a prompt, each taken by a decoding step."""
        self.begin(batch=1, capacity=len(tokens) + count)
        with torch.inference_mode():
            self._begun.prefill(torch.tensor([list(tokens)]))
            return [int(token) for token in self._begun.decode(count)]

    def close(self) -> None:
        """Free the model."""
        self._model = self._sequences = None

    @property
    def _begun(self) -> Sequences:
        if self._sequences is None:
            raise ClosedError("the model was closed, or not begun")
        return self._sequences

    def _wait(self) -> None:
        """Return when everything is computed."""


class CPURuntime(TorchRuntime):
    """Torch on the processor."""

    def __init__(self, model: str, settings: RuntimeSettings, shard: Shard = WHOLE) -> None:
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        checkpoint = read_checkpoint(locate(model))
        super().__init__(CPULinearFactory(_dtype(checkpoint, settings)), checkpoint, shard=shard)
        self.device: str = machine.chip_name()


class CUDARuntime(TorchRuntime):
    """Torch on an NVIDIA GPU; steps are recorded as a CUDA graph unless ``compile`` is false."""

    def __init__(self, model: str, settings: RuntimeSettings, shard: Shard = WHOLE) -> None:
        require_gpu()
        checkpoint = read_checkpoint(locate(model))
        factory = CUDALinearFactory(_dtype(checkpoint, settings), torch.device("cuda"))
        with torch.inference_mode():
            super().__init__(factory, checkpoint, shard=shard, static=settings.compile)
        self.device: str = str(torch.cuda.get_device_name())
        if settings.compile:
            self.arithmetic += ", CUDA graph"

    def measure_rates(self) -> Rates | None:
        """Read and multiply on the GPU for about a second."""
        from edgellm.bench.machine.cuda_rates import cuda_rates

        return cuda_rates()

    def peak_device_memory(self) -> int | None:
        """Return the most bytes of the GPU's memory that torch has held."""
        return int(torch.cuda.max_memory_reserved())

    def close(self) -> None:
        """Free the model."""
        super().close()
        torch.cuda.empty_cache()

    def _wait(self) -> None:
        torch.cuda.synchronize()


def require_gpu() -> None:
    """Raise BackendError, which says what is here instead, where torch finds no NVIDIA GPU."""
    if torch.cuda.is_available():
        return
    if torch.version.cuda:
        build, hint = f"built for CUDA {torch.version.cuda}", "choose --backend cpu"
    else:
        build = "built without CUDA"
        hint = "choose --backend cpu, or install a build of torch with CUDA"
    raise BackendError(
        f"there is no NVIDIA GPU that torch can use: torch {torch.__version__}, {build}, "
        f"found {machine.chip_name()}",
        hint=hint,
    )


def _dtype(checkpoint: Checkpoint, settings: RuntimeSettings) -> torch.dtype:
    """Return the type that was asked for, or the best.

    That is bfloat16 where matrices are quantized, since int4 kernels want it, and else the type
    that the folder is stored in.
    """
    if settings.dtype is not None:
        return cast("torch.dtype", getattr(torch, settings.dtype))
    forms = (form for part in checkpoint.layers for form in part.quantizations.values())
    if any(form is not None for form in forms):
        return torch.bfloat16
    return DTYPES[checkpoint.dtype]
