"""A workload: all options crossed, as sessions of one loaded model, and their tests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

from edgellm.bench.backends.registry import ENDPOINT, RuntimeSettings, Split, backend_named
from edgellm.bench.records.backend_names import OWN
from edgellm.bench.records.differences import counted
from edgellm.errors import ConfigError

REPETITIONS = 5
PROMPT_TOKENS = (128,)
GEN_TOKENS = (32,)
MAX_SECONDS = 20.0
TIMEOUT = 900.0
MAX_TOKENS = 1 << 20
MAX_BATCH = 1024
MAX_REPETITIONS = 10_000
MAX_THREADS = 1024
BITS = (2, 3, 4, 5, 6, 8, 16)


@dataclass(frozen=True, slots=True)
class Test:
    """One test of a loaded model.

    Attributes:
        kind: ``pp`` is a prompt and ``tg`` a generation.
        tokens: tokens of each sequence.
        depth: tokens of each sequence that come before, untimed.
        batch: sequences.
    """

    kind: str
    tokens: int
    depth: int = 0
    batch: int = 1

    @property
    def name(self) -> str:
        """The name as llama-bench writes it: ``pp512``, ``tg128 @ d4096``."""
        suffix = f" @ d{self.depth}" if self.depth else ""
        return f"{self.kind}{self.tokens}{suffix}"

    @property
    def title(self) -> str:
        """The name, and how many sequences where there are several."""
        if self.batch == 1:
            return self.name
        return f"{self.name}, {self.batch} sequences"


@dataclass(frozen=True, slots=True)
class Session:
    """One loaded model.

    Attributes:
        backend: its name in the table of backends.
        model: as it was named.
        bits: bits that were asked for; None is what the model has.
        settings: settings that it is loaded with.
    """

    backend: str
    model: str
    bits: int | None
    settings: RuntimeSettings

    @property
    def title(self) -> str:
        """The session in a few words, for the status line."""
        parts = [self.backend, self.model]
        if self.bits:
            parts.append(f"{self.bits} bits")
        if self.settings.threads:
            parts.append(counted(self.settings.threads, "thread"))
        if self.settings.tensor_parallel > 1:
            parts.append(counted(self.settings.tensor_parallel, "rank"))
        if self.settings.memory:
            parts.append(f"{self.settings.memory / 1e6:,.0f} MB")
        return ", ".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """All that one run of the bench measures, checked.

    Attributes:
        models: folders, files and names, or what an endpoint calls a model.
        backends: names in the table of backends.
        prompt_tokens: lengths of the prompts that are tested; 0 is none.
        gen_tokens: lengths of the generations; 0 is none.
        depth: tokens that come before each of them.
        batch: sequences at once.
        threads: of a session; None is as many as the machine has.
        memory: budgets in bytes; None is what is free.
        bits: bits of the weights; None is what the model has.
        kv_bits: of a number in edgellm's KV cache; None is its own choice.
        adapter: the folder of a LoRA adapter beside edgellm's weights; None is none.
        dtype: the type of activations; None is the backend's own choice.
        machines: a file that names several machines for edgellm's own backend; None: this one.
        split: what each of them has.
        tensor_parallel: numbers of ranks that compute each matrix together, in torch.
        repetitions: of each test.
        max_seconds: after which no further repetition of a test begins.
        timeout: seconds in which a worker must send a message.
        endpoint: the URL for the backend of that name.
        key_variable: the environment variable that holds the endpoint's key.
        skipped: pairs of backend and model that are not measured.
        not_measured: sentences on what is left out, with the reasons, for the records.

    Raises:
        ConfigError: a value is out of its range, or nothing is left to measure.
    """

    models: tuple[str, ...]
    backends: tuple[str, ...] = (OWN,)
    prompt_tokens: tuple[int, ...] = PROMPT_TOKENS
    gen_tokens: tuple[int, ...] = GEN_TOKENS
    depth: tuple[int, ...] = (0,)
    batch: tuple[int, ...] = (1,)
    threads: tuple[int | None, ...] = (None,)
    memory: tuple[int | None, ...] = (None,)
    bits: tuple[int | None, ...] = (None,)
    kv_bits: int | None = None
    adapter: str | None = None
    dtype: str | None = None
    machines: str | None = None
    split: Split = "auto"
    tensor_parallel: tuple[int, ...] = (1,)
    repetitions: int = REPETITIONS
    max_seconds: float = MAX_SECONDS
    timeout: float = TIMEOUT
    endpoint: str | None = None
    key_variable: str | None = None
    skipped: frozenset[tuple[str, str]] = frozenset()
    not_measured: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check every range."""
        # checks them, whoever may use them
        RuntimeSettings(
            dtype=self.dtype, kv_bits=self.kv_bits, machines=self.machines, split=self.split
        )
        for ranks in self.tensor_parallel:
            RuntimeSettings(tensor_parallel=ranks)
        if self.machines is not None and len(self.models) > 1:
            raise ConfigError(
                f"--machines have layers of one model, and there are {len(self.models)}",
                hint="measure one after the other, with edgellm cluster start for each",
            )
        for name in self.backends:
            backend_named(name)
        for option, values, low, high, usual in (
            ("prompt-tokens", self.prompt_tokens, 0, MAX_TOKENS, PROMPT_TOKENS[0]),
            ("gen-tokens", self.gen_tokens, 0, MAX_TOKENS, GEN_TOKENS[0]),
            ("depth", self.depth, 0, MAX_TOKENS, 0),
            ("batch", self.batch, 1, MAX_BATCH, 1),
            ("repetitions", (self.repetitions,), 1, MAX_REPETITIONS, REPETITIONS),
        ):
            for value in values:
                if not low <= value <= high:
                    raise ConfigError(
                        f"{option} is {value}; it must be between {low} and {high}",
                        hint=f"--{option} {usual} is usual",
                    )
        for threads in self.threads:
            if threads is not None and not 1 <= threads <= MAX_THREADS:
                raise ConfigError(
                    f"threads is {threads}; it must be between 1 and {MAX_THREADS}",
                    hint="leave it out for all that are here",
                )
        for bits in self.bits:
            if bits is not None and bits not in BITS:
                raise ConfigError(
                    f"bits is {bits}", hint=f"choose from {', '.join(map(str, BITS))}"
                )
        if not self.tests():
            raise ConfigError(
                "there is nothing to measure", hint="give --prompt-tokens or --gen-tokens above 0"
            )
        if ENDPOINT in self.backends and not self.endpoint:
            raise ConfigError(
                "the endpoint backend needs a URL", hint="pass --endpoint http://localhost:8080/v1"
            )

    def tests(self) -> list[Test]:
        """Return the tests of a session, each once."""
        tests = [
            Test(kind, tokens, depth, batch)
            for batch, depth in product(self.batch, self.depth)
            for kind, counts in (("pp", self.prompt_tokens), ("tg", self.gen_tokens))
            for tokens in counts
            if tokens
        ]
        return list(dict.fromkeys(tests))

    def sessions(self) -> list[Session]:
        """Return the sessions, each once: options that a backend has not make no difference."""
        return list(dict.fromkeys(self._combined()))

    def _combined(self) -> Iterator[Session]:
        # with MLX, which help does not need
        from edgellm.device.machine import core_count

        context = max(test.depth + test.tokens for test in self.tests()) + 2
        for model, bits, name in product(self.models, self.bits, self.backends):
            backend = backend_named(name)
            if (name, model) in self.skipped:
                continue
            for threads, memory, ranks in product(self.threads, self.memory, self.tensor_parallel):
                options: dict[str, Any] = {
                    "threads": threads or core_count(),
                    "memory": memory,
                    "kv_bits": self.kv_bits,
                    "adapter": self.adapter,
                    "dtype": self.dtype,
                    "machines": self.machines,
                    "split": self.split,
                    "tensor_parallel": ranks,
                }
                used = {option: options[option] for option in backend.options}
                settings = RuntimeSettings(**used, context=context)
                yield Session(name, model, None if name == ENDPOINT else bits, settings)


def unused_options(workload: Workload) -> list[str]:
    """Return a sentence for each option that was given and means nothing to a backend."""
    given = {
        "threads": any(workload.threads),
        "memory": any(workload.memory),
        "kv_bits": workload.kv_bits is not None,
        "adapter": workload.adapter is not None,
        "dtype": workload.dtype is not None,
        "machines": workload.machines is not None,
        "tensor_parallel": max(workload.tensor_parallel) > 1,
    }
    return [
        f"--{option.replace('_', '-')} means nothing to {name}: it runs once, without"
        for name in workload.backends
        for option, is_given in given.items()
        if is_given and option not in backend_named(name).options
    ]
