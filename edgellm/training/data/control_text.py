"""Text of records that spells control tokens: it is learned as text, and ends nothing."""

from __future__ import annotations

import re
from dataclasses import replace

from edgellm.tokenizer import Tokenizer
from edgellm.training.data.records import Record

HELD = "\ufdd0"
"""Stands behind the first character of what is text, while a template writes it."""

MARK = "\ufdd1"
"""Stands before the control tokens that a template has written."""


TEXTS = ("content", "reasoning_content")
"""The fields of a message that hold text of a record."""


class ControlText:
    """Knows the control tokens of a tokenizer, and holds records' text apart from them.

    Templates write control tokens as text, so what is a record's own must be told from that: it is
    changed before a template sees it, and put right when it becomes tokens.

    Args:
        tokenizer: of the model.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        ids = tokenizer.special_ids | tokenizer.turn_end_ids
        texts = [text for text in map(tokenizer.id_to_token, sorted(ids)) if text.strip()]
        longest_first = sorted(texts, key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")

    def held(self, record: Record) -> Record | None:
        """Return a record whose text spells no control token any more; None: that cannot be."""
        texts = [record.text, *(record.instruction or ())]
        texts += [message[name] for message in record.messages for name in TEXTS if name in message]
        if not any(self._control.search(text) for text in texts):
            return record
        shortest = min(len(found) for text in texts for found in self._control.findall(text))
        if shortest < 2 or any(mark in text for text in texts for mark in (HELD, MARK)):
            return None
        instruction = record.instruction
        if instruction is not None:
            instruction = self._hold(instruction[0]), self._hold(instruction[1])
        return replace(
            record,
            text=self._hold(record.text),
            instruction=instruction,
            messages=tuple(
                {name: self._hold(own) if name in TEXTS else own for name, own in message.items()}
                for message in record.messages
            ),
        )

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Return the ids of a text, some of which may be held.

        Raises:
            TokenizerError: the vocabulary has no other tokens for what is held.
        """
        if HELD not in text:
            return self._tokenizer.encode(text, add_special_tokens=add_special_tokens)
        marked = self._control.sub(lambda found: MARK + found[0], text).replace(HELD, "")
        return self._tokenizer.encode_marked(marked, MARK, add_special_tokens=add_special_tokens)

    def _hold(self, text: str) -> str:
        return self._control.sub(lambda found: found[0][0] + HELD + found[0][1:], text)
