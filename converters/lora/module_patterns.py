"""PEFT's patterns of module names: a stranger's regular expressions, matched within bounds."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from edgellm.converters.lora.pattern_matcher import first_of_each
from edgellm.errors import FormatError, UnsupportedModelError
from edgellm.files.strict_json import quoted

SECONDS = 5.0
"""For all patterns and names of an adapter; usual ones take some milliseconds."""

PLAIN = re.compile(r"\^?(?:[\w-]|\\?\.)*\$?")
"""A name, or the end of one: no repetition, so that it is matched at once."""

PROGRAM = Path(__file__).with_name("pattern_matcher.py")


def first_matches(patterns: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """Return the first pattern that matches each name as PEFT matches; some have none.

    PEFT (0.21) takes a pattern for a regular expression that is the whole name or what follows one
    of its dots. An expression can be made so that it takes for ever: those that are more than
    names are matched by a child process, which is ended then.

    Raises:
        FormatError: a pattern is not a regular expression.
        UnsupportedModelError: they take too long.
    """
    if all(PLAIN.fullmatch(pattern) for pattern in patterns):
        return first_of_each(patterns, names)
    listed = ", ".join(quoted(pattern) for pattern in patterns[:3])
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", str(PROGRAM)],
            input=json.dumps([patterns, names]).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise UnsupportedModelError(
            f"the adapter's patterns of modules take more than {SECONDS:.0f} s: {listed}",
            hint="name the modules instead",
        ) from error
    if not done.stdout:
        raise FormatError(f"the adapter's patterns of modules cannot be matched: {listed}")
    reply = json.loads(done.stdout)
    if "damaged" in reply:
        raise FormatError(
            f"the adapter's pattern {quoted(reply['damaged'])} is not a regular expression",
            hint="name the modules instead",
        )
    found: dict[str, str] = reply["found"]
    return found
