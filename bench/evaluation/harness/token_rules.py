"""Requests of lm-evaluation-harness as token ids, by the rules of its model class ``hf``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import starmap

from edgellm.errors import ConfigError, ContextError
from edgellm.scoring.windows import windows
from edgellm.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class EncodedPair:
    """A context and its continuation, at least one token each.

    Attributes:
        context: token ids.
        continuation: token ids.
        cut: tokens that are left out at the beginning, for which the model has no room.
    """

    context: list[int]
    continuation: list[int]
    cut: int = 0


class TokenRules:
    """How texts become tokens.

    Args:
        tokenizer: the model's.
        max_length: tokens that go through the model at once; nothing is asked after the last token
            of a continuation, so that a pair may have one more.

    Raises:
        ConfigError: the tokenizer has no token that begins or ends a text.
    """

    def __init__(self, tokenizer: Tokenizer, max_length: int) -> None:
        self.max_length = max_length
        self._tokenizer = tokenizer
        begin, end = tokenizer.bos_token_id, min(tokenizer.eos_token_ids, default=None)
        if begin is None:
            begin = end
        if begin is None:
            raise ConfigError(
                "the tokenizer has no token that begins or ends a text",
                hint="name one in tokenizer_config.json, as bos_token or eos_token",
            )
        self.begin: int = begin
        self._begin_text = tokenizer.id_to_token(self.begin)
        word = tokenizer.encode("a", add_special_tokens=False)
        self._adds_blank = tokenizer.token_bytes(word[0]).startswith(b" ")

    def encode(self, text: str, *, add_special_tokens: bool | None = None) -> list[int]:
        """Return a text's tokens; one that begins with the beginning token's text gets no second.

        Args:
            text: the text.
            add_special_tokens: None: as the tokenizer begins a text.
        """
        if add_special_tokens is None:
            add_special_tokens = not text.startswith(self._begin_text)
        return self._tokenizer.encode(text, add_special_tokens=add_special_tokens)

    def encode_pair(self, context: str, continuation: str) -> EncodedPair:
        """Return a context and its continuation as tokens.

        Of their joint text, the continuation is what comes after as many tokens as the context has
        alone. Blanks at the end of a context belong to the continuation. Where the tokenizer joins
        all of the continuation with the context's end, the joint token is the continuation.

        Raises:
            ConfigError: the continuation is empty.
            ContextError: it alone is longer than the model's context.
        """
        if not continuation:
            raise ConfigError(
                "an answer to choose from is empty", hint="correct the task's doc_to_choice"
            )
        blanks = len(context) - len(context.rstrip())
        if blanks:
            context, continuation = context[:-blanks], context[-blanks:] + continuation
        if not context:
            return self._cut(*self._without_context(continuation))
        before = self.encode(context)
        whole = self.encode(context + continuation)
        if len(before) >= len(whole):  # as of "The ca" and "t"
            before = before[: _common_length(before, whole)]
        return self._cut(before or [self.begin], whole[len(before) :])

    def encode_prompt(self, text: str, max_new_tokens: int) -> tuple[list[int], int]:
        """Return the tokens of a prompt, and how many are left out at its beginning.

        Args:
            text: the prompt.
            max_new_tokens: of the answer, for which there must be room.

        Raises:
            ConfigError: they are as many as the context has.
        """
        room = self.max_length - max_new_tokens
        if room < 1:
            raise ConfigError(
                f"the task asks for up to {max_new_tokens} new tokens,"
                f" and the context has {self.max_length}",
                hint="use a larger --context, or a smaller max_gen_toks in the task's file",
            )
        ids = self.encode(text) or [self.begin]
        return ids[-room:], max(0, len(ids) - room)

    def windows(self, text: str, *, like_harness: bool = False) -> Iterator[EncodedPair]:
        """Return a long text in parts, all of whose tokens are scored once.

        Args:
            text: the text.
            like_harness: score the token that begins the text, too, as if it came after another
                one. That is what the harness' class for transformers does.
        """
        ids = self.encode(text)
        if like_harness or ids[:1] != [self.begin]:
            ids = [self.begin, *ids]
        parts = windows(ids, context=self.max_length + 1, stride=self.max_length)
        return starmap(EncodedPair, parts)

    def _without_context(self, text: str) -> tuple[list[int], list[int]]:
        """Return what a text is scored after where there is nothing before it, and its tokens.

        A tokenizer that puts a blank before each text would make two of " yes" and its like, which
        are not what follows a beginning; one is left out.
        """
        if self._adds_blank and text.startswith(" ") and text != " ":
            text = text[1:]
        ids = self.encode(text, add_special_tokens=False)
        if ids[0] == self.begin and len(ids) > 1:
            ids = ids[1:]
        return [self.begin], ids

    def _cut(self, context: list[int], continuation: list[int]) -> EncodedPair:
        if len(continuation) > self.max_length:
            raise ContextError(
                f"an answer to choose from has {len(continuation)} tokens,"
                f" and the context {self.max_length}",
                hint="use a larger --context",
            )
        cut = max(0, len(context) + len(continuation) - self.max_length - 1)
        return EncodedPair(context[cut:], continuation, cut)


def _common_length(one: list[int], other: list[int]) -> int:
    length = 0
    for mine, theirs in zip(one, other, strict=False):
        if mine != theirs:
            break
        length += 1
    return length
