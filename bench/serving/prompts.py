"""Prompts of a load test: texts from a file, or words of which no two prompts begin alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

from edgellm.bench.speed.numbered_text import numbered_text
from edgellm.errors import ConfigError
from edgellm.files.bounded import read_given_text

MAX_LETTERS = 1 << 22
"""Characters of a file of prompts."""

FIRST = 1 << 40
"""The number of the first prompt of a seed; so many words of a prompt spell it."""

HINT = "name a text file with one prompt per line"


def read_prompts(path: Path) -> tuple[str, ...]:
    """Return the prompts in a text file, one per line; blank lines are left out.

    Raises:
        ConfigError: the file cannot be read, is longer than 2^22 letters, is not text, or holds no
            prompt.
    """
    lines = read_given_text(path, MAX_LETTERS, hint=HINT).splitlines()
    prompts = tuple(line.strip() for line in lines if line.strip())
    if not prompts:
        raise ConfigError(f"{path} holds no prompt", hint=HINT)
    return prompts


def prompts_of(order: Mapping[str, Any]) -> Iterator[str]:
    """Yield the prompts of a turn without an end: the given ones in a circle, or words.

    Words begin with a number in words, so that no server answers from its prefix cache.
    """
    given = order["prompts"]
    for number in count(order["first_prompt"]):
        if given:
            yield given[number % len(given)]
        else:
            yield numbered_text(FIRST + number, order["prompt_tokens"])
