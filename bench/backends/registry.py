"""Which runtimes the bench knows, and what each of them must be able to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol, cast, runtime_checkable

from edgellm.errors import BackendError, ConfigError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# B sequences at once, L tokens, V words of the vocabulary

DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeSettings:
    """How a runtime loads a model.

    Attributes:
        threads: of arithmetic on a processor; None follows the machine.
        dtype: of activations, and of weights that are not quantized; None is the runtime's best.
        memory: the budget in bytes; None is what is free.
        context: tokens that a sequence will have at the most; None is not known yet.
        activations: of our own CPU kernels: ``auto``, ``int8`` or ``float``.
        compile: whether a runtime that can compile its steps, or record them as a graph, does so.
    """

    threads: int | None = None
    dtype: str | None = None
    memory: int | None = None
    context: int | None = None
    activations: str = "auto"
    compile: bool = True

    def __post_init__(self) -> None:
        """Check every range."""
        if self.dtype is not None and self.dtype not in DTYPES:
            raise ConfigError(f"dtype is {self.dtype!r}", hint=f"choose {', '.join(DTYPES)}")
        if self.threads is not None and not 1 <= self.threads <= 1024:
            raise ConfigError(f"threads is {self.threads}; it must be between 1 and 1024")
        if self.memory is not None and self.memory <= 0:
            raise ConfigError(f"memory is {self.memory}; it must be above 0")


class Runtime(Protocol):
    """One model in memory, as one runtime computes it. Made from a model's folder (or file) and ``RuntimeSettings``.

    Raises:
        BackendError: when it is made: a package is missing (the hint is the command that installs
            it), or the device is.
    """

    device: str
    """What computes, as a person would name it."""

    arithmetic: str
    """Which path runs: ``int8 kernels``, ``int4 bf16 torch``, ``float32``."""

    weight_bytes_per_token: int | None
    """Weights that one decoded token goes through: all but the embedding's table."""

    def begin(self, *, batch: int, capacity: int) -> None:
        """Make empty caches for ``batch`` sequences with room for ``capacity`` tokens each."""
        ...

    def prompt(self, tokens: npt.NDArray[np.int64]) -> None:
        """Send tokens (B, L) through the model; returns when the logits after the last ones are computed."""
        ...

    def decode(self, count: int) -> None:
        """Take ``count`` greedy steps, one token a sequence each; returns when the last one is computed."""
        ...

    def logits(self, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        """Logits (L, V) after each token of one sequence, from empty caches."""
        ...

    def close(self) -> None:
        """Free the model."""
        ...


@dataclass(frozen=True, slots=True)
class Rates:
    """What a device could do at the most, measured: bytes read from its memory a second, and operations in matrix products."""

    bytes_per_second: float
    flops_per_second: float | None = None


@runtime_checkable
class OnDevice(Protocol):
    """A runtime whose arithmetic may run beside the processor (on a GPU): then it measures that device itself."""

    def measure_rates(self) -> Rates | None:
        """Read and multiply on the device for about a second; None where the processor computes."""
        ...

    def peak_device_memory(self) -> int | None:
        """The most bytes of the device's own memory that this process has held; None where it has none of its own."""
        ...


@runtime_checkable
class HasVocabulary(Protocol):
    """A runtime that may open files of which nobody else knows how many tokens their models have."""

    vocabulary: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """A runtime's place in the table.

    Attributes:
        target: its class, as ``module:Class``.
        about: what it runs, in a few words.
        package: what Python must be able to import; None where nothing beyond edgellm is needed.
        install: the command that installs it.
        threads: whether a number of threads means something to it.
        memory: whether a budget of memory does.
        dtype: whether a type of activations does.
        peer: whether it is someone else's runtime.
        way_round: what a person can do where a signal has ended it.
    """

    target: str
    about: str
    package: str | None = None
    install: str | None = None
    threads: bool = True
    memory: bool = False
    dtype: bool = True
    peer: bool = False
    way_round: str | None = None

    @property
    def installed(self) -> bool:
        """Whether its package is here."""
        if self.package is None:
            return True
        try:
            return find_spec(self.package) is not None
        except ValueError:  # somebody has forbidden its import
            return False


TORCH = "pip install 'edgellm[torch]'"
ENDPOINT = "endpoint"

BACKENDS: Mapping[str, Backend] = {
    "mlx": Backend(
        target="edgellm.bench.backends.edgellm_mlx:MLXRuntime",
        about="edgellm on what MLX has here",
        memory=True,
        dtype=False,
    ),
    "cuda": Backend(
        target="edgellm.bench.torch_backend.runtime:CUDARuntime",
        about="the same weights in torch on an NVIDIA GPU",
        package="torch",
        install=TORCH,
        threads=False,
    ),
    "cpu": Backend(
        target="edgellm.bench.torch_backend.runtime:CPURuntime",
        about="the same weights in torch on the processor",
        package="torch",
        install=TORCH,
    ),
    "mlx-lm": Backend(
        target="edgellm.bench.backends.mlx_lm:MLXLMRuntime",
        about="mlx-lm on the same folder",
        package="mlx_lm",
        install="pip install mlx-lm",
        threads=False,
        peer=True,
    ),
    "transformers": Backend(
        target="edgellm.bench.backends.transformers:TransformersRuntime",
        about="transformers on the dequantized weights",
        package="transformers",
        install="pip install transformers torch",
        peer=True,
    ),
    "llama.cpp": Backend(
        target="edgellm.bench.backends.llama_cpp:LlamaCppRuntime",
        about="llama.cpp on a GGUF of the same weights",
        package="llama_cpp",
        install="pip install llama-cpp-python",
        dtype=False,
        peer=True,
        way_round="use --backend llama.cpp-plain: some builds crash where they repack weights",
    ),
    "llama.cpp-plain": Backend(
        target="edgellm.bench.backends.llama_cpp:LlamaCppPlainRuntime",
        about="the same without llama.cpp's repacking of weights",
        package="llama_cpp",
        install="pip install llama-cpp-python",
        dtype=False,
        peer=True,
    ),
    ENDPOINT: Backend(
        target="edgellm.bench.backends.openai_endpoint:Endpoint",
        about="an OpenAI-compatible URL",
        threads=False,
        dtype=False,
        peer=True,
    ),
}


def backend_named(name: str) -> Backend:
    """The backend of a name. Raises ConfigError."""
    if name not in BACKENDS:
        close = get_close_matches(name, BACKENDS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"choose from {', '.join(BACKENDS)}"
        raise ConfigError(f"there is no backend {name!r}", hint=hint)
    return BACKENDS[name]


def missing_package(name: str) -> BackendError:
    """What to say of a backend whose package is not installed."""
    backend = backend_named(name)
    return BackendError(
        f"the {name} backend needs {backend.package}, which is not installed", hint=backend.install
    )


def open_runtime(name: str, model: str, settings: RuntimeSettings) -> Runtime:
    """Load a model (a folder, or a file where the runtime reads files) with the runtime of a name.

    Raises:
        ConfigError: there is no such backend.
        BackendError: its package or its device is not here.
    """
    backend = backend_named(name)
    if not backend.installed:
        raise missing_package(name)
    module, _, attribute = backend.target.partition(":")
    return cast("Runtime", getattr(import_module(module), attribute)(model, settings))
