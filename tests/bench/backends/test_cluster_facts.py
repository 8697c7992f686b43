"""Figures and scores of several machines are made as those of one, and name every machine."""

import json

import numpy as np
import pytest
from support.clusters import members
from support.paged import CONTEXT, PROMPT

from edgellm.bench.backends.edgellm_mlx import MLXRuntime
from edgellm.bench.backends.registry import RuntimeSettings
from edgellm.bench.evaluation.runs import worker
from edgellm.bench.records.kinds import record_of
from edgellm.bench.report.html_report import as_html
from edgellm.bench.speed.speed import Speed
from edgellm.bench.speed.workload import Workload
from edgellm.bench.tables.markdown_tables import as_markdown
from edgellm.cli.app import main

OPTIONS = {
    "name": "one",
    "context": "Once upon a time",
    "messages": [],
    "continuations": [" there", " was a", " dog"],
    "seed": 1,
}
MEASURED = {"seconds", "load_seconds", "peak_memory_bytes", "bytes_read"}


@pytest.fixture(scope="module")
def folder(tiny_folder):
    return tiny_folder("llama-3.2", config={"num_hidden_layers": 4})


def opened(folder, **settings):
    return MLXRuntime(
        str(folder), RuntimeSettings(threads=1, memory=500 << 20, context=CONTEXT, **settings)
    )


def decoded(runtime, tokens):
    """Return logits of a prompt, and the tokens that greedy steps end with, alone and of two."""
    logits = runtime.logits(PROMPT)
    ended = []
    for rows in ([PROMPT], [PROMPT, PROMPT[::-1]]):
        runtime.begin(batch=len(rows), capacity=len(PROMPT) + tokens + 1)
        runtime.prefill(np.array(rows))
        runtime.decode(tokens)
        ended.append(runtime.last_tokens())
    runtime.close()
    return logits, ended


@pytest.mark.parametrize("split", ["windows", "rows"])
def test_the_bench_measures_machines_as_it_does_one(folder, tmp_path, split):
    alone = opened(folder)
    assert alone.cluster_fields() == {}
    logits, ended = decoded(alone, 6)
    with members(folder, tmp_path, ["400MB"]) as hosts:
        runtime = opened(folder, machines=str(hosts), split=split)
        fields = runtime.cluster_fields()
        found, also = decoded(runtime, 6)
    assert np.array_equal(logits, found)
    assert ended == also
    assert fields["split"] == split
    first, second = fields["machines"]
    assert (first["budget_bytes"], second["budget_bytes"]) == (500 << 20, 400_000_000)
    assert first["share"] + second["share"] == 1
    assert first["layers"] + second["layers"] == (8 if split == "rows" else 4)
    assert 0 < second["planned_bytes"] < second["budget_bytes"] < second["memory_bytes"]
    (link,) = fields["links"]
    assert (link["first"], link["second"]) == (first["name"], second["name"])
    assert 0 < link["round_trip_seconds"] < 1
    assert link["bytes_per_second"] > 1e6


def test_a_record_and_its_pages_name_machines_and_links(folder, tmp_path):
    with members(folder, tmp_path, ["400MB"]) as hosts:
        workload = Workload(
            models=(str(folder),),
            prompt_tokens=(),
            gen_tokens=(4,),
            repetitions=1,
            threads=(1,),
            machines=str(hosts),
        )
        (record,) = Speed(workload).records()
    assert record.error is None
    assert record.tokens_per_second > 0
    assert record.cluster == "2 machines by windows"
    # neither the other machine's limits nor its energy is known here
    assert record.roofline_share is record.joules_per_token is None
    again = record_of(json.loads(json.dumps(record.as_dict())))
    assert again == record
    second = record.machines[1]["name"]
    for page in (as_html([again]), as_markdown([again])):
        assert f"{second}: {record.device}" in page
        assert f"to {second}: " in page
        assert "there and back" in page


def test_scores_of_machines_are_those_of_one(folder, tmp_path):
    requests = [
        {"do": "options", "prompts": [OPTIONS]},
        {"do": "read", "prompts": [OPTIONS], "stride": None},
        {"do": "generated", "prompts": [OPTIONS], "sampling": {"max_tokens": 5}},
    ]

    def answered(**load):
        sent = []
        order = {"model": str(folder), "load": {"threads": 1, "memory": "400MB", **load}}
        worker.serve(order, iter(requests), sent.append)
        assert not any("error" in message for message in sent)
        return sent[0], [
            {name: value for name, value in message.items() if name not in MEASURED}
            for message in sent[1:]
        ]

    loaded, alone = answered()
    assert "machines" not in loaded
    with members(folder, tmp_path, ["400MB"]) as hosts:
        for split in ("windows", "rows"):
            loaded, found = answered(machines=str(hosts), split=split)
            assert found == alone
            assert [machine["budget_bytes"] for machine in loaded["machines"]] == [400_000_000] * 2


@pytest.mark.parametrize("command", [["bench"], ["eval"]])
def test_machines_have_one_model(command, capsys):
    assert main([*command, "stories", "other", "--machines", "hosts.json"]) == 2
    assert "--machines have layers of one model, and there are 2" in capsys.readouterr().err
