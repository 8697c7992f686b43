"""Records as text: every form takes every record."""

import csv
import io
import json

from hypothesis import given, settings
from hypothesis import strategies as st
from support.bench_records import (
    COMMON,
    MACHINE,
    evaluation,
    query,
    serving,
    speed_records,
    training,
)

from edgellm.bench.records.evaluation import EvaluationRecord
from edgellm.bench.records.kinds import (
    KINDS,
    AblationRecord,
    DiskRecord,
    PagingRecord,
    ParityRecord,
)
from edgellm.bench.records.record import SCHEMA, Record
from edgellm.bench.tables.columns import COLUMNS, PAGING_COLUMNS, speed_columns
from edgellm.bench.tables.markdown_tables import as_markdown
from edgellm.bench.tables.text_tables import as_csv, as_json, as_table

GENERATION = COMMON | {"test": "tg128"}


def test_the_json_document_has_its_schema_and_every_sample():
    document = json.loads(as_json([Record(**GENERATION, tokens=1, seconds=(0.25, 0.5))]))
    assert document["schema"] == SCHEMA
    assert document["records"][0]["seconds"] == [0.25, 0.5]
    assert document["records"][0]["environment"] == MACHINE


def test_a_table_is_aligned_and_says_why_something_failed():
    good = PagingRecord(
        **GENERATION,
        tokens=1,
        seconds=(2.0,),
        layers=32,
        pinned_layers=8,
        bytes_per_token=0,
        resident_seconds=1.0,
        memory_bytes=10**9,
    )
    head, first, second = as_table(
        [good, PagingRecord(**GENERATION, error="killed")], PAGING_COLUMNS
    ).splitlines()
    assert head.split()[0] == "budget"
    assert first.split()[:4] == ["1,000", "MB", "8", "32"]
    assert len(first) == len(head)
    assert second.endswith("killed")


@settings(max_examples=25, deadline=None)
@given(found=st.lists(speed_records, min_size=1, max_size=4))
def test_every_writer_takes_every_record(found):
    assert len(list(csv.reader(io.StringIO(as_csv(found), newline="")))) == 1 + len(found)
    table = [line for line in as_markdown(found).splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in table}) == 1
    assert as_table(found, speed_columns(found))


def test_evaluations_are_in_every_form_without_the_values_of_each_question_in_tables():
    found = [evaluation([1, 0]), evaluation([0, 0], model="x|y"), evaluation([1], error="<no>")]
    text = as_markdown(found)
    assert "## tickets (choose, 2 questions" in text
    assert "x&#124;y" in text
    assert "m, tickets: &lt;no>" in text
    assert "tokens/s" in text
    lines = list(csv.DictReader(io.StringIO(as_csv(found), newline="")))
    assert lines[0]["metrics.accuracy"] == "0.5"
    assert not [name for name in lines[0] if name.startswith(("columns", "question_ids"))]


def test_no_kind_is_left_out_of_markdown():
    assert set(COLUMNS) | {EvaluationRecord.KIND} == set(KINDS)
    found = [
        training(),
        training(backend="peft", seconds=(2.0, 4.0)),
        training(backend="cuda", error="it is <not> installed", seconds=()),
        serving(),
        query(),
        ParityRecord(**GENERATION, kl=0.00123, text_equal=True),
        AblationRecord(**GENERATION, variant="without the KV cache"),
        DiskRecord(**GENERATION, chunk_bytes=10**6, read_bytes=10**9, direct_reads=True),
        Record(**GENERATION, seconds=(1.0,)),
        evaluation([1, 0]),
    ]
    text = as_markdown(found)
    for said in (
        "| backend | technique |",
        "| edgellm | LoRA | 1,000 |",
        "- LoRA: edgellm has 2.00 times the tokens/s",
        "it is &lt;not> installed |",
        "| server | users |",
        "0.0012",
        "without the KV cache",
        "## tickets (choose",
        "- A chip, 4 cores",
    ):
        assert said in text, said
    heads = [line for line in text.splitlines() if line.startswith("## ")]
    assert heads[:3] == ["## Training", "## Serving", "## Queries"]
    # of one kind there is no need to name it
    assert "##" not in as_markdown(found[:2])
