"""A reply as OpenAI's response: the whole object, or its events."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any
from uuid import uuid4

from edgellm.generation.output import Token
from edgellm.server.answering.answers import Answer, own_end, tokens_of
from edgellm.server.answering.blocks import Block, Blocks, Change, read_blocks
from edgellm.server.answering.models import ServedModel
from edgellm.server.http.api_error import ApiError
from edgellm.server.http.event_stream import event
from edgellm.server.openai.logprobs import chat_logprobs

PARTS = {"thinking": "reasoning_text", "text": "output_text"}
PREFIXES = {"thinking": "rs", "text": "msg", "call": "fc"}


class ResponseObject:
    """A reply as OpenAI's clients of responses get it.

    Args:
        model: that replies.
        answer: the reply.
        settings: fields of the request that are in the object, too.
        with_logprobs: whether texts come with their log-probabilities.
    """

    def __init__(
        self,
        model: ServedModel,
        answer: Answer,
        settings: Mapping[str, Any],
        *,
        with_logprobs: bool,
    ) -> None:
        self._model = model
        self._answer = answer
        self._with_logprobs = with_logprobs
        self._blocks = Blocks(answer)
        self._ids: list[str] = []
        self._number = 0
        self._head: dict[str, Any] = {
            "id": f"resp_{uuid4().hex}",
            "object": "response",
            "created_at": int(time.time()),
            "model": model.name,
            **settings,
        }

    async def whole(self) -> dict[str, Any]:
        """Return it as one object."""
        self._blocks = await read_blocks(self._answer)
        return self._ended()

    async def events(self) -> AsyncGenerator[bytes]:
        """Yield its events, numbered from 0 on."""
        begun = self._object("in_progress", output=[])
        yield self._event("response.created", response=begun)
        yield self._event("response.in_progress", response=begun)
        async with aclosing(tokens_of([self._answer])) as coming:
            async for _, token in coming:
                for change in self._blocks.add(token):
                    for some in self._events_of(change):
                        yield some
        ended = self._ended()
        yield self._event(f"response.{ended['status']}", response=ended)

    def error_event(self, error: ApiError) -> bytes:
        """Return the event of an error in mid-answer."""
        told = {"code": error.code, "message": error.message, "param": error.param}
        # clients look for the object of an error, too
        return self._event("error", **told, **error.openai())

    def _events_of(self, change: Change) -> Iterator[bytes]:
        """Yield what is said of a change of a block."""
        block = change.block
        place: dict[str, Any] = {"output_index": block.index}
        if change.kind == "begin":
            item = self._item(block, "", "in_progress")
            yield self._event("response.output_item.added", **place, item=item)
        place["item_id"] = self._id(block)
        if block.kind != "call":
            place["content_index"] = 0
        match change.kind, block.kind:
            case "begin", "thinking" | "text":
                part = self._part(block, "")
                yield self._event("response.content_part.added", **place, part=part)
            case "more", "thinking":
                yield self._event("response.reasoning_text.delta", **place, delta=change.text)
            case "more", "text":
                logprobs = self._logprobs(change.tokens)
                yield self._event(
                    "response.output_text.delta", **place, delta=change.text, logprobs=logprobs
                )
            case "more", "call":
                yield self._event(
                    "response.function_call_arguments.delta", **place, delta=change.text
                )
            case "end", _:
                yield from self._end_events(block, place)

    def _end_events(self, block: Block, place: Mapping[str, Any]) -> Iterator[bytes]:
        match block.kind:
            case "thinking":
                yield self._event("response.reasoning_text.done", **place, text=block.text)
            case "text":
                logprobs = self._logprobs(block.tokens)
                yield self._event(
                    "response.output_text.done", **place, text=block.text, logprobs=logprobs
                )
            case "call":
                yield self._event(
                    "response.function_call_arguments.done",
                    **place,
                    name=block.call["function"]["name"],
                    arguments=block.text,
                )
        if block.kind != "call":
            part = self._part(block, block.text)
            yield self._event("response.content_part.done", **place, part=part)
        item = self._item(block, block.text, self._status(block))
        yield self._event("response.output_item.done", output_index=block.index, item=item)

    def _event(self, kind: str, **values: Any) -> bytes:
        number, self._number = self._number, self._number + 1
        return event({"type": kind, "sequence_number": number, **values}, kind)

    def _id(self, block: Block) -> str:
        while len(self._ids) <= block.index:
            kind = self._blocks.all[len(self._ids)].kind
            self._ids.append(f"{PREFIXES[kind]}_{uuid4().hex}")
        return self._ids[block.index]

    def _item(self, block: Block, text: str, status: str) -> dict[str, Any]:
        """Return an item of the output with the text that it has so far."""
        item: dict[str, Any] = {"id": self._id(block), "status": status}
        match block.kind:
            case "thinking":
                content = [self._part(block, text)] if text else []
                return {**item, "type": "reasoning", "summary": [], "content": content}
            case "text":
                content = [self._part(block, text)] if status != "in_progress" else []
                return {**item, "type": "message", "role": "assistant", "content": content}
            case "call":
                return {
                    **item,
                    "type": "function_call",
                    "call_id": block.call["id"],
                    "name": block.call["function"]["name"],
                    "arguments": text,
                }

    def _part(self, block: Block, text: str) -> dict[str, Any]:
        part: dict[str, Any] = {"type": PARTS[block.kind], "text": text}
        if block.kind == "text":
            part["annotations"] = []
            part["logprobs"] = []
            if text:
                part["logprobs"] = self._logprobs(block.tokens)
        return part

    def _logprobs(self, tokens: Sequence[Token]) -> list[Any]:
        if not self._with_logprobs:
            return []
        found: list[Any] = chat_logprobs(tokens, self._model.llm.tokenizer)["content"]
        return found

    def _status(self, block: Block) -> str:
        """Return whether an item that has ended is whole."""
        last = self._blocks.last
        is_last = block is self._blocks.all[-1]
        if last is not None and is_last and own_end(last) == "length":
            return "incomplete"
        return "completed"

    def _ended(self) -> dict[str, Any]:
        """Return the object of a reply that has ended."""
        last = self._blocks.last
        assert last is not None, "it has ended"
        output = [self._item(block, block.text, self._status(block)) for block in self._blocks.all]
        if own_end(last) == "length":
            details = {"reason": "max_output_tokens"}
            return self._object("incomplete", output=output, incomplete_details=details)
        return self._object("completed", output=output)

    def _object(self, status: str, *, output: list[Any], **values: Any) -> dict[str, Any]:
        made = {
            **self._head,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "output": output,
            "usage": None,
            **values,
        }
        if status != "in_progress":
            made["usage"] = self._usage()
        return made

    def _usage(self) -> dict[str, Any]:
        stats = self._answer.stats
        thinking = [block for block in self._blocks.all if block.kind == "thinking"]
        return {
            "input_tokens": stats.prompt_tokens,
            "input_tokens_details": {"cached_tokens": stats.cached_tokens, "cache_write_tokens": 0},
            "output_tokens": stats.completion_tokens,
            "output_tokens_details": {
                "reasoning_tokens": sum(len(block.tokens) for block in thinking)
            },
            "total_tokens": stats.prompt_tokens + stats.completion_tokens,
        }
