"""A text that a model reads while its matrices are measured: prose, talk, facts, code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgellm.converters.tokenizers.companions import companion_tokenizer
from edgellm.errors import ConfigError
from edgellm.files.bounded import read_errors, require_regular_file

SEQUENCE = 256
"""Tokens that are read in a row."""

MAX_SEQUENCES = 2

MAX_TEXT_BYTES = 1 << 20

TEXT = """\
Once upon a time there was a girl named Ada who lived with her grandfather near the harbour. \
Every morning they walked down to
the boats to see what the night had brought. One day they found a small wooden box between the \
nets. "What do you think is
inside?" asked Ada. "Perhaps a map," said her grandfather, "or perhaps nothing at all. We will \
only know if we open it." The lid
was stuck, and they had to use a knife. Inside lay a letter, still dry, and a key that fitted no \
door in the village. Ada kept
the key on a string around her neck. For years she tried it wherever she went, and when people \
laughed at her she smiled and
said that somewhere a door was waiting. She was happy, because she had something to look for.

The heart pumps blood through two circuits. From the right side it goes to the lungs, where it \
takes up oxygen and gives off
carbon dioxide; from the left side it goes to the rest of the body. An adult's heart beats about \
70 times a minute, or 100,000
times a day, and moves roughly five litres of blood each minute at rest. During hard exercise \
this can rise to 20 or more.

Q: How do I boil an egg so that the yolk stays soft?
A: Bring water to a boil, lower the egg in with a spoon, and cook it for six minutes. Then put \
it into cold water at once, so
that it does not go on cooking. If the egg comes straight from the refrigerator, add a minute.

def mean(values):
    total = 0.0
    for value in values:
        total += value
    if not values:
        raise ValueError("there is nothing to take the mean of")
    return total / len(values)

The treaty was signed in March 1648 after four years of talks. It ended a war that had cost the \
lives of millions, and it
changed the borders of more than a dozen states. Historians still argue about what it meant: \
some see in it the beginning of
the modern order of nations, while others think that this is a story told much later. What is \
certain is that trade began to
recover within a few years, that soldiers went home or looked for other wars, and that the price \
of bread fell.

Tom and his sister Mia wanted to build a house for the birds. They looked for wood, nails and a \
little paint. "Let us make the
roof red," said Mia. They worked all afternoon. When the house was ready, they hung it in the \
old apple tree. The next day a
small brown bird came, looked inside, and flew away again. Tom was sad. "Wait," said his mother. \
"It has gone to tell the
others." And in the spring, there were four tiny eggs in the house, and everyone in the family \
was very glad.
"""


def calibration_text(file: Path | None) -> str | None:
    """Read a calibration text; None: there is no file. Raises ReadError."""
    if file is None:
        return None
    require_regular_file(file)
    with read_errors(file), file.open("rb") as content:
        return content.read(MAX_TEXT_BYTES).decode("utf-8", "ignore")


def calibration_tokens(
    companions: Mapping[str, Path | bytes],
    text: str | None,
    *,
    vocabulary: int,
    max_sequences: int = MAX_SEQUENCES,
) -> list[list[int]]:
    """Return sequences of one length, of a text's first tokens.

    Args:
        companions: the files of the source's tokenizer.
        text: what to read; None: ``TEXT``.
        vocabulary: how many ids the model knows.
        max_sequences: how many of the text's sequences are taken.

    Raises:
        TokenizerError: the source has no tokenizer, or a damaged one.
        ConfigError: the text is too short to tell anything.
    """
    if text is None:
        text = TEXT
    ids = companion_tokenizer(companions, vocab_size=vocabulary).encode(text)
    length = min(SEQUENCE, len(ids))
    if length < 16:
        raise ConfigError(
            f"the calibration text has {length} tokens", hint="give some hundred words"
        )
    starts = range(0, len(ids) - length + 1, length)
    return [ids[start : start + length] for start in starts[:max_sequences]]
