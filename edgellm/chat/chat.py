"""A conversation with a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from edgellm.chat.cached_turn import CachedTurn, cached_turn, encode
from edgellm.chat.messages import Message, checked_messages
from edgellm.chat.overflow import OVERFLOWS, Overflow, drop_oldest, what_helps
from edgellm.chat.reply import Reply, Turn
from edgellm.chat.reply_grammar import ReplyGrammars, special_tokens
from edgellm.chat.saved import load_chat, save_chat
from edgellm.chat.tool_use.call_style import call_style
from edgellm.chat.tool_use.tool_calls import ToolCallFilter, tool_filters
from edgellm.chat.tool_use.tool_grammar import ToolChoice, ToolGrammars, checked_choice
from edgellm.chat.tool_use.tools import Tool, tool_schemas
from edgellm.chat_template.conversation import ConversationTemplate
from edgellm.device.bound_to_process import BoundToProcess
from edgellm.errors import ConfigError, ContextError, TemplateError
from edgellm.setting_values import choice, require_text, shown, truth
from edgellm.settings import (
    CHAT_MAX_TOKENS,
    CHAT_TEMPERATURE,
    CHAT_TOP_P,
    Sampling,
    SamplingFields,
    merged,
)
from edgellm.settings.argument_names import check_names
from edgellm.tokenizer import Tokenizer

if TYPE_CHECKING:
    from edgellm.generation.stats import PrefillCallback
    from edgellm.generation.stream import Stream
    from edgellm.llm import LLM

CHAT_SAMPLING = Sampling(temperature=CHAT_TEMPERATURE, top_p=CHAT_TOP_P, max_tokens=CHAT_MAX_TOKENS)


def require_chat_template(tokenizer: Tokenizer, name: str) -> None:
    """Raise TemplateError where a model has no chat template."""
    if tokenizer.chat_template is None:
        raise TemplateError(
            f"{name} has no chat template: it completes text, it does not converse",
            hint="use `edgellm generate`, or take an instruct model",
        )


@check_names
class Chat(BoundToProcess):
    """A conversation with a model. Its KV cache stays, so a turn costs its new tokens alone.

    Several conversations of one model keep theirs, as far as memory reaches. One conversation is
    used by one thread at a time.

    Args:
        llm: the model, which the conversation does not close.
        system: the system message.
        think: whether a model that can think does; None leaves it to the chat template.
        overflow: what happens when the conversation no longer fits the context: ``error``, or
            ``drop_oldest``, by which the oldest exchanges leave.
        tools: what the model may call, as schemas in OpenAI's form, or functions with type hints
            and a docstring that describes each argument under ``Args:``. Calls come in a reply's
            ``tool_calls``; nothing is run.
        tool_choice: ``auto``; ``required``: a reply is calls alone; ``none``: the model is not
            told of tools; or the name of a tool, also in OpenAI's form, which is called then.
            Arguments are valid by the tool's schema (docs/structured-output.md).
        parallel_tool_calls: whether a reply may have several calls.
        chat_template_kwargs: further variables of the chat template, by their names.
        sampling: how tokens are drawn; ``settings`` are its fields.

    Attributes:
        llm: the model.
        sampling: how tokens are drawn.
        overflow: as above; it may be set.
        tools: the schemas that the model is told of.
        dropped: the messages that have left a full context for the last reply.

    Raises:
        ConfigError: an argument is of another kind.
        TemplateError: there is no chat template, it has no such variable, no switch for thinking,
            or no place for tools.
        BackendError: calls are required, and llguidance is not installed.
    """

    def __init__(
        self,
        llm: LLM,
        *,
        system: str | None = None,
        think: bool | None = None,
        overflow: Overflow = "error",
        tools: Iterable[Tool] = (),
        tool_choice: ToolChoice = "auto",
        parallel_tool_calls: bool = True,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        sampling: Sampling | None = None,
        **settings: Unpack[SamplingFields],
    ) -> None:
        if not isinstance(getattr(llm, "tokenizer", None), Tokenizer):
            raise ConfigError(f"llm is {shown(llm)}; it must be a model that load returned")
        require_chat_template(llm.tokenizer, llm.path.name)
        if think is not None:
            truth("think", think)
        if not isinstance(chat_template_kwargs, Mapping | None):
            raise ConfigError(
                f"chat_template_kwargs is {shown(chat_template_kwargs)}, which is not a mapping",
                hint='give names and values: {"enable_thinking": False}',
            )
        self.llm = llm
        self.tools: list[dict[str, Any]] = tool_schemas(tools)
        called = checked_choice(tool_choice, self.tools)
        if called == "none":
            self.tools = []
        self._template = ConversationTemplate(
            llm.tokenizer, think=think, variables=chat_template_kwargs, tools=self.tools
        )
        self._tool_filter: Callable[[], ToolCallFilter | None] = lambda: None
        tool_grammars = None
        if self.tools:
            form, self._tool_filter = tool_filters(llm.tokenizer, self._template, self.tools)
            tool_grammars = ToolGrammars(
                form=form,
                style=call_style(self._template, form.start),
                tools=self.tools,
                special=special_tokens(llm.tokenizer, llm.eos_token_ids),
                choice=called,
                parallel=truth("parallel_tool_calls", parallel_tool_calls),
            )
        self._reply_grammars = ReplyGrammars(
            markers=self._template.markers,
            special=special_tokens(llm.tokenizer, llm.eos_token_ids),
            may_think=think is not False,
            tools=tool_grammars,
        )
        self.sampling: Sampling = merged("sampling", sampling, CHAT_SAMPLING, settings)
        self.overflow: Overflow = choice("overflow", overflow, OVERFLOWS)
        self.dropped: list[Message] = []
        self._messages: list[Message] = []
        self._cached: CachedTurn | None = None
        self._take_reply: Callable[[], None] | None = None
        """Takes the reply that is under way into the conversation."""
        self.set_system(system)

    def __repr__(self) -> str:
        return f"<Chat of {len(self.messages)} messages with {self.llm.path.name}>"

    def __enter__(self) -> Chat:
        """Return the conversation."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the model loaded; it has an owner of its own."""

    @property
    def messages(self) -> list[Message]:
        """The conversation in OpenAI's form; it may be replaced, and changed in place.

        Each has a ``role`` (system, user, assistant, tool) and a ``content``, which may be given as
        a list of text parts; replies before which the model has thought have
        ``reasoning_content`` too, and those that call tools ``tool_calls``.
        """
        return self._messages

    @messages.setter
    def messages(self, messages: Sequence[Mapping[str, Any]]) -> None:
        self._messages = checked_messages(messages)
        self._take_reply = None

    def set_system(self, text: str | None) -> None:
        """Set, replace or (None) remove the system message."""
        if text is not None:
            require_text("system", text)
        self._end_turn()
        messages = checked_messages(self._messages)
        self._messages = [message for message in messages if message["role"] != "system"]
        if text:
            self._messages.insert(0, {"role": "system", "content": text})

    def clear(self) -> None:
        """Forget the conversation, but not the system message."""
        self._take_reply = None
        messages = checked_messages(self._messages)
        self._messages = [message for message in messages if message["role"] == "system"]

    def fork(self) -> Chat:
        """Return an independent copy of the conversation; nothing is computed again."""
        twin = Chat.__new__(Chat)
        vars(twin).update(vars(self))
        twin._messages = deepcopy(self._messages)
        twin.dropped = []
        twin._take_reply = None
        if self._cached is not None:
            twin._cached = self._cached = replace(self._cached, is_shared=True)
        return twin

    def undo(self) -> list[Message]:
        """Drop the last exchange, the user's message and all after it, and return it.

        Returns an empty list where the user has said nothing.
        """
        self._end_turn()
        self._messages = checked_messages(self._messages)
        for place in reversed(range(len(self._messages))):
            if self._messages[place]["role"] == "user":
                dropped = self._messages[place:]
                del self._messages[place:]
                return dropped
        return []

    def stream(
        self,
        message: str | Mapping[str, Any] | Sequence[Mapping[str, Any]],
        *,
        on_prefill: PrefillCallback | None = None,
        timeout: float | None = None,
        **settings: Unpack[SamplingFields],
    ) -> Stream:
        """Return the tokens of the reply to a message, to be read as they come.

        Both stay in ``messages`` when the stream ends, also where the reply was stopped, or the
        conversation goes on before its end: what was read until then. Thinking comes in the tokens'
        ``thinking``, and is not part of their ``text``.

        Args:
            message: the user's text; or messages, such as ``{"role": "tool", "content": "sunny"}``.
            on_prefill, timeout: as in ``LLM.stream``.
            settings: fields of ``Sampling``.

        Raises:
            ConfigError: an argument is of another kind.
            ContextError: the conversation no longer fits the context; it is then as before.
            TemplateError: the template refuses the conversation.
        """
        turn = self.begin(message, **settings)
        tokens = self.llm.stream(
            turn.ids, turn.sampling, reuse_cache=True, on_prefill=on_prefill, timeout=timeout
        )
        return tokens.map(turn.add, on_end=turn.end)

    def count_tokens(self, message: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> int:
        """Return the tokens of a prompt that ends with a message; they may not fit the context.

        Raises:
            ConfigError, TemplateError: as ``stream`` does.
        """
        messages = [*checked_messages(self._messages), *checked_messages(message)]
        prompt = self._template.render(messages)
        return len(encode(prompt, self._cached, self.llm.tokenizer))

    def begin(
        self,
        message: str | Mapping[str, Any] | Sequence[Mapping[str, Any]],
        **settings: Unpack[SamplingFields],
    ) -> Turn:
        """Return the turn that a message begins, for a caller that computes the reply itself.

        Arguments and errors are those of ``stream``. The conversation is as it was until the turn's
        ``end`` is called.
        """
        if isinstance(message, str):
            message = {"role": "user", "content": message}
        new = checked_messages(message)
        if not new:
            raise ConfigError("there is no message", hint="give a text, or messages")
        sampling = merged("sampling", self.sampling, CHAT_SAMPLING, settings)
        self._end_turn()
        return self._turn([*checked_messages(self._messages), *new], sampling)

    def send(
        self,
        message: str | Mapping[str, Any] | Sequence[Mapping[str, Any]],
        *,
        timeout: float | None = None,
        **settings: Unpack[SamplingFields],
    ) -> str:
        """Return the reply to a message, without thinking and tool calls.

        These are in ``messages[-1]``; the rest is as in ``stream``.
        """
        return "".join(token.text for token in self.stream(message, timeout=timeout, **settings))

    def regenerate(
        self, *, timeout: float | None = None, **settings: Unpack[SamplingFields]
    ) -> str:
        """Return a new reply to the user's last message, in the place of what has come after it.

        What was there stays where no reply comes. Arguments and errors are those of ``stream``;
        ``undo``, and a ``stream`` of what it returns first, do the same token by token.

        Raises:
            ConfigError: the user has said nothing.
        """
        self._end_turn()
        before = list(self._messages)
        dropped = self.undo()
        if not dropped:
            raise ConfigError("there is nothing to reply to", hint="send a message first")
        try:
            text = self.send(dropped[0], timeout=timeout, **settings)
        except BaseException:
            self._messages = before
            raise
        if len(self._messages) == len(before) - len(dropped):  # it was cancelled at once
            self._messages = before
        return text

    def save(self, path: str | Path) -> None:
        """Write the messages as JSON, for the owner alone.

        Raises:
            ConfigError: ``path`` is not a path.
            ConversionError: the disk refuses, or ``path`` is not a regular file.
        """
        save_chat(path, checked_messages(self._messages), self._cached)

    def load(self, path: str | Path) -> None:
        """Replace the messages by those that ``save`` wrote.

        Raises:
            ConfigError: ``path`` is not a path.
            FormatError, ReadError: it is not a saved conversation, or cannot be read.
        """
        self._messages, self._cached = load_chat(path, vocab_size=self.llm.config.vocab_size)
        self._take_reply = None

    def _turn(self, messages: list[Message], sampling: Sampling) -> Turn:
        """Return the turn of a conversation that ends with what is new."""
        dropped: list[Message] = []
        context, tokenizer = self.llm.context, self.llm.tokenizer
        if self.overflow == "drop_oldest":
            messages, dropped = drop_oldest(
                messages,
                lambda some: len(encode(self._template.render(some), self._cached, tokenizer)),
                context=context,
                max_tokens=sampling.new_tokens(0, context),
            )
        prompt = self._template.render(messages)
        ids = encode(prompt, self._cached, tokenizer)
        if len(ids) > context:
            raise ContextError(
                f"the conversation has {len(ids)} tokens, {len(ids) - context} more than the "
                f"context of {context}",
                hint=what_helps(self.llm, overflow=self.overflow),
            )
        self._forget_other_turn(ids)
        self.dropped = dropped
        reply = Reply(self._template, prompt, self._tool_filter())
        sampling = replace(sampling, grammar=self._reply_grammars.grammar(sampling, prompt))
        take_reply = partial(self._take, messages, prompt, ids, reply)
        self._take_reply = take_reply
        return Turn(ids, sampling, reply.add, partial(self._end_turn, take_reply))

    def _forget_other_turn(self, ids: Sequence[int]) -> None:
        """Free what was computed of a turn that the conversation does not go on from."""
        cached = self._cached
        if cached is None or cached.is_shared:
            return
        common = cached.common(ids)
        if common < len(cached.ids):
            self.llm.prefix_cache.cut(cached.ids, common)

    def _end_turn(self, take_reply: Callable[[], None] | None = None) -> None:
        """End the turn that is under way; where one is given, only if that is it."""
        open_turn = self._take_reply
        if open_turn is not None and take_reply in (None, open_turn):
            self._take_reply = None
            open_turn()

    def _take(self, messages: list[Message], prompt: str, ids: list[int], reply: Reply) -> None:
        """Take a reply that has ended into the conversation, unless there is none."""
        message = reply.message()
        if not self._is_kept(messages, message):
            self.dropped = []
            return
        self._messages = [*messages, message]
        self._cached = cached_turn(prompt, ids, reply, self.llm.eos_token_ids)

    def _is_kept(self, messages: list[Message], message: Message) -> bool:
        """Return whether a reply is one to go on from.

        Thinking that was cut off is a reply with an empty answer, which not all templates take.
        """
        if message["content"] or "tool_calls" in message:
            return True
        if "reasoning_content" not in message:
            return False
        try:
            self._template.render([*messages, message, messages[-1]])
        except TemplateError:
            return False
        return True
