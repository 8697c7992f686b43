"""Measurements: what a record says, and that the paging and disk benches measure real runs."""

import json
import subprocess
import sys

import pytest
from support.tiny import CONFIGS, write_model

from edgellm.bench.machine.disk import files_of, measure_disk_sweep
from edgellm.bench.machine.environment import environment
from edgellm.bench.paging.paging import SHARES, PagingSettings, default_budgets, measure_paging
from edgellm.bench.records.record import SCHEMA, PagingRecord, Record
from edgellm.bench.records.text_tables import DISK_COLUMNS, PAGING_COLUMNS, as_json, as_table
from edgellm.bench.worker.memory_cap import can_cap, capped
from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.cli.app import main
from edgellm.converters.synthetic import synthesize
from edgellm.errors import ConfigError
from edgellm.hub.resolve import locate
from edgellm.plan.planner import least_memory, plan_for
from edgellm.settings import LoadSettings

COMMON = {
    "model": "m",
    "backend": "mlx",
    "device": "d",
    "test": "tg128",
    "environment": {"cores": 2},
}
DESIGN = (
    "model backend device test tokens seconds tokens_per_second threads batch bits memory_bytes peak_memory_bytes "
    "weight_bytes_per_token achieved_gbps roofline_share error environment"
)
PAGING = "pinned_layers bytes_per_token raw_read_gbps seconds_per_token efficiency peak_rss_bytes"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("bench") / "model"
    synthesize("tiny-llama", path, bits=16)
    return path


def test_a_record_derives_its_figures_from_the_median():
    record = Record(
        **COMMON,
        tokens=128,
        seconds=(4.0, 2.0, 1.0),
        batch=2,
        weight_bytes_per_token=10**9,
        floor_seconds=0.5,
    )
    assert record.median_seconds == 2.0
    assert record.tokens_per_second == 128.0
    assert record.achieved_gbps == pytest.approx(64.0)
    assert record.roofline_share == 0.25
    assert set(DESIGN.split()) <= record.as_dict().keys()


def test_a_record_without_samples_has_no_figures():
    record = Record(**COMMON, error="it is not installed")
    found = record.as_dict()
    assert [found[name] for name in ("tokens_per_second", "achieved_gbps", "roofline_share")] == [
        None
    ] * 3
    assert found["error"] == "it is not installed"


def test_efficiency_is_the_limit_over_the_measured_time():
    disk_bound = PagingRecord(
        **COMMON,
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
        **COMMON,
        tokens=1,
        seconds=(4.0,),
        bytes_per_token=10**9,
        raw_gbps=(2.0, 2.0),
        resident_seconds=3.0,
    )
    assert arithmetic_bound.efficiency == 0.75
    resident = PagingRecord(
        **COMMON, tokens=1, seconds=(4.0,), bytes_per_token=0, resident_seconds=3.0
    )
    assert resident.efficiency == 0.75
    assert PagingRecord(**COMMON, error="no").efficiency is None
    assert set(f"{DESIGN} {PAGING}".split()) <= resident.as_dict().keys()


def test_the_json_document_has_its_schema_and_every_sample():
    document = json.loads(as_json([Record(**COMMON, tokens=1, seconds=(0.25, 0.5))]))
    assert document["schema"] == SCHEMA
    assert document["records"][0]["seconds"] == [0.25, 0.5]
    assert document["records"][0]["environment"] == {"cores": 2}


def test_a_table_is_aligned_and_says_why_something_failed():
    good = PagingRecord(
        **COMMON,
        tokens=1,
        seconds=(2.0,),
        layers=32,
        pinned_layers=8,
        bytes_per_token=0,
        resident_seconds=1.0,
        memory_bytes=10**9,
    )
    head, first, second = as_table(
        [good, PagingRecord(**COMMON, error="killed")], PAGING_COLUMNS
    ).splitlines()
    assert head.split()[0] == "budget"
    assert first.split()[:4] == ["1,000", "MB", "8", "32"]
    assert len(first) == len(head)
    assert second.endswith("killed")


def test_the_environment_is_plain_data():
    found = environment()
    assert json.loads(json.dumps(found)) == found
    assert {"chip", "cores", "memory_bytes", "python", "packages", "time"} <= found.keys()
    assert found["packages"]["edgellm"]


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
    assert "the least that this model runs in is" in failed.error
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
        assert len(budgets) <= len(SHARES)
        assert not any(
            plan_for(checkpoint, LoadSettings(memory=budget, context=context)).resident
            for budget in budgets
        )
    assert budgets == [least_memory(checkpoint, LoadSettings())], (
        "the shares are too small for it, and become one budget"
    )
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


def test_the_disk_is_measured_in_every_combination(tmp_path):
    (tmp_path / "weights").write_bytes(bytes(3 << 20))
    records = measure_disk_sweep(tmp_path, threads=[1, 2], chunks=[1 << 20], repeats=2)
    assert [(record.threads, record.chunk_bytes) for record in records] == [
        (1, 1 << 20),
        (2, 1 << 20),
    ]
    assert all(len(record.seconds) == 2 and record.raw_read_gbps > 0 for record in records)
    assert all(record.read_bytes == 3 << 20 for record in records)
    assert len(as_table(records, DISK_COLUMNS).splitlines()) == 3
    assert files_of(tmp_path / "weights") == [tmp_path / "weights"]
    with pytest.raises(ConfigError, match="no file of a megabyte"):
        files_of(tmp_path / "nothing")


def test_a_capped_process_cannot_take_more():
    if not can_cap():
        with (
            pytest.raises(ConfigError, match="memory cannot be capped here"),
            capped(["true"], 1 << 30),
        ):
            pass
        return
    take = "import sys; print(len(bytearray(int(sys.argv[1]))))"
    for megabytes, survives in ((20, True), (400, False)):
        command = [sys.executable, "-c", take, str(megabytes << 20)]
        with capped(command, 200 << 20) as capped_command:
            done = subprocess.run(capped_command, capture_output=True, check=False)
        assert (done.returncode == 0) == survives


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
