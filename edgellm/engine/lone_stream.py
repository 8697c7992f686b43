"""The steps of a sequence that runs alone: with draft tokens, several tokens in one pass."""

from __future__ import annotations

from collections.abc import Callable

from edgellm.engine.scheduling.context import EngineContext
from edgellm.engine.scheduling.sequence import Sequence
from edgellm.generation.output import Token


class LoneStream:
    """Speculates for one sequence at a time.

    Rows that others would fill are free then: a pass with draft tokens costs little more.

    Args:
        context: the model.
    """

    def __init__(self, context: EngineContext) -> None:
        self._context = context
        self._sequence: Sequence | None = None
        self._known_tokens = 0

    def advance(self, sequence: Sequence, keep_going: Callable[[], bool]) -> list[Token]:
        """Return the tokens of the next pass, the last of the text among them if it ends.

        Empty where ``keep_going`` said no.

        Args:
            sequence: all of it but the last token is in its caches.
            keep_going: asked now and then.

        Raises:
            ReadError: a layer cannot be read.
            NotFiniteError, ConfigError: a token cannot be drawn.
        """
        speculation = self._context.speculation
        assert speculation is not None, "there is something to speculate with"
        if sequence is not self._sequence or len(sequence.tokens) != self._known_tokens:
            # it is another one, or has gone on among others
            speculation.begin(sequence.tokens, sequence.sampling)
        self._sequence = None
        remaining = sequence.limit - sequence.completion_tokens
        loop = sequence.decode_loop(self._context.model, speculation, keep_going)
        steps = loop.next_steps(
            sequence.tokens[-1], remaining=min(remaining, sequence.room - sequence.computed)
        )
        tokens = sequence.take(steps)
        if not tokens or tokens[-1].finish_reason is None:
            self._sequence, self._known_tokens = sequence, len(sequence.tokens)
        return tokens
