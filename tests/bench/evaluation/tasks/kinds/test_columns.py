"""The columns of each kind's outcomes: right ones, wrong ones, and the rows' own answers."""

import pytest
from support.task_files import ROWS, scored, write_rows

from edgellm.bench.evaluation.tasks.read_task import read_task
from edgellm.bench.metrics.table import METRICS

OF_GENERATED = ("answer", "summarize", "translate", "entities")


def read(tmp_path, rows, **settings):
    return read_task(write_rows(tmp_path / "task.jsonl", rows), **settings)


def of_all(task, outcomes):
    """Return the values of a task's metrics, where there are columns for them."""
    rows = [
        task.kind.columns(question, outcome)
        for question, outcome in zip(task.rows, outcomes, strict=True)
    ]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return {
        name: METRICS[name].of(columns)
        for name in task.kind.metrics
        if METRICS[name].is_defined(columns)
    }


@pytest.mark.parametrize("kind", OF_GENERATED)
def test_the_rows_own_answers_are_right(tmp_path, kind):
    if kind in {"summarize", "translate"}:
        pytest.importorskip("sacrebleu")
    task = read(tmp_path, [*ROWS[kind]])
    values = of_all(task, [question.target for question in task.rows])
    # three words have no BLEU of four
    best = {name: 100.0 if name == "chrf" else 1.0 for name in values} | {"bleu": 0.0}
    assert values == pytest.approx({name: best[name] for name in values})
    assert list(values) == [name for name in task.kind.metrics if METRICS[name].where is None]


def test_what_a_library_computes_is_signed(tmp_path):
    pytest.importorskip("sacrebleu")
    signed = {
        kind: (task := read(tmp_path, [*ROWS[kind]])).kind.signatures(task.rows)
        for kind in OF_GENERATED
    }
    assert signed["answer"] == signed["entities"] == {}
    assert signed["summarize"].keys() == {"chrf"}
    assert "tok:13a" in signed["translate"]["bleu"]
    rows = [
        {"source": "cat", "reference": "猫", "src": "en", "tgt": "zh"},
        {"source": "dog", "references": ["Hund", "der Hund"], "src": "en", "tgt": "de"},
    ]
    task = read(tmp_path, [rows[0], {**rows[0], "source": "a cat"}])
    assert "tok:zh" in task.kind.signatures(task.rows)["bleu"]
    both = [*task.rows, *read(tmp_path, [rows[1]]).rows]
    bleu = task.kind.signatures(both)["bleu"].split(", ")
    assert ["tok:13a" in bleu[0], "nrefs:2" in bleu[0], "tok:zh" in bleu[1]] == [True] * 3


@pytest.mark.parametrize("kind", ["classify", "choose", "nli"])
def test_the_likeliest_option_is_the_prediction(tmp_path, kind):
    task = read(tmp_path, ROWS[kind])
    right = [[scored(-1.0 - (n != q.right)) for n in range(len(q.options))] for q in task.rows]
    assert of_all(task, right)["accuracy"] == 1.0
    wrong = [[scored(-1.0 - (n == q.right)) for n in range(len(q.options))] for q in task.rows]
    assert of_all(task, wrong)["accuracy"] == 0.0
    columns = task.kind.columns(task.rows[0], right[0])
    assert columns["right_logprob"] == -1.0
    assert columns["gold"] == columns["predicted"] == task.rows[0].right


def test_unanswerable_is_said_in_a_word(tmp_path):
    rows = [{"context": "c", "question": "q", "answers": [], "id": "1"}, *ROWS["answer"]]
    task = read(tmp_path, rows)
    none, first, *_ = task.rows
    assert task.kind.columns(none, " Unanswerable.\nmore")["exact_match"] == 1.0
    assert task.kind.columns(none, "4")["exact_match"] == 0.0
    assert task.kind.columns(first, "unanswerable")["f1"] == 0.0
    assert task.kind.columns(first, "It is bridge 0\nQuestion:")["contains"] == 1.0


def test_each_version_of_squad_has_its_rules(tmp_path):
    blood = {"question": "Which type?", "answers": ["A+", "AB+"]}
    (first,) = (task := read(tmp_path, [blood])).rows
    assert task.kind.columns(first, "A+")["exact_match"] == 1.0
    none = {"context": "c", "question": "q", "answers": []}
    first, _ = (task := read(tmp_path, [{**blood, "context": "c"}, none])).rows
    # nothing is left of "A+", and version 2 drops such answers
    assert task.kind.columns(first, "A+")["exact_match"] == 0.0


