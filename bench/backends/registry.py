"""The backends of the bench by name, and the protocol that each implements.

A new backend is a class with the members of ``Runtime`` and a row in ``BACKENDS``. The least of
them, a table that says what follows each token::

    class BigramRuntime:
        device = "a table"
        arithmetic = "float32"

        def __init__(self, model: str, settings: RuntimeSettings) -> None:
            self.table = np.load(model)                              # (V, V)
            self.weight_bytes_per_token = self.table[0].nbytes
            self.tokens = np.zeros(0, dtype=np.int64)                # (B,)

        def begin(self, *, batch: int, capacity: int) -> None:
            self.tokens = np.zeros(batch, dtype=np.int64)

        def prefill(self, tokens: npt.NDArray[np.int64]) -> None:    # (B, L)
            self.tokens = self.table[tokens[:, -1]].argmax(-1)

        def decode(self, count: int) -> None:
            for _ in range(count):
                self.tokens = self.table[self.tokens].argmax(-1)

        def last_tokens(self) -> list[int]:
            return self.tokens.tolist()

        def logits(self, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
            return self.table[list(tokens)]                          # (L, V)

        def close(self) -> None:
            self.table = None

    BACKENDS["bigram"] = Backend(target="bigram:BigramRuntime", packages=("numpy",))
"""

# B sequences at once, L tokens, V words of the vocabulary

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast, runtime_checkable

from edgellm.bench.machine.rates import Rates
from edgellm.bench.records.backend_names import OWN
from edgellm.errors import BackendError, ConfigError
from edgellm.settings import LoadSettings

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

DTYPES = ("float32", "bfloat16", "float16")

MAX_RANKS = 64

