"""Prompts of a request: a text, token ids, or a list of either."""

from __future__ import annotations

from typing import Any

from edgellm.generation.prompt import Prompt
from edgellm.server.http.api_error import refused
from edgellm.server.http.fields import Fields
from edgellm.setting_values import is_int

FORMS = "a text, a list of token ids, or a list of texts or of lists of token ids"


def read_prompts(fields: Fields, name: str, *, at_most: int) -> list[Prompt]:
    """Return the prompts in a field; raises ApiError where there are none, or too many."""
    given = fields.any(name)
    if isinstance(given, str) or _are_ids(given):
        given = [given]
    if not isinstance(given, list) or not given:
        raise fields.wrong(name, FORMS)
    if len(given) > at_most:
        raise refused(
            fields.path(name), f"{fields.path(name)} has {len(given)} items, of {at_most} allowed"
        )
    for prompt in given:
        if not isinstance(prompt, str) and not _are_ids(prompt):
            raise fields.wrong(name, FORMS)
    return given


def _are_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(is_int, value))
