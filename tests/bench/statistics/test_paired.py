"""Two runs of a task, paired by question."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from edgellm.bench.statistics.paired import compare_runs
from edgellm.bench.statistics.sample_size import what_it_shows
from edgellm.errors import ConfigError, NotFiniteError


@dataclass
class Run:
    """What an evaluation record has, of which a comparison reads no more."""

    columns: dict
    question_ids: tuple = ()
    documents: tuple = ()
    question_hashes: tuple = ()
    task: str = "stories"
    headline: str = "accuracy"
    prompt_hash: str | None = "a"

    def __post_init__(self):
        count = len(next(iter(self.columns.values())))
        self.question_ids = self.question_ids or tuple(f"q{number}" for number in range(count))


def of_rows(correct, right_logprob=None, **fields):
    columns = {"correct": tuple(map(float, correct))}
    if right_logprob is not None:
        columns["right_logprob"] = tuple(right_logprob)
    return Run(columns, **fields)


FIRST = of_rows([1] * 181 + [0] * 19)
ALIKE = of_rows([0] * 3 + [1] * 179 + [0] * 18)
"""Three questions worse, one better than the first, of 200."""

WORSE = of_rows([0] * 30 + [1] * 151 + [0] * 19)


def shows(result):
    return what_it_shows(
        result.questions,
        result.standard_error,
        unit="share",
        differing=result.better + result.worse,
        seen=result.is_seen,
    )


def test_a_few_questions_apart_are_no_difference():
    (result,) = compare_runs(FIRST, [ALIKE])
    assert (result.first, result.second) == (0.905, 0.895)
    assert (result.better, result.worse, round(result.mcnemar_p, 12)) == (1, 3, 0.625)
    assert result.difference == pytest.approx(-0.01)
    assert result.low == pytest.approx(-0.03, abs=0.005)
    assert result.high == pytest.approx(0.01, abs=0.005)
    assert result.verdict == "no difference seen"
    assert shows(result) == (
        "200 questions cannot show a difference below 2.8 points; 1,600 would show 1."
    )


def test_many_questions_apart_are_worse_or_better():
    (result,) = compare_runs(FIRST, [WORSE])
    assert (result.verdict, result.worse) == ("worse", 30)
    assert result.p == pytest.approx(2 / 2**30)
    assert "show differences from" in shows(result)
    (result,) = compare_runs(WORSE, [FIRST])
    assert (result.verdict, result.better) == ("better", 30)


def test_several_comparisons_are_corrected_together():
    barely = of_rows([0] * 7 + [1] * 174 + [0] * 19)
    (alone,) = compare_runs(FIRST, [barely])
    assert (alone.p_holm, alone.verdict) == (pytest.approx(2 / 2**7), "worse")
    results = compare_runs(FIRST, [barely, ALIKE, ALIKE, FIRST])
    assert results[0].p_holm == pytest.approx(4 * 2 / 2**7)
    assert [result.verdict for result in results] == ["no difference seen"] * 4
    assert results[0].p == alone.p


def test_the_right_answers_likelihood_shows_what_accuracy_does_not():
    noise = np.random.default_rng(0).normal(0, 0.7, size=200)
    logprobs = -3 + np.random.default_rng(1).normal(size=200)
    first = of_rows(FIRST.columns["correct"], logprobs)
    second = of_rows(ALIKE.columns["correct"], logprobs - 0.23 + noise - noise.mean())
    (result,) = compare_runs(first, [second])
    assert result.verdict == "no difference seen"
    change = result.right_logprob
    assert change.difference == pytest.approx(-0.23)
    assert change.low < change.difference < change.high < 0
    assert change.standard_error == pytest.approx(noise.std(ddof=1) / 200**0.5)
    assert change.is_seen


def test_runs_are_paired_by_question_in_any_order_and_what_is_left_out_is_counted():
    columns = {"correct": (1.0, 0.0, 1.0)}
    first = Run(columns, question_ids=("a", "b", "c"))
    second = Run({"correct": (0.0, 1.0, 0.0, 1.0)}, question_ids=("c", "a", "d", "e"))
    (result,) = compare_runs(first, [second])
    assert (result.questions, result.only_first, result.only_second) == (2, 1, 2)
    assert (result.first, result.second, result.worse) == (1.0, 0.5, 1)


def test_runs_that_were_asked_otherwise_are_not_paired():
    cases = {
        "different prompts": replace(FIRST, prompt_hash="b"),
        "share no question": replace(FIRST, question_ids=tuple(f"x{i}" for i in range(200))),
        "of the task": replace(FIRST, task="other"),
        "occurs twice": replace(FIRST, question_ids=("q0", *FIRST.question_ids[:-1])),
    }
    for words, run in cases.items():
        with pytest.raises(ConfigError, match=words):
            compare_runs(FIRST, [run])
    with pytest.raises(ConfigError, match="no metric 'acuracy'"):
        compare_runs(FIRST, [ALIKE], metric="acuracy")
    bad = Run({"correct": (float("nan"),) * 200})
    with pytest.raises(NotFiniteError):
        compare_runs(FIRST, [bad])


def test_a_question_with_another_text_is_another_question():
    hashes = tuple(f"text {number}" for number in range(200))
    hashed, edited = (
        replace(run, question_hashes=known)
        for run, known in ((FIRST, hashes), (ALIKE, ("edited", *hashes[1:])))
    )
    (result,) = compare_runs(hashed, [edited], resamples=10)
    assert (result.questions, result.only_first, result.only_second) == (199, 1, 1)
    assert (result.better, result.worse) == (1, 2)
    # where only one run knows the texts, ids have to do
    (result,) = compare_runs(hashed, [ALIKE], resamples=10)
    assert result.questions == 200
    with pytest.raises(ConfigError, match="share no question"):
        compare_runs(hashed, [replace(FIRST, question_hashes=tuple(map(str, range(200))))])


def test_questions_about_one_document_are_not_independent():
    documents = tuple(f"text {number // 20}" for number in range(200))
    first, second = replace(FIRST, documents=documents), replace(WORSE, documents=documents)
    (result,) = compare_runs(first, [second])
    # the 30 worse ones are about two documents of ten
    assert (result.documents, result.questions) == (10, 200)
    assert result.mcnemar_p < 1e-8
    assert result.p >= 2 / 2**2
    assert result.verdict == "no difference seen"


def test_lower_is_better_where_it_is():
    random = np.random.default_rng(2)
    size, nll = np.full(60, 100.0), 70 + random.normal(size=60)
    first = Run({"nll": nll, "bytes": size}, headline="bits_per_byte")
    second = Run({"nll": nll + 1 + random.normal(size=60) / 9, "bytes": size})
    (result,) = compare_runs(first, [second])
    assert (result.verdict, result.worse, result.mcnemar_p) == ("worse", 60, None)
    (result,) = compare_runs(Run({"length": nll}, headline="length"), [Run({"length": nll + 1})])
    assert result.verdict == "different"


def test_partly_right_answers_have_no_mcnemar():
    first = Run({"f1": [1.0, 0.0, 0.5] * 20}, headline="f1")
    (result,) = compare_runs(first, [Run({"f1": [1.0, 0.0, 0.25] * 20})])
    assert (result.better, result.worse, result.mcnemar_p) == (0, 20, None)
    assert (result.verdict, result.p) == ("worse", 2 / 10_001)


def test_one_question_and_equal_runs_claim_nothing():
    (result,) = compare_runs(of_rows([1]), [of_rows([0])])
    assert (result.verdict, result.standard_error) == ("no difference seen", None)
    assert "nothing tells how much they vary" in shows(result)
    (result,) = compare_runs(FIRST, [FIRST])
    assert (result.low, result.high, result.p) == (0.0, 0.0, 1.0)
    assert (
        shows(result) == "Not one of 200 questions differs; at most 1.5 % of all questions would."
    )
