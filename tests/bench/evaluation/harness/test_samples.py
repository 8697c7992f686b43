"""What the harness notes of questions becomes columns, from which its own figures come again."""

import math
from types import SimpleNamespace

import pytest

from edgellm.bench.evaluation.harness.adapter import Counts
from edgellm.bench.evaluation.harness.samples import outcome_of
from edgellm.bench.metrics.table import METRICS


def task(output_type, **functions):
    """A task as the harness has it, as far as samples are read by it."""
    usual = {
        "multiple_input": 0,
        "doc_to_choice": lambda doc: doc["choices"],
        "doc_to_target": lambda doc: doc["gold"],
        "doc_to_text": lambda doc: doc["q"],
        "get_config": lambda name: None,
        "higher_is_better": dict,
    }
    return SimpleNamespace(OUTPUT_TYPE=output_type, **usual | functions)


def sample(doc_id, doc, answers, arguments=(("a", "b"),), **metrics):
    """What lm-eval 0.4.13 notes of a question."""
    fields = {"doc_id": doc_id, "doc": doc, "filter": "none", "target": doc.get("gold")}
    lists = {"arguments": list(arguments), "filtered_resps": answers, "metrics": list(metrics)}
    return fields | lists | metrics


def test_options_become_the_columns_of_choices():
    docs = [
        {"q": "x", "choices": ["yes", "no way"], "gold": 1, "passage": "P"},
        {"q": "y", "choices": ["yes", "no way"], "gold": 0, "passage": "P"},
    ]
    samples = [
        sample(0, docs[0], [(-1.0, True), (-1.5, False)], acc=0.0, acc_norm=1.0),
        sample(1, docs[1], [(-2.0, False), (-2.0, False)], acc=1.0, acc_norm=0.0),
    ]
    counts = Counts()
    counts.cut_tokens["choices", 1] += 5
    outcome = outcome_of("choices", task("multiple_choice"), samples, counts)
    assert (outcome.kind, outcome.headline) == ("choose", "acc_norm")
    assert METRICS["accuracy"].of(outcome.columns) == METRICS["acc_norm"].of(outcome.columns) == 0.5
    assert outcome.columns["right_logprob"] == [-1.5, -2.0]
    assert (outcome.columns["tie"], outcome.columns["cut"]) == ([0, 1], [0, 1])
    assert outcome.question_ids == ["0", "1"]
    assert outcome.documents[0] == outcome.documents[1] != "0"  # one passage
    # winogrande's form: the options are in the prompts
    turned = task("multiple_choice", multiple_input=2, doc_to_text=lambda doc: doc["gold"])
    assert outcome_of("w", turned, samples, Counts()).columns["correct"] == [0, 1]


def test_tasks_with_arithmetic_of_their_own_keep_their_figures():
    docs = [{"q": "x", "choices": ["a", "b"], "gold": [0, 1]}] * 2
    answers = [(-1.0, True), (-1.5, False)]
    several = [sample(n, doc, answers, acc=1.0) for n, doc in enumerate(docs)]
    outcome = outcome_of("t", task("multiple_choice"), several, Counts())
    assert outcome.headline == "accuracy"
    assert outcome.columns == {"correct": [1, 1], "cut": [0, 0]}
    shares = [sample(n, doc, answers, acc=0.25 + n / 2) for n, doc in enumerate(docs)]
    outcome = outcome_of("t", task("multiple_choice"), shares, Counts())
    assert METRICS[outcome.headline].of(outcome.columns) == 0.5


def test_a_task_where_less_is_better_says_so():
    doc = {"q": "", "choices": ["they are", "we are"], "gold": 0}
    figures = ({"likelihood_diff": 0.5, "pct_stereotype": 1.0}, {"likelihood_diff": 2.0})
    figures[1]["pct_stereotype"] = 0.0
    pairs = task(
        "multiple_choice",
        get_config={"process_results": len}.get,
        higher_is_better=lambda: {"likelihood_diff": False, "pct_stereotype": False},
    )
    answers = [(-1.0, True), (-1.5, False)]
    samples = [sample(number, doc, answers, **one) for number, one in enumerate(figures)]
    outcome = outcome_of("pairs", pairs, samples, Counts())
    assert outcome.headline == "task_error"
    assert not METRICS["task_error"].higher_is_better
    assert outcome.columns["task_error"] == outcome.columns["pct_stereotype"] == [1, 0]
    assert "correct" not in outcome.columns


def test_texts_have_the_harness_own_words_and_bytes():
    doc = {"gold": "one  two"}
    measured = {"word_perplexity": (-6.0, 3), "byte_perplexity": (-6.0, 4)}
    samples = [
        sample(0, doc, [-6.0], [("one  two",)], **measured),
        sample(1, doc, [-4.0], [("one  two",)], bits_per_byte=(-4.0, 8)),
    ]
    counts = Counts()
    counts.text_tokens.update({("p", 0): 3, ("p", 1): 2})
    outcome = outcome_of("p", task("loglikelihood_rolling"), samples, counts)
    assert outcome.columns["nll"] == [6, 4]
    assert (outcome.columns["words"], outcome.columns["bytes"]) == ([3, 2], [4, 8])
    assert METRICS["token_perplexity"].of(outcome.columns) == pytest.approx(math.e**2)
    assert METRICS["bits_per_byte"].of(outcome.columns) == pytest.approx(10 / 12 / math.log(2))


def test_answers_through_several_filters():
    docs = [{"q": "1+1", "gold": "2"}, {"q": "1+2", "gold": "3"}]
    strict = [sample(n, doc, ["2"], exact_match=1.0 - n) for n, doc in enumerate(docs)]
    loose = [one | {"filter": "flexible-extract", "exact_match": 1} for one in strict]
    counts = Counts()
    counts.answer_tokens["math", 0] += 7
    outcome = outcome_of("math", task("generate_until"), strict + loose, counts)
    assert (outcome.kind, outcome.headline) == ("answer", "exact_match")
    assert METRICS["exact_match"].of(outcome.columns) == 0.5
    assert outcome.columns["exact_match_flexible_extract"] == [1, 1]
    assert outcome.columns["answer_tokens"] == [7, 0]
    assert outcome.question_ids == ["0", "1"]
    foreign = [sample(0, docs[0], ["2"], pass_at_1=0.5)]
    outcome = outcome_of("code", task("generate_until"), foreign, Counts())
    assert METRICS[outcome.headline].of(outcome.columns) == 0.5


def test_questions_asked_differently_have_other_prompts():
    doc = {"q": "x", "choices": ["a", "b"], "gold": 0}
    answers = [(-1.0, True), (-2.0, False)]
    one, other = (
        outcome_of("t", task("multiple_choice"), [sample(0, doc, answers, arguments)], Counts())
        for arguments in ([("q", "a"), ("q", "b")], [("Q", "a"), ("Q", "b")])
    )
    assert one.question_hashes != other.question_hashes
