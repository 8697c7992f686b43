"""Texts as a model is pretrained on them: one after another, cut into windows."""

from __future__ import annotations

from collections.abc import Sequence

from edgellm.errors import ConfigError, TokenizerError
from edgellm.tokenizer import Tokenizer
from edgellm.training.data.control_text import HELD, ControlText
from edgellm.training.data.records import Record
from edgellm.training.data.rendering import (
    Rendered,
    as_template_has_it,
    learned_whole,
)
from edgellm.training.micro_batch import token_ids


def windows(records: Sequence[Record], tokenizer: Tokenizer, *, max_tokens: int) -> Rendered:
    """Return texts in one row, in windows of ``max_tokens``, of which every token is learned.

    Each text stands between the tokens that begin and end one; a conversation is a text as the chat
    template writes it. A window may hold several, which then see each other, as in GPT's and
    LLaMA's pretraining. The last token of a window begins the next one.

    Raises:
        ConfigError: there is nothing to learn.
        FormatError: a chat template refuses a record; says its line.
    """
    control = ControlText(tokenizer)
    end = min(tokenizer.eos_token_ids, default=None)
    found = Rendered()
    row = token_ids(())
    for given in records:
        if not given.text and not given.messages:
            found.left_out.append(given.line)
            continue
        record = control.held(given)
        if record is None:
            found.control.append(given.line)
            continue
        text, begins = record.text, True
        if record.messages:
            text, begins = as_template_has_it(record, tokenizer), False
        try:
            ids = control.encode(text, add_special_tokens=begins)
        except TokenizerError:
            if record is given:
                raise
            found.control.append(record.line)
            continue
        found.held += record is not given
        if not ids:
            found.left_out.append(record.line)
            continue
        if end is not None and ids[-1] not in tokenizer.eos_token_ids:
            ids = [*ids, end]
        row.extend(ids)
        found.text_bytes += len(text.replace(HELD, "").encode())
    for begin in range(0, len(row) - 1, max_tokens - 1):
        window = row[begin : begin + max_tokens]
        found.sequences.append(learned_whole(window, len(found.sequences)))
    if not found.sequences:
        raise ConfigError(
            "there is no text to learn", hint="look at what the file holds: texts, or chats"
        )
    return found
