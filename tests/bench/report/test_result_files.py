"""Result files: written, read back, compared, and made a page of."""

import json
import math
import random
import re
import statistics
import string
from html.parser import HTMLParser
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.paths import ROOT

from edgellm.bench.ablation.ablate import AblationRecord
from edgellm.bench.commands.compare import said
from edgellm.bench.evaluation.parity import ParityRecord
from edgellm.bench.machine.environment import commit, power_state
from edgellm.bench.queries.queries import QueryRecord
from edgellm.bench.records.compare import Change, change, compare, environments
from edgellm.bench.records.record import SpeedRecord, percentile
from edgellm.bench.records.text_tables import as_csv, as_json, as_markdown, as_table, speed_columns
from edgellm.bench.report.html_report import as_html
from edgellm.bench.report.plots import Line, chart, steps
from edgellm.bench.report.result_files import Output, read_records, write_records
from edgellm.cli.app import main
from edgellm.errors import BackendError, ConfigError, FormatError

PLACE = {
    "chip": "A chip",
    "cores": 4,
    "memory_bytes": 8 * 10**9,
    "system": "Linux",
    "time": "2026-01-01T00:00:00Z",
}
COMMON = {"model": "m", "backend": "mlx", "device": "A chip", "environment": PLACE}
ALLOWED = {
    *(
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "h1",
        "h2",
        "h3",
        "p",
        "br",
        "div",
        "section",
        "span",
        "b",
        "i",
    ),
    *(
        "details",
        "summary",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "dl",
        "dt",
        "dd",
        "ul",
        "li",
    ),
    *("figure", "figcaption", "svg", "path", "text", "g", "circle", "rect"),
}

texts = st.text(max_size=20)
seconds = st.lists(st.floats(1e-6, 1e4), max_size=6).map(tuple)
records = st.builds(
    SpeedRecord,
    model=texts,
    backend=st.sampled_from(["mlx", "cpu", "llama.cpp"]) | texts,
    device=texts,
    test=st.sampled_from(["pp512", "tg128", "tg128 @ d64", "load"]),
    environment=st.just(PLACE) | st.dictionaries(texts, texts | st.none(), max_size=3),
    tokens=st.integers(1, 10**6),
    seconds=seconds,
    threads=st.none() | st.integers(1, 64),
    batch=st.integers(1, 64),
    bits=st.none() | st.sampled_from([4, 8, 16]),
    memory_bytes=st.none() | st.integers(1, 10**12),
    peak_memory_bytes=st.none() | st.integers(1, 10**12),
    weight_bytes_per_token=st.none() | st.integers(1, 10**12),
    floor_seconds=st.none() | st.floats(1e-9, 1e3),
    step_seconds=seconds,
    energy_joules=seconds,
    read_gbps=st.none() | st.floats(0.1, 1e4),
    error=st.none() | texts.filter(bool),
)


def speed(**more):
    return SpeedRecord(
        **(COMMON | {"test": "tg32", "tokens": 32, "seconds": (1.0, 1.1, 1.2)} | more)
    )


class Tags(HTMLParser):
    """What a page consists of."""

    def __init__(self, text):
        super().__init__()
        self.found, self.attributes, self.texts = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.texts.append(data)


@settings(max_examples=25, deadline=None)
@given(found=st.lists(records, max_size=4))
def test_what_is_written_is_read_back(found, tmp_path_factory):
    folder = tmp_path_factory.mktemp("written")
    expected = json.loads(as_json(found))["records"]
    for suffix in ("json", "jsonl"):
        output = Output(folder / f"records.{suffix}")
        for number, record in enumerate(found, 1):
            output.add(record.as_dict())
            assert len(read_records(output.path)) == number, "each one is on disk before the next"
        if found:
            assert read_records(output.path) == expected
        write_records(output.path, expected)
        assert read_records(output.path) == expected
    assert sorted(path.suffix for path in folder.iterdir()) == [".json", ".jsonl"], (
        "nothing is left over"
    )


@settings(max_examples=25, deadline=None)
@given(found=st.lists(records, min_size=1, max_size=4))
def test_every_writer_takes_every_record(found):
    import csv
    import io

    assert len(list(csv.reader(io.StringIO(as_csv(found), newline="")))) == 1 + len(found)
    table = [line for line in as_markdown(found).splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in table}) == 1
    rows = [record.as_dict() | {"error": None} for record in found]
    assert as_table(rows, speed_columns(rows))
    page = Tags(as_html(found))
    assert set(page.found) <= ALLOWED


