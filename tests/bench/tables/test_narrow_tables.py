"""Tables fit the screen, and doubtful figures say why."""

import pytest
from support.bench_records import speed

from edgellm.bench.records.kinds import PagingRecord
from edgellm.bench.tables.columns import PAGING_COLUMNS, speed_columns
from edgellm.bench.tables.narrow_tables import doubt_lines, fitting_table, meanings_of_tests

STEADY = {"seconds": (1.0, 1.0, 1.0), "step_seconds": (0.1, 0.2), "read_gbps": 20.0}
WEIGHTS = {"weight_bytes_per_token": 10**9, "peak_memory_bytes": 5 * 10**9}
PLACES = [
    {"model": f"/home/somebody/models/{model}", "backend": backend, "threads": threads}
    for model in ("stories", "a-model-with-a-name-of-many-letters-4bit")
    for backend in ("edgellm", "llama.cpp-plain")
    for threads in (1, 16)
]


@pytest.mark.parametrize("width", [60, 80, 110])
def test_a_table_fits_and_names_the_columns_that_it_leaves_out(width):
    records = [speed(**STEADY, **WEIGHTS, **place, floor_seconds=0.5) for place in PLACES]
    columns = speed_columns(records)
    table, left_out = fitting_table(records, columns, width=width)
    lines = table.splitlines()
    assert max(map(len, lines)) <= width
    assert lines[0].split()[:3] == ["model", "backend", "threads"], "what tells lines apart stays"
    assert width == 60 or lines[-1].split()[0].endswith("4bit")
    assert "tokens/s" in lines[0]
    assert all(name not in lines[0] for name in left_out)
    wide, none = fitting_table(records, columns, width=None)
    assert none == []
    assert len(wide.splitlines()[0]) > 110


@pytest.mark.parametrize(
    ("given", "figure", "reason"),
    [
        ({"seconds": (1.0, 1.1, 1.6)}, "repetitions differ by ±27%", "other programs"),
        ({"floor_seconds": 1.2, "weight_bytes_per_token": 10**7}, "120% of", "caches"),
        ({"floor_seconds": 1.2, "weight_bytes_per_token": 10**10}, "120% of", "busier"),
    ],
)
def test_a_doubtful_speed_says_why(given, figure, reason):
    record = speed(**STEADY | given)
    (sentence,) = record.warnings
    assert figure in sentence
    assert reason in sentence
    assert record.as_dict()["warnings"] == [sentence]
    assert "!" in fitting_table([record], speed_columns([record]), width=80)[0]
    assert reason in " ".join(doubt_lines([record], width=80))


def test_a_steady_speed_below_the_limit_is_not_doubted():
    record = speed(**STEADY, floor_seconds=1.04)
    assert record.warnings == []
    assert "!" not in fitting_table([record], speed_columns([record]), width=80)[0]


def test_paging_faster_than_its_disk_is_doubted():
    record = PagingRecord(
        **{"model": "m", "backend": "edgellm", "device": "d", "test": "paging", "environment": {}},
        **{"tokens": 1, "seconds": (1.0, 1.0), "resident_seconds": 0.1, "bytes_per_token": 10**9},
        raw_gbps=(0.9, 0.9, 0.9),
    )
    assert record.warnings[0].startswith("efficiency 1.11: the disk was slower")
    assert "1.111 !" in fitting_table([record], PAGING_COLUMNS, width=80)[0]


def test_names_of_tests_are_explained():
    records = [speed(test=test) for test in ("pp512", "tg128 @ d4096", "load")]
    assert meanings_of_tests(records) == {
        "pp512": "a prompt of 512 tokens",
        "tg128 @ d4096": "128 tokens generated after 4,096 others",
    }
