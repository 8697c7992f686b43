"""GGUF files on the Hub as models: converted once, found again, planned from their headers."""

import json
import subprocess
import sys

import pytest
from support.gguf_files import WIDE, write_gguf
from support.stand_in_hub import Hub, hub_environment, serving

from edgellm.files.strict_json import read_json


@pytest.fixture
def hub(tmp_path):
    """The address of a Hub with a GGUF repository, and what it is asked."""
    folder = tmp_path / "repository"
    folder.mkdir()
    for kind in ("Q8_0", "Q4_0"):
        write_gguf(folder / f"Tiny-{kind}.gguf", WIDE, kinds=lambda _, kind=kind: kind)

    class Gguf(Hub):
        repositories = {"owner/tiny-GGUF": folder}  # noqa: RUF012
        asked: list[str] = []  # noqa: RUF012

    with serving(Gguf) as address:
        yield address, Gguf.asked


def edgellm(environment, *arguments):
    """A command's exit code, and what it prints on both streams."""
    done = subprocess.run(
        [sys.executable, "-m", "edgellm", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def generated(environment, name):
    code, out, error = edgellm(environment, "generate", name, "-p", "Once", "--max-tokens", "4")
    assert code == 0, error
    return out, error


def test_a_file_is_converted_once_and_found_again_without_the_hub(hub, tmp_path):
    address, asked = hub
    online = hub_environment(address, tmp_path / "home")
    offline = hub_environment(address, tmp_path / "home", offline=True)
    code, out, error = edgellm(online, "plan", "owner/tiny-GGUF:Q8_0", "--json")
    assert code == 0, error
    planned = json.loads(out)
    first, said = generated(online, "owner/tiny-GGUF:Q8_0")
    assert "owner/tiny-GGUF:Q8_0 is converted once, into" in said
    assert "MB, found again until" in said
    ours = tmp_path / "home" / "ours" / "edgellm" / "models"
    assert (ours.stat().st_mode & 0o777) == 0o700
    made = ours / "owner--tiny-GGUF--Tiny-Q8_0"
    assert (made / "edgellm.json").is_file()
    asked.clear()
    assert generated(online, "owner/tiny-GGUF/Tiny-Q8_0.gguf") == (first, "")
    assert not any("/resolve/" in path for path in asked)
    assert generated(offline, "owner/tiny-GGUF:q8_0") == (first, "")
    for file in (tmp_path / "home" / "hub").rglob("*"):
        if not file.is_dir():
            file.unlink()
    assert generated(offline, "owner/tiny-GGUF:Q8_0") == (first, "")
    code, _, error = edgellm(offline, "generate", "owner/tiny-GGUF:Q4_0", "-p", "x")
    assert code == 1
    assert "owner/tiny-GGUF is not in the cache and HF_HUB_OFFLINE forbids" in error
    code, out, error = edgellm(offline, "plan", "owner/tiny-GGUF:Q8_0", "--json")
    assert code == 0, error
    for part in ("pinned_bytes", "outer_bytes", "cache_bytes", "working_bytes"):
        assert json.loads(out)[part] == planned[part]


def test_another_file_under_the_name_is_converted_anew(hub, tmp_path):
    address, _ = hub
    environment = hub_environment(address, tmp_path / "home")
    generated(environment, "owner/tiny-GGUF:Q4_0")
    record = tmp_path / "home/ours/edgellm/models/owner--tiny-GGUF--Tiny-Q4_0.source.json"
    before = read_json(record)
    record.write_text(json.dumps(before | {"commit": "another"}))
    _, said = generated(environment, "owner/tiny-GGUF:Q4_0")
    assert said == "", "the commit is another one and the file is not"
    record.write_text(json.dumps(before | {"commit": "another", "blobs": ["another 1"]}))
    _, said = generated(environment, "owner/tiny-GGUF:Q4_0")
    assert "is converted once" in said
    assert read_json(record) == before
    record.write_text("{")
    _, said = generated(environment, "owner/tiny-GGUF:Q4_0")
    assert read_json(record) == before


def test_shards_in_a_folder_are_one_model(hub, tmp_path):
    address, _ = hub
    environment = hub_environment(address, tmp_path / "home")
    folder = tmp_path / "repository" / "BF16"
    folder.mkdir()
    write_gguf(folder / "Tiny-BF16.gguf", WIDE, kinds=lambda _: "BF16", shards=8)
    assert len(list(folder.iterdir())) == 3
    code, _, error = edgellm(environment, "plan", "owner/tiny-GGUF:BF16")
    assert code == 0, error
    first, said = generated(environment, "owner/tiny-GGUF:bf16")
    assert "is converted once" in said
    name = "owner/tiny-GGUF/BF16/Tiny-BF16-00002-of-00003.gguf"
    assert generated(environment, name) == (first, "")


def test_every_command_takes_a_file_and_says_that_it_is_converted(hub, tmp_path):
    address, _ = hub
    environment = hub_environment(address, tmp_path / "home")
    code, _, error = edgellm(environment, "verify", "owner/tiny-GGUF:Q8_0")
    assert code == 0, error
    assert "warning: owner/tiny-GGUF:Q8_0 is converted once" in error


def test_a_path_that_is_mistyped_is_said_as_a_path_too(tmp_path):
    environment = hub_environment("http://127.0.0.1:9", tmp_path / "home")
    code, _, error = edgellm(environment, "convert", "models/tiny/x.gguf", str(tmp_path / "made"))
    assert code == 1
    assert "there is no file models/tiny/x.gguf here, and models/tiny is not in the cache" in error


def test_a_repository_of_gguf_files_says_how_they_are_named(hub, tmp_path):
    address, _ = hub
    environment = hub_environment(address, tmp_path / "home")
    for command in (["plan"], ["generate", "-p", "x"], ["convert", str(tmp_path / "made")]):
        code, _, error = edgellm(environment, command[0], "owner/tiny-GGUF", *command[1:])
        assert code == 1
        assert "holds GGUF files" in error
        assert "owner/tiny-GGUF:Q4_0, owner/tiny-GGUF:Q8_0" in error


def test_a_file_is_a_source_of_conversions_and_of_chats(hub, tmp_path):
    address, _ = hub
    environment = hub_environment(address, tmp_path / "home")
    made = tmp_path / "made"
    code, _, error = edgellm(environment, "convert", "owner/tiny-GGUF:Q8_0", str(made))
    assert code == 0, error
    assert read_json(made / "config.json")["quantization"]["bits"] == 8
    code, _, error = edgellm(environment, "chat", "owner/tiny-GGUF:Q8_0")
    assert code == 1
    assert "chat template" in error
