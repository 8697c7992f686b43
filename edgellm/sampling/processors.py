"""A caller's bias and functions, which change logits before a token is drawn.

As in mlx-lm, llama.cpp and vLLM, they come before the repetition penalty, temperature and filters.
"""

# L tokens so far, V vocabulary

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from edgellm.errors import ConfigError
from edgellm.settings import Sampling

HINTS = {
    "logits_processors": "each takes MLX arrays, tokens (L,) and logits (1, V), and returns logits;"
    " functions that take NumPy arrays go into logits_processor",
    "logits_processor": "each takes NumPy arrays, tokens (L,) and logits (V,), and returns logits;"
    " functions that take MLX arrays go into logits_processors",
}


class LogitsProcessors:
    """The bias and functions of a sampling; ``make_processors`` makes it where there are any.

    Args:
        sampling: has them.
        vocab_size: logits of a position.

    Attributes:
        reads_tokens: whether logits depend on the tokens so far: there are functions.
    """

    def __init__(self, sampling: Sampling, vocab_size: int) -> None:
        self._vocab_size = vocab_size
        self._bias = mx.array(bias_row(sampling, vocab_size))[None]  # (1, V)
        self._mlx_functions = sampling.logits_processors
        self._numpy_functions: Sequence[Callable[..., Any]] = sampling.numpy_processors
        self.reads_tokens: bool = bool(self._mlx_functions or self._numpy_functions)

    def __call__(self, logits: mx.array, tokens: npt.NDArray[np.intc]) -> mx.array:
        """Return the logits (1, V) in float32 that a token is drawn from.

        Args:
            logits: the model's (1, V). Those that are not finite come back as they are.
            tokens: the tokens so far (L,); empty will do where they are not read.

        Raises:
            ConfigError: a function raises or returns no logits, or no token is left.
        """
        logits = logits.astype(mx.float32) + self._bias
        if not self.reads_tokens or not _can_be_drawn(logits):
            return logits
        for place, function in enumerate(self._mlx_functions):
            result = _call("logits_processors", place, function, mx.array(tokens), logits)
            logits = self._checked("logits_processors", place, result)
        for place, function in enumerate(self._numpy_functions):
            row = np.array(logits)[0]
            result = _call("logits_processor", place, function, tokens.copy(), row)
            logits = self._checked("logits_processor", place, result)
        if not _can_be_drawn(logits):
            raise ConfigError(
                "logits processors leave no token that can be drawn: their logits have a NaN,"
                " are infinite, or are minus infinity for all tokens",
                hint="leave at least one token, an end token for example",
            )
        return logits

    def _checked(self, name: str, place: int, result: Any) -> mx.array:
        """Return a function's result as logits (1, V) in float32. Raises ConfigError."""
        shape = getattr(result, "shape", None)
        if shape not in {(self._vocab_size,), (1, self._vocab_size)}:
            found = f"a {type(result).__name__}"
            if shape is not None:
                found = f"logits of the shape {tuple(shape)}"
            raise ConfigError(
                f"{name}[{place}] returned {found}; it must be (1, {self._vocab_size})"
                f" or ({self._vocab_size},)",
                hint=HINTS[name],
            )
        return mx.array(result).astype(mx.float32).reshape(1, -1)


class TokensSoFar:
    """The tokens of one sequence, as an array that grows."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self._array = np.array(tokens, dtype=np.intc)
        self._length = len(tokens)

    def add(self, token: int) -> None:
        """Take the next token."""
        if self._length == len(self._array):
            self._array = np.resize(self._array, 2 * self._length + 64)
        self._array[self._length] = token
        self._length += 1

    @property
    def array(self) -> npt.NDArray[np.intc]:
        """The tokens (L,)."""
        return self._array[: self._length]


def make_processors(sampling: Sampling, vocab_size: int) -> LogitsProcessors | None:
    """Return what a sampling does to logits; None where it does nothing."""
    if sampling.logit_bias or sampling.logits_processors or sampling.numpy_processors:
        return LogitsProcessors(sampling, vocab_size)
    return None


def bias_row(sampling: Sampling, vocab_size: int) -> npt.NDArray[np.float32]:
    """Return what is added to the logits (V,) of all tokens."""
    row = np.zeros(vocab_size, dtype=np.float32)
    for token, value in (sampling.logit_bias or {}).items():
        if int(token) < vocab_size:
            row[int(token)] = value
    return row


def require_known_tokens(sampling: Sampling, vocab_size: int) -> None:
    """Raise ConfigError where a bias is for no token of the model, or bans all of them."""
    bias = sampling.logit_bias or {}
    outside = [token for token in bias if int(token) >= vocab_size]
    if outside:
        raise ConfigError(
            f"logit_bias has the token {outside[0]}, outside the vocabulary of {vocab_size}",
            hint="take ids from the tokenizer of this model",
        )
    if sum(value == -np.inf for value in bias.values()) == vocab_size:
        raise ConfigError("logit_bias bans every token", hint="leave at least one token")


def _can_be_drawn(logits: mx.array) -> bool:
    """Return whether a token can be drawn: the largest logit is a finite number."""
    return bool(mx.isfinite(mx.max(logits)).item())


def _call(name: str, place: int, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function of a caller. Raises ConfigError where it raises."""
    try:
        return function(*arguments)
    except Exception as error:
        raise ConfigError(
            f"{name}[{place}] raised {type(error).__name__}: {error}", hint=HINTS[name]
        ) from error
