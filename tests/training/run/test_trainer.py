"""Runs: they go on bit for bit, and an adapter is one that others open."""

import dataclasses
import datetime
import json
import os
import shutil
import signal
import sys

import mlx.core as mx
import pytest
from support.task_files import write_rows
from support.training import LORA, in_four_bits, numbers_of

from edgellm.cli.app import main
from edgellm.errors import ConfigError
from edgellm.settings import LoadSettings
from edgellm.training import optimizer
from edgellm.training.run.order import step_items
from edgellm.training.run.settings import TrainSettings
from edgellm.training.run.train import TrainRequest, open_run

ROWS = [
    {
        "messages": [
            {"role": "user", "content": f"Say {word}."},
            {"role": "assistant", "content": word},
        ]
    }
    for word in ("dog", "cat", "ball", "sun", "sea")
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return in_four_bits(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "data.jsonl"
    write_rows(path, ROWS)
    return path


def request(folder, data, out, **settings):
    lora = dataclasses.replace(LORA, dropout=0.1)
    return TrainRequest(
        model=str(folder),
        data=data,
        folder=out,
        settings=TrainSettings(lora=lora, epochs=2, batch=2, **settings),
        load=LoadSettings(activations="float", memory="1GB"),
    )


def test_a_run_that_was_stopped_ends_in_the_same_bits(folder, data, tmp_path):
    with open_run(request(folder, data, tmp_path / "whole")) as run:
        whole = [step.loss for step in run.run() if hasattr(step, "norm")]
        expected, history = numbers_of(run), run.trainer.history
    assert len(whole) == 6
    assert len(history) == 2

    stopped = request(folder, data, tmp_path / "stopped", save_every=1)
    losses = []
    with open_run(stopped) as run:
        for step in run.run():
            losses.append(step.loss)
            if step.step == 2:
                break  # the second step is taken and not saved: it is taken again
    again = dataclasses.replace(stopped, resume=True)
    again = dataclasses.replace(
        again, settings=dataclasses.replace(again.settings, micro_tokens=1024)
    )
    with open_run(again) as run:
        assert run.trainer.step == 1
        losses = losses[:1] + [step.loss for step in run.run() if hasattr(step, "norm")]
        found = numbers_of(run)
        epochs = run.trainer.history
    assert losses == whole
    logged = (tmp_path / "stopped" / "training.jsonl").read_text().splitlines()
    assert [json.loads(line)["loss"] for line in logged] == whole, "each step once"
    assert epochs == history, "an epoch that was stopped is reported whole"
    assert all(mx.array_equal(one, two) for one, two in zip(found, expected, strict=True))


def test_a_run_that_was_stopped_before_its_first_step_goes_on(folder, data, tmp_path):
    with open_run(request(folder, data, tmp_path / "whole")) as run:
        list(run.run())
        expected = numbers_of(run)
    stopped = request(folder, data, tmp_path / "stopped")
    with open_run(stopped) as run:
        run.save()
    with open_run(dataclasses.replace(stopped, resume=True)) as run:
        list(run.run())
        found = numbers_of(run)
    assert all(mx.array_equal(one, two) for one, two in zip(found, expected, strict=True))


def test_an_epoch_whose_end_was_not_reached_is_told_when_the_run_goes_on(folder, data, tmp_path):
    with open_run(request(folder, data, tmp_path / "whole")) as run:
        list(run.run())
        history = run.trainer.history
    stopped = request(folder, data, tmp_path / "stopped")
    with open_run(stopped) as run:
        for step in run.run():
            if step.step == 3:  # the last of its epoch: stopped before its loss is told
                break
        run.save()
    with open_run(dataclasses.replace(stopped, resume=True)) as run:
        told = [one.epoch for one in run.run() if not hasattr(one, "norm")]
        assert run.trainer.history == history
    assert told == [1, 2]


def test_ctrl_c_amid_a_step_is_held_until_the_step_is_whole(folder, data, tmp_path, monkeypatch):
    with open_run(request(folder, data, tmp_path / "whole")) as run:
        next(run.run())
        expected = numbers_of(run)
    stopped = request(folder, data, tmp_path / "stopped")
    with open_run(stopped) as run:
        # Ctrl-C comes when the first array has moved and the others have not
        real = mx.eval
        monkeypatch.setattr(optimizer.mx, "eval", lambda *arrays: (real(*arrays), interrupt()))
        with pytest.raises(KeyboardInterrupt):
            next(run.run())
        monkeypatch.undo()
        assert run.trainer.step == 1
        assert all(
            mx.array_equal(one, two) for one, two in zip(numbers_of(run), expected, strict=True)
        )


def interrupt():
    if sys._getframe(2).f_code.co_name == "move":
        os.kill(os.getpid(), signal.SIGINT)


def test_another_run_is_not_gone_on_with(folder, data, tmp_path):
    first = request(folder, data, tmp_path / "out", save_every=1)
    with open_run(first) as run:
        next(iter(run.run()))
        run.save()
    with pytest.raises(ConfigError, match="holds a training run already"), open_run(first):
        pass
    other = dataclasses.replace(
        first, resume=True, settings=dataclasses.replace(first.settings, seed=1)
    )
    with pytest.raises(ConfigError, match="began with seed 0, not 1"), open_run(other):
        pass


def test_a_run_goes_on_for_longer_at_the_rates_of_the_new_length(folder, data, tmp_path):
    first = request(folder, data, tmp_path / "out", steps=5)  # in the middle of the second epoch
    with open_run(first) as run:
        list(run.run())
        assert run.notes == []
    longer = dataclasses.replace(first, resume=True)
    settings = dataclasses.replace(first.settings, steps=None, epochs=3)
    longer = dataclasses.replace(longer, settings=settings)
    with open_run(longer) as run:
        assert "begun for 5 steps, and now takes 9: from step 6 on" in run.notes[0]
        steps = [step for step in run.run() if hasattr(step, "norm")]
        history = run.trainer.history
    assert [step.step for step in steps] == [6, 7, 8, 9]
    assert steps[0].rate == settings.rates.at(5, 9)
    assert [(epoch["epoch"], epoch["step"]) for epoch in history] == [
        (1, 3),
        (2, 5),
        (2, 6),
        (3, 9),
    ]
    logged = [json.loads(x) for x in (tmp_path / "out/training.jsonl").read_text().splitlines()]
    second = [step for step in logged if step["epoch"] == 2]
    asked = sum(step["asked"] for step in second)
    mean = sum(step["loss"] * step["asked"] for step in second) / asked
    assert history[2]["train"] == pytest.approx(mean), "an epoch is told whole at its end"
    shorter = dataclasses.replace(longer, settings=dataclasses.replace(settings, steps=2))
    refused = pytest.raises(ConfigError, match="has taken 9 steps, and was asked for 2")
    with refused, open_run(shorter):
        pass


def test_a_run_that_is_all_warm_up_is_said_to_learn_nothing(folder, data, tmp_path):
    with open_run(request(folder, data, tmp_path / "one", steps=1)) as run:
        assert "give --warmup 0" in run.notes[0]
    with open_run(request(folder, data, tmp_path / "two", steps=2)) as run:
        assert run.notes == []


def test_answers_that_are_missing_are_asked_for_again_and_others_are_not(folder, data, tmp_path):
    times = []

    def ask(prompts, *, model, adapter):
        times.append(adapter)
        if len(times) == 2:
            raise KeyboardInterrupt
        return ["an answer"] * len(prompts)

    first = dataclasses.replace(request(folder, data, tmp_path / "out", steps=2), answers=2)
    with open_run(first, ask) as run:
        list(run.run())
        with pytest.raises(KeyboardInterrupt):
            run.answer()
    again = dataclasses.replace(first, resume=True)
    for _ in range(2):
        with open_run(again, ask) as run:
            assert list(run.run()) == []
            run.answer()
            assert [one["after"] for one in run.answers.as_plain()] == ["an answer"] * 2
    assert times == [None, tmp_path / "out", tmp_path / "out"]
    assert "an answer" in (tmp_path / "out" / "training.html").read_text()


def test_a_run_keeps_the_day_on_which_it_began(folder, data, tmp_path, monkeypatch):
    days = ["2026-01-31", "2026-02-01"]

    class Today(datetime.date):
        @classmethod
        def today(cls):
            return cls.fromisoformat(days[0])

    monkeypatch.setattr("edgellm.training.run.preparation.date", Today)
    dated = shutil.copytree(folder, tmp_path / "dated")
    path = dated / "tokenizer_config.json"
    fields = json.loads(path.read_text())
    fields["chat_template"] = "{{ strftime_now('%d %b') }}" + fields["chat_template"]
    path.write_text(json.dumps(fields))
    first = request(dated, data, tmp_path / "out", steps=2)
    with open_run(first) as run:
        next(iter(run.run()))
        run.save()
    del days[0]
    with open_run(dataclasses.replace(first, resume=True)) as run:
        assert run.trainer.step == 1


def test_every_record_is_learned_once_an_epoch():
    items = list(range(7))
    epochs = [
        [
            one
            for step in range(4 * epoch, 4 * epoch + 4)
            for one in step_items(items, step, batch=2, seed=0)
        ]
        for epoch in range(2)
    ]
    assert all(sorted(epoch) == items for epoch in epochs)
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize("form", ["peft", "mlx-lm"])
def test_the_command_learns_an_adapter_that_conversion_merges(folder, data, tmp_path, capsys, form):
    out = tmp_path / "adapter"
    command = ["train", str(folder), str(data), str(out), "--steps", "2", "--batch", "4"]
    assert main([*command, "--valid", str(data), "--format", form, "--on", "all"]) == 0
    told = capsys.readouterr().err
    assert "5 sequences of" in told
    assert "before: on other records" in told
    assert "question 3:" in told
    assert f"page: {out / 'training.html'}" in told
    answers = json.loads((out / "answers.json").read_text())["answers"]
    assert len(answers) == 3
    assert all(one["after"] is not None for one in answers)
    page = (out / "training.html").read_text()
    assert "Answers before and after" in page
    merged = tmp_path / "merged"
    assert main(["convert", str(folder), str(merged), "--adapter", str(out), "--bits", "16"]) == 0
    assert main([*command, "--resume"]) == 2, "other matrices are another run's"


def test_a_run_that_goes_on_in_another_form_leaves_one_adapter(folder, data, tmp_path):
    first = request(folder, data, tmp_path / "out")
    with open_run(first) as run:
        next(iter(run.run()))
        run.save()
    with open_run(dataclasses.replace(first, resume=True, form="mlx-lm")) as run:
        next(iter(run.run()))
    names = {file.name for file in (tmp_path / "out").iterdir()}
    own = {"training.safetensors", "training.jsonl", "training.html"}
    assert names == own | {"adapters.safetensors", "adapter_config.json"}


def test_what_became_of_records_that_are_not_learned_is_said_too(folder, data, tmp_path):
    path = tmp_path / "valid.jsonl"
    rows = [
        *ROWS[:1],
        *ROWS[:1],
        {"prompt": "long " * 60, "completion": "a"},
        {"prompt": "a", "completion": "long " * 60},
    ]
    write_rows(path, rows)
    asked = request(folder, data, tmp_path / "out")
    with open_run(dataclasses.replace(asked, valid=path, max_tokens=40)) as run:
        run.save()
        expected = [
            "of --valid: cut at --max-tokens: 2 records",
            "of --valid: there more than once, and counted as often: 1 sequence",
            "of --valid: nothing is counted of 1 record (line 3)",
            "of --valid: 2 of 3 sequences are learned, too: a loss of records that are not says "
            "more",
        ]
        assert run.notes == expected
    page = (tmp_path / "out" / "training.html").read_text()
    assert all(note in page for note in expected)


def test_records_that_are_learned_and_counted_as_others_are_told_of(folder, data, tmp_path):
    both = tmp_path / "both.jsonl"
    other = json.dumps({"prompt": "another one", "completion": "yes"})
    both.write_text(f"{data.read_text()}{other}\n")
    with open_run(dataclasses.replace(request(folder, data, tmp_path / "a"), valid=both)) as run:
        count = len(run.data.sequences)
        said = f"of --valid: {count} of {count + 1} sequences are learned, too: a loss of records"
        assert any(note.startswith(said) for note in run.notes)


def test_an_epoch_of_which_no_step_was_applied_says_so(folder, data, tmp_path, capsys):
    command = ["train", str(folder), str(data), str(tmp_path / "out"), "--answers", "0"]
    command += ["--rate", "1e30", "--schedule", "constant", "--warmup", "0", "--batch", "8"]
    assert main([*command, "--epochs", "6"]) == 1
    told = capsys.readouterr().err
    assert "epoch 2: no step was applied" in told
    assert "smaller --rate" in told
    count = len(ROWS)
    listed = ", ".join(map(str, range(1, 6)))
    named = f"{count} records (lines {listed}{', ...' if count > 5 else ''})"
    assert f"was not applied: loss or derivatives of {named} are not finite" in told
    assert f"are not finite: {named}" in told
