"""Task files: kinds by their fields, and what happens with bad ones."""

import json
import subprocess
import sys

import pytest
from support.task_files import ROWS, write_rows

from edgellm.bench.evaluation.tasks.kinds.table import KINDS
from edgellm.bench.evaluation.tasks.read_task import read_task
from edgellm.errors import ConfigError, EdgeLLMError, FormatError

USUAL_ROWS = [
    ("classify", {"sentence": "good", "label": 1, "idx": 0}),
    ("classify", {"text": "x", "label": 3, "label_text": "card"}),
    ("classify", {"question": "is it", "passage": "It is.", "answer": True}),
    ("classify", {"question": "is it", "context": "It is.", "label": "yes"}),
    ("classify", {"sentence1": "a", "sentence2": "b", "label": "equivalent"}),
    ("classify", {"question": "q", "sentence": "s", "label": 0, "idx": 0}),
    ("choose", {"question": "q", "choices": ["a", "b"], "answer": 0, "subject": "law"}),
    ("choose", {"question": "q", "choices": {"text": ["a"], "label": ["A"]}, "answerKey": "A"}),
    ("choose", {"question_stem": "q", "choices": {"text": ["a"]}, "answerKey": "A"}),
    ("choose", {"article": "t", "question": "q", "options": ["a", "b"], "answer": "B"}),
    ("choose", {"ctx": "He", "endings": ["a", "b"], "label": "0"}),
    ("choose", {"goal": "g", "sol1": "a", "sol2": "b", "label": 0}),
    ("choose", {"sentence": "s _", "option1": "a", "option2": "b", "answer": "1"}),
    ("choose", {"premise": "p", "question": "cause", "choice1": "a", "choice2": "b", "label": 0}),
    (
        "choose",
        {"context": "c", "question": "q", "answerA": "a", "answerB": "b", "answerC": "c"}
        | {"label": "1"},
    ),
    ("choose", {"question": "q", "mc1_targets": {"choices": ["a", "b"], "labels": [1, 0]}}),
    (
        "choose",
        {"question": "q", "distractor1": "a", "distractor2": "b", "distractor3": "c"}
        | {"correct_answer": "d", "support": ""},
    ),
    ("nli", {"premise": "p", "hypothesis": "h", "label": 0}),
    ("nli", {"sentence1": "p", "sentence2": "h", "gold_label": "neutral"}),
    ("answer", {"question": "q", "answers": {"text": ["a"], "answer_start": [0]}, "context": "c"}),
    ("answer", {"question": "q", "answers": [{"text": "a", "answer_start": 0}], "context": "c"}),
    ("answer", {"question": "q", "answer": ["a", "b"]}),
    ("answer", {"passage": "p", "question": "q", "answers_spans": {"spans": ["a"]}}),
    ("answer", {"question": "q", "answer": {"value": "a", "aliases": ["A"]}}),
    ("summarize", {"article": "a", "highlights": "h", "id": "x"}),
    ("summarize", {"dialogue": "A: hi", "summary": "s"}),
    ("summarize", {"source": ["one", "two"], "target": ["s"], "paper_id": "p"}),
    ("translate", {"source": "s", "references": ["t", "u"], "src": "en", "tgt": "de"}),
    ("translate", {"translation": {"en": "s", "de": "t"}}),
    ("translate", {"id": "1", "en": "s", "de": "t"}),
    ("translate", {"sentence_eng_Latn": "s", "sentence_deu_Latn": "t"}),
    ("continue", {"prompt": "p"}),
    ("continue", {"dialog": ["Hi.", "Hello."], "act": [1, 1], "emotion": [0, 0]}),
    ("continue", {"messages": [{"role": "user", "content": "Hi."}]}),
    ("entities", {"tokens": ["Ann"], "ner_tags": [1], "id": "0"}),
    ("text", {"text": "t", "timestamp": "2019", "url": "u"}),
]


@pytest.mark.parametrize(("kind", "row"), USUAL_ROWS)
def test_rows_of_usual_data_sets_are_of_one_kind(kind, row):
    assert [name for name, found in KINDS.items() if found.form_of(row) is not None] == [kind]


