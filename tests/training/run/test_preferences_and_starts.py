"""Runs of preferences and of DoRA, and those that begin with an adapter."""

import dataclasses
import json
import math

import mlx.core as mx
import pytest
from support.task_files import write_rows
from support.training import LORA, in_four_bits, numbers_of

from edgellm.cli.app import main
from edgellm.settings import LoadSettings
from edgellm.training.run.settings import TrainSettings
from edgellm.training.run.train import TrainRequest, open_run
from edgellm.training.start_adapter import Start

WORDS = ("dog", "cat", "ball", "sun", "sea")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return in_four_bits(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    rows = [{"prompt": f"Say {word}.", "completion": word} for word in WORDS]
    return write_rows(tmp_path_factory.mktemp("data") / "data.jsonl", rows)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    rows = [{"prompt": f"Say {word}.", "chosen": word, "rejected": "no " * 9} for word in WORDS]
    return write_rows(tmp_path_factory.mktemp("data") / "pairs.jsonl", rows)


@pytest.mark.parametrize("dora", [False, True])
def test_a_run_of_preferences_from_a_start_ends_in_the_same_bits(
    folder, data, pairs, tmp_path, dora
):
    lora = dataclasses.replace(LORA, dora=dora)
    settings = TrainSettings(lora=lora, epochs=1, batch=2, save_every=1)
    load = LoadSettings(activations="float", memory="1GB")
    answers = TrainRequest(
        model=str(folder), data=data, folder=tmp_path / "answers", settings=settings, load=load
    )
    with open_run(answers) as run:
        list(run.run())
    prefers = dataclasses.replace(
        answers,
        data=pairs,
        folder=tmp_path / "whole",
        settings=dataclasses.replace(settings, stage="dpo", epochs=2),
        start=Start(answers.folder),
    )
    with open_run(prefers) as run:
        assert run.settings.lora.dora is dora
        steps = [step for step in run.run() if hasattr(step, "norm")]
        expected, history = numbers_of(run), run.trainer.history
    assert steps[0].loss == pytest.approx(math.log(2), abs=1e-12)
    stopped = dataclasses.replace(prefers, folder=tmp_path / "stopped")
    with open_run(stopped) as run:
        for step in run.run():
            if step.step == 2:
                break  # the second step is taken and not saved: it is taken again
    with open_run(dataclasses.replace(stopped, resume=True)) as run:
        assert run.trainer.step == 1
        again = [step for step in run.run() if hasattr(step, "norm")]
        found = numbers_of(run)
        assert run.trainer.history == history, "with margin and accuracy"
    assert [step.loss for step in again] == [step.loss for step in steps[1:]]
    assert all(mx.array_equal(one, two) for one, two in zip(found, expected, strict=True))


def test_the_command_learns_preferences_and_goes_on(folder, tmp_path, capsys):
    path = tmp_path / "pairs.jsonl"
    rows = [{"prompt": f"Say {n}.", "chosen": "dog", "rejected": "cat " * n} for n in range(1, 5)]
    write_rows(path, rows)
    out = tmp_path / "preferring"
    command = ["train", str(folder), str(path), str(out), "--stage", "dpo", "--batch", "2"]
    command += ["--valid", str(path), "--epochs", "2", "--rate", "1e-3", "--json"]
    assert main(command) == 0
    told = capsys.readouterr()
    _, first, last = json.loads(told.out)["epochs"]
    assert "before: on other records loss 0.6931 nats, margin 0.000" in told.err
    assert "4 pairs of " in told.err
    assert last["valid_figures"]["margin"] > first["valid_figures"]["margin"] > 0
    assert last["valid"] < first["valid"] < 0.6931
    assert main([*command, "--resume"]) == 0
    assert main([*command, "--resume", "--beta", "0.2"]) == 2, "another loss is another run's"
    path.with_name("model").mkdir()
    assert main([*command[:3], str(tmp_path / "model"), *command[4:], "--full"]) == 2


def test_a_dora_answers_goes_on_and_is_merged(folder, data, tmp_path, capsys):
    out = tmp_path / "dora"
    command = ["train", str(folder), str(data), str(out), "--dora", "--batch", "2"]
    assert main([*command, "--epochs", "1", "--answers", "1", "--answer-tokens", "4"]) == 0
    told = capsys.readouterr().err
    assert "question 1: " in told
    assert "after: " in told
    assert f"--adapter {out}" in told.splitlines()[-1]
    assert main([*command, "--epochs", "2", "--resume", "--answers", "0"]) == 0
    merged = tmp_path / "merged"
    assert main(["convert", str(folder), str(merged), "--adapter", str(out), "--bits", "16"]) == 0


def test_runs_begin_with_adapters_of_others(folder, data, tmp_path, capsys):
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    common = ["--batch", "5", "--epochs", "1", "--rate", "1e-2", "--warmup", "0", "--json"]
    common += ["--answers", "0"]
    learn = ["--rank", "3", "--alpha", "5", "--on", "q,o", "--layers", "2", "--dropout", "0"]
    command = ["train", str(folder), str(data)]
    assert main([*command, str(first), *learn, *common, "--valid", str(data)]) == 0
    [before, after] = json.loads(capsys.readouterr().out)["epochs"]
    start = ["--start-from", str(first)]
    assert main([*command, str(second), *start, *common, "--valid", str(data)]) == 0
    [begun, _] = json.loads(capsys.readouterr().out)["epochs"]
    assert before["valid"] > begun["valid"] == pytest.approx(after["valid"], abs=1e-6)
    config = json.loads((second / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["layers_to_transform"]) == (3, 5, [2, 3])
    assert main([*command, str(third), *start, *common, "--rank", "8"]) == 2
    assert "--rank is 8, and the adapter" in capsys.readouterr().err
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text(json.dumps({"prompt": "Say dog.", "chosen": "dog", "rejected": "cat"}))
    prefer = ["train", str(folder), str(pairs), str(third), "--stage", "dpo", *common]
    assert main([*prefer, *start, "--valid", str(pairs)]) == 0
    [begun, _] = json.loads(capsys.readouterr().out)["epochs"]
    assert begun["valid"] == pytest.approx(math.log(2), abs=1e-6), "the start is the reference"
    assert main([*prefer, "--start-from", str(second), "--resume", "--valid", str(pairs)]) == 2
    assert "began with another adapter" in capsys.readouterr().err
