"""Entities: spans of tags, spans of generated lines, and F1 by the rules of conlleval."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

from edgellm.errors import ConfigError

BULLET = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s+")
NOTHING = {"none", "none.", "no entities", "no entities."}
"""Lines, folded, by which an answer says that there is no entity."""


class Span(NamedTuple):
    """An entity: its type, its first token, and the token after its last."""

    kind: str
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class ReadLines:
    """Entities read from generated lines.

    Attributes:
        spans: found among the tokens.
        elsewhere: lines of a known type whose words are not among the tokens: wrong entities.
        unparsed: lines that are no `type: words`, or of an unknown type.
    """

    spans: tuple[Span, ...]
    elsewhere: int = 0
    unparsed: int = 0


def spans_of_tags(tags: Sequence[str]) -> list[Span]:
    """Return the entities of BIO tags (also of E- and S-), by conlleval's rules.

    An entity begins at B- and S-, and at an I- or E- that goes on nothing of its type: so odd
    beginnings count, as they do in conlleval.

    Raises:
        ConfigError: a tag is neither O nor one of these prefixes and a type.
    """
    spans: list[Span] = []
    open_kind: str | None = None
    begin = 0
    for place, tag in enumerate(tags):
        prefix, _, kind = tag.partition("-")
        if prefix not in {"B", "I", "E", "S", "O"} or (kind == "") != (prefix == "O"):
            raise ConfigError(
                f"{tag!r} is no tag of an entity", hint="write O, or B- or I- and a type"
            )
        goes_on = prefix in {"I", "E"} and kind == open_kind
        if open_kind is not None and not goes_on:
            spans.append(Span(open_kind, begin, place))
            open_kind = None
        if prefix != "O" and not goes_on:
            open_kind, begin = kind, place
        if prefix in {"E", "S"}:
            spans.append(Span(kind, begin, place + 1))
            open_kind = None
    if open_kind is not None:
        spans.append(Span(open_kind, begin, len(tags)))
    return spans


def span_columns(predicted: ReadLines | Iterable[Span], gold: Sequence[str]) -> dict[str, float]:
    """Return the columns of a sentence: a span is right if its type and both ends are.

    Args:
        predicted: what the lines say, or spans.
        gold: tags of the tokens.
    """
    if not isinstance(predicted, ReadLines):
        predicted = ReadLines(tuple(predicted))
    gold_spans = Counter(spans_of_tags(gold))
    found = Counter(predicted.spans)
    return {
        "span_hits": float((gold_spans & found).total()),
        "span_predicted": float(found.total() + predicted.elsewhere),
        "span_gold": float(gold_spans.total()),
        "unparsed_lines": float(predicted.unparsed),
    }


def read_lines(text: str, tokens: Sequence[str], kinds: Iterable[str]) -> ReadLines:
    """Find the entities of generated lines `type: words` among the tokens.

    Space and, where nothing fits exactly, case make no difference; bullets before a line neither.
    A span that is said twice is the next one of the same words; no token is in two spans. An empty
    text, or a line "none", says that there is no entity.

    Args:
        text: as the model generated it.
        tokens: of the sentence.
        kinds: types as tags write them; `-`, `_`, spaces and case make no difference in lines.
    """
    known = {_folded(kind): kind for kind in kinds}
    exact = _Places(tokens)
    folded = _Places([token.casefold() for token in tokens])
    spans: list[Span] = []
    taken = [False] * len(tokens)
    elsewhere = unparsed = 0
    for raw in text.splitlines():
        line = BULLET.sub("", raw).strip()
        if not line or line.casefold() in NOTHING:
            continue
        name, colon, said = line.partition(":")
        kind = known.get(_folded(name))
        wanted = "".join(said.split())
        if not colon or kind is None or not wanted:
            unparsed += 1
            continue
        candidates = chain(exact.find(wanted), folded.find(wanted.casefold()))
        place = next(((begin, end) for begin, end in candidates if not any(taken[begin:end])), None)
        if place is None:
            elsewhere += 1
            continue
        begin, end = place
        spans.append(Span(kind, begin, end))
        taken[begin:end] = [True] * (end - begin)
    return ReadLines(tuple(sorted(spans, key=lambda span: span.begin)), elsewhere, unparsed)


def _folded(kind: str) -> str:
    return re.sub(r"[-_\s]+", " ", kind).strip().casefold()


class _Places:
    """The tokens without spaces, and where each begins."""

    def __init__(self, tokens: Sequence[str]) -> None:
        bare = ["".join(token.split()) for token in tokens]
        self._text = "".join(bare)
        self._begins: dict[int, int] = {}
        self._ends: dict[int, int] = {}
        place = 0
        for number, token in enumerate(bare):
            if token:
                self._begins[place] = number
                place += len(token)
                self._ends[place] = number + 1

    def find(self, wanted: str) -> Iterator[tuple[int, int]]:
        """Yield the runs of whole tokens that spell the wanted text, from the left."""
        place = self._text.find(wanted)
        while place >= 0:
            end = place + len(wanted)
            if place in self._begins and end in self._ends:
                yield self._begins[place], self._ends[end]
            place = self._text.find(wanted, place + 1)