def test_entities_by_lines(tmp_path):
    task = read(tmp_path, ROWS["entities"])
    columns = task.kind.columns(task.rows[0], "person: Ann Lee\nplace: Paris\nhm")
    assert columns == {
        "span_hits": 1.0,
        "span_predicted": 2.0,
        "span_gold": 2.0,
        "unparsed_lines": 1.0,
    }
    numbered = [{"tokens": ["Ann", "."], "ner_tags": [1, 0]}]
    task = read(tmp_path, numbered, labels=["O", "B-person"])
    assert task.rows[0].tags == ("B-person", "O")


def test_texts_and_continuations(tmp_path):
    task = read(tmp_path, ROWS["text"])
    text = task.rows[0].target
    assert task.kind.columns(task.rows[0], scored(-6.0, tokens=3)) == {
        "nll": 6.0,
        "tokens": 3.0,
        "words": 6.0,
        "bytes": float(len(text)),
        "characters": float(len(text)),
    }
    task = read(tmp_path, ROWS["continue"])
    assert task.kind.columns(task.rows[0], "a b a b")["distinct_2"] == 2.0


@pytest.mark.parametrize(
    ("row", "right"),
    [
        ({"choices": ["a", "b", "c"], "answer": "C"}, 2),
        ({"choices": ["a", "b", "c"], "answer": "b"}, 1),
        ({"choices": ["x", "y", "z"], "answer": "2"}, 2),
        ({"choices": ["x", "y", "z"], "answer": " y"}, 1),
        ({"choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answerKey": "2"}, 1),
        ({"choices": [{"text": "x", "label": "A"}, {"text": "y", "label": "B"}], "label": "B"}, 1),
        ({"choices": {"A": "x", "B": "y"}, "answer": "B"}, 1),
        ({"choices": [4, 5], "answer": "5"}, 1),
        ({"mc1_targets": {"choices": ["x", "y"], "labels": [0, 1]}}, 1),
        ({"answerA": "x", "answerB": "y", "answerC": "z", "label": "3"}, 2),
        ({"opa": "w", "opb": "x", "opc": "y", "opd": "z", "cop": 3}, 3),
    ],
)
def test_the_right_choice_in_the_forms_of_data_sets(tmp_path, row, right):
    (question,) = read(tmp_path, [{"question": "q", **row}]).rows
    assert question.right == right


def test_the_right_choice_is_not_always_last(tmp_path):
    rows = [
        {"question": f"q{n}", "correct_answer": "right", "support": ""}
        | {f"distractor{k}": f"wrong {k}" for k in (1, 2, 3)}
        for n in range(12)
    ]
    questions = read(tmp_path, rows).rows
    assert all(question.options[question.right] == "right" for question in questions)
    assert {question.right for question in questions} == {0, 1, 2, 3}


def test_labels_by_number_and_by_name(tmp_path):
    rows = [{"text": "a", "label": 1}, {"text": "b", "label": 0}]
    task = read(tmp_path, rows, labels=["bad", "good"])
    assert [question.target for question in task.rows] == ["good", "bad"]
    rows = [{"passage": "p", "question": "is it", "answer": value} for value in (True, False)]
    assert [question.target for question in read(tmp_path, rows).rows] == ["yes", "no"]
    rows = [{"premise": "p", "hypothesis": "h", "label": number} for number in (0, 1, 2, -1)]
    task = read(tmp_path, rows)
    assert [question.target for question in task.rows] == ["True", "Neither", "False"]
    labels = ["entailment", "contradiction", "neutral"]
    task = read(tmp_path, rows, labels=labels)
    assert [question.target for question in task.rows] == ["True", "False", "Neither"]


def test_languages_by_code_and_name(tmp_path):
    rows = [{"deu_Latn": "Hund", "eng_Latn": "dog"}]
    assert read(tmp_path, rows, kind="translate").rows[0].shown["to"] == "English"
    (row,) = read(tmp_path, rows, labels=["en", "German"]).rows
    assert (row.shown["from"], row.shown["to"], row.target) == ("English", "German", "Hund")
    (row,) = read(tmp_path, [{"source": "a", "reference": "b", "src": "xx", "tgt": "zh-CN"}]).rows
    assert (row.shown["from"], row.shown["to"], row.shown["language"]) == ("xx", "Chinese", "zh")
