"""Tasks and answers as Flower's messages: one array of numbers, and a document beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from edgellm.converters.tensors.floats import Floats
from edgellm.errors import FormatError
from edgellm.files.strict_json import parse_json

if TYPE_CHECKING:
    from flwr.app import Message, RecordDict

NUMBERS, DOCUMENT = "numbers", "document"
"""The names of the records; of the only item in each, too."""

MESSAGE_TYPE = "train"
"""One of Flower's own; what is asked for stands in the document."""


def as_records(plain: Mapping[str, Any], numbers: Floats) -> RecordDict:
    """Return numbers and a document as the content of a message.

    All numbers are in one array: Flower asks for each array by itself, twice.
    """
    from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

    return RecordDict(
        {
            NUMBERS: ArrayRecord(array_dict={NUMBERS: Array(np.ascontiguousarray(numbers))}),
            DOCUMENT: ConfigRecord({DOCUMENT: json.dumps(plain)}),
        }
    )


def from_records(message: Message, sender: str) -> tuple[dict[str, Any], Floats]:
    """Return the document and the numbers of a message. Raises FormatError."""
    try:
        content = message.content
        text = content.config_records[DOCUMENT][DOCUMENT]
        numbers = content.array_records[NUMBERS][NUMBERS].numpy()
        if not isinstance(text, str):
            raise TypeError("the document is no text")
    except (KeyError, TypeError, ValueError, EOFError) as error:
        raise FormatError(
            f"{sender} sent a message that edgellm has not written: {error}",
            hint="use the same version of edgellm on all machines",
        ) from error
    return parse_json(text.encode(), f"the message of {sender}"), numbers
