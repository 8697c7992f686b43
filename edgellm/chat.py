"""A conversation: messages in, an answer out; only new tokens are computed."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgellm.errors import FormatError, TemplateError
from edgellm.files.strict_json import read_json, write_json
from edgellm.settings import CHAT_MAX_TOKENS, CHAT_TEMPERATURE, CHAT_TOP_P, Sampling, is_int

if TYPE_CHECKING:
    from edgellm.generation.output import Token
    from edgellm.llm import LLM
    from edgellm.tokenizer import Tokenizer

Message = dict[str, str]

CHAT_SAMPLING = Sampling(temperature=CHAT_TEMPERATURE, top_p=CHAT_TOP_P, max_tokens=CHAT_MAX_TOKENS)


@dataclass(frozen=True, slots=True)
class _Said:
    """A conversation up to the end of an answer, and the ids that the model has read and made for it."""

    text: str
    ids: list[int]


def require_chat_template(tokenizer: Tokenizer, name: str) -> None:
    """Raise TemplateError where a model has no chat template."""
    if tokenizer.chat_template is None:
        raise TemplateError(
            f"{name} has no chat template: it completes text, it does not converse",
            hint="use `edgellm generate`, or take an instruct model",
        )


class Chat:
    """A conversation with a model. The KV cache stays between turns, so a turn costs its new tokens alone."""

    def __init__(
        self,
        llm: LLM,
        *,
        system: str | None = None,
        sampling: Sampling | None = None,
        **settings: Any,
    ) -> None:
        require_chat_template(llm.tokenizer, llm.path.name)
        self.llm = llm
        self.sampling = replace(sampling or CHAT_SAMPLING, **settings)
        self.messages: list[Message] = []
        self._said: _Said | None = None
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

    def stream(self, text: str, **settings: Any) -> Generator[Token]:
        """Yield the tokens of the answer to ``text``; what was said stays in ``messages``, also of an answer that was stopped.

        Raises:
            ContextError: the conversation no longer fits the context; it is then as before.
            TemplateError: the template refuses the conversation.
        """
        turn = {"role": "user", "content": text}
        prompt = self.llm.tokenizer.render([*self.messages, turn])
        ids = self._ids_of(prompt)
        return self._stream(
            turn, prompt, ids, self.llm.stream(ids, self.sampling, reuse_cache=True, **settings)
        )

    def _ids_of(self, prompt: str) -> list[int]:
        """The ids of a conversation. Those that were computed stay: an answer's own tokens may be others than its text's."""
        tokenizer = self.llm.tokenizer
        if self._said and prompt.startswith(self._said.text):
            new = tokenizer.encode(prompt[len(self._said.text) :], add_special_tokens=False)
            if new and new[0] in tokenizer.split_token_ids:  # texts fall apart there anyway
                return [*self._said.ids, *new]
        return tokenizer.encode(prompt, add_special_tokens=False)

    def _stream(
        self, turn: Message, prompt: str, ids: list[int], tokens: Generator[Token]
    ) -> Generator[Token]:
        answer, produced, reason = "", list[int](), None
        self.messages.append(turn)
        try:
            for token in tokens:
                answer, reason = answer + token.text, token.finish_reason
                if token.id is not None:
                    produced.append(token.id)
                yield token
        finally:
            tokens.close()
            if answer:
                self.messages.append({"role": "assistant", "content": answer})
                self._said = self._what_was_said(prompt + answer, ids + produced, reason)
            else:
                self.messages.pop()

    def _what_was_said(self, text: str, ids: list[int], reason: str | None) -> _Said | None:
        if reason != "stop":
            return _Said(text, ids)
        # An end token is no part of the text: the template writes it, or another. A stop text may
        # have begun inside a token.
        return _Said(text, ids[:-1]) if ids[-1] in self.llm.eos_token_ids else None

    def send(self, text: str, **settings: Any) -> str:
        """Return the answer to ``text``; errors are those of ``stream``."""
        return "".join(token.text for token in self.stream(text, **settings))

    def save(self, path: Path) -> None:
        """Write the messages as JSON, whole or not at all. Raises ConversionError where the disk refuses."""
        said = {"said": {"text": self._said.text, "ids": self._said.ids}} if self._said else {}
        write_json(path, {"edgellm_chat": 1, "messages": self.messages, **said})

    def load(self, path: Path) -> None:
        """Replace the messages by those of a file that ``save`` wrote. Raises FormatError, ReadError."""
        document = read_json(path)
        messages = document.get("messages")
        if not isinstance(messages, list) or not all(_is_message(item) for item in messages):
            raise FormatError(f"{path} is no saved conversation", hint="/save FILE writes one")
        self.messages = [{"role": item["role"], "content": item["content"]} for item in messages]
        self._said = _said_in(document.get("said"), self.llm.config.vocab_size)


def _said_in(claim: Any, vocab_size: int) -> _Said | None:
    """What a file says that the model has read and made; nothing where it could not have."""
    text, ids = (claim.get("text"), claim.get("ids")) if isinstance(claim, dict) else (None, None)
    if (
        not isinstance(text, str)
        or not isinstance(ids, list)
        or not all(is_int(token) and 0 <= token < vocab_size for token in ids)
    ):
        return None
    return _Said(text, ids)


def _is_message(item: Any) -> bool:
    return isinstance(item, dict) and all(
        isinstance(item.get(key), str) for key in ("role", "content")
    )
