"""`edgellm bench paging`: real runs inside budgets, and what a record says of them."""

import json

import pytest
from support.bench_records import COMMON
from support.memory_cap import can_cap
from support.tiny import CONFIGS, write_model

from edgellm.bench.paging.paging import (
    FRACTIONS,
    PagingRecord,
    PagingSettings,
    default_budgets,
    measure_paging,
)
from edgellm.bench.tables.columns import PAGING_COLUMNS
from edgellm.bench.tables.text_tables import as_json, as_table
from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.cli.app import main
from edgellm.converters.synthetic import synthesize
from edgellm.errors import ConfigError
from edgellm.hub.resolve import locate
from edgellm.memory_plan.plan_checkpoint import least_memory, plan_for
from edgellm.settings import LoadSettings

PAGING = COMMON | {"test": "paging"}
FIGURES = "pinned_layers bytes_per_token raw_read_gbps seconds_per_token efficiency peak_rss_bytes"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("bench") / "model"
    synthesize("tiny-llama", path, bits=16)
    return path


def test_efficiency_is_the_limit_over_the_measured_time():
    disk_bound = PagingRecord(
        **PAGING,
        tokens=2,
        seconds=(4.0, 5.0, 4.0),
        bytes_per_token=3 * 10**9,
        raw_gbps=(2.0, 2.0, 1.0, 2.0),
        resident_seconds=0.5,
    )
    # Each repetition beside the reads around it: 2 GB/s, then twice 1.5 GB/s.
    shares = sorted([2 * 1.5 / 4, 2 * 2.0 / 5, 2 * 2.0 / 4])
    assert disk_bound.efficiency == pytest.approx(shares[1])
    assert disk_bound.roofline_share == disk_bound.efficiency
    assert disk_bound.raw_read_gbps == 2.0
    assert disk_bound.seconds_per_token == 2.0
    arithmetic_bound = PagingRecord(
        **PAGING,
        tokens=1,
        seconds=(4.0,),
        bytes_per_token=10**9,
        raw_gbps=(2.0, 2.0),
        resident_seconds=3.0,
    )
    assert arithmetic_bound.efficiency == 0.75
    resident = PagingRecord(
        **PAGING, tokens=1, seconds=(4.0,), bytes_per_token=0, resident_seconds=3.0
    )
    assert resident.efficiency == 0.75
    assert PagingRecord(**PAGING, error="no").efficiency is None
    assert set(FIGURES.split()) <= resident.as_dict().keys()


def test_paging_is_measured_in_processes_of_their_own(folder):
    layers = read_checkpoint(folder).layers
    budget = 1_500_000
    said = []
    settings = PagingSettings(samples=2, tokens=2, context=32)
    paged, failed, resident = measure_paging(
        str(folder), [budget, 1, 10**9], settings, progress=said.append
    )
    assert len(said) == 3
    assert paged.error is None
    assert 0 <= paged.pinned_layers < len(layers)
    assert paged.bytes_per_token >= (len(layers) - paged.pinned_layers) * layers[0].nbytes
    assert len(paged.seconds) == 2
    assert len(paged.raw_gbps) == 3
    assert paged.efficiency > 0
    assert paged.peak_rss_bytes > 10 * budget, (
        "the interpreter and its libraries are far larger than this model"
    )
    assert paged.bits == 16
    assert "this model needs at least" in failed.error
    assert failed.tokens_per_second is None
    assert resident.pinned_layers == len(layers)
    assert resident.bytes_per_token == 0
    assert resident.raw_read_gbps is None
    assert resident.tokens_per_second > 0
    assert as_table([paged, failed, resident], PAGING_COLUMNS)
    json.loads(as_json([paged, failed, resident]))


def test_the_usual_budgets_page_the_model_and_it_runs_in_them(folder, tmp_path):
    for path, context in ((folder, 32), (locate("stories"), None)):
        checkpoint = read_checkpoint(path)
        budgets = default_budgets(checkpoint, PagingSettings(context=context))
        assert budgets == sorted(set(budgets))
        assert len(budgets) <= len(FRACTIONS)
        assert not any(
            plan_for(checkpoint, LoadSettings(memory=budget, context=context)).resident
            for budget in budgets
        )
    assert budgets[0] == least_memory(checkpoint, LoadSettings())
    assert len(budgets) < len(FRACTIONS), "fractions below the least become one budget"
    single = write_model(
        tmp_path / "single",
        CONFIGS["llama-3.2"] | {"num_hidden_layers": 1, "tie_word_embeddings": True},
    )
    with pytest.raises(ConfigError, match="holds the whole of it") as caught:
        default_budgets(read_checkpoint(single), PagingSettings(context=32))
    assert caught.value.hint


def test_a_budget_that_is_too_small_is_said_on_standard_error(folder, capsys):
    assert main(["bench", "paging", str(folder), "--memory", "1MB", "--json"]) == 1
    streams = capsys.readouterr()
    (record,) = json.loads(streams.out)["records"]
    assert streams.err == f"{folder}, 1 MB: {record['error']}\n"


@pytest.mark.slow
def test_a_model_keeps_its_budget_and_is_as_fast_as_the_disk(tmp_path):
    synthesize("tinyllama-1.1b", tmp_path / "model")
    budgets = [250_000_000, 400_000_000]
    headroom = 500_000_000 if can_cap() else None
    records = measure_paging(
        str(tmp_path / "model"), budgets, PagingSettings(headroom=headroom, context=256)
    )
    for record, budget in zip(records, budgets, strict=True):
        assert record.error is None
        assert record.peak_rss_bytes < budget + 350_000_000
        assert record.efficiency > 0.7
    assert records[0].pinned_layers < records[1].pinned_layers
    assert records[0].bytes_per_token > records[1].bytes_per_token
