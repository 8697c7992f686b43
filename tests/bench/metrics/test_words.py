"""Words of any script, and what is counted over them: ROUGE-L, new n-grams, repetition, texts."""

import math
import random
import re

import pytest

from edgellm.bench.metrics.summaries import longest_common_subsequence, summary_columns
from edgellm.bench.metrics.table import METRICS
from edgellm.bench.metrics.texts import continuation_columns, text_columns
from edgellm.bench.metrics.words import words
from edgellm.errors import NotFiniteError


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Don't stop: 3.5 km_2!", ["don", "t", "stop", "3", "5", "km", "2"]),
        ("Straße, Füße und Éclair", ["strasse", "füsse", "und", "éclair"]),
        ("e\u0301clair", ["éclair"]),
        ("\u0130\u0327", ["i\u0327\u0307"]),  # the marks in their order, as i has them
        ("Модель читает", ["модель", "читает"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("語を読む2回。", ["語", "を", "読", "む", "2", "回"]),
        ("ที่นี่", ["ที่", "นี่"]),
        ("a\u200cb so\u00adft", ["ab", "soft"]),
        ("- \u0301 ?", []),
        ("a -\u0301 b", ["a", "b"]),
    ],
)
def test_words_are_runs_of_letters_digits_and_marks(text, found):
    assert words(text) == found


def test_ascii_words_are_those_of_rouge_score():
    chance = random.Random(0)
    for _ in range(200):
        text = "".join(chr(chance.randrange(128)) for _ in range(60))
        assert words(text) == re.findall("[a-z0-9]+", text.lower())


def rouge(answer, *references):
    return summary_columns(answer, references)["rouge_l"]


# rouge-score 0.1.2: RougeScorer(["rougeL"]).score_multi(references, answer)["rougeL"].fmeasure
ROUGE = [
    ("the cat sat on the mat", ["the cat is on the mat"], 5 / 6),
    ("police killed the gunman", ["police kill the gunman", "the gunman police killed"], 0.75),
    ("a b c d e", ["e d c b a"], 0.2),
    ("", ["a"], 0.0),
    ("x", [""], 0.0),
    ("A_B, a-b", ["a b a b"], 1.0),
]


@pytest.mark.parametrize(("answer", "references", "value"), ROUGE)
def test_rouge_l_is_the_reference_tools_on_ascii(answer, references, value):
    assert rouge(answer, *references) == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize(("answer", "references", "value"), ROUGE)
def test_rouge_score_says_so_itself(answer, references, value):
    scorers = pytest.importorskip("rouge_score.rouge_scorer")
    scorer = scorers.RougeScorer(["rougeL"])
    assert scorer.score_multi(references, answer)["rougeL"].fmeasure == pytest.approx(value)


def test_rouge_l_sees_letters_outside_ascii():
    assert rouge("Модель читает текст", "модель пишет текст") == pytest.approx(2 / 3)
    assert rouge("猫が好き", "犬が好き") == 0.75
    assert rouge("", "") == 0.0


def test_the_longest_common_subsequence_is_that_of_the_table():
    chance = random.Random(1)
    for _ in range(100):
        first, second = (chance.choices("abcd", k=chance.randrange(90)) for _ in range(2))
        row = [0] * (len(second) + 1)
        for one in first:
            before = row[:]
            for place, other in enumerate(second):
                if one == other:
                    row[place + 1] = before[place] + 1
                else:
                    row[place + 1] = max(row[place], before[place + 1])
        assert longest_common_subsequence(first, second) == row[-1]


def of_texts(name, *texts):
    rows = [continuation_columns(text) for text in texts]
    return METRICS[name].of({key: [row[key] for row in rows] for key in rows[0]})


def test_new_and_repeated_ngrams_are_counted_within_each_answer():
    text = "the cat sat the cat sat the cat"
    assert of_texts("distinct_1", text) == 3 / 8
    assert of_texts("distinct_2", text) == 3 / 7
    assert of_texts("distinct_3", text) == 3 / 6
    assert of_texts("repetition", text) == 2 / 5
    assert of_texts("length", text, "one two") == 5
    # what another answer said is no repetition; short ones have no 4-grams to repeat
    assert of_texts("repetition", "a b c d", "a b c d", "a") == 0
    assert of_texts("distinct_2", "a b", "a b") == 1
    assert not METRICS["repetition"].is_defined({"distinct_4": [0.0], "ngrams_4": [0.0]})


def test_answers_that_the_judge_did_not_rate_are_left_out():
    assert METRICS["rating"].of({"judge": [8.0, 0.0, 5.0]}) == 6.5
    assert not METRICS["rating"].is_defined({"judge": [0.0, 0.0]})
    assert not METRICS["rating"].is_defined({})


def test_each_perplexity_is_over_what_its_name_says():
    text = "Zwölf Bäume\nstehen"
    columns = {key: [value] for key, value in text_columns(text, 9.0, tokens=6).items()}
    assert (columns["words"], columns["characters"], columns["bytes"]) == ([3.0], [18.0], [20.0])
    assert METRICS["token_perplexity"].of(columns) == pytest.approx(math.exp(9 / 6))
    assert METRICS["word_perplexity"].of(columns) == pytest.approx(math.exp(9 / 3))
    assert METRICS["byte_perplexity"].of(columns) == pytest.approx(math.exp(9 / 20))
    assert METRICS["bits_per_byte"].of(columns) == pytest.approx(9 / math.log(2) / 20)
    # over several texts sums are divided, not ratios averaged
    both = {"nll": [9.0, 1.0], "bytes": [20.0, 80.0]}
    assert METRICS["bits_per_byte"].of(both) == pytest.approx(0.1 / math.log(2))
    with pytest.raises(NotFiniteError, match="log-likelihood of a text"):
        text_columns(text, math.nan, tokens=6)
    with pytest.raises(NotFiniteError, match="no finite value"):
        METRICS["word_perplexity"].of({"nll": [1e6], "words": [1.0]})
