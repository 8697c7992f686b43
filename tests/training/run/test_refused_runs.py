"""Runs that cannot be: refused before anything is learned, with a next step."""

import math
import shutil
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import pytest
from support.disk_limits import file_size_limit
from support.folders import fused, rewritten
from support.task_files import write_rows
from support.tiny import CONFIGS, LLAMA, write_model
from support.training import LORA

from edgellm.checkpoint.safetensors_file import read_header
from edgellm.cli.app import main
from edgellm.errors import ConfigError, ConversionError, FormatError, NotFiniteError
from edgellm.settings import LoadSettings
from edgellm.training.low_rank import LoraSettings
from edgellm.training.optimizer import RateSettings
from edgellm.training.run.saved_state import FILE
from edgellm.training.run.settings import TrainSettings
from edgellm.training.run.train import TrainRequest, open_run

WORDS = ("dog", "cat", "ball")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "tiny", LLAMA)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "data.jsonl"
    rows = [{"prompt": f"Say {word}.", "completion": word} for word in WORDS]
    write_rows(path, rows)
    return path


def request(model, data, out, **settings):
    settings = TrainSettings(lora=LORA, **{"steps": 2, "batch": 2} | settings)
    load = LoadSettings(activations="float", memory="1GB")
    return TrainRequest(model=str(model), data=data, folder=out, settings=settings, load=load)


def run(wanted):
    with open_run(wanted) as opened:
        return list(opened.run())


