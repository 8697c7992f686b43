"""The interface of trainers, whoever's they are; their table, and those of a usual run."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol, cast

from edgellm.bench.backends.registry import Backend
from edgellm.bench.records.backend_names import OWN
from edgellm.bench.training.task import Task
from edgellm.bench.training.technique import CUDA, MLX_LM, PEFT
from edgellm.device import machine
from edgellm.errors import BackendError

Report = Callable[[float, float], None]
"""Called after each step with its loss, before the update, and its seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Bytes of what a trainer holds, from the real arrays.

    Attributes:
        numbers: how many are learned.
        weights: of the model in memory, what is learned included.
        gradients: of the derivatives of a step.
        optimizer: of its state.
        pinned: layers that stay in memory; None where nothing pages.
        checkpointing: whether activations are computed again in the backward pass.
    """

    numbers: int
    weights: int
    gradients: int
    optimizer: int
    pinned: int | None = None
    checkpointing: bool


class PeerTrainer(Protocol):
    """A model that is open for training, made from a task.

    Raises:
        EdgeLLMError: when it is made: the model cannot be had, or not in this memory.
    """

    def __init__(self, task: Task) -> None: ...

    device: str
    """The name of the processor or GPU."""

    arithmetic: str
    """The path that computes."""

    memory: int | None
    """The budget that it keeps; None where it has none."""

    @staticmethod
    def warm_up(task: Task) -> None:
        """Load libraries, and have them compute something small: that is not the model's memory."""

    def train(self, report: Report) -> None:
        """Take all steps of the task."""

    def loss_after(self) -> float:
        """Return the loss of the first step's sequences as the numbers are now."""

    def sizes(self) -> Sizes:
        """Return the bytes of what it holds. Some are known only after a step."""

    def device_peak(self) -> int | None:
        """Return the most bytes of a GPU's own memory in training; None where it has none."""

    def allocator_peak(self) -> int | None:
        """Return the most bytes that the library had allocated in training, if it counts them."""

    def close(self) -> None:
        """Free the model."""


_TORCH = ("torch", "transformers", "peft")
_INSTALL_TORCH = "pip install torch transformers peft"

TRAINERS: dict[str, Backend] = {
    OWN: Backend(target="edgellm.bench.training.edgellm_trainer:EdgellmTrainer"),
    # mlx_lm.lora's own trainer on the same folder
    MLX_LM: Backend(
        target="edgellm.bench.training.mlx_lm_trainer:MLXLMTrainer",
        packages=("mlx_lm", "transformers"),
        install="pip install mlx-lm",
    ),
    # PEFT, transformers and torch on the processor
    PEFT: Backend(
        target="edgellm.bench.training.torch_trainer:TorchTrainer",
        packages=_TORCH,
        install=_INSTALL_TORCH,
    ),
    # the same on an NVIDIA GPU
    CUDA: Backend(
        target="edgellm.bench.training.torch_trainer:TorchTrainer",
        packages=_TORCH,
        install=_INSTALL_TORCH,
    ),
}
"""The libraries that train, by name."""

SLOW_ON_PROCESSORS = (
    "not measured: mlx-lm, whose steps take some 30 times as long as edgellm's on a processor "
    "(edgellm bench train --backend mlx-lm)"
)
"""MLX's own products do 3 to 9 GFLOP/s on two cores, and edgellm's kernels some hundreds."""


def not_installed(backend: str) -> BackendError | None:
    """Return the error of a library whose packages are not here; None where they are."""
    missing = TRAINERS[backend].missing_packages
    if not missing:
        return None
    verb = "is" if len(missing) == 1 else "are"
    return BackendError(
        f"training with {backend} needs {', '.join(missing)}, which {verb} not installed",
        hint=TRAINERS[backend].install,
    )


def trainer_class(backend: str) -> type[PeerTrainer]:
    """Return the class of a library's trainer, whose packages are installed."""
    module, _, attribute = TRAINERS[backend].target.partition(":")
    return cast("type[PeerTrainer]", getattr(import_module(module), attribute))


def usual_trainers() -> tuple[str, ...]:
    """Return the libraries to measure; one that is not installed is a row that says so."""
    mlx_lm = (MLX_LM,) if machine.has_gpu() else ()
    torch = CUDA if _has_nvidia() else PEFT
    return (OWN, *mlx_lm, torch)


def left_out() -> list[str]:
    """Return a sentence for each library that is left out, with the way to have it."""
    if machine.has_gpu():
        return []
    return [SLOW_ON_PROCESSORS]


def _has_nvidia() -> bool:
    return shutil.which("nvidia-smi") is not None
