"""How many tokens a request took, in OpenAI's form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgellm.generation.stats import Stats


def usage(stats: Sequence[Stats]) -> dict[str, Any]:
    """Return the tokens of the answers to one prompt, which counts once."""
    prompt = max(one.prompt_tokens for one in stats)
    completion = sum(one.completion_tokens for one in stats)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": stats[0].cached_tokens},
    }
