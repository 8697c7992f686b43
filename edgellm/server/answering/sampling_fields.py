"""The fields of a request that say how tokens are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from edgellm.errors import ConfigError
from edgellm.server.http.api_error import refused
from edgellm.server.http.fields import Fields
from edgellm.settings import MAX_SEED, MAX_VOCABULARY, Sampling

MAX_STOPS = 16
MAX_BIASES = 10_000
MAX_CHOICES = 64
MAX_TOKENS = 1 << 27
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


def read_sampling(
    fields: Fields,
    defaults: Sampling,
    *,
    limits: Sequence[str] = ("max_completion_tokens", "max_tokens"),
    stop: str = "stop",
) -> Sampling:
    """Return how a request has its tokens drawn: as many as fit, where it does not say.

    Args:
        fields: the request.
        defaults: what else holds where it does not say.
        limits: fields that limit an answer's tokens; the smallest holds.
        stop: the field that has the stop texts.

    Raises:
        ApiError: a field is out of range.
    """
    given: dict[str, Any] = {
        "temperature": fields.number("temperature", 0, 2),
        "top_p": fields.number("top_p", 0, 1),
        "top_k": fields.whole("top_k", -1, MAX_VOCABULARY),
        "min_p": fields.number("min_p", 0, 1),
        "repetition_penalty": fields.number("repetition_penalty", 0.01, 100),
        "presence_penalty": fields.number("presence_penalty", -2, 2),
        "frequency_penalty": fields.number("frequency_penalty", -2, 2),
        "seed": fields.whole("seed", -(1 << 63), MAX_SEED),
        "stop": _stop(fields, stop),
        "logit_bias": _logit_bias(fields),
    }
    if given["seed"] is not None:
        given["seed"] %= MAX_SEED + 1
    if given["top_k"] == -1:
        given["top_k"] = 0
    if given["top_p"] == 0:  # the most likely token alone
        given.update(top_p=None, top_k=1)
    chosen = {name: value for name, value in given.items() if value is not None}
    try:
        return replace(defaults, max_tokens=_max_tokens(fields, limits), **chosen)
    except ConfigError as error:
        raise refused(_field_of(error, chosen), error.message) from None


def _max_tokens(fields: Fields, names: Sequence[str]) -> int | None:
    """Return how many tokens an answer may have; None where the request does not say."""
    limits = [fields.whole(name, 1, MAX_TOKENS) for name in names]
    return min((limit for limit in limits if limit is not None), default=None)


def read_effort(fields: Fields, name: str) -> tuple[bool | None, str | None]:
    """Return whether to think, and how much; None twice where a request does not say."""
    if not fields.has(name):
        return None, None
    effort = fields.choice(name, EFFORTS, "")
    return effort not in {"none", "minimal"}, effort


def choices(fields: Fields) -> int:
    """Return how many answers are asked for."""
    return fields.whole("n", 1, MAX_CHOICES) or 1


def with_seeds(sampling: Sampling, count: int) -> list[Sampling]:
    """Return how each of some answers is drawn: the first one as if it were alone."""
    if sampling.seed is None:
        return [sampling] * count
    return [
        replace(sampling, seed=(sampling.seed + place) % (MAX_SEED + 1)) for place in range(count)
    ]


def _stop(fields: Fields, name: str) -> list[str] | None:
    if not fields.has(name):
        return None
    given = fields.any(name)
    if isinstance(given, str):
        given = [given]
    is_list = isinstance(given, list) and all(isinstance(text, str) for text in given)
    if not is_list or len(given) > MAX_STOPS:
        raise fields.wrong(name, f"a text, or a list of at most {MAX_STOPS} texts")
    return [text for text in given if text]


def _logit_bias(fields: Fields) -> Any:
    bias = fields.any("logit_bias")
    if isinstance(bias, dict) and len(bias) > MAX_BIASES:
        raise refused("logit_bias", f"logit_bias has {len(bias)} tokens, of {MAX_BIASES} allowed")
    return bias


def _field_of(error: ConfigError, chosen: dict[str, Any]) -> str | None:
    """Return which of the fields an error is about: it begins with its name."""
    return next((name for name in chosen if error.message.startswith(name)), None)
