"""Settings, checked when they are made: how a model is loaded, how its next token is drawn.

Every default value and every valid range stands here; the command line takes its own from these
classes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path
from typing import Any, Literal, TypeGuard, TypeVar

from edgellm.errors import ConfigError
from edgellm.setting_values import choice, listed, number, path_text, shown, truth, whole_number

DEFAULT_MODEL = "stories"
CHAT_TEMPERATURE = 0.7
CHAT_TOP_P = 0.95
CHAT_MAX_TOKENS = 1024
PREFILL_CHUNK = 512
"""Prompt tokens that go through a layer at once."""

PROMPT_CACHE_BYTES = 4_000_000_000
"""Bytes that prompts kept on disk may take."""

PROMPT_CACHE_SHARE = 0.1
"""Share that they may take of what they take and the free disk together."""

KV_BITS = (4, 8, 16)
KV_PLAIN_BITS = 16
"""Bits of keys and values that are stored as plain numbers; with fewer they are quantized."""

BATCH = 8
"""Prompts of a file that are continued side by side."""

MAX_BEAMS = 64
MAX_SEQUENCES = 1 << 16
"""Sequences that may be asked to run side by side; memory allows fewer."""

MAX_CONTEXT = 1 << 27
MAX_VOCABULARY = 1 << 22

_UNITS = {"": 1, "b": 1}
for _power, _letter in enumerate("kmgt", 1):
    _UNITS[_letter] = _UNITS[f"{_letter}b"] = 1000**_power
    _UNITS[f"{_letter}ib"] = 1024**_power
_SIZE = re.compile(r"\s*(\d{1,16}(?:\.\d{1,9})?)\s*([a-z]{0,3})\s*", re.IGNORECASE)
MAX_SIZE = 1 << 50


def parse_size(text: str) -> int:
    """Return the bytes that a text such as ``4GB`` (10^9), ``1.5GiB`` (2^30) or ``4096`` says.

    Raises:
        ConfigError: the text is no size, or is zero.
    """
    match = _SIZE.fullmatch(text)
    unit = _UNITS.get(match.group(2).lower()) if match else None
    if match is None or unit is None:
        raise ConfigError(
            f"{shown(text)} is not a size",
            hint="write it as 4GB (10^9 bytes), 512MB, 1.5GiB (2^30) or 60%",
        )
    size = int(float(match.group(1)) * unit)
    if not 0 < size <= MAX_SIZE:
        raise ConfigError(
            f"{shown(text)} is {size} bytes;"
            f" a size must be above 0 and at most {MAX_SIZE // 1024**4} TiB"
        )
    return size


def parse_memory(setting: str | int | None, available: int) -> int | None:
    """Return the budget in bytes that ``--memory`` asks for; None means that the plan decides.

    Args:
        setting: ``4GB``, ``60%`` (of ``available``), ``auto``, a number of bytes, or None (as
            ``auto``).
        available: bytes that a percentage refers to.
    """
    if setting is None or (isinstance(setting, str) and setting == "auto"):
        return None
    if is_int(setting):
        if setting <= 0:
            raise ConfigError(f"memory is {shown(setting)}; it must be above 0")
        return setting
    if not isinstance(setting, str):
        raise ConfigError(
            f"{shown(setting)} is no budget;"
            " it must be a whole number of bytes, or a text such as '4GB' or '60%'"
        )
    if setting.strip().endswith("%"):
        return int(available * _parse_percent(setting) / 100)
    return parse_size(setting)


def _parse_percent(text: str) -> float:
    try:
        percent = float(text.strip()[:-1])
    except ValueError:
        percent = math.nan
    if not 0 < percent <= 100:
        raise ConfigError(
            f"{shown(text)} is not a share of memory",
            hint="write a percentage above 0 and up to 100%",
        )
    return percent


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the next token is drawn; temperature 0 takes the likeliest.

    The steps apply in this order: repetition penalty, temperature, top-k, top-p, min-p (the order
    of transformers). Raises ConfigError where a value is out of range.

    Attributes:
        max_tokens: new tokens at the most.
        temperature: logits are divided by it; 0 is greedy, and so is anything below 0.001.
        top_p: keep the likeliest tokens whose probabilities reach this sum; 1 keeps all.
        top_k: keep this many of the likeliest tokens; 0 keeps all.
        min_p: drop tokens less likely than this share of the likeliest one; 0 keeps all.
        repetition_penalty: divides (or multiplies, below 0) the logits of tokens seen; 1 leaves
            them.
        beams: sequences that beam search keeps; 1 is plain decoding.
        seed: equal seeds draw equal texts; None draws a new one each time.
        stop: texts that end the completion and are left out of it.
        logprobs: also return the log-probability of each token.
    """

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    beams: int = 1
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: bool = False

    def __post_init__(self) -> None:
        """Check every range."""
        checked = {
            "max_tokens": whole_number("max_tokens", self.max_tokens, 1, 1 << 27),
            "temperature": number("temperature", self.temperature, 0, 100),
            "top_p": number("top_p", self.top_p, 0, 1, low_excluded=True),
            "top_k": whole_number("top_k", self.top_k, 0, MAX_VOCABULARY),
            "min_p": number("min_p", self.min_p, 0, 1),
            "repetition_penalty": number("repetition_penalty", self.repetition_penalty, 0.01, 100),
            "beams": whole_number("beams", self.beams, 1, MAX_BEAMS),
            "stop": _stop_texts(self.stop),
            "logprobs": truth("logprobs", self.logprobs),
        }
        if self.seed is not None:
            checked["seed"] = whole_number("seed", self.seed, 0, (1 << 64) - 1)
        _set(self, checked)
        if self.beams > 1 and self.temperature > 0:
            raise ConfigError(
                "beam search is not sampled", hint="leave out temperature, or set beams to 1"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSettings:
    """How a model is loaded. Raises ConfigError where a value is out of range.

    Attributes:
        memory: the budget (``4GB``, ``60%``, bytes, or ``auto``): weights, KV cache and working
            memory together.
        context: tokens that the KV cache holds room for; None lets the plan decide.
        context_window: tokens that attention looks back over; older ones are forgotten and their
            memory reused.
        threads: processor threads for arithmetic on a CPU; None follows the machine.
        activations: the CPU kernels' arithmetic, ``auto``, ``int8`` or ``float``.
        backend: ``auto``, or ``mlx`` for MLX's own kernels also on a CPU, which has faster ones.
        prefill_chunk: prompt tokens that go through a layer at once.
        beams: that a beam search may have at the most; the KV cache then has room for them.
        kv_bits: bits of a number in the KV cache, 16, 8 or 4; None keeps numbers as they are
            computed.
        prompt_cache: keep the KV caches of prompts on disk, for the next process: true, or a folder
            (``~`` is expanded), of which a sub-folder ``edgellm-prompt-cache`` alone is used.
        speculate: draft tokens and verify several in a pass: ``auto`` (by the draft model if there
            is one, else as ``ngram``), ``ngram`` (by what the text has said before) or ``off``.
            Completions stay what they would be.
        draft: a smaller model with the same tokenizer that drafts tokens; None for none.
    """

    memory: str | int | None = None
    context: int | None = None
    context_window: int | None = None
    threads: int | None = None
    activations: Literal["auto", "int8", "float"] = "auto"
    backend: str = "auto"
    prefill_chunk: int = PREFILL_CHUNK
    beams: int = 1
    kv_bits: int | None = None
    prompt_cache: bool | str | Path = False
    speculate: Literal["auto", "ngram", "off"] = "auto"
    draft: str | Path | None = None

    def __post_init__(self) -> None:
        """Check every range."""
        checked: dict[str, object] = {
            "activations": choice("activations", self.activations, ("auto", "int8", "float")),
            "backend": choice("backend", self.backend, ("auto", "mlx")),
            "beams": whole_number("beams", self.beams, 1, MAX_BEAMS),
            "prefill_chunk": whole_number("prefill_chunk", self.prefill_chunk, 1, 1 << 16),
            "speculate": choice("speculate", self.speculate, ("auto", "ngram", "off")),
        }
        if isinstance(self.memory, Integral) and not isinstance(self.memory, bool):
            checked["memory"] = whole_number("memory", self.memory, 1, MAX_SIZE)
        else:
            try:
                parse_memory(self.memory, MAX_SIZE)
            except ConfigError as error:
                raise ConfigError(f"memory: {error.message}", hint=error.hint) from None
        for name in ("context", "context_window"):
            value = getattr(self, name)
            if value is not None:
                checked[name] = whole_number(name, value, 1, MAX_CONTEXT)
        if self.threads is not None:
            checked["threads"] = whole_number("threads", self.threads, 1, 1024)
        if self.kv_bits is not None:
            checked["kv_bits"] = choice("kv_bits", self.kv_bits, KV_BITS)
        if not isinstance(self.prompt_cache, bool):
            path_text("prompt_cache", self.prompt_cache, "true, false or a folder")
        if self.draft is not None:
            path_text("draft", self.draft, "a folder, a Hub id or a bundled name")
        _set(self, checked)
        if self.draft is not None and self.speculate != "auto":
            raise ConfigError(
                f"a draft model has nothing to do with speculate {shown(self.speculate)}",
                hint="leave out one of them",
            )


def is_int(value: object) -> TypeGuard[int]:
    """Return whether ``value`` is a whole number (a truth value is none)."""
    return isinstance(value, int) and not isinstance(value, bool)


Settings = TypeVar("Settings", Sampling, LoadSettings)


def merged(
    name: str, given: Settings | None, default: Settings, keywords: Mapping[str, Any]
) -> Settings:
    """Return settings with fields that keywords give, which come on top.

    Args:
        name: of the argument that ``given`` came in.
        given: the settings; None for ``default``.
        default: of the class that ``given`` must have.
        keywords: fields.

    Raises:
        ConfigError: a value is out of range, or ``given`` is something else; TypeError for a field
            that does not exist.
    """
    kind = type(default).__name__
    if given is None:
        given = default
    if not isinstance(given, type(default)):
        raise ConfigError(
            f"{name} is {shown(given)}; it must be an edgellm.{kind}",
            hint=f"or leave it out, and give fields of {kind} as keywords",
        )
    return replace(given, **keywords)


def _stop_texts(stop: object) -> tuple[str, ...]:
    """Return the stop texts: of one text, or of several. Raises ConfigError."""
    if isinstance(stop, str):
        stop = (stop,)
    if isinstance(stop, Set):
        stop = tuple(stop)
    texts = tuple(listed("stop", stop, "a text, or a list of texts"))
    for text in texts:
        if not isinstance(text, str) or not text:
            raise ConfigError(
                f"stop has {shown(text)}; a stop text must be a text that is not empty",
                hint="leave it out, or give the text that ends the answer",
            )
    return texts


def _set(settings: object, checked: Mapping[str, object]) -> None:
    """Put checked values into frozen settings, while they are made."""
    for name, value in checked.items():
        object.__setattr__(settings, name, value)