def test_the_page_holds_nothing_from_elsewhere_and_escapes_what_it_shows():
    evil = '<script>alert(1)</script><img src="https://x/y">'
    found = [
        speed(model=evil, backend=evil, arithmetic=evil, threads=1, floor_seconds=0.5),
        speed(model=evil, backend=evil, threads=2, error=evil, environment=PLACE | {evil: evil}),
        speed(model=evil, backend=evil, threads=2, test="pp8"),
        QueryRecord(
            **COMMON,
            test="query",
            tokens=3,
            seconds=(1.0,),
            question=evil,
            answer=evil,
            score=3.0,
            scored_by=evil,
            model_bytes=9,
        ),
    ]
    text = as_html(found)
    page = Tags(text)
    assert set(page.found) <= ALLOWED
    assert "<script" not in text
    assert not {name for name, _ in page.attributes} & {
        "src",
        "href",
        "onload",
        "onclick",
        "srcset",
    }
    assert evil in "".join(page.texts)
    assert not re.search(r"url\(|@import|https?://", re.sub(r"&lt;.*?&gt;", "", text))
    assert "prefers-color-scheme:dark" in text
    assert 'name="viewport"' in text


def test_the_page_shows_each_plot_with_a_table_beneath():
    both = [
        speed(
            backend=backend,
            threads=threads,
            test=test,
            floor_seconds=0.5,
            step_seconds=(0.1, 0.2),
            seconds=(1.0 / threads,),
        )
        for backend in ("mlx", "cpu")
        for threads in (1, 2)
        for test in ("tg32", "pp128")
    ]
    asked = [
        QueryRecord(
            **(COMMON | {"model": model}),
            test="query",
            tokens=10,
            seconds=(8.0 / threads,),
            threads=threads,
            question="What?",
            answer="That.",
            score=score,
            scored_by="person",
            model_bytes=size,
        )
        for model, size, score in (("small", 10**9, 3.0), ("large", 4 * 10**9, 8.0))
        for threads in (1, 2, 4)
    ]
    same = {
        "test": "parity",
        "kl": 0.01,
        "text": "a",
        "reference_text": "b",
        "text_equal": False,
        "equal_tokens": 3,
    }
    agreeing = [ParityRecord(**COMMON, **same, bits=bits) for bits in (4, 8)]
    parts = [
        AblationRecord(
            **COMMON, test="ablation", variant="all", tokens=2, seconds=(1.0,), whole_seconds=1.0
        )
    ]
    text = as_html(
        [*both, *asked, *agreeing, *parts, speed(error="no memory", test="load", seconds=())]
    )
    for title in (
        "Generation",
        "Prompt",
        "How near",
        "What threads bring",
        "Time of a single token",
        "Questions",
        "What went wrong",
    ):
        section = text.partition(f"<h2>{title}")[2].partition("<h2>")[0]
        assert "<table>" in section, title
    assert text.count("<svg viewBox") == 2 + 2 + 1
    assert "Accuracy and size" in text
    assert "100%" in text.partition("Time and cores")[2], "these answers scale as they should"
    assert as_html([]).count("<h2>") == 1


def test_a_file_of_something_else_is_refused(tmp_path):
    for number, text in enumerate(
        [
            "",
            "{",
            "[]",
            '{"schema": 1, "records": [{}]}',
            '{"schema": 99, "records": []}',
            '{"schema": 1, "records": 3}',
            "\udc80",
        ]
    ):
        path = tmp_path / f"{number}.json"
        path.write_bytes(text.encode(errors="surrogateescape"))
        with pytest.raises(FormatError, match="holds no records"):
            read_records(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_records(tmp_path / "nothing.json")


def test_a_file_of_no_records_is_compared_with_nothing(tmp_path, capsys):
    write_records(tmp_path / "some.json", [speed().as_dict()])
    write_records(tmp_path / "none.json", [])
    assert main(["bench", "compare", str(tmp_path / "some.json"), str(tmp_path / "none.json")]) == 1
    assert "none.json holds no records of edgellm bench: it is empty" in capsys.readouterr().err


def test_a_line_that_was_cut_off_is_left_out(tmp_path):
    output = Output(tmp_path / "cut.jsonl")
    output.add(speed().as_dict())
    with output.path.open("a") as file:
        file.write('{"schema": 1, "mod')
    assert len(read_records(output.path)) == 1


def test_what_was_measured_before_stays_until_the_first_record_comes(tmp_path):
    path = tmp_path / "out.jsonl"
    path.write_text("before\n")
    output = Output(path)
    assert path.read_text() == "before\n"
    output.add(speed().as_dict())
    output.add(speed().as_dict())
    assert len(read_records(path)) == 2


def test_a_disk_that_refuses_is_an_error(tmp_path):
    output = Output(tmp_path / "out.json")
    (tmp_path / "out.json").mkdir()
    with pytest.raises(BackendError, match="cannot be written"):
        output.add(speed().as_dict())
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]