def test_a_folder_that_cannot_be_made_is_an_error_with_a_next_step(model, data, tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    for out in (file, file / "under", file / "far" / "under"):
        with pytest.raises(ConversionError) as refused, open_run(request(model, data, out)):
            pass
        assert refused.value.hint
        assert "is a file" in refused.value.message
    assert file.read_text() == "mine"


def test_the_root_of_all_folders_is_no_place(model, data):
    with pytest.raises(ConversionError, match="root of all folders") as refused:
        run(request(model, data, Path("/")))
    assert refused.value.hint == "name a folder in it"


def test_a_link_to_a_folder_that_is_not_there_leads_to_it(model, data, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "far")
    run(request(model, data, tmp_path / "link"))
    assert (tmp_path / "far" / FILE).exists()


def test_a_disk_without_room_for_a_later_save_is_told_before_the_first_step(
    model, data, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    with open_run(request(model, data, out)) as opened:
        learned = sum(array.size for part in opened.trainer.numbers for array in part.values())
    most = 4 * learned * 7  # twice with both moments, and alone
    usage = type(shutil.disk_usage(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage(1 << 40, 1 << 40, most - 1))
    with pytest.raises(ConversionError, match="more than the disk has free") as refused:
        run(request(model, data, out))
    assert "another disk" in refused.value.hint
    assert not out.exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage(1 << 40, 1 << 40, most))
    run(request(model, data, out))
    there = sum(file.stat().st_size for file in out.glob("*.safetensors"))
    assert 4 * learned * 4 < there < most
    # what is there already has its room
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage(1 << 40, 1 << 40, most - there))
    run(replace(request(model, data, out, steps=3), resume=True))


def test_where_a_run_goes_on_is_said_when_the_disk_is_full(model, data, tmp_path, capsys):
    words = [
        "train",
        model,
        data,
        tmp_path / "out",
        "--batch",
        "2",
        "--answers",
        "0",
        "--on",
        "all",
    ]
    words += ["--save-every", "1", "--max-tokens", "64", "--memory", "1GB", "--steps", "2"]
    assert main(list(map(str, words))) == 0
    words += ["--resume", "--steps", "4"]
    whole = (tmp_path / "out" / FILE).read_bytes()
    with file_size_limit(len(whole) // 2):
        assert main(list(map(str, words))) != 0
    said = capsys.readouterr().err
    assert "step 2 is saved: with --resume the command goes on from there" in said
    assert (tmp_path / "out" / FILE).read_bytes() == whole


def test_the_folder_that_one_is_in_may_be_named(model, data, tmp_path, monkeypatch):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    run(request(model, data, type(here)(".")))
    assert (here / "adapter_model.safetensors").exists()
    assert "Training here" in (here / "training.html").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


@pytest.mark.parametrize(
    "wrong",
    [{"rank": 0}, {"alpha": 0}, {"alpha": math.inf}, {"alpha": math.nan}, {"dropout": 1.0}],
    ids=str,
)
def test_changes_that_nothing_can_be_learned_with_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        LoraSettings(**wrong)


def test_preferences_with_all_numbers_are_refused_for_what_they_are(model, data, tmp_path, capsys):
    arguments = ["train", str(model), str(data), str(tmp_path / "out"), "--stage", "dpo", "--full"]
    assert main(arguments) == 2
    assert "preferences are learned by an adapter" in capsys.readouterr().err


def test_a_rate_of_0_is_said_without_advice_on_warm_up(model, data, tmp_path):
    rates = RateSettings(rate=0.0)
    with open_run(request(model, data, tmp_path / "out", rates=rates)) as opened:
        assert opened.notes == ["nothing will be learned: all steps that are left have the rate 0"]


def test_numbers_that_exploded_do_not_take_the_place_of_those_saved_before(
    model, data, tmp_path, capsys
):
    out = tmp_path / "out"
    arguments = ["train", str(model), str(data), str(out), "--batch", "2", "--on", "all"]
    arguments += ["--template", "plain", "--answers", "0", "--warmup", "0", "--clip", "0"]
    arguments += ["--epochs", "9", "--rate", "1e30", "--memory", "1GB"]
    assert main(arguments) == 1
    said = capsys.readouterr().err
    assert "are not finite" in said
    assert "goes on from here" not in said
    assert "the last save stays" in said


def test_numbers_that_are_not_finite_are_never_saved(model, data, tmp_path):
    out = tmp_path / "out"
    with open_run(request(model, data, out)) as opened:
        opened.save()
        before = {path.name: path.read_bytes() for path in out.glob("*.safetensors")}
        opened.trainer.numbers[0]["self_attn.q_proj.lora_A"] *= float("inf")
        with pytest.raises(NotFiniteError, match="not finite any more") as refused:
            opened.save()
    assert refused.value.hint
    assert len(before) == 2
    assert before == {path.name: path.read_bytes() for path in out.glob("*.safetensors")}


def _moved(name, to):
    def edit(tensors, _):
        found = next(key for key in tensors if name in key)
        tensors[found.replace(name, to)] = tensors.pop(found)

    return edit


def _said(name, value):
    return lambda _, said: said.pop(name) if value is None else said.update({name: value})


DAMAGES = {
    "no facts": _said("facts", None),
    "no step": _said("step", None),
    "no number": _said("step", "x"),
    "below 0": _said("step", "-5"),
    "more updates than steps": _said("updates", "99"),
    "history": _said("history", "{"),
    "epochs": _said("history", "[1]"),
    "losses": _said("losses", "3"),
    "another layer": _moved("numbers.0.", "numbers.99."),
    "another part": _moved("numbers.0.", "others.0."),
    "another matrix": _moved("numbers.0.self_attn.q_proj", "numbers.0.self_attn.x_proj"),
    "no layer": _moved("numbers.0.self_attn.q_proj.lora_A", "numbers"),
    "not finite": lambda tensors, _: tensors.update(
        {key: tensors[key] * math.nan for key in list(tensors)[-1:]}
    ),
}


@pytest.fixture(scope="module")
def stopped(model, data, tmp_path_factory):
    out = tmp_path_factory.mktemp("stopped") / "out"
    run(request(model, data, out, steps=1))
    return out


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_run_is_refused(model, data, tmp_path, stopped, damage):
    out = tmp_path / "out"
    shutil.copytree(stopped, out)
    file = out / FILE
    _, said = read_header(file)
    said, tensors = dict(said), dict(mx.load(str(file)))
    mx.eval(tensors)
    DAMAGES[damage](tensors, said)
    mx.save_safetensors(str(file), tensors, metadata=said)
    with pytest.raises(FormatError, match="is damaged") as refused:
        run(replace(request(model, data, out), resume=True))
    assert "--start-from" in refused.value.hint


@pytest.mark.parametrize("left", [0, 7, 5000])
def test_a_run_that_was_cut_short_is_refused(model, data, tmp_path, stopped, left):
    out = tmp_path / "out"
    shutil.copytree(stopped, out)
    (out / FILE).write_bytes((out / FILE).read_bytes()[:left])
    with pytest.raises(FormatError, match="is damaged"):
        run(replace(request(model, data, out), resume=True))


def test_matrices_that_are_one_for_others_are_told_of(data, tmp_path):
    base = write_model(tmp_path / "base", CONFIGS["llama-2"])
    phi = {"model_type": "phi3", "original_max_position_embeddings": 128, "rope_theta": 10000.0}
    folder = rewritten(base, tmp_path / "phi", fused, phi)
    with open_run(request(folder, data, tmp_path / "out")) as opened:
        assert any("for edgellm" in note for note in opened.notes)
    with open_run(request(base, data, tmp_path / "other")) as opened:
        assert opened.notes == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--beta", "0.2"], "--beta is of preferences alone"),
        (["--stage", "text", "--template", "alpaca"], "and of --stage text there are none"),
    ],
)
def test_options_of_another_stage_are_refused(model, data, capsys, words, said):
    out = data.parent / "never"
    assert main(["train", str(model), str(data), str(out), *words]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert "hint: leave it out" in told
    assert not out.exists()
