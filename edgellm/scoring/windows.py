"""Windows over a text that is longer than the context, each token of which is scored once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgellm.errors import ConfigError
from edgellm.setting_values import is_int, shown

TokenPair = tuple[list[int], list[int]]
"""A context and its continuation, as ``LLM.score`` takes them."""


def windows(
    tokens: Sequence[int], *, context: int, stride: int | None = None
) -> Iterator[TokenPair]:
    """Yield pairs in which each token but the first is scored once, after those before it.

    The first pair is the first ``context`` tokens; each later one scores the next ``stride`` tokens
    after as many of those before as there is room for: ``context - stride`` at least.

    Args:
        tokens: a text's token ids. The first is never scored: let it be the one that begins a text.
        context: tokens that a pair may have.
        stride: tokens that a later pair scores, at least 1 and less than ``context``; None: half of
            it.

    Raises:
        ConfigError: an argument is out of range.
    """
    if not is_int(context) or context < 2:
        raise ConfigError(
            f"context is {shown(context)}; it must be a whole number of at least 2",
            hint="give what LLM.context says, or less",
        )
    if stride is None:
        stride = context // 2
    if not is_int(stride) or not 1 <= stride < context:
        raise ConfigError(
            f"stride is {shown(stride)}; it must be at least 1 and less than {context}",
            hint="half of the context is usual; a smaller one gives each token more context",
        )
    scored, end = 1, min(context, len(tokens))
    while scored < end:
        begin = max(0, end - context)
        yield list(tokens[begin:scored]), list(tokens[scored:end])
        scored, end = end, min(end + stride, len(tokens))