Split = Literal["auto", "windows", "rows"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeSettings:
    """The settings that a runtime loads a model with.

    Attributes:
        threads: threads for arithmetic on a processor; None follows the machine.
        dtype: of activations, and of weights that are not quantized; None is the runtime's best.
        memory: the budget in bytes; None is what is free.
        context: the most tokens of a sequence; None where it is not known yet.
        activations: of our own CPU kernels: ``auto``, ``int8`` or ``float``.
        kv_bits: of a number in our own KV cache, as ``LoadSettings`` has it.
        adapter: the folder of a LoRA adapter beside the weights, in our own runtime.
        machines: a file that names several machines, over which our own runtime spreads the model.
        split: what each of them has, as ``LoadSettings`` has it.
        tensor_parallel: processes that compute each matrix together, in torch.
        compile: whether a runtime that can compile its steps, or record them as a graph, does so.
    """

    threads: int | None = None
    dtype: str | None = None
    memory: int | None = None
    context: int | None = None
    activations: str = "auto"
    kv_bits: int | None = None
    adapter: str | None = None
    machines: str | None = None
    split: Split = "auto"
    tensor_parallel: int = 1
    compile: bool = True

    def __post_init__(self) -> None:
        """Check every range."""
        if self.dtype is not None and self.dtype not in DTYPES:
            raise ConfigError(f"dtype is {self.dtype!r}", hint=f"choose {', '.join(DTYPES)}")
        if self.threads is not None and not 1 <= self.threads <= 1024:
            raise ConfigError(f"threads is {self.threads}; it must be between 1 and 1024")
        if self.memory is not None and self.memory <= 0:
            raise ConfigError(f"memory is {self.memory}; it must be above 0")
        if not 1 <= self.tensor_parallel <= MAX_RANKS:
            raise ConfigError(
                f"tensor-parallel is {self.tensor_parallel}; it must be between 1 and {MAX_RANKS}",
                hint="give as many ranks as there are GPUs",
            )
        # which checks them
        LoadSettings(kv_bits=self.kv_bits, machines=self.machines, split=self.split)


class Runtime(Protocol):
    """One model in memory, made from the path of its folder or file and ``RuntimeSettings``.

    A speed test calls ``begin``, ``prefill`` with the tokens that come before, and then, timed,
    ``prefill`` or ``decode``; every one of them returns when its arithmetic is done.

    Raises:
        BackendError: when it is made: the device is not here, or the file cannot be loaded.
    """

    device: str
    """The name of the processor or GPU."""

    arithmetic: str
    """The path that computes: ``int8 kernels``, ``int4 bf16 torch``, ``float32``."""

    weight_bytes_per_token: int | None
    """Bytes of the weights that one decoded token reads: all but the embedding."""

    def begin(self, *, batch: int, capacity: int) -> None:
        """Make empty caches for ``batch`` sequences with room for ``capacity`` tokens each."""
        ...

    def prefill(self, tokens: npt.NDArray[np.int64]) -> None:
        """Append tokens (B, L) to the sequences, and compute the logits after the last ones."""
        ...

    def decode(self, count: int) -> None:
        """Take ``count`` greedy steps, each of one token a sequence."""
        ...

    def last_tokens(self) -> list[int]:
        """Return the newest token of each sequence, which the next step goes on from.

        After ``prefill`` that is the likeliest one after the prompt.
        """
        ...

    def logits(self, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        """Return the logits (L, V) after each token of one sequence, from empty caches."""
        ...

    def close(self) -> None:
        """Free the model."""
        ...


@runtime_checkable
class OnDevice(Protocol):
    """A runtime that may compute on a GPU, and then measures that device itself."""

    def measure_rates(self) -> Rates | None:
        """Read and multiply on the GPU for about a second; None where the processor computes."""
        ...

    def peak_device_memory(self) -> int | None:
        """Return the most bytes of GPU memory that were allocated; None where it has none."""
        ...


@runtime_checkable
class OnMachines(Protocol):
    """A runtime that may compute on several machines."""

    def cluster_fields(self) -> dict[str, Any]:
        """Return what a record says of them; nothing of one machine. Raises MachineError."""
        ...


@runtime_checkable
class HasVocabulary(Protocol):
    """A runtime of files whose vocabulary nobody else can read."""

    vocabulary: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """A row of the table of backends.

    Attributes:
        target: the class, or a function that returns a runtime, as ``module:Class``.
        packages: all that Python must be able to import for it, beyond edgellm's own.
        install: the command that installs them.
        options: those fields of ``RuntimeSettings`` that mean something to it, of those that a
            workload has.
        crash_hint: the next step where a signal has ended it.
    """

    target: str
    packages: tuple[str, ...] = ()
    install: str | None = None
    options: tuple[str, ...] = ("threads", "dtype")
    crash_hint: str | None = None

    @property
    def missing_packages(self) -> tuple[str, ...]:
        """Those of its packages that cannot be imported here."""
        return tuple(package for package in self.packages if find_spec(package) is None)

    @property
    def installed(self) -> bool:
        """Whether every package it needs is here."""
        return not self.missing_packages


INSTALL_TORCH = "pip install torch"
INSTALL_LLAMA_CPP = "pip install llama-cpp-python gguf"
ENDPOINT = "endpoint"

BACKENDS: dict[str, Backend] = {
    # edgellm on what MLX has here
    OWN: Backend(
        target="edgellm.bench.backends.edgellm_mlx:MLXRuntime",
        options=("threads", "memory", "kv_bits", "adapter", "machines", "split"),
    ),
    # the same weights in torch on an NVIDIA GPU
    "cuda": Backend(
        target="edgellm.bench.torch_backend.tensor_parallel.ranks:open_cuda",
        packages=("torch",),
        install=INSTALL_TORCH,
        options=("dtype", "tensor_parallel"),
    ),
    # the same weights in torch on the processor
    "cpu": Backend(
        target="edgellm.bench.torch_backend.tensor_parallel.ranks:open_cpu",
        packages=("torch",),
        install=INSTALL_TORCH,
        options=("threads", "dtype", "tensor_parallel"),
    ),
    # mlx-lm on the same folder
    "mlx-lm": Backend(
        target="edgellm.bench.backends.mlx_lm:MLXLMRuntime",
        packages=("mlx_lm", "transformers"),
        install="pip install mlx-lm",
        options=("dtype",),
    ),
    # transformers on the dequantized weights
    "transformers": Backend(
        target="edgellm.bench.backends.transformers:TransformersRuntime",
        packages=("transformers", "torch"),
        install="pip install transformers torch",
    ),
    # llama.cpp on a GGUF of the same weights
    "llama.cpp": Backend(
        target="edgellm.bench.backends.llama_cpp:LlamaCppRuntime",
        packages=("llama_cpp", "gguf"),
        install=INSTALL_LLAMA_CPP,
        options=("threads",),
        crash_hint="use --backend llama.cpp-plain: some builds crash where they repack weights",
    ),
    # the same without llama.cpp's repacking of weights
    "llama.cpp-plain": Backend(
        target="edgellm.bench.backends.llama_cpp:LlamaCppPlainRuntime",
        packages=("llama_cpp", "gguf"),
        install=INSTALL_LLAMA_CPP,
        options=("threads",),
    ),
    # an OpenAI-compatible URL
    ENDPOINT: Backend(target="edgellm.bench.backends.openai_endpoint:Endpoint", options=()),
}


def backend_named(name: str) -> Backend:
    """Return the backend of a name.

    Raises:
        ConfigError: there is none; the hint names the nearest.
    """
    if name not in BACKENDS:
        close = get_close_matches(name, BACKENDS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"choose from {', '.join(BACKENDS)}"
        raise ConfigError(f"there is no backend {name!r}", hint=hint)
    return BACKENDS[name]


def not_installed(name: str) -> str:
    """Return the sentence that names the packages which a backend needs and does not find here."""
    packages = backend_named(name).missing_packages
    verb = "is" if len(packages) == 1 else "are"
    return f"the {name} backend needs {' and '.join(packages)}, which {verb} not installed"


def not_measured(name: str) -> str:
    """Return why a backend is left out of a run that did not ask for it, and how to get it."""
    return f"not measured: {not_installed(name)} ({backend_named(name).install})"


def open_runtime(name: str, model: str, settings: RuntimeSettings) -> Runtime:
    """Load a model (a folder, or a file where the runtime reads files) with a backend's runtime.

    Raises:
        ConfigError: there is no such backend.
        BackendError: a package of it or its device is not here.
    """
    backend = backend_named(name)
    if not backend.installed:
        raise BackendError(not_installed(name), hint=backend.install)
    module, _, attribute = backend.target.partition(":")
    return cast("Runtime", getattr(import_module(module), attribute)(model, settings))
