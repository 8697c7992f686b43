"""The model folder: what it is made of, what half of it is, and what does not belong to it."""

import json
import os
import re
from pathlib import Path

import pytest
from support.folders import changed_files
from support.tiny import CONFIGS, tensor_shapes, write_model

from edgellm.checkpoint.folder import (
    MANIFEST,
    open_folder,
    weight_files,
    write_checksums,
)
from edgellm.errors import FormatError, ModelNotFoundError
from edgellm.files.atomic import file_record

LLAMA = CONFIGS["llama-2"]


def test_a_folder_in_shards_is_one_model(tmp_path):
    folder = open_folder(write_model(tmp_path / "model", LLAMA, shards=3))
    assert folder.config["model_type"] == "llama"
    assert folder.tensors.keys() == tensor_shapes(LLAMA).keys()
    assert len({tensor.file for tensor in folder.tensors.values()}) == 3


def test_an_index_left_over_from_another_sharding_is_passed_over(tmp_path):
    path = write_model(tmp_path / "model", LLAMA)
    (path / "model.safetensors.index.json").write_text(
        '{"weight_map": {"a": "model-00001-of-00002.safetensors"}}'
    )
    (path / "model.fp16.safetensors").write_bytes(b"a variant that nobody asked for")
    assert [file.name for file in weight_files(path)] == ["model.safetensors"]


@pytest.mark.parametrize("index", [True, False])
def test_a_missing_shard_is_named(tmp_path, index):
    path = write_model(tmp_path / "model", LLAMA, shards=3)
    (path / "model-00002-of-00003.safetensors").unlink()
    if not index:
        (path / "model.safetensors.index.json").unlink()
    with pytest.raises(FormatError, match=r"00002-of-00003|2 of the 3"):
        open_folder(path)


def test_what_is_no_folder_or_half_a_folder_is_refused(tmp_path):
    with pytest.raises(ModelNotFoundError):
        open_folder(tmp_path / "nothing")
    path = write_model(tmp_path / "model", LLAMA)
    (path / MANIFEST).write_text("{}")
    with pytest.raises(FormatError, match="half converted"):
        open_folder(path)
    (path / MANIFEST).unlink()
    (path / "model.safetensors").rename(path / "pytorch_model.bin")
    with pytest.raises(FormatError, match="no model") as caught:
        open_folder(path)
    assert "edgellm convert" in caught.value.hint
    (path / "config.json").unlink()
    with pytest.raises(FormatError, match=r"config\.json"):
        open_folder(path)


def test_the_same_tensor_in_two_files_is_refused(tmp_path):
    path = write_model(tmp_path / "model", LLAMA, shards=2)
    (path / "model.safetensors.index.json").unlink()
    (path / "model-extra.safetensors").write_bytes(
        (path / "model-00001-of-00002.safetensors").read_bytes()
    )
    with pytest.raises(FormatError, match="lies in"):
        open_folder(path)


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/passwd", "a/b", "..", ".", "", "a\\b", "x" * 300, "a\0b", "config"]
)
def test_an_index_cannot_name_files_elsewhere(tmp_path, name):
    path = write_model(tmp_path / "model", LLAMA, shards=2)
    (tmp_path / "secret").write_bytes(b"private")
    names = {"a": "model-00001-of-00002.safetensors", "b": name}
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    with pytest.raises(FormatError):
        open_folder(path)


@pytest.mark.parametrize(
    "index",
    ["[]", "{}", '{"weight_map": {}}', '{"weight_map": {"a": 1}}', '{"weight_map": []}', "x"],
)
def test_a_damaged_index_is_refused(tmp_path, index):
    path = write_model(tmp_path / "model", LLAMA)
    (path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(FormatError, match=r"index\.json"):
        open_folder(path)


def test_links_lead_within_the_folder_or_the_hubs_cache_and_nowhere_else(tmp_path):
    source = write_model(tmp_path / "source", LLAMA)
    snapshot, blobs = tmp_path / "cache" / "snapshots" / "abc", tmp_path / "cache" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for index, name in enumerate(("config.json", "model.safetensors")):
        (blobs / str(index)).write_bytes((source / name).read_bytes())
        (snapshot / name).symlink_to(f"../../blobs/{index}")
    assert len(open_folder(snapshot).tensors) == len(tensor_shapes(LLAMA))
    linked = tmp_path / "linked"
    linked.symlink_to(snapshot)
    assert open_folder(linked).config["model_type"] == "llama"


def test_links_out_of_a_folder_are_followed_where_both_ends_are_ones_own(tmp_path):
    disk = write_model(tmp_path / "disk", LLAMA, shards=2)
    linked = tmp_path / "model"
    linked.mkdir()
    for file in disk.iterdir():
        (linked / file.name).symlink_to(file)
    with pytest.warns(UserWarning, match=f"links to {re.escape(str(disk))}") as said:
        assert len(open_folder(linked).tensors) == len(tensor_shapes(LLAMA))
    assert len(said) == 1


def test_a_link_to_another_users_file_is_refused(tmp_path):
    path = write_model(tmp_path / "model", LLAMA)
    theirs = Path("/etc/hosts")
    if os.getuid() == 0:
        theirs = tmp_path / "theirs.json"
        theirs.write_text("{}")
        os.chown(theirs, 12345, 12345)
    (path / "generation_config.json").symlink_to(theirs)
    with pytest.raises(FormatError, match="another user's"):
        open_folder(path)


def test_checksums_tell_what_has_changed(tmp_path):
    path = write_model(tmp_path / "model", LLAMA, shards=2)
    write_checksums(path, [file_record(file) for file in path.iterdir()])
    assert changed_files(path) == []
    shard = path / "model-00002-of-00002.safetensors"
    raw = bytearray(shard.read_bytes())
    raw[-1] ^= 1
    shard.write_bytes(raw)
    (path / "config.json").unlink()
    assert changed_files(path) == ["config.json", shard.name]
    (path / "edgellm.json").write_text('{"files": {"a": 1}}')
    with pytest.raises(FormatError, match="no size and sha256"):
        changed_files(path)


@pytest.mark.parametrize(
    ("file", "fact", "hint"),
    [
        ("model.gguf", "has no config.json", "edgellm convert {path} FOLDER"),
        ("adapter_config.json", "is an adapter", "edgellm convert BASE FOLDER --adapter {path}"),
        ("notes.txt", "has no config.json", "name the folder that holds the model's files"),
    ],
)
def test_a_folder_that_is_no_model_says_what_to_do_with_it(tmp_path, file, fact, hint):
    (tmp_path / file).write_text("{}")
    with pytest.raises(FormatError, match=fact) as raised:
        open_folder(tmp_path)
    assert hint.format(path=tmp_path) in raised.value.hint
