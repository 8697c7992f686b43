"""A reply as Anthropic's message: the whole object, or its events."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any
from uuid import uuid4

from edgellm.server.answering.answers import Answer, own_end, tokens_of
from edgellm.server.answering.blocks import Block, Blocks, Change, read_blocks
from edgellm.server.anthropic.conversation import CALL_PREFIX
from edgellm.server.http.event_stream import event

SIGNATURE = "edgellm"
"""Clients send thinking back with its signature, which nobody here checks."""

PING = event({"type": "ping"}, "ping")


class MessageObject:
    """A reply as Anthropic's clients get it.

    Args:
        model: the name of the model.
        answer: the reply.
        max_tokens: that it may have.
        shows_thinking: whether the text of thinking is shown.
    """

    def __init__(
        self, model: str, answer: Answer, *, max_tokens: int, shows_thinking: bool
    ) -> None:
        self._answer = answer
        self._max_tokens = max_tokens
        self._shows_thinking = shows_thinking
        self._head: dict[str, Any] = {
            "id": f"msg_{uuid4().hex}",
            "type": "message",
            "role": "assistant",
            "model": model,
        }

    async def whole(self) -> dict[str, Any]:
        """Return it as one object."""
        blocks = await read_blocks(self._answer)
        content = [self._content(block, block.text) for block in blocks.all]
        return {**self._head, "content": content, **self._end(blocks), "usage": self._usage()}

    async def events(self) -> AsyncGenerator[bytes]:
        """Yield its events."""
        start = {
            **self._head,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": _usage(self._answer.prompt_tokens, cached=0, new=0),
        }
        yield event({"type": "message_start", "message": start}, "message_start")
        yield PING
        blocks = Blocks(self._answer)
        async with aclosing(tokens_of([self._answer])) as coming:
            async for _, token in coming:
                for change in blocks.add(token):
                    for value in self._values(change):
                        yield event(value, value["type"])
        delta = {"type": "message_delta", "delta": self._end(blocks), "usage": self._usage()}
        yield event(delta, "message_delta")
        yield event({"type": "message_stop"}, "message_stop")

    def _values(self, change: Change) -> list[dict[str, Any]]:
        """Return what is said of a change of a block."""
        block = change.block
        index = {"index": block.index}
        match change.kind:
            case "begin":
                content = self._content(block, "")
                return [{"type": "content_block_start", **index, "content_block": content}]
            case "more":
                return [
                    {"type": "content_block_delta", **index, "delta": delta}
                    for delta in self._deltas(block, change.text)
                ]
            case "end":
                stop = {"type": "content_block_stop", **index}
                if block.kind != "thinking":
                    return [stop]
                delta = {"type": "signature_delta", "signature": SIGNATURE}
                return [{"type": "content_block_delta", **index, "delta": delta}, stop]

    def _deltas(self, block: Block, text: str) -> list[dict[str, Any]]:
        match block.kind:
            case "text":
                return [{"type": "text_delta", "text": text}]
            case "call":
                return [{"type": "input_json_delta", "partial_json": text}]
            case "thinking":
                if self._shows_thinking:
                    return [{"type": "thinking_delta", "thinking": text}]
                return []

    def _content(self, block: Block, text: str) -> dict[str, Any]:
        """Return a block with the text that it has, or begins with."""
        match block.kind:
            case "text":
                return {"type": "text", "text": text}
            case "call":
                name = block.call["function"]["name"]
                arguments = json.loads(text or "{}")
                return {
                    "type": "tool_use",
                    "id": CALL_PREFIX + block.call["id"],
                    "name": name,
                    "input": arguments,
                }
            case "thinking":
                shown = text if self._shows_thinking else ""
                signature = SIGNATURE if text else ""
                return {"type": "thinking", "thinking": shown, "signature": signature}

    def _end(self, blocks: Blocks) -> dict[str, Any]:
        """Return why it ended."""
        last = blocks.last
        assert last is not None, "it has ended"
        reason = "end_turn"
        if any(block.kind == "call" for block in blocks.all):
            reason = "tool_use"
        elif own_end(last) == "length":
            reason = "max_tokens"
            if self._answer.stats.completion_tokens < self._max_tokens:
                reason = "model_context_window_exceeded"
        elif last.stop_text is not None:
            reason = "stop_sequence"
        return {"stop_reason": reason, "stop_sequence": last.stop_text}

    def _usage(self) -> dict[str, int]:
        stats = self._answer.stats
        return _usage(stats.prompt_tokens, cached=stats.cached_tokens, new=stats.completion_tokens)


def _usage(prompt: int, *, cached: int, new: int) -> dict[str, int]:
    """Return tokens as Anthropic counts them: those from the cache apart."""
    return {
        "input_tokens": prompt - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": new,
    }