def test_derived_figures_of_a_speed():
    prompt = speed(
        test="pp100", tokens=100, batch=2, seconds=(2.0, 4.0, 3.0), weight_bytes_per_token=3 * 10**9
    )
    assert prompt.achieved_gbps == pytest.approx(1.0), "a prompt goes through the weights once"
    assert prompt.tokens_per_second == pytest.approx(200 / 3)
    assert prompt.time_to_first_token == 3.0
    assert prompt.spread == pytest.approx(1 / 3)
    generation = speed(
        tokens=10, batch=2, seconds=(2.0,), weight_bytes_per_token=10**9, energy_joules=(40.0,)
    )
    assert generation.achieved_gbps == pytest.approx(5.0), (
        "a step of all sequences goes through them once"
    )
    assert generation.joules_per_token == 2.0
    assert generation.spread is None
    assert speed(first_token_seconds=(3.0, 1.0, 2.0)).time_to_first_token == 2.0
    assert speed().joules_per_token is None, "what is not measured is not zero"
    assert speed(seconds=()).tokens_per_second is None


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50), st.floats(1, 100))
def test_a_percentile_is_a_sample_that_so_many_do_not_exceed(samples, share):
    found = percentile(samples, share)
    assert found in samples
    assert sum(value <= found for value in samples) >= share / 100 * len(samples) - 1e-9


def test_a_change_is_the_median_of_all_pairs_and_knows_its_noise():
    faster = change([2.0, 2.1, 1.9, 2.0, 2.05], [1.0, 1.02, 0.98, 1.0, 1.01])
    assert faster.ratio == pytest.approx(2.0, rel=0.05)
    assert faster.low > 1.8
    assert faster.within_noise is False
    same = change([2.0, 2.1, 1.9, 2.0, 2.05], [2.0, 2.05, 1.95, 2.02, 1.99])
    assert same.within_noise is True
    assert change([1.0], [2.0]) == Change(0.5)
    assert change([1.0], [2.0]).within_noise is None
    assert change([1.0, 1.1], [2.0, 2.1]).confidence == pytest.approx(1 - 2 / 6)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(0.1, 10), min_size=2, max_size=7),
    st.lists(st.floats(0.1, 10), min_size=2, max_size=7),
)
def test_the_change_back_is_the_inverse(before, after):
    there, back = change(before, after), change(after, before)
    assert there.low <= there.ratio <= there.high
    assert back.low == pytest.approx(1 / there.high)
    assert back.high == pytest.approx(1 / there.low)
    assert there.confidence == pytest.approx(back.confidence)
    assert there.confidence <= 1


@pytest.mark.parametrize("count", [3, 5, 6])
def test_the_confidence_is_that_of_counting(count):
    """Of all ways to deal ranks to two sides, in so many does the interval hold the truth."""
    every = list(combinations(range(2 * count), count))
    found = change(
        [1.0 + place / 1000 for place in range(count)],
        [1.0 + place / 1000 for place in range(count)],
    )
    held = 0
    for chosen in every:
        rest = [rank for rank in range(2 * count) if rank not in chosen]
        one = change([math.exp(rank) for rank in chosen], [math.exp(rank) for rank in rest])
        held += one.low <= 1.0 <= one.high
    assert held / len(every) == pytest.approx(found.confidence)


def test_the_interval_covers_as_it_says():
    drawn = random.Random(5)
    held = 0
    for _ in range(400):
        before = [math.exp(drawn.gauss(0, 0.1)) for _ in range(5)]
        after = [math.exp(drawn.gauss(0, 0.1)) / 1.3 for _ in range(5)]
        found = change(before, after)
        held += found.low <= 1.3 <= found.high
    assert held / 400 > 0.92


