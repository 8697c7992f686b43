"""``edgellm verify``: what each kind of damage is said to be, and that whole folders pass."""

import hashlib
import json
import shutil

import mlx.core as mx
import pytest
from support.folders import LLAMA, change, tensors_of
from support.tiny import write_model

from edgellm.checkpoint.folder import layer_file
from edgellm.cli.app import main
from edgellm.converters import convert
from edgellm.diagnostics.verify import verify
from edgellm.hub.resolve import locate

ORDER = ["files", "index", "shapes", "checksums", "values", "tokenizer", "forward pass"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("verify")
    convert(
        write_model(folder / "source", LLAMA | {"vocab_size": 320}),
        folder / "made",
        dtype="float16",
    )
    return folder / "made"


@pytest.fixture
def copy(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "copy")


def outcome(path):
    """What passed (True), failed (False) or was not tried (None), by its name."""
    return {verdict.name: verdict.passed for verdict in verify(path).verdicts}


def failures(path):
    return {verdict.name: verdict for verdict in verify(path).verdicts if verdict.passed is False}


def test_whole_folders_pass(whole):
    steps = []
    assert outcome(whole) == dict.fromkeys(ORDER, True)
    assert verify(whole, lambda *step: steps.append(step)).passed
    assert {name for name, _, _ in steps} == set(ORDER)
    assert all(done <= total or not total for _, done, total in steps)
    assert outcome(locate("stories")) == dict.fromkeys(ORDER, True)


def test_a_folder_of_others_has_no_checksums(tmp_path):
    source = write_model(tmp_path / "source", LLAMA, dtype=mx.bfloat16, shards=2)
    assert outcome(source) == dict.fromkeys(ORDER, True) | {"checksums": None}


def test_the_hubs_cache_names_files_by_their_checksums(tmp_path):
    source = write_model(tmp_path / "source", LLAMA, dtype=mx.float16)
    blobs, snapshot = tmp_path / "cache" / "blobs", tmp_path / "cache" / "snapshots" / "abc"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for file in source.iterdir():
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        shutil.copy(file, blobs / digest)
        (snapshot / file.name).symlink_to(blobs / digest)
    assert outcome(snapshot)["checksums"] is True
    weights = (snapshot / "model.safetensors").resolve()
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert outcome(snapshot)["checksums"] is False


def put(path, name, value):
    """Give one tensor of a folder of ours another value."""
    for file in path.glob("*.safetensors"):
        tensors = mx.load(str(file))
        if name in tensors:
            mx.eval(tensors)
            tensors[name] = value(tensors[name])
            mx.save_safetensors(str(file), tensors)
            return
    raise KeyError(name)


def last_byte(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def edit_json(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


SCALES = "model.layers.2.mlp.down_proj.scales"
DAMAGE = {
    "a missing layer": (lambda path: (path / layer_file(1)).unlink(), "files", layer_file(1)),
    "half a layer": (
        lambda path: (path / layer_file(1)).write_bytes((path / layer_file(1)).read_bytes()[:-9]),
        "files",
        "cut short",
    ),
    "no config": (lambda path: (path / "config.json").unlink(), "files", "config.json"),
    "a lying index": (
        lambda path: edit_json(
            path / "model.safetensors.index.json",
            weight_map={SCALES: layer_file(0), "x": layer_file(1)},
        ),
        "index",
        "wrong about",
    ),
    "another shape": (
        lambda path: edit_json(path / "config.json", num_key_value_heads=4),
        "shapes",
        "k_proj",
    ),
    "one bit": (lambda path: last_byte(path / layer_file(3)), "checksums", layer_file(3)),
    "no tokenizer": (
        lambda path: (path / "tokenizer.json").unlink(),
        "tokenizer",
        "no tokenizer.json",
    ),
    "not a number": (
        lambda path: put(path, SCALES, lambda scales: scales * mx.nan),
        "values",
        SCALES,
    ),
    "an infinite norm": (
        lambda path: put(path, "model.norm.weight", lambda norm: norm * mx.inf),
        "values",
        "model.norm",
    ),
    "too large together": (
        lambda path: put(path, SCALES, lambda scales: mx.full(scales.shape, 60000, mx.float16)),
        "checksums",
        layer_file(2),
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_found_and_named(copy, damage):
    spoil, check, said = DAMAGE[damage]
    spoil(copy)
    found = failures(copy)
    assert said in found[check].detail
    assert found[check].hint


def test_a_tokenizer_of_another_model_is_found(tmp_path):
    source = write_model(tmp_path / "source", LLAMA | {"vocab_size": 290})
    assert "290 entries" in failures(source)["tokenizer"].detail


def test_weights_that_overflow_fail_the_pass(tmp_path):
    source = write_model(tmp_path / "source", LLAMA)
    name = "model.layers.1.mlp.down_proj.weight"
    change(source, lambda tensors: tensors.update({name: tensors[name] * 1e38}))
    assert failures(source).keys() == {"forward pass"}


def test_a_file_that_is_gone_has_not_changed(copy):
    (copy / "tokenizer.json").unlink()
    assert failures(copy)["checksums"].detail == "'tokenizer.json' is missing"
    last_byte(copy / layer_file(3))
    said = f"'tokenizer.json' is missing; '{layer_file(3)}' changed since the model was made"
    assert failures(copy)["checksums"].detail == said
    (copy / layer_file(3)).unlink()
    assert failures(copy)["checksums"].detail.endswith("are missing")


def test_what_cannot_be_tried_is_said(copy):
    (copy / layer_file(0)).unlink()
    assert outcome(copy) == dict.fromkeys(ORDER) | {"files": False, "checksums": False}


def test_the_command_exits_by_what_it_found(copy, capsys):
    assert main(["verify", str(copy)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["ok"] * len(ORDER)
    last_byte(copy / layer_file(0))
    assert main(["verify", str(copy), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["passed"] is False
    assert [check["name"] for check in found["checks"]] == ORDER
    assert main(["verify", str(copy)]) == 1
    assert "hint: " in capsys.readouterr().out
    assert tensors_of(copy)
