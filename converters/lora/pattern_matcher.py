"""Which of several regular expressions matches each name first; a program of its own, too.

``module_patterns.py`` runs it in a child process, without any package but the standard library's.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from typing import Any


def first_of_each(patterns: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """Return the first pattern that matches each name; some have none. Raises re.error."""
    compiled = [(pattern, _compiled(pattern)) for pattern in patterns]
    found = {}
    for name in names:
        for pattern, expression in compiled:
            if expression.match(name):
                found[name] = pattern
                break
    return found


def _compiled(pattern: str) -> re.Pattern[str]:
    """Return what matches a whole name, or what follows one of its dots, as PEFT (0.21) has it."""
    return re.compile(rf"(.*\.)?({pattern})$")


def _answer(patterns: Sequence[str], names: Sequence[str]) -> dict[str, Any]:
    """Return what is found, or the first pattern that is not a regular expression."""
    for pattern in patterns:
        try:
            _compiled(pattern)
        except (re.error, RecursionError, OverflowError):
            return {"damaged": pattern}
    return {"found": first_of_each(patterns, names)}


if __name__ == "__main__":
    json.dump(_answer(*json.load(sys.stdin)), sys.stdout)
