"""A record of a load test: percentiles, rates, doubts, files, tables and the page."""

import pytest
from support.bench_records import serving

from edgellm.bench.records.kinds import record_of
from edgellm.bench.report.html_report import as_html
from edgellm.bench.tables.columns import ratio_sentences, serving_columns
from edgellm.bench.tables.text_tables import as_csv, as_table


def test_figures_are_derived_from_samples():
    record = serving(first_token_seconds=tuple(n / 100 for n in range(1, 101)))
    assert record.tokens_per_second == pytest.approx(150 / 3.0)
    assert record.requests_per_second == pytest.approx(4 / 3.0)
    assert (record.ttft_p50, record.ttft_p95, record.ttft_p99) == (0.5, 0.95, 0.99)
    assert record.tpot_p50 == pytest.approx((2.0 - 0.015) / 9)
    assert record.itl_p99 == 0.2
    assert record.client_share == pytest.approx(0.1)
    assert record.spread == 0.0
    assert record.failed == 0
    assert record.doubts == []


def test_a_record_is_read_back_from_its_document():
    record = serving(failures={"HTTP 503": 2}, rate=2.5, spawn_rate=1.0)
    assert record_of(record.as_dict()) == record


def test_failures_a_busy_client_and_turns_that_differ_are_doubted():
    record = serving(failures={"HTTP 503": 2}, client_seconds=2.0, turn_tokens=(50, 200))
    said = " ".join(record.warnings)
    assert "2 of 4 requests failed: HTTP 503 (2)" in said
    assert "the client took 67% of a core" in said
    assert "repetitions differ" in said


def test_ratios_are_those_of_the_first_server():
    records = [
        serving(),
        serving(backend="other", turn_tokens=(25, 50), first_token_seconds=(1.0, 1.0)),
        serving(batch=1),
        serving(backend="other", batch=1, turn_tokens=()),
    ]
    assert ratio_sentences(records) == [
        "8 users: edgellm has 2.00 times the tokens/s and 0.10 times the time to the first token "
        "of other"
    ]


def test_tables_have_users_or_arrivals():
    assert "users" in serving_columns([serving()])
    columns = serving_columns([serving(rate=2.0)])
    assert "users" not in columns
    assert as_table([serving(rate=2.0)], columns).splitlines()[1].split()[1] == "2"
    assert "failures.HTTP 503" in as_csv([serving(failures={"HTTP 503": 2})])


def test_the_page_draws_throughput_and_first_tokens_over_users():
    records = [
        serving(backend=name, batch=users, failures={"<b>": 1})
        for users in (1, 8, 32)
        for name in ("edgellm", "other")
    ]
    page = as_html(records)
    assert page.count("<svg viewBox") >= 4
    assert "tokens per second, all streams together over users at once" in page
    assert "p99 of the time to first token, in ms over users at once" in page
    assert "8 users: edgellm has 1.00 times" in page
    assert "<b>" not in page.partition("failed requests")[2].partition("</details>")[0]
    assert "arrivals per second" in as_html([serving(rate=2.0), serving(rate=4.0)])
    assert "Servers under load" not in as_html([serving(error="refused")])
