"""What is to be measured: the cross product of all options, as sessions of one loaded model, and the tests of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product

from edgellm.bench.backends.registry import ENDPOINT, RuntimeSettings, backend_named
from edgellm.bench.records.differences import counted
from edgellm.device.machine import core_count
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
    """One thing that a loaded model does: a prompt (``pp``) or a generation (``tg``) of ``tokens`` a sequence."""

    kind: str
    tokens: int
    depth: int = 0
    batch: int = 1

    @property
    def name(self) -> str:
        """As llama-bench writes it: ``pp512``, ``tg128 @ d4096``."""
        return f"{self.kind}{self.tokens}" + (f" @ d{self.depth}" if self.depth else "")


@dataclass(frozen=True, slots=True)
class Session:
    """One worker process: a backend, a model, and how it is loaded."""

    backend: str
    model: str
    bits: int | None
    settings: RuntimeSettings

    @property
    def title(self) -> str:
        """What a person sees of it."""
        parts = [self.backend, self.model]
        parts += [f"{self.bits} bits"] if self.bits else []
        parts += [counted(self.settings.threads, "thread")] if self.settings.threads else []
        parts += [f"{self.settings.memory / 1e6:,.0f} MB"] if self.settings.memory else []
        return ", ".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """All that one run of the bench measures.

    Attributes:
        models: folders, files, names; what an endpoint calls a model.
        backends: names in the table of backends. prompt_tokens, gen_tokens, depth, batch: the tests
            of each session. threads, memory, bits: with backends and models they make the sessions;
            None is what the machine or the model has.
        dtype: of activations; None is the backend's own choice.
        repetitions: of each test.
        max_seconds: no further repetition of a test begins after so many.
        timeout: seconds in which a worker must say something; then it is ended.
        endpoint: the URL for the backend of that name.
        key_variable: the environment variable that holds the endpoint's key.
    """

    models: tuple[str, ...]
    backends: tuple[str, ...] = ("mlx",)
    prompt_tokens: tuple[int, ...] = PROMPT_TOKENS
    gen_tokens: tuple[int, ...] = GEN_TOKENS
    depth: tuple[int, ...] = (0,)
    batch: tuple[int, ...] = (1,)
    threads: tuple[int | None, ...] = (None,)
    memory: tuple[int | None, ...] = (None,)
    bits: tuple[int | None, ...] = (None,)
    dtype: str | None = None
    repetitions: int = REPETITIONS
    max_seconds: float = MAX_SECONDS
    timeout: float = TIMEOUT
    endpoint: str | None = None
    key_variable: str | None = None
    without: frozenset[tuple[str, str]] = field(default=frozenset())
    """Pairs of backend and model that are left out."""

    def __post_init__(self) -> None:
        """Check every range."""
        RuntimeSettings(dtype=self.dtype)  # checks it, whoever may use it
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
        """The tests of a session, each once."""
        found = [
            Test(kind, tokens, depth, batch)
            for batch, depth in product(self.batch, self.depth)
            for kind, counts in (("pp", self.prompt_tokens), ("tg", self.gen_tokens))
            for tokens in counts
            if tokens
        ]
        return list(dict.fromkeys(found))

    def sessions(self) -> list[Session]:
        """Every session, each once: what means nothing to a backend is left out of its sessions."""
        return list(dict.fromkeys(self._combined()))

    def _combined(self) -> Iterator[Session]:
        context = max(test.depth + test.tokens for test in self.tests()) + 2
        for model, bits, name in product(self.models, self.bits, self.backends):
            backend = backend_named(name)
            if (name, model) in self.without:
                continue
            for threads, memory in product(self.threads, self.memory):
                settings = RuntimeSettings(
                    threads=(threads or core_count()) if backend.threads else None,
                    memory=memory if backend.memory else None,
                    dtype=self.dtype if backend.dtype else None,
                    context=context,
                )
                yield Session(name, model, None if name == ENDPOINT else bits, settings)


def left_out(workload: Workload) -> list[str]:
    """What was asked for and means nothing to a backend, in a sentence each."""
    asked: Sequence[tuple[str, bool]] = (
        ("threads", any(workload.threads)),
        ("memory", any(workload.memory)),
        ("dtype", workload.dtype is not None),
    )
    return [
        f"--{option} means nothing to {name}: it runs once, without"
        for name in workload.backends
        for option, given in asked
        if given and not getattr(backend_named(name), option)
    ]
