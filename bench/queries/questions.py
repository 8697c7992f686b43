"""The questions that models are asked: five of very different kinds, or a file of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgellm.errors import ConfigError
from edgellm.files.bounded import read_given_text

QUESTIONS = (
    "What is the value of pi?",
    "What is the weather today?",
    "Write a MongoDB query that finds all documents whose coordinates lie within a triangle, then "
    "one for a square, and one for a decagon.",
    "Compute the integral of (4x^(2/3)) cos(x) sin(2x^3) / e^x.",
    "Write a short story about a parent and a child.",
)
"""A fact, one that a model cannot know, code, mathematics that has no closed form, and prose."""

THREADS = (1, 2, 4, 8)
MAX_TOKENS = 256
TIMEOUT = 900.0
MAX_LETTERS = 1 << 20
"""Characters of a file of questions."""

HINT = "name a text file with one question per line"


@dataclass(frozen=True, slots=True, kw_only=True)
class QuerySettings:
    """How the questions are asked.

    Attributes:
        threads: numbers of threads, each in a process of its own.
        max_tokens: of an answer.
        repetitions: times that each is asked.
        temperature: 0 takes the likeliest tokens, so that answers do not depend on threads.
        seed: of the first repetition, where tokens are drawn; the next takes the next number.
        memory: the budget in bytes.
        timeout: seconds in which an answer must be there.
    """

    threads: Sequence[int] = THREADS
    max_tokens: int = MAX_TOKENS
    repetitions: int = 1
    temperature: float = 0.0
    seed: int = 0
    memory: int | None = None
    timeout: float = TIMEOUT


def read_questions(path: Path) -> tuple[str, ...]:
    """Return the questions in a text file, one per line; blank lines are left out.

    Raises:
        ConfigError: the file cannot be read, is longer than 2^20 letters, is not text, or holds no
            question.
    """
    lines = read_given_text(path, MAX_LETTERS, hint=HINT).splitlines()
    questions = tuple(line.strip() for line in lines if line.strip())
    if not questions:
        raise ConfigError(f"{path} holds no question", hint=HINT)
    return questions