def test_files_of_different_machines_are_matched_by_what_they_measure():
    other = PLACE | {"chip": "Another", "cores": 8}
    mac = [
        speed(threads=4),
        speed(threads=4, test="pp8", seconds=(1.0,)),
        speed(threads=4, backend="cpu"),
    ]
    server = [
        speed(threads=8, environment=other, seconds=(0.5, 0.55, 0.6), model="/elsewhere/m"),
        speed(threads=8, test="pp8", error="killed", seconds=(), environment=other),
    ]
    found = compare([[record.as_dict() for record in mac], [record.as_dict() for record in server]])
    assert [(item.key["backend"], item.key["test"]) for item in found] == [
        ("mlx", "tg32"),
        ("mlx", "pp8"),
        ("cpu", "tg32"),
    ]
    assert found[0].changes[0].ratio == pytest.approx(2.0)
    assert found[1].changes == (None,)
    assert found[2].records[1] is None
    several = [speed(threads=count).as_dict() for count in (1, 2)]
    assert len(compare([several, several])) == 2, "threads matter where a file has several of them"
    places = environments(
        [[record.as_dict() for record in mac], [record.as_dict() for record in server]]
    )
    assert places == {"chip": ("A chip", "Another"), "cores": ("4", "8")}


def test_a_change_in_words():
    assert said(None) == "-"
    assert said(Change(1.5)) == "1.50 x (single sample)"
    assert said(Change(1.5, 1.4, 1.6, 0.95)) == "1.50 x (1.40 to 1.60)"
    assert said(Change(1.0, 0.9, 1.1, 0.95)) == "1.00 x (0.90 to 1.10, within noise)"


def test_compare_and_report_on_the_command_line(tmp_path, capsys):
    first, second, html = tmp_path / "first.json", tmp_path / "second.jsonl", tmp_path / "both.html"
    write_records(first, [speed().as_dict(), speed(backend="cpu").as_dict()])
    write_records(
        second, [speed(seconds=(0.5, 0.6, 0.55)).as_dict(), speed(backend="cpu").as_dict()]
    )
    assert main(["bench", "compare", str(first), str(second)]) == 0
    table = capsys.readouterr().out
    assert table.splitlines()[0].split() == ["backend", "first", "second", "change", "second"]
    assert "2.00 x" in table
    assert "within noise" in table
    assert main(["bench", "compare", str(first), str(second), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["files"] == ["first", "second"]
    assert document["comparisons"][1]["changes"][0]["within_noise"] is True
    assert main(["bench", "report", str(first), str(second), "--html", str(html)]) == 0
    assert "<h2>Generation</h2>" in html.read_text()
    assert main(["bench", "compare", str(first)]) == 2
    assert main(["bench", "report", str(first), "--html", "page.txt"]) == 2


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_ticks_enclose_what_they_are_for(low, span):
    high = low + span
    found = steps(low, high)
    assert 2 <= len(found) <= 8
    assert found == sorted(set(found))
    if span > 0 and high - low > 1e-3 * max(abs(low), abs(high)):
        assert found[0] <= low + 1e-9 * span
        assert found[-1] >= high - 1e-6 * span


def test_points_of_a_chart_lie_inside_it():
    lines = [Line("a", [(1, 5.0), (8, 1.0)]), Line("b", [(2, 0.0)], 1)]
    text = chart(lines, x_name="x", y_name="y", x_ticks=[1, 2, 8], logarithmic=True)
    drawn = [
        tuple(map(float, found))
        for found in re.findall(r'circle cx="([\d.]+)" cy="([\d.]+)"', text)
    ]
    assert all(0 <= x <= 420 and 0 <= y <= 300 for x, y in drawn)


def test_power_and_commit_are_told_where_they_are_known(tmp_path):
    nothing = power_state(tmp_path / "none", tmp_path / "none")
    assert nothing["governor"] is None
    (tmp_path / "BAT0").mkdir()
    (tmp_path / "BAT0" / "status").write_text("Discharging\n")
    (tmp_path / "governor").write_text("powersave\n")
    found = power_state(tmp_path, tmp_path / "governor")
    assert found["governor"] == "powersave"
    if nothing["source"] is None:  # not a Mac, which asks elsewhere
        assert found["source"] == "battery"
        (tmp_path / "AC").mkdir()
        (tmp_path / "AC" / "online").write_text("1\n")
        assert power_state(tmp_path, tmp_path / "governor")["source"] == "AC"
    assert commit(tmp_path) is None
    assert set(string.hexdigits) >= set((commit(ROOT / "bench") or "0").rstrip("+"))


def test_median_and_spread_survive_equal_samples():
    record = speed(seconds=(1.0, 1.0))
    assert record.spread == 0.0
    assert statistics.median(record.seconds) == record.median_seconds