@pytest.mark.parametrize("kind", ROWS)
def test_each_kind_is_recognised_and_asked(tmp_path, kind):
    task = read_task(write_rows(tmp_path / "mine.jsonl", ROWS[kind]))
    assert (task.name, task.kind.name) == ("mine", kind)
    assert [question.line for question in task.rows] == list(range(1, len(ROWS[kind]) + 1))
    assert task.kind.metrics


def test_every_kind_has_rows_here():
    assert set(ROWS) == set(KINDS)


def refused(path, *, error=FormatError, **settings):
    """Return the message of the error that a file is refused with, and its hint."""
    with pytest.raises(error) as caught:
        read_task(path, **settings)
    assert caught.value.hint
    return f"{caught.value.message} / {caught.value.hint}"


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (['{"text": "a"'], "line 1: the row is not valid JSON"),
        (["", '{"text": "a", "text": "b"}'], "line 2: the row is not valid JSON: the key 'text'"),
        (["[1, 2]"], "line 1: the row is not a JSON object"),
        (["text,label", "hello,cards"], "a table, not lines of JSON / make JSON lines of it"),
        (["[", ' {"text": "a", "label": "b"},', " 3]"], "line 3: the row is not a JSON object"),
        (['[{"text": "a", "label": "b"}'], "the list does not end"),
        (['{"foo": 1}'], "no kind of task has these fields: 'foo'"),
        (['{"text": null, "label": "a"}', '{"text": "b", "label": "b"}'], "line 1: text is null"),
        (['{"text": "a", "label": null}'], "line 1: label is null"),
        (['{"text": "", "label": "a"}', '{"text": "b", "label": "b"}'], "line 1: text is empty"),
        (['{"text": 5, "label": "a"}', '{"text": "b", "label": "b"}'], "text is 5; it must be"),
        (['{"text": "a", "label": [1]}', '{"text": "b", "label": "b"}'], "label is [1]; it must"),
        (
            ['{"text": "a", "label": "x"}', '{"text": "c"}', '{"text": "", "label": "y"}'],
            "line 2: there is no label; line 3: text is empty",
        ),
        (
            ['{"text": "a", "label": "x"}', '{"question": "q", "answer": "a"}'],
            "line 2: its fields are those of answer, and line 1 has those of classify",
        ),
        (
            ['{"text": "a", "label": "x"}', '{"label": "y", "foo": 1}'],
            "line 2: there is no text / add it",
        ),
        (
            ['{"id": 1, "text": "a", "label": "x"}', '{"id": "1", "text": "b", "label": "y"}'],
            "line 2: the id '1' is that of line 1 too",
        ),
        (['{"question": "q", "choices": ["a"], "answer": 0}'], "it has 1 choices"),
        (['{"question": "q", "choices": ["a", " "], "answer": 0}'], "choice 1 is empty"),
        (['{"question": "q", "choices": ["a", "a "], "answer": 0}'], "choices 0 and 1 are both"),
        (['{"question": "q", "choices": ["a", "b"], "answer": 2}'], "2 is none of the 2 choices"),
        (['{"question": "q", "choices": ["1", "0"], "answer": "0"}'], "one choice by its text and"),
        (['{"question": "q", "choices": 7, "answer": 0}'], "the choices are 7"),
        (['{"question": "q", "answers": [7, null]}'], "answers is None; it must be texts"),
        (['{"question": "q", "answers": []}'], "answers is empty"),
        (['{"tokens": ["a", "b"], "tags": ["O"]}'], "there are 2 tokens and 1 tags"),
        (['{"tokens": ["a"], "tags": ["X-place"]}'], "'X-place' is no tag"),
        (['{"dialog": [5]}'], "turn 0 is 5"),
        (['{"premise": "p", "hypothesis": "h", "label": "maybe"}'], "'maybe' is none of the"),
        (['{"premise": "p", "hypothesis": "h", "label": -1}'], "none of its 1 rows has a right"),
        (['{"translation": {"en": "a", "de": "b"}}', '{"translation": {"en": "a", "fr": "b"}}'],
         "line 2: the languages are en and fr, not en and de"),
    ],
)  # fmt: skip
def test_bad_lines_are_told_with_file_line_and_next_step(tmp_path, lines, told):
    path = tmp_path / "bad.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    message = refused(path)
    assert message.startswith(str(path))
    assert told in message


