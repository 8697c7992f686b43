"""A conversation that no longer fits the context: what leaves it, and what else would help."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, get_args

from edgellm.chat.messages import Message, split_exchanges
from edgellm.runtime.context_room import FEWER_BITS, context_room

if TYPE_CHECKING:
    from edgellm.llm import LLM

Overflow = Literal["error", "drop_oldest"]
"""Refuse the message, or let the oldest exchanges leave (LM Studio's "rolling window")."""

OVERFLOWS: tuple[Overflow, ...] = get_args(Overflow)

REPLY_SHARE = 4
"""A reply has room for ``max_tokens``, but for no more than this part of the context."""

FREE_SHARE = 4
"""When exchanges leave, they leave at least this part of the context free beside that.

What is left is computed again, so that it is not to happen at every turn.
"""


def drop_oldest(
    messages: Sequence[Message],
    tokens_of: Callable[[list[Message]], int],
    *,
    context: int,
    max_tokens: int,
) -> tuple[list[Message], list[Message]]:
    """Return the messages that stay, and those that leave so that there is room for a reply.

    Whole exchanges leave, the oldest first; system messages and the last exchange stay.

    Args:
        messages: the conversation, which ends with what is to be replied to.
        tokens_of: counts the tokens of some messages' prompt.
        context: tokens that prompt and reply may have together.
        max_tokens: of the reply, at most.
    """
    room = context - min(max_tokens, context // REPLY_SHARE)
    if tokens_of(list(messages)) <= room:
        return list(messages), []
    system, exchanges = split_exchanges(messages)
    low, high = 1, len(exchanges) - 1
    while low < high:  # the fewest that leave enough free
        middle = (low + high) // 2
        rest = [message for exchange in exchanges[middle:] for message in exchange]
        if tokens_of([*system, *rest]) <= room - context // FREE_SHARE:
            high = middle
        else:
            low = middle + 1
    dropped = [message for exchange in exchanges[: max(0, high)] for message in exchange]
    stays = [message for message in messages if not any(message is one for one in dropped)]
    return stays, dropped


def what_helps(llm: LLM, *, overflow: Overflow) -> str:
    """Return in words what makes room for more tokens than the context has."""
    ways = ["start over with /clear (chat.clear())"]
    if overflow == "error":
        ways.append('drop the oldest messages (overflow="drop_oldest")')
    return "; ".join([*ways, *larger_contexts(llm)])


def larger_contexts(llm: LLM) -> list[str]:
    """Return in words which options have room for more tokens, and how many."""
    ways = []
    room = context_room(llm.caches, llm.plan, of_model=llm.config.max_position_embeddings)
    if room.in_memory > llm.context:
        ways.append(f"--context {room.in_memory} fits this memory budget")
    elif room.of_model > llm.context:
        ways.append(f"a larger --memory has room for up to --context {room.of_model}")
    else:
        ways.append(f"{room.of_model} tokens are the model's maximum")
    more = room.in_fewer_bits
    if more is not None and more > max(room.in_memory, llm.context):
        ways.append(f"with --kv-bits {FEWER_BITS} it holds {more} tokens")
    return ways
