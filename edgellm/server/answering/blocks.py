"""Parts a reply into blocks, as it comes: thinking, text and tool calls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from edgellm.generation.output import Token
from edgellm.server.answering.answers import Answer, own_end

Kind = Literal["thinking", "text", "call"]


@dataclass(slots=True, eq=False)
class Block:
    """A part of a reply.

    Attributes:
        index: its place in the reply.
        kind: of which kind it is.
        text: so far; of a call, its arguments as JSON.
        call: of a call, the call in OpenAI's form.
        tokens: those that its text came with.
    """

    index: int
    kind: Kind
    text: str = ""
    call: dict[str, Any] = field(default_factory=dict)
    tokens: list[Token] = field(default_factory=list)


class Change(NamedTuple):
    """A block that begins, has more text (which some tokens complete), or has ended."""

    kind: Literal["begin", "more", "end"]
    block: Block
    text: str = ""
    tokens: Sequence[Token] = ()


class Blocks:
    """The blocks of a reply, as it comes. A reply without text has an empty block of text.

    Args:
        answer: the reply.

    Attributes:
        all: the blocks so far.
        last: the token that has closed it.
    """

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._open: Block | None = None
        self._blanks = ""
        self._tokens: list[Token] = []
        """Tokens whose text is yet to come: parts of a character, or blanks."""
        self.all: list[Block] = []
        self.last: Token | None = None

    def add(self, token: Token) -> Iterator[Change]:
        """Yield the changes that a token brings; errors are those of ``own_end``."""
        self._tokens.append(token)
        if token.thinking:
            yield from self._grow("thinking", token.thinking)
        elif self._is_open("thinking") and not token.text:
            self._tokens.clear()  # it marks the end of thinking
        text = self._blanks + token.text
        is_last = token.finish_reason is not None
        calls: list[dict[str, Any]] = []
        if is_last:
            own_end(token)
            calls = self._answer.tool_calls
        if text.strip() or self._is_open("text"):
            self._blanks = ""
            if text:
                yield from self._grow("text", text)
        else:  # blanks between thinking and calls are no answer
            self._blanks = text
        if is_last:
            self.last = token
            if not calls and (self._blanks or not self._has_text):
                yield from self._grow("text", self._blanks)
            for call in calls:
                yield from self._begin("call", call)
                yield self._more(call["function"]["arguments"])
            yield from self._end()

    @property
    def _has_text(self) -> bool:
        return any(block.kind == "text" for block in self.all)

    def _is_open(self, kind: Kind) -> bool:
        return self._open is not None and self._open.kind == kind

    def _grow(self, kind: Kind, text: str) -> Iterator[Change]:
        if not self._is_open(kind):
            yield from self._begin(kind)
        if text:
            yield self._more(text)

    def _more(self, text: str) -> Change:
        block = self._open
        assert block is not None, "it has begun"
        block.text += text
        tokens, self._tokens = self._tokens, []
        block.tokens += tokens
        return Change("more", block, text, tokens)

    def _begin(self, kind: Kind, call: dict[str, Any] | None = None) -> Iterator[Change]:
        yield from self._end()
        self._open = Block(len(self.all), kind, call=call or {})
        self.all.append(self._open)
        yield Change("begin", self._open)

    def _end(self) -> Iterator[Change]:
        if self._open is not None:
            block, self._open = self._open, None
            yield Change("end", block)


async def read_blocks(answer: Answer) -> Blocks:
    """Return the blocks of a reply, once it has ended."""
    blocks = Blocks(answer)
    try:
        async for token in answer:
            for _ in blocks.add(token):
                pass
    finally:
        await answer.aclose()
    return blocks
