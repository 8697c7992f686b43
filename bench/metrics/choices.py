"""Options scored by their log-likelihood: columns of a question."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgellm.errors import ConfigError, NotFiniteError


def choice_columns(
    options: Sequence[str], logprobs: Sequence[float], gold: int
) -> dict[str, float]:
    """Return the columns of a question whose options were scored.

    The likeliest option is the prediction; among equals the first, and the tie is counted.

    Args:
        options: as the metric counts their length: without the space before them.
        logprobs: log-likelihood of each, summed over its tokens.
        gold: number of the right option.

    Raises:
        ConfigError: fewer than two options, an empty one, or no such right option.
        NotFiniteError: a log-likelihood is NaN or infinite.
    """
    if len(options) < 2 or len(options) != len(logprobs) or not 0 <= gold < len(options):
        raise ConfigError(
            f"option {gold} of {len(options)} with {len(logprobs)} log-likelihoods cannot be right",
            hint="give two options or more, and the number of the right one from 0",
        )
    if not all(options):
        raise ConfigError("an option is empty", hint="give each option a text")
    bad = [number for number, value in enumerate(logprobs) if not math.isfinite(value)]
    if bad:
        raise NotFiniteError(
            f"the log-likelihood of option {options[bad[0]]!r} is {logprobs[bad[0]]}",
            hint="edgellm verify says whether the weights are whole",
        )
    predicted = _largest(logprobs)
    scored = list(zip(options, logprobs, strict=True))
    by_characters = [logprob / len(option) for option, logprob in scored]
    by_bytes = [logprob / len(option.encode()) for option, logprob in scored]
    return {
        "correct": float(predicted == gold),
        "correct_chars": float(_largest(by_characters) == gold),
        "correct_bytes": float(_largest(by_bytes) == gold),
        "gold": float(gold),
        "predicted": float(predicted),
        "right_logprob": float(logprobs[gold]),
        "tie": float(list(logprobs).count(logprobs[predicted]) > 1),
    }


def _largest(values: Sequence[float]) -> int:
    """Return the place of the largest value, among equals the first."""
    return max(range(len(values)), key=values.__getitem__)
