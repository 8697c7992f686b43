"""Settings of lm-evaluation-harness' tasks that generate, as settings of edgellm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgellm.errors import ConfigError
from edgellm.settings import Sampling

MAX_NEW_TOKENS = 256
"""Of a task that names no number, as in the harness."""

TOKEN_LIMITS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""The names that a number of new tokens has in tasks; the first that is there counts."""

SAME_NAMES = ("top_k", "top_p", "min_p", "repetition_penalty")
"""Settings that have the same name and meaning here."""


def sampling_of(settings: Mapping[str, Any], *, seed: int) -> Sampling:
    """Return the settings of a task that generates.

    Args:
        settings: ``generation_kwargs`` of the task.
        seed: of a task that samples.

    Raises:
        ConfigError: there is no such setting here, or it is out of range.
    """
    known = {"until", "do_sample", "temperature", "num_beams", *TOKEN_LIMITS, *SAME_NAMES}
    unknown = sorted(set(settings) - known)
    if unknown:
        raise ConfigError(
            f"generation_kwargs of the task has {unknown[0]!r}, which edgellm does not know",
            hint=f"it knows: {', '.join(sorted(known))}",
        )
    limits = [settings[name] for name in TOKEN_LIMITS if settings.get(name) is not None]
    temperature = settings.get("temperature")
    do_sample = settings.get("do_sample")
    if do_sample is None:
        do_sample = bool(temperature)
    fields: dict[str, Any] = {}
    if do_sample:
        fields = {name: settings[name] for name in SAME_NAMES if name in settings}
        fields |= {"temperature": float(temperature or 1.0), "seed": seed}
    elif "repetition_penalty" in settings:
        fields = {"repetition_penalty": settings["repetition_penalty"]}
    return Sampling(
        max_tokens=int([*limits, MAX_NEW_TOKENS][0]),
        stop=_stop_texts(settings.get("until")),
        beams=int(settings.get("num_beams") or 1),
        **fields,
    )


def _stop_texts(until: object) -> tuple[str, ...]:
    """Return the texts that end an answer; empty ones end nothing."""
    if until is None:
        return ()
    if isinstance(until, str):
        until = [until]
    if not isinstance(until, list | tuple):
        raise ConfigError(
            f"until of the task is {until!r}; it must be a text or a list of texts",
            hint="correct generation_kwargs in the task's file",
        )
    return tuple(str(text) for text in until if str(text))


def decoding_name(settings: Mapping[str, Any] | None) -> str:
    """Return how a task's answers are drawn: ``greedy``, ``beam:4``, ``sample:0.7``."""
    sampling = sampling_of(settings or {}, seed=0)
    if sampling.beams > 1:
        return f"beam:{sampling.beams}"
    if sampling.temperature > 0:
        return f"sample:{sampling.temperature:g}"
    return "greedy"
