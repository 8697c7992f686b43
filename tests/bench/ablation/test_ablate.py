"""`edgellm bench ablate`: the same tokens with a part left out, and what that costs."""

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from support.tiny import CONFIGS, write_model

from edgellm.bench.ablation.ablate import (
    AblationSettings,
    paged_budget,
)
from edgellm.bench.ablation.worker import LateReader, without_pinning
from edgellm.bench.records.record import Record
from edgellm.checkpoint.buffer import Extent, WeightBuffer
from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.cli.app import main
from edgellm.errors import BackendError
from edgellm.hub.resolve import BUNDLED
from edgellm.memory_plan.plan_checkpoint import plan_for
from edgellm.reading.disk_reader import DiskReader
from edgellm.settings import LoadSettings

QUICK = AblationSettings(prompt_tokens=8, tokens=2, repetitions=1, threads=1)


def test_ablations_that_fail_say_so_and_the_rest_goes_on(tiny_folder, capfd):
    folder = str(tiny_folder("llama-3.2", dtype=mx.bfloat16))
    options = "--memory 500MB --tokens 1 --prompt-tokens 4 --repetitions 1 --threads 1 --json"
    assert main(["bench", "ablate", folder, *options.split()]) == 1
    records = json.loads(capfd.readouterr().out)["records"]
    assert {"variant", "without", "slowdown", "seconds_per_token"} <= records[0].keys()
    assert all(Record.KIND != record["kind"] == "ablation" for record in records)
    errors = {record["variant"]: record["error"] for record in records}
    assert "not quantized" in errors["no quantization"]
    assert errors["no KV cache"] is None
    assert "holds the whole model" in errors["paged, all parts"]


def test_a_plan_without_pinning_streams_every_layer():
    checkpoint = read_checkpoint(BUNDLED / "stories")
    budget = paged_budget(checkpoint, QUICK)
    plan = plan_for(checkpoint, LoadSettings(memory=budget, context=11))
    assert plan.pinned
    bare = without_pinning(plan)
    assert bare.pinned == ()
    assert bare.streamed == tuple(range(8))
    assert bare.streamed_bytes == plan.streamed_bytes + plan.pinned_bytes
    assert plan.total_bytes - bare.total_bytes == plan.pinned_bytes


def test_a_model_that_no_budget_pages_is_an_error(tmp_path):
    one_layer = CONFIGS["llama-1"] | {"num_hidden_layers": 1}
    checkpoint = read_checkpoint(write_model(tmp_path / "one", one_layer, dtype=mx.bfloat16))
    with pytest.raises(BackendError, match="too small to be paged"):
        paged_budget(checkpoint, QUICK)


def test_a_late_reader_reads_when_it_is_waited_for(tmp_path):
    data = np.random.RandomState(0).bytes(50_000)
    file = Path(tmp_path / "data")
    file.write_bytes(data)
    inner = DiskReader(direct=False)
    reader = LateReader(inner)
    buffer = WeightBuffer(50_000)
    ticket = reader.submit([Extent(file, 0, 50_000, 0)], buffer.memory)
    assert not ticket.done()
    assert reader.bytes_read == 0
    ticket.wait()
    assert ticket.done()
    assert bytes(buffer.memory[:50_000]) == data
    assert reader.bytes_read == inner.bytes_read == 50_000
    reader.close()
