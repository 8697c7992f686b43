"""How many tokens a request took, in OpenAI's form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgellm.generation.stats import Stats


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
