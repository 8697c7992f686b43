"""A conversation: messages in, a reply out; only new tokens are computed."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from edgellm.chat_template.conversation import ConversationTemplate
from edgellm.errors import ConfigError, FormatError, TemplateError
from edgellm.files.given_path import given_path
from edgellm.files.strict_json import read_json, write_json
from edgellm.setting_values import require_text, shown, truth
from edgellm.settings import (
    CHAT_MAX_TOKENS,
    CHAT_TEMPERATURE,
    CHAT_TOP_P,
    Sampling,
    SamplingFields,
    is_int,
    merged,
)
from edgellm.settings.argument_names import check_names

if TYPE_CHECKING:
    from edgellm.generation.output import Token
    from edgellm.generation.stats import PrefillCallback
    from edgellm.generation.stream import Stream
    from edgellm.llm import LLM
    from edgellm.tokenizer import Tokenizer

MAX_BYTES = 64 << 20
"""Of a saved conversation."""

MAX_ITEMS = 2_000_000
"""Tokens and commas of a saved conversation; the longest contexts have a million tokens."""

Message = dict[str, str]

MESSAGE_FIELDS = ("role", "content", "reasoning_content")
"""What a message may have; thinking is called as in the servers of vLLM and llama.cpp."""

CHAT_SAMPLING = Sampling(temperature=CHAT_TEMPERATURE, top_p=CHAT_TOP_P, max_tokens=CHAT_MAX_TOKENS)


@dataclass(frozen=True, slots=True)
class CachedTurn:
    """A conversation up to the end of a reply, as the model has computed it.

    Attributes:
        text: the rendered conversation, reply included.
        ids: the tokens that were read and made for it: not always those of the text, since a reply
            may be made of other tokens than the tokenizer would cut its text into.
    """

    text: str
    ids: list[int]


def require_chat_template(tokenizer: Tokenizer, name: str) -> None:
    """Raise TemplateError where a model has no chat template."""
    if tokenizer.chat_template is None:
        raise TemplateError(
            f"{name} has no chat template: it completes text, it does not converse",
            hint="use `edgellm generate`, or take an instruct model",
        )


@check_names
class Chat:
    """A conversation with a model. Its KV cache stays, so a turn costs its new tokens alone.

    Args:
        llm: the model, which the conversation does not close.
        system: the system message.
        think: whether a model that can think does; None leaves it to the chat template.
        chat_template_kwargs: further variables of the chat template, by their names.
        sampling: how tokens are drawn; ``settings`` are its fields.

    Attributes:
        llm: the model.
        sampling: how tokens are drawn.
        messages: the conversation, as ``{"role": ..., "content": ...}``; replies before which the
            model has thought have ``reasoning_content`` too.

    Raises:
        ConfigError: an argument is of another kind.
        TemplateError: there is no chat template, it has no such variable, or no switch for
            thinking.
    """

    def __init__(
        self,
        llm: LLM,
        *,
        system: str | None = None,
        think: bool | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        sampling: Sampling | None = None,
        **settings: Unpack[SamplingFields],
    ) -> None:
        require_chat_template(llm.tokenizer, llm.path.name)
        if think is not None:
            truth("think", think)
        if not isinstance(chat_template_kwargs, Mapping | None):
            raise ConfigError(
                f"chat_template_kwargs is {shown(chat_template_kwargs)}, which is no mapping",
                hint='give names and values: {"enable_thinking": False}',
            )
        self.llm = llm
        self._template = ConversationTemplate(
            llm.tokenizer, think=think, variables=chat_template_kwargs
        )
        self.sampling = merged("sampling", sampling, CHAT_SAMPLING, settings)
        self.messages: list[Message] = []
        self._cached: CachedTurn | None = None
        self.set_system(system)

    def __enter__(self) -> Chat:
        """Return the conversation."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the model loaded; it has an owner of its own."""

    def set_system(self, text: str | None) -> None:
        """Set, replace or (None) remove the system message."""
        if text is not None:
            require_text("system", text)
        self.messages = [message for message in self.messages if message["role"] != "system"]
        if text:
            self.messages.insert(0, {"role": "system", "content": text})

    def clear(self) -> None:
        """Forget the conversation, not the system message."""
        self.messages = [message for message in self.messages if message["role"] == "system"]

    def stream(
        self,
        text: str,
        *,
        on_prefill: PrefillCallback | None = None,
        **settings: Unpack[SamplingFields],
    ) -> Generator[Token]:
        """Yield the tokens of the reply to ``text``.

        Both stay in ``messages``, also where the reply was stopped; ``settings`` are fields of
        ``Sampling``, ``on_prefill`` is as in ``LLM.stream``. Thinking comes in the tokens'
        ``thinking``, and is no part of their ``text``.

        Raises:
            ContextError: the conversation no longer fits the context; it is then as before.
            TemplateError: the template refuses the conversation.
        """
        message = {"role": "user", "content": require_text("text", text)}
        prompt = self._template.render([*self.messages, message])
        ids = self._encode(prompt)
        tokens = self.llm.stream(
            ids, self.sampling, reuse_cache=True, on_prefill=on_prefill, **settings
        )
        return self._stream(message, prompt, ids, tokens)

    def send(self, text: str, **settings: Unpack[SamplingFields]) -> str:
        """Return the reply to ``text``, without thinking; the rest is as in ``stream``."""
        return "".join(token.text for token in self.stream(text, **settings))

    def save(self, path: str | Path) -> None:
        """Write the messages as JSON, for the owner alone.

        Raises:
            ConversionError: the disk refuses, or ``path`` is no plain file.
        """
        document: dict[str, Any] = {"edgellm_chat": 1, "messages": self.messages}
        if self._cached:
            document["said"] = {"text": self._cached.text, "ids": self._cached.ids}
        write_json(given_path(path), document, private=True)

    def load(self, path: str | Path) -> None:
        """Replace the messages by those that ``save`` wrote. Raises FormatError, ReadError."""
        document = read_saved_chat(given_path(path))
        messages = document.get("messages")
        if not isinstance(messages, list) or not all(map(_is_message, messages)):
            raise FormatError(f"{path} is no saved conversation", hint="/save FILE writes one")
        self.messages = [
            {name: item[name] for name in MESSAGE_FIELDS if name in item} for item in messages
        ]
        self._cached = _read_cached_turn(document.get("said"), self.llm.config.vocab_size)

    def _encode(self, prompt: str) -> list[int]:
        """Return the ids of a conversation, and for what was computed the ids that were used."""
        tokenizer = self.llm.tokenizer
        if self._cached and prompt.startswith(self._cached.text):
            rest = prompt[len(self._cached.text) :]
            new = tokenizer.encode(rest, add_special_tokens=False)
            # No token spans such a border, so both halves are encoded as the whole would be.
            if new and new[0] in tokenizer.split_token_ids:
                return [*self._cached.ids, *new]
        return tokenizer.encode(prompt, add_special_tokens=False)

    def _stream(
        self, message: Message, prompt: str, ids: list[int], tokens: Stream
    ) -> Generator[Token]:
        reply = _Reply(self._template, prompt)
        reply_ids: list[int] = []
        reason = None
        self.messages.append(message)
        try:
            for token in tokens:
                reason = token.finish_reason
                if token.id is not None:
                    reply_ids.append(token.id)
                yield reply.add(token)
        finally:
            tokens.close()
            if self._keep(reply):
                self._cached = self._cached_turn(prompt + reply.written, ids + reply_ids, reason)
            else:
                self.messages.pop()

    def _keep(self, reply: _Reply) -> bool:
        """Add a reply to the messages; return false for none, or one that is no use to go on from.

        Thinking that was cut off is a reply with an empty answer, which not all templates take.
        """
        message = {"role": "assistant", "content": reply.answer}
        if reply.thinking:
            message["reasoning_content"] = reply.thinking
        if not reply.answer:
            if not reply.thinking:
                return False
            try:
                self._template.render([*self.messages, message, self.messages[-1]])
            except TemplateError:
                return False
        self.messages.append(message)
        return True

    def _cached_turn(self, text: str, ids: list[int], reason: str | None) -> CachedTurn | None:
        if reason != "stop":
            return CachedTurn(text, ids)
        # An end token is no part of the text: the template writes it, or another.
        if ids[-1] in self.llm.eos_token_ids:
            return CachedTurn(text, ids[:-1])
        # A stop text ended the reply, and may have begun inside a token.
        return None


