"""Rows of any shape are read, or refused by an error of ours that names the file."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.task_files import ROWS, write_rows

from edgellm.bench.evaluation.tasks.kinds.table import KINDS
from edgellm.bench.evaluation.tasks.read_task import read_task
from edgellm.errors import EdgeLLMError

SCALARS = st.sampled_from([None, True, -1, 0, 1, 2.5, "", " ", "a", "-", "yes", "entailment", "1"])
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["text", "label", "de", "en", "role"]), inner, max_size=3)
    ),
    max_leaves=5,
)
NAMES = sorted(
    {
        name
        for kind in KINDS.values()
        for form in kind.forms
        for names in (*form.needs.values(), *form.may.values())
        for name in names
    }
    | {"id", "en", "de", "document_id"}
)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("tasks") / "rows.jsonl"


@st.composite
def mangled(draw):
    """Return rows of a kind with some of their fields changed, taken away or added."""
    rows = [dict(row) for row in ROWS[draw(st.sampled_from(sorted(ROWS)))]]
    for _ in range(draw(st.integers(1, 3))):
        row = draw(st.sampled_from(rows))
        name = draw(st.sampled_from([*row, *row, draw(st.sampled_from(NAMES))]))
        if draw(st.booleans()):
            row.pop(name, None)
        else:
            row[name] = draw(VALUES)
    return rows


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    rows=mangled() | st.lists(st.dictionaries(st.sampled_from(NAMES), VALUES), max_size=3),
    kind=st.none() | st.sampled_from(sorted(KINDS)),
    labels=st.none() | st.just(["a", "b"]),
)
def test_rows_are_read_or_refused(path, rows, kind, labels):
    write_rows(path, rows)
    try:
        task = read_task(path, kind, labels)
        asked = task.questions(shots=1)
        prompts = task.prompts(asked, shots=1).prompts
        assert task.prompts(asked, shots=1, chat=True)
    except EdgeLLMError:
        return  # tests/test_hints.py sees that each says a next step
    assert [prompt.question for prompt in prompts] == asked
    for question in task.rows:
        assert isinstance(question.target, str)
        assert question.right is None or question.target == question.options[question.right]
