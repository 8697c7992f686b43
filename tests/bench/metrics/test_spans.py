"""Spans of tags by conlleval's rules, F1 over them, and generated lines."""

import random

import pytest

from edgellm.bench.metrics.spans import Span, read_lines, span_columns, spans_of_tags
from edgellm.bench.metrics.table import METRICS, counts
from edgellm.errors import ConfigError


@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        ("O B-a I-a O B-a", [("a", 1, 3), ("a", 4, 5)]),
        ("B-a B-a I-a", [("a", 0, 1), ("a", 1, 3)]),
        # odd beginnings: inside without a beginning, and inside of another type
        ("I-a I-a O I-b", [("a", 0, 2), ("b", 3, 4)]),
        ("B-a I-b I-b I-a", [("a", 0, 1), ("b", 1, 3), ("a", 3, 4)]),
        # the end and single marks of other schemes
        ("B-a E-a I-a S-a S-a", [("a", 0, 2), ("a", 2, 3), ("a", 3, 4), ("a", 4, 5)]),
        ("E-a E-a", [("a", 0, 1), ("a", 1, 2)]),
        ("B-creative-work I-creative-work", [("creative-work", 0, 2)]),
        ("", []),
    ],
)
def test_entities_of_tags_are_those_of_conlleval(tags, spans):
    assert spans_of_tags(tags.split()) == [Span(*span) for span in spans]


@pytest.mark.parametrize("tag", ["person", "B-", "o", "B", "O-a", ""])
def test_a_tag_that_is_none_is_an_error(tag):
    with pytest.raises(ConfigError, match="is no tag"):
        spans_of_tags(["O", tag])


def perturbed(tags, chance, kinds):
    return [
        chance.choice(["O", *(f"{prefix}-{kind}" for prefix in "BI" for kind in kinds)])
        if chance.random() < 0.2
        else tag
        for tag in tags
    ]


def sentences():
    chance = random.Random(7)
    kinds = ["person", "location", "group"]
    gold = [perturbed(["O"] * 12, chance, kinds) for _ in range(200)]
    return gold, [perturbed(tags, chance, kinds) for tags in gold]


def f1(gold, predicted):
    rows = [
        span_columns(spans_of_tags(said), tags) for said, tags in zip(predicted, gold, strict=True)
    ]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return {name: METRICS[f"span_{name}"].of(columns) for name in ("f1", "precision", "recall")}


def test_f1_is_seqevals():
    found = f1(*sentences())
    # seqeval 1.2.2 by its defaults, over the same tags (the test below makes them again)
    assert found["f1"] == pytest.approx(SEQEVAL["f1"], abs=1e-12)
    assert found["precision"] == pytest.approx(SEQEVAL["precision"], abs=1e-12)
    assert found["recall"] == pytest.approx(SEQEVAL["recall"], abs=1e-12)


SEQEVAL = {
    "f1": 0.5945485519591142,
    "precision": 0.4684563758389262,
    "recall": 0.8135198135198135,
}


def test_seqeval_says_so_itself():
    seqeval = pytest.importorskip("seqeval.metrics")
    gold, predicted = sentences()
    assert seqeval.f1_score(gold, predicted) == pytest.approx(SEQEVAL["f1"])
    assert seqeval.precision_score(gold, predicted) == pytest.approx(SEQEVAL["precision"])
    assert seqeval.recall_score(gold, predicted) == pytest.approx(SEQEVAL["recall"])


def test_without_any_entity_f1_is_0_as_in_the_reference_tools():
    columns = {"span_hits": [0.0], "span_predicted": [0.0], "span_gold": [0.0]}
    assert METRICS["span_f1"].of(columns) == 0.0
    assert not METRICS["span_precision"].is_defined(columns)


TEXT = "Mrs. O'Neil of the U.S. met O'Neil in New York , and Zoë"
TOKENS = TEXT.split()
KINDS = ["person", "location", "creative-work"]


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("location: New York", [("location", 8, 10)]),
        ("- Location : new york\n* person: ZOË", [("location", 8, 10), ("person", 12, 13)]),
        ("1. creative work: the U.S.", [("creative-work", 3, 5)]),
        # said twice: the next one; a third time there is none
        ("person: O'Neil\nperson: O'Neil", [("person", 1, 2), ("person", 6, 7)]),
        # spaces make no difference, halves of tokens are no span
        ("person: O' Neil", [("person", 1, 2)]),
        ("location: York ,", [("location", 9, 11)]),
        ("none", []),
        ("", []),
    ],
)
def test_lines_are_matched_to_tokens(text, spans):
    read = read_lines(text, TOKENS, KINDS)
    assert list(read.spans) == [Span(*span) for span in spans]
    assert (read.elsewhere, read.unparsed) == (0, 0)


def test_wrong_lines_count_against_an_answer_and_unread_ones_are_counted():
    text = (
        "person: O'Neil\nperson: O'Neil\nperson: O'Neil\n"  # the third is not there
        "location: Yor\nlocation: Paris\n"
        "planet: Mars\nNew York is a city\nperson:\n"
    )
    read = read_lines(text, TOKENS, KINDS)
    assert (len(read.spans), read.elsewhere, read.unparsed) == (2, 3, 3)
    tags = ["O"] * len(TOKENS)
    tags[0:2] = ["B-person", "I-person"]
    tags[6] = "B-person"
    columns = span_columns(read, tags)
    assert columns == {
        "span_hits": 1.0,
        "span_predicted": 5.0,
        "span_gold": 2.0,
        "unparsed_lines": 3.0,
    }
    assert counts({name: [value] for name, value in columns.items()}) == {"unparsed_lines": 3}


def test_the_lines_of_right_tags_give_them_back():
    gold, _ = sentences()
    for number, tags in enumerate(gold[:40]):
        tokens = [f"w{number}x{place}" for place in range(len(tags))]
        spans = spans_of_tags(tags)
        text = "\n".join(
            f"{span.kind}: {' '.join(tokens[span.begin : span.end])}" for span in spans
        )
        assert list(read_lines(text, tokens, ["person", "location", "group"]).spans) == spans
