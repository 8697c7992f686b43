"""Examples: never a row that is asked, nor one that says the same."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.task_files import ROWS, write_rows

from edgellm.bench.evaluation.tasks.read_task import read_task
from edgellm.errors import ConfigError

NAMES = st.sampled_from("abcdefgh")
ROW = st.fixed_dictionaries(
    {"question": NAMES, "context": st.sampled_from(["One.", "Two.", "Three.", "Four."])}
)
LABELLED = st.fixed_dictionaries({"text": NAMES, "label": st.sampled_from(["x", "y", "z"])})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tasks")


def said(question):
    """Return what makes a question the one that it is."""
    return question.shown.get("question"), question.shown.get("text"), question.shown.get("context")


def check_apart(asked, shots):
    ids = {question.id for question in asked}
    texts = {said(question) for question in asked}
    assert not ids & {shot.id for shot in shots}
    assert not texts & {said(shot) for shot in shots}
    assert len({said(shot) for shot in shots}) == len(shots)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    rows=st.lists(ROW, min_size=2, max_size=14) | st.lists(LABELLED, min_size=3, max_size=14),
    most=st.integers(1, 3),
    seeds=st.integers(1, 2),
    limit=st.none() | st.integers(1, 6),
)
def test_no_example_is_asked_or_says_the_same(folder, rows, most, seeds, limit):
    rows = [
        {"id": number, **row, **({} if "text" in row else {"answers": [str(number)]})}
        for number, row in enumerate(rows)
    ]
    path = write_rows(folder / "rows.jsonl", rows)
    try:
        task = read_task(path)
        asked = task.questions(limit, shots=most, shot_seeds=seeds)
    except ConfigError:
        return  # one label, or too few rows
    assert asked
    assert asked == task.questions(limit, shots=most, shot_seeds=seeds)
    assert [question.line for question in asked] == sorted(question.line for question in asked)
    for seed in range(seeds):
        for shots in range(most + 1):
            prompts = task.prompts(asked, shots=shots, shot_seed=seed)
            assert len(prompts.shots) == shots
            check_apart(asked, prompts.shots)
            for prompt in prompts.prompts:
                assert prompt.context.startswith(prompts.block)


@pytest.mark.parametrize("kind", ROWS)
def test_each_number_of_examples_asks_the_same_questions(folder, kind):
    task = read_task(write_rows(folder / f"{kind}.jsonl", ROWS[kind]))
    asked = task.questions(shots=2)
    blocks = [task.prompts(asked, shots=shots) for shots in (0, 1, 2)]
    assert all([p.question for p in one.prompts] == asked for one in blocks)
    if kind == "text":
        assert asked == list(task.rows), "texts are read without examples"
        return
    assert [len(one.shots) for one in blocks] == [0, 1, 2]
    assert blocks[2].shots[:1] == blocks[1].shots
    assert blocks[2].shots[0] == task.rows[-1]


def test_examples_take_labels_in_turn(folder):
    rows = [{"text": f"t{n}", "label": "abc"[n // 5]} for n in range(15)]
    task = read_task(write_rows(folder / "sorted.jsonl", rows))
    asked = task.questions(shots=3, shot_seeds=2)
    for seed in (0, 1):
        shots = task.prompts(asked, shots=3, shot_seed=seed).shots
        assert {shot.target for shot in shots} == {"a", "b", "c"}
    assert [question.line for question in asked] == [1, 2, 3, 6, 7, 8, 11, 12, 13]


def test_questions_about_an_example_s_document_are_not_asked(folder):
    task = read_task(write_rows(folder / "towns.jsonl", ROWS["answer"]))
    asked = task.questions(shots=2)
    shots = task.prompts(asked, shots=2).shots
    assert [shot.id for shot in shots] == ["q7", "q5"], "a document each"
    assert [question.id for question in asked] == ["q0", "q1", "q2", "q3"]
    one_town = [{**row, "context": "One town."} for row in ROWS["answer"]]
    task = read_task(write_rows(folder / "town.jsonl", one_town))
    assert len(task.questions(shots=2)) == 6, "there is no other document"


def test_examples_of_another_file(folder):
    asked_path = write_rows(folder / "asked.jsonl", ROWS["classify"][:3])
    others = [
        ROWS["classify"][0],
        {"text": "new", "label": "fees"},
        {"text": "old", "label": "cash"},
    ]
    task = read_task(asked_path, shots_from=write_rows(folder / "others.jsonl", others))
    assert task.labels == ("cards", "cash", "fees")
    asked = task.questions(shots=2)
    assert len(asked) == 3
    assert [shot.shown["text"] for shot in task.prompts(asked, shots=2).shots] == ["new", "old"]
    with pytest.raises(
        ConfigError, match="too few rows can be examples: 2 for 3; no row is shown that"
    ):
        task.prompts(asked, shots=3)


def test_too_few_rows(folder):
    task = read_task(write_rows(folder / "few.jsonl", ROWS["classify"]))
    with pytest.raises(ConfigError, match="has 6 rows: too few for 6 examples and a question"):
        task.questions(shots=3, shot_seeds=2)
    assert len(task.questions(shots=5)) == 1
