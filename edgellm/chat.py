"""A conversation: messages in, an answer out; only new tokens are computed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgellm.config import CHAT_MAX_TOKENS, CHAT_TEMPERATURE, CHAT_TOP_P, Sampling
from edgellm.errors import FormatError, TemplateError

if TYPE_CHECKING:
    from edgellm.llm import LLM, Token

Message = dict[str, str]

CHAT_SAMPLING = Sampling(temperature=CHAT_TEMPERATURE, top_p=CHAT_TOP_P, max_tokens=CHAT_MAX_TOKENS)


class Chat:
    """A conversation with a model. The KV cache stays between turns, so a turn costs its new tokens alone."""

    def __init__(self, llm: LLM, *, system: str | None = None, sampling: Sampling | None = None, **settings: Any) -> None:
        if llm.tokenizer.chat_template is None:
            raise TemplateError(
                f"{llm.path.name} has no chat template: it completes text, it does not converse",
                hint="use `edgellm generate`, or take an instruct model",
            )
        self.llm = llm
        self.sampling = replace(sampling or CHAT_SAMPLING, **settings)
        self.messages: list[Message] = []
        self.set_system(system)

    def __enter__(self) -> Chat:
        """Return the conversation."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the model loaded; it has an owner of its own."""

    def set_system(self, text: str | None) -> None:
        """Set, replace or (None) remove the system message."""
        self.messages = [message for message in self.messages if message["role"] != "system"]
        if text:
            self.messages.insert(0, {"role": "system", "content": text})

    def clear(self) -> None:
        """Forget the conversation, not the system message."""
        self.messages = [message for message in self.messages if message["role"] == "system"]

    def stream(self, text: str, **settings: Any) -> Iterator[Token]:
        """Yield the tokens of the answer to ``text``; what was said stays in ``messages``, also of an answer that was stopped.

        Raises:
            ContextError: the conversation no longer fits the context; it is then as before.
            TemplateError: the template refuses the conversation.
        """
        turn = {"role": "user", "content": text}
        ids = self.llm.tokenizer.apply_chat_template([*self.messages, turn])
        tokens = self.llm.stream(ids, self.sampling, reuse_cache=True, **settings)
        return self._stream(turn, tokens)

    def _stream(self, turn: Message, tokens: Iterator[Token]) -> Iterator[Token]:
        answer = ""
        self.messages.append(turn)
        try:
            for token in tokens:
                answer += token.text
                yield token
        finally:
            if answer:
                self.messages.append({"role": "assistant", "content": answer})
            else:
                self.messages.remove(turn)

    def send(self, text: str, **settings: Any) -> str:
        """Return the answer to ``text``; errors are those of ``stream``."""
        return "".join(token.text for token in self.stream(text, **settings))

    def save(self, path: Path) -> None:
        """Write the messages as JSON, whole or not at all."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        temporary.write_text(json.dumps({"edgellm_chat": 1, "messages": self.messages}, indent=2, ensure_ascii=False) + "\n")
        temporary.replace(path)

    def load(self, path: Path) -> None:
        """Replace the messages by those of a file that ``save`` wrote. Raises FormatError."""
        try:
            messages = json.loads(path.read_text())["messages"]
            self.messages = [{"role": str(item["role"]), "content": str(item["content"])} for item in messages]
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise FormatError(f"{path} is no saved conversation", hint="/save FILE writes one") from error
