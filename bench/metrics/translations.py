"""Translations: BLEU and chrF, with sacrebleu's statistics and signature."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Any

from edgellm.errors import BackendError, ConfigError

ORDERS = 4
CHARACTER_ORDERS = 6
BLEU_COLUMNS = tuple(f"bleu_{number}" for number in range(2 + 2 * ORDERS))
"""Length, reference length, then matching and all n-grams of words, for n from 1 to 4."""

CHRF_COLUMNS = tuple(f"chrf_{number}" for number in range(3 * CHARACTER_ORDERS))
"""For n from 1 to 6, n-grams of characters: all, those of the reference, matching."""


def translation_columns(
    answer: str, references: Sequence[str], *, language: str = ""
) -> dict[str, float]:
    """Return sacrebleu's sufficient statistics of one translation.

    Args:
        answer: the translation.
        references: one or more.
        language: code of the target language, which chooses BLEU's tokenizer.

    Raises:
        ConfigError: there is no reference.
        BackendError: sacrebleu, or what its tokenizer for the language needs, is not installed.
    """
    if not references:
        raise ConfigError("a translation has no reference", hint="give each row one at least")
    streams = [[text] for text in references]
    # sacrebleu sums these over a corpus; it has no public name for them
    words, characters = (
        scorer._extract_corpus_statistics([answer], streams)[0] for scorer in _scorers(language)
    )
    values = [*words, *characters]
    names = [*BLEU_COLUMNS, *CHRF_COLUMNS]
    return {name: float(value) for name, value in zip(names, values, strict=True)}


def translation_signatures(
    *, language: str = "", references: Collection[int] = (1,)
) -> dict[str, str]:
    """Return sacrebleu's signature of each metric, by its name: how to get the same numbers.

    Args:
        language: code of the target language.
        references: the numbers of references that translations have.

    Raises:
        BackendError: sacrebleu, or what its tokenizer for the language needs, is not installed.
    """
    lines = ["a"] * len(references)
    streams: list[list[str | None]] = [
        ["a" if number < count else None for count in references]
        for number in range(max(references))
    ]
    signatures = {}
    for name, scorer in zip(("bleu", "chrf"), _scorers(language), strict=True):
        # a scorer knows its signature once it has scored
        scorer.corpus_score(lines, streams)
        signatures[name] = scorer.get_signature().format()
    return signatures


@lru_cache(maxsize=8)
def _scorers(language: str) -> tuple[Any, Any]:
    """Make sacrebleu's two scorers; importing it takes a while, so only here."""
    try:
        from sacrebleu.metrics import BLEU, CHRF
    except ImportError:
        raise BackendError(
            "BLEU and chrF need sacrebleu, which is not installed",
            hint="pip install '.[eval]'",
        ) from None
    short = language.replace("_", "-").partition("-")[0].lower()
    try:
        return BLEU(trg_lang=short, force=True), CHRF()
    except (ImportError, RuntimeError) as error:
        raise BackendError(
            f"sacrebleu's tokenizer for {short!r} needs more: {error}",
            hint=f"pip install 'sacrebleu[{short}]'",
        ) from None