def test_the_first_three_problems_are_shown_and_the_rest_counted(tmp_path):
    rows = [*ROWS["classify"], *({"text": "", "label": "cash"} for _ in range(5))]
    message = refused(write_rows(tmp_path / "bad.jsonl", rows))
    assert "line 7: text is empty; line 8: text is empty; line 9: text is empty; 2 more" in message


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"labels": ["cards"]}, "there is one label, cards: nothing to choose from"),
        ({"labels": ["cards", "cards"]}, "the label cards is given twice"),
        ({"labels": ["cards", ""]}, "one of the labels is empty"),
        ({"kind": "clasify"}, "there is no kind of task 'clasify'"),
        ({"prompt": "Say"}, "the prompt 'Say' names no field, and there is no such file"),
        ({"prompt": "{{ label }}"}, "the prompt shows the answer"),
        ({"prompt": "{{ txt }}"}, "{{ txt }}, which the rows do not have / the fields are"),
        ({"prompt": "{% if chat %}a{% endif %}"}, "the prompt is the same for every row"),
        ({"prompt": "{{ text"}, "the prompt is damaged in its line 1"),
        ({"kind": "text", "prompt": "{{ text }}"}, "they have no prompt"),
        ({"kind": "continue", "labels": ["a", "b"]}, "there is no prompt"),
        ({"kind": "summarize"}, "there is no summary or summaries"),
    ],
)
def test_settings_that_do_not_fit(tmp_path, settings, told):
    path = write_rows(tmp_path / "task.jsonl", ROWS["classify"])
    assert told in refused(path, error=EdgeLLMError, **settings)


def test_labels_that_no_option_has(tmp_path):
    path = write_rows(tmp_path / "task.jsonl", ROWS["classify"])
    assert "line 4: label 'fees' is none of the labels cards, cash" in refused(
        path, labels=["cards", "cash"]
    )
    write_rows(path, ROWS["classify"][:2])
    assert "all rows have the label cards" in refused(path, error=ConfigError)


def test_fields_that_may_mean_two_kinds_ask_for_one(tmp_path):
    path = write_rows(tmp_path / "task.jsonl", [{"source": "a", "target": "b"}] * 1)
    message = refused(path, error=ConfigError)
    assert "may mean summarize or translate / say which: --kind summarize or" in message
    assert read_task(path, kind="translate").kind.name == "translate"
    pairs = [{"sentence1": "a", "sentence2": "b", "label": label} for label in (0, 1)]
    message = refused(write_rows(path, pairs), error=ConfigError)
    assert "--kind classify or --kind nli" in message
    message = refused(path, error=ConfigError, kind="nli")
    assert "the labels are 0 and 1: they may be two labels, or two of three" in message
    task = read_task(path, kind="nli", labels=["entailment", "not_entailment"])
    assert [question.target for question in task.rows] == ["True", "False"]


def test_files_of_other_formats_say_what_to_do(tmp_path):
    for data, told in [
        (b"PAR1\0", "is a Parquet file / make JSON lines of it"),
        (b"\x1f\x8b\x08", "is packed with gzip"),
        ("text".encode("utf-16"), "is UTF-16 text / save it as UTF-8"),
        (b'{"text": "\xff"}', "line 1: the row is not UTF-8 at byte 11"),
    ]:
        path = tmp_path / "task.jsonl"
        path.write_bytes(data)
        assert told in refused(path)
    assert "is a folder, not a file of rows / name a file in it: task.jsonl" in refused(
        tmp_path, error=ConfigError
    )
    assert "there is no file" in refused(tmp_path / "none.jsonl", error=ConfigError)
    (tmp_path / "empty.jsonl").touch()
    assert "holds no row" in refused(tmp_path / "empty.jsonl", error=ConfigError)


