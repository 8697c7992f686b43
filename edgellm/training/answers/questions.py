"""Questions of the data, which a model answers before it learns and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgellm.tokenizer import Tokenizer
from edgellm.training.micro_batch import NOT_ASKED, TrainingSequence

LONGEST_BEGINNING = 64
"""Tokens of a text that is continued."""

LONGEST_EXPECTED = 256
"""Tokens of a record's own answer that are shown."""


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt that a model answers.

    Attributes:
        tokens: of the prompt.
        prompt: its text.
        expected: the record's own answer.
    """

    tokens: tuple[int, ...]
    prompt: str
    expected: str


def choose_questions(
    sequences: Sequence[TrainingSequence], tokenizer: Tokenizer, *, count: int, seed: int
) -> list[Question]:
    """Return questions of some sequences: what stands before the last answer of each.

    Of a text that is learned whole, its beginning is to be continued.

    Args:
        sequences: of the data, each with what is learned of it.
        tokenizer: of the model.
        count: questions, at most.
        seed: of the choice.
    """
    order = np.random.Generator(np.random.Philox(key=[seed, 1 << 32])).permutation(len(sequences))
    ends = tokenizer.eos_token_ids | tokenizer.turn_end_ids
    found: dict[tuple[int, ...], Question] = {}
    for place in order:
        if len(found) == count:
            break
        sequence = sequences[place]
        begin = _answer_begin(sequence)
        tokens = tuple(sequence.tokens[:begin])
        rest = sequence.tokens[begin:][:LONGEST_EXPECTED]
        if tokens and rest:
            answer = [token for token in rest if token not in ends]
            found[tokens] = Question(
                tokens, tokenizer.decode(tokens).strip(), tokenizer.decode(answer).strip()
            )
    return list(found.values())


def _answer_begin(sequence: TrainingSequence) -> int:
    """Return where the last answer of a sequence begins; of a text, where it is to go on."""
    targets = sequence.targets
    asked = [place for place, target in enumerate(targets) if target != NOT_ASKED]
    last = asked[-1]
    while last > 0 and targets[last - 1] != NOT_ASKED:
        last -= 1
    if last == 0:  # all of it is learned
        return min(len(targets) // 2, LONGEST_BEGINNING)
    return last + 1
