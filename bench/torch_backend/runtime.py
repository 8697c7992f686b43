"""The bench's own runtime in torch: the same folder, the same quantized weights, on a processor or an NVIDIA GPU."""

# B sequences at once, L tokens, V vocabulary

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import numpy.typing as npt
import torch

from edgellm.bench.backends.registry import RuntimeSettings
from edgellm.bench.machine.rates import Rates
from edgellm.bench.torch_backend.cuda import CUDAProducts
from edgellm.bench.torch_backend.decode import Sequences
from edgellm.bench.torch_backend.linear import CPUProducts, Products
from edgellm.bench.torch_backend.llama import Model, logits
from edgellm.bench.torch_backend.loader import load_model
from edgellm.checkpoint.checkpoint import Checkpoint, read_checkpoint
from edgellm.device import machine
from edgellm.errors import BackendError, ClosedError
from edgellm.hub.resolve import locate

STORED = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}


class TorchRuntime:
    """A model in memory, computed by torch."""

    def __init__(self, products: Products, checkpoint: Checkpoint, *, static: bool = False) -> None:
        loaded = load_model(checkpoint, products)
        self._model: Model | None = loaded.model
        self._static = static
        self._sequences: Sequences | None = None
        self.weight_bytes_per_token: int | None = loaded.weight_bytes_per_token
        self.arithmetic = ", ".join(
            [f"torch {str(products.dtype).removeprefix('torch.')}", *sorted(products.notes)]
        )

    def begin(self, *, batch: int, capacity: int) -> None:
        """Make empty caches for ``batch`` sequences with room for ``capacity`` tokens each. Raises ClosedError."""
        if self._model is None:
            raise ClosedError("the model was closed")
        held = self._sequences
        with torch.inference_mode():
            if held is not None and (held.batch, held.capacity) == (batch, capacity):
                held.restart()  # a graph that was recorded for it stays good
                return
            self._sequences = None
            self._sequences = Sequences(
                self._model, batch=batch, capacity=capacity, static=self._static
            )

    def prefill(self, tokens: npt.NDArray[np.int64]) -> None:
        """Send tokens (B, L) through the model; returns when the logits after the last ones are computed."""
        with torch.inference_mode():
            self._begun.prefill(torch.from_numpy(tokens))
        self._wait()

    def decode(self, count: int) -> None:
        """Take ``count`` greedy steps, one token a sequence each; returns when the last one is computed."""
        with torch.inference_mode():
            self._begun.decode(count)
        self._wait()

    def last_tokens(self) -> list[int]:
        """Return the newest token of each sequence."""
        return cast("list[int]", self._begun.token[:, 0].tolist())

    def logits(self, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        """Logits (L, V) after each token of one sequence, from empty caches."""
        self.begin(batch=1, capacity=len(tokens))
        model, rows = self._begun.model, list[npt.NDArray[np.float32]]()
        with torch.inference_mode():
            self._begun.prefill(
                torch.tensor([list(tokens)]),
                keep=lambda hidden: rows.append(logits(model, hidden[0]).float().cpu().numpy()),
            )
        return np.concatenate(rows)

    def greedy(self, tokens: Sequence[int], count: int) -> list[int]:
        """The ``count`` likeliest tokens after those of a prompt, each taken with what decodes."""
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

    def __init__(self, model: str, settings: RuntimeSettings) -> None:
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        checkpoint = read_checkpoint(locate(model))
        dtype = getattr(torch, settings.dtype) if settings.dtype else best_dtype(checkpoint)
        super().__init__(CPUProducts(dtype), checkpoint)
        self.device = machine.chip_name()


class CUDARuntime(TorchRuntime):
    """Torch on an NVIDIA GPU; steps are recorded as a CUDA graph unless ``compile`` is false."""

    def __init__(self, model: str, settings: RuntimeSettings) -> None:
        require_gpu()
        checkpoint = read_checkpoint(locate(model))
        dtype = getattr(torch, settings.dtype) if settings.dtype else best_dtype(checkpoint)
        with torch.inference_mode():
            super().__init__(
                CUDAProducts(dtype, torch.device("cuda")), checkpoint, static=settings.compile
            )
        self.device = str(torch.cuda.get_device_name())
        self.arithmetic += ", CUDA graph" if settings.compile else ""

    def measure_rates(self) -> Rates | None:
        """Read and multiply on the GPU for about a second."""
        from edgellm.bench.machine.cuda_rates import cuda_rates

        return cuda_rates()

    def peak_device_memory(self) -> int | None:
        """The most bytes of the GPU's memory that torch has held."""
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
    build = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
    raise BackendError(
        f"there is no NVIDIA GPU that torch can use: torch {torch.__version__}, {build}, found {machine.chip_name()}",
        hint="choose --backend cpu"
        + ("" if torch.version.cuda else ", or install a build of torch with CUDA"),
    )


def best_dtype(checkpoint: Checkpoint) -> torch.dtype:
    """The type that the folder is stored in; bfloat16 where its matrices are quantized, which is what int4 kernels want."""
    quantized = any(
        form is not None for part in checkpoint.layers for form in part.quantizations.values()
    )
    return torch.bfloat16 if quantized else STORED[checkpoint.dtype]