class _Reply:
    """A reply that comes token by token, its thinking parted from its answer.

    Attributes:
        written: all of it, with the markers between the two.
        thinking: without blanks around it.
        answer: the rest.
    """

    def __init__(self, template: ConversationTemplate, prompt: str) -> None:
        self._template = template
        self._filter = template.thinking_filter(prompt)
        self.written = ""
        self.thinking = ""
        self.answer = ""

    def add(self, token: Token) -> Token:
        """Return a token that has text for what is sure of the answer, and of the thinking."""
        thinking, answer = "", token.text
        text = token.text + self._template.written(token.id)
        if self._filter is not None:
            thinking, answer = self._filter.add(text)
            if token.finish_reason is not None:
                answer += self._filter.finish(whole=token.finish_reason == "stop")
        self.written += text
        self.thinking += thinking
        self.answer += answer
        if self._filter is None:
            return token
        return replace(token, text=answer, thinking=thinking)


def read_saved_chat(path: Path) -> dict[str, Any]:
    """Return the JSON object of a saved conversation. Raises FormatError, ReadError."""
    return read_json(path, max_bytes=MAX_BYTES, max_items=MAX_ITEMS)


def _read_cached_turn(claim: Any, vocab_size: int) -> CachedTurn | None:
    """Return the turn that a file claims was computed; None where it cannot have been."""
    if not isinstance(claim, dict):
        return None
    text = claim.get("text")
    ids = claim.get("ids")
    if not isinstance(text, str) or not isinstance(ids, list):
        return None
    if not all(is_int(token) and 0 <= token < vocab_size for token in ids):
        return None
    return CachedTurn(text, ids)


def _is_message(item: Any) -> bool:
    if not isinstance(item, dict) or not {"role", "content"} <= item.keys():
        return False
    return all(isinstance(item.get(name, ""), str) for name in MESSAGE_FIELDS)