def test_lists_marks_of_byte_order_and_blank_lines_are_read(tmp_path):
    path = tmp_path / "task.json"
    path.write_text(json.dumps(ROWS["classify"], indent=1), encoding="utf-8-sig")
    task = read_task(path)
    assert [question.target for question in task.rows] == [row["label"] for row in ROWS["classify"]]
    assert [question.line for question in task.rows][:2] == [2, 6]
    lines = "\r\n\r\n".join(json.dumps(row) for row in ROWS["classify"])
    path.write_text(lines, encoding="utf-8-sig")
    assert [question.line for question in read_task(path).rows][:3] == [1, 3, 5]


def test_line_separators_inside_a_text_end_no_line(tmp_path):
    path = tmp_path / "task.jsonl"
    path.write_text('{"text": "one\u2028two\x85three"}\n', encoding="utf-8")
    assert read_task(path).rows[0].target == "one\u2028two\x85three"


def test_dates_stay_texts(tmp_path):
    rows = [{"text": f"day {n}", "label": f"2024-01-0{n}"} for n in (1, 2)]
    task = read_task(write_rows(tmp_path / "task.jsonl", rows))
    assert task.labels == ("2024-01-01", "2024-01-02")


def test_plain_text_is_documents(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text("\nOne.\nTwo.\n<|endoftext|>\nThree.\n<|endoftext|>\n", encoding="utf-8")
    task = read_task(path)
    assert task.kind.name == "text"
    assert [(row.line, row.target) for row in task.rows] == [(2, "One.\nTwo."), (5, "Three.")]


def test_squad_as_it_is_published(tmp_path):
    asked = {"id": "a", "question": "Where?", "answers": [{"text": "here", "answer_start": 0}]}
    none = {"id": "b", "question": "Why?", "answers": [], "is_impossible": True}
    paragraph = {"context": "It is here.", "qas": [{**asked, "is_impossible": False}, none]}
    path = tmp_path / "dev.json"
    path.write_text(json.dumps({"version": "v2.0", "data": [{"paragraphs": [paragraph]}]}))
    task = read_task(path)
    assert [(row.id, row.answers, row.target) for row in task.rows] == [
        ("a", ("here",), "here"),
        ("b", (), "unanswerable"),
    ]
    assert task.rows[0].document == task.rows[1].document


def test_rows_without_a_right_answer_are_counted(tmp_path):
    rows = [*ROWS["nli"], {"premise": "p", "hypothesis": "h", "label": "-"}]
    task = read_task(write_rows(tmp_path / "task.jsonl", rows))
    assert (len(task.rows), task.skipped) == (6, 1)
    assert task.notes == ("1 row has no right answer and cannot be asked",)


def test_empty_texts_are_not_read(tmp_path):
    rows = [{"text": ""}, {"text": " = Title = \n"}, {"text": "\n"}]
    task = read_task(write_rows(tmp_path / "wiki.jsonl", rows))
    assert [row.target for row in task.rows] == [" = Title = \n"]
    assert task.notes == ("2 rows have no text and cannot be asked",)


def test_options_that_begin_others_are_told(tmp_path):
    rows = [{"text": "a", "label": "card"}, {"text": "b", "label": "card arrival"}]
    (note,) = read_task(write_rows(tmp_path / "task.jsonl", rows)).notes
    assert "2 of 2 questions have an option that begins another, such as 'card', 'card arr" in note
    rows = [{"text": "a", "label": 0}, {"text": "b", "label": 1}]
    (note,) = read_task(write_rows(tmp_path / "task.jsonl", rows)).notes
    assert "the labels are numbers, 0, 1; --labels" in note


def test_a_missing_library_is_said_before_a_model_is_loaded(tmp_path):
    path = write_rows(tmp_path / "task.jsonl", ROWS["translate"])
    code = (
        "import sys; sys.modules['sacrebleu'] = None\n"
        "from edgellm.bench.evaluation.tasks.read_task import read_task\n"
        f"read_task({str(path)!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "BackendError: BLEU and chrF need sacrebleu" in done.stderr
