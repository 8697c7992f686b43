"""Runs that learn every number: they go on bit for bit, and what they learn is a model."""

import dataclasses

import mlx.core as mx
import pytest
from support.folders import tensors_of
from support.task_files import write_rows
from support.tiny import CONFIGS, write_model
from support.training import write_texts

from edgellm.cli.app import main
from edgellm.converters import convert
from edgellm.errors import ConfigError, MemoryBudgetError
from edgellm.settings import LoadSettings
from edgellm.training.run.settings import TrainSettings
from edgellm.training.run.train import EpochReport, StepReport, TrainRequest, open_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "source", CONFIGS["llama-3.2"])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_texts(tmp_path_factory.mktemp("data") / "data.txt")


def request(folder, data, out, **settings):
    return TrainRequest(
        model=str(folder),
        data=data,
        folder=out,
        settings=TrainSettings(method="full", stage="text", epochs=2, batch=2, **settings),
        load=LoadSettings(memory="1GB"),
        max_tokens=24,
    )


def test_a_run_that_was_stopped_ends_in_the_same_bits(folder, data, tmp_path):
    with open_run(request(folder, data, tmp_path / "whole")) as run:
        whole = [step.loss for step in run.run() if isinstance(step, StepReport)]
    stopped = request(folder, data, tmp_path / "stopped", save_every=1)
    with open_run(stopped) as run:
        for step in run.run():
            if step.step == 2:
                break  # taken and not saved
    with open_run(dataclasses.replace(stopped, resume=True)) as run:
        losses = [step.loss for step in run.run() if isinstance(step, StepReport)]
    assert losses == whole[1:]
    one, other = tensors_of(tmp_path / "whole"), tensors_of(tmp_path / "stopped")
    assert all(mx.array_equal(array, other[name]) for name, array in one.items())


def test_a_model_learns_texts_by_heart(folder, data, tmp_path):
    asked = request(folder, data, tmp_path / "out")
    rates = dataclasses.replace(asked.settings.rates, rate=5e-3)
    settings = dataclasses.replace(asked.settings, steps=15, rates=rates)
    asked = dataclasses.replace(asked, settings=settings, valid=data)
    with open_run(asked) as run:
        epochs = [report for report in run.run() if isinstance(report, EpochReport)]
    first, last = epochs[0], epochs[-1]
    assert last.valid < first.valid / 2
    ratio = first.bits_per_byte / first.valid
    assert last.bits_per_byte == pytest.approx(ratio * last.valid)


def test_the_command_makes_a_model(folder, data, tmp_path, capsys):
    out = tmp_path / "model"
    command = ["train", str(folder), str(data), str(out), "--full", "--stage", "text"]
    command += ["--steps", "2", "--batch", "2", "--max-tokens", "24", "--dtype", "bfloat16"]
    assert main([*command, "--valid", str(data)]) == 0
    told = capsys.readouterr()
    assert "all of them learned" in told.err
    assert "bits a byte" in told.err
    assert f"edgellm generate {out} --prompt" in told.err
    assert main(["generate", str(out), "Once", "--max-tokens", "3"]) == 0
    assert main(["convert", str(out), str(tmp_path / "four"), "--bits", "4"]) == 0
    assert main(command) == 2, "a folder that holds a run is not begun anew"


def test_codes_are_not_learned(folder, data, tmp_path):
    convert(folder, tmp_path / "four", bits=4, group_size=32)
    asked = request(tmp_path / "four", data, tmp_path / "out")
    with pytest.raises(ConfigError, match="codes cannot be learned") as refused, open_run(asked):
        pass
    assert "--bits 16" in refused.value.hint


def test_too_little_memory_is_said_before_anything_is_learned(folder, data, tmp_path):
    asked = dataclasses.replace(
        request(folder, data, tmp_path / "out"), load=LoadSettings(memory="100MB")
    )
    with pytest.raises(MemoryBudgetError, match="learning every number"), open_run(asked):
        pass


def test_a_model_that_is_there_is_not_written_over(folder, data, tmp_path):
    asked = request(folder, data, folder)
    with pytest.raises(ConfigError, match="holds a model already"), open_run(asked):
        pass


@pytest.mark.parametrize(
    "options", [["--full", "--rank", "8"], ["--full", "--format", "mlx-lm"], ["--dtype", "float16"]]
)
def test_options_of_the_other_method_are_refused(folder, data, tmp_path, capsys, options):
    command = ["train", str(folder), str(data), str(tmp_path / "out")]
    assert main([*command, *options]) == 2
    assert "--full" in capsys.readouterr().err


def test_adapters_learn_texts_in_windows_too(folder, data, tmp_path):
    asked = request(folder, data, tmp_path / "out")
    settings = dataclasses.replace(asked.settings, method="lora", steps=2)
    with open_run(dataclasses.replace(asked, settings=settings, valid=data)) as run:
        [*_, last] = run.run()
        assert run.data.learned == run.data.tokens - len(run.data.sequences)
    assert last.bits_per_byte > 0
    assert (tmp_path / "out" / "adapter_model.safetensors").exists()


def test_answers_are_learned_too(folder, tmp_path):
    rows = [
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": word}]}
        for word in ("dog", "cat")
    ]
    chats = tmp_path / "chats.jsonl"
    write_rows(chats, rows)
    asked = request(folder, chats, tmp_path / "out")
    asked = dataclasses.replace(asked, settings=dataclasses.replace(asked.settings, stage="sft"))
    with open_run(asked) as run:
        [*_, last] = run.run()
        assert run.data.learned < run.data.tokens / 2
    assert last.bits_per_byte is None
