"""How many tokens a request took, in OpenAI's form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgellm.generation.stats import Stats
from edgellm.server.http.fields import Fields


def with_usage(fields: Fields) -> bool:
    """Return whether a stream is to end with its usage."""
    options = fields.object("stream_options")
    if options is None:
        return False
    options.flag("include_obfuscation")  # chunks are not padded, which means nothing here
    return options.flag("include_usage")


def usage(answers: Sequence[Sequence[Stats]]) -> dict[str, Any]:
    """Return the tokens of the answers to each prompt, which counts once."""
    prompt = sum(some[0].prompt_tokens for some in answers)
    completion = sum(one.completion_tokens for some in answers for one in some)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": sum(some[0].cached_tokens for some in answers)},
    }
