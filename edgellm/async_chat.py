"""A conversation whose replies are read in an event loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack

from edgellm.async_stream import AsyncStream
from edgellm.chat import Chat, Message
from edgellm.device.bound_to_process import BoundToProcess
from edgellm.settings import SamplingFields
from edgellm.settings.argument_names import check_names

if TYPE_CHECKING:
    from edgellm.async_llm import AsyncLLM


@check_names
class AsyncChat(BoundToProcess):
    """A conversation with a model of ``AsyncLLM``; one task at a time uses it.

    Attributes:
        chat: the conversation itself, for what takes no time: ``undo``, ``fork``, ``save``.
    """

    def __init__(self, llm: AsyncLLM, chat: Chat) -> None:
        self.chat = chat
        self._llm = llm

    def __repr__(self) -> str:
        return f"<AsyncChat of {len(self.messages)} messages with {self.chat.llm.path.name}>"

    @property
    def messages(self) -> list[Message]:
        """The conversation in OpenAI's form, as ``Chat.messages``."""
        return self.chat.messages

    @messages.setter
    def messages(self, messages: Sequence[Mapping[str, Any]]) -> None:
        self.chat.messages = messages

    def stream(
        self,
        message: str | Mapping[str, Any] | Sequence[Mapping[str, Any]],
        *,
        timeout: float | None = None,
        **settings: Unpack[SamplingFields],
    ) -> AsyncStream:
        """Return the reply to a message as a stream; it is computed from now on.

        Arguments and errors are those of ``Chat.stream`` and ``AsyncLLM.stream``. The first reply
        of a process waits some tenths of a second for the chat template.
        """
        turn = self.chat.begin(message, **settings)
        stream = self._llm.stream(turn.ids, turn.sampling, timeout=timeout)
        return stream.map(turn.add, on_end=turn.end)

    async def send(
        self,
        message: str | Mapping[str, Any] | Sequence[Mapping[str, Any]],
        *,
        timeout: float | None = None,
        **settings: Unpack[SamplingFields],
    ) -> str:
        """Return the reply to a message, without thinking; the rest is as in ``stream``."""
        stream = self.stream(message, timeout=timeout, **settings)
        return "".join([token.text async for token in stream])
