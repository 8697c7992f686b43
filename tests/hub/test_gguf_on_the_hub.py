"""GGUF files on the Hub as models: converted once, found again, planned from their headers."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.gguf_files import WIDE, write_gguf
from support.processes import answer_of
from support.stand_in_hub import hub_environment, paths_asked, serving_hub

from edgellm.files.strict_json import read_json


@pytest.fixture
def hub(tmp_path):
    """A Hub with a GGUF repository."""
    folder = tmp_path / "repository"
    folder.mkdir()
    for kind in ("Q8_0", "Q4_0"):
        write_gguf(folder / f"Tiny-{kind}.gguf", WIDE, kinds=lambda _, kind=kind: kind)

    with serving_hub({"owner/tiny-GGUF": folder}) as server:
        yield server


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


CONVERT = """
import json, sys
from pathlib import Path
from edgellm.converters.gguf_on_hub.cached_conversion import converted
from edgellm.errors import EdgeLLMError
from edgellm.hub.names import parse_hub_name
answers = []
for name, edited in json.loads(sys.argv[1]):
    said = []
    if edited:
        record = Path(str(folder) + ".source.json")
        known = json.loads(record.read_text())
        record.write_text(json.dumps(known | edited))
    try:
        folder = converted(parse_hub_name(name), said.append)
        answers.append([str(folder), [step.message for step in said if step.message]])
    except EdgeLLMError as error:
        answers.append([type(error).__name__, error.message])
print(json.dumps(answers))
"""


def test_a_file_is_converted_once_and_found_again_without_the_hub(hub, tmp_path):
    home = tmp_path / "home"
    online = hub_environment(hub.address, home)
    offline = hub_environment(hub.address, home, offline=True)
    code, out, error = edgellm(online, "plan", "owner/tiny-GGUF:Q8_0", "--json")
    assert code == 0, error
    planned = json.loads(out)
    first, said = generated(online, "owner/tiny-GGUF:Q8_0")
    assert "owner/tiny-GGUF:Q8_0 is converted once, into" in said
    assert "MB, found again until" in said
    ours = home / "ours" / "edgellm" / "models"
    assert (ours.stat().st_mode & 0o777) == 0o700
    made = ours / "owner--tiny-GGUF--Tiny-Q8_0"
    assert (made / "edgellm.json").is_file()
    paths_asked(hub)
    (again,) = answer_of(CONVERT, [["owner/tiny-GGUF/Tiny-Q8_0.gguf", {}]], online)
    assert again == [str(made), []]
    assert not any("/resolve/" in path for path in paths_asked(hub))
    for file in (home / "hub").rglob("*"):
        if not file.is_dir():
            file.unlink()
    assert generated(offline, "owner/tiny-GGUF:q8_0") == (first, "")
    names = [["owner/tiny-GGUF:Q8_0", {}], ["owner/tiny-GGUF:Q4_0", {}]]
    again, absent = answer_of(CONVERT, names, offline)
    assert again == [str(made), []]
    assert absent[0] == "DownloadError"
    assert "owner/tiny-GGUF is not in the cache and HF_HUB_OFFLINE forbids" in absent[1]
    code, out, error = edgellm(offline, "plan", "owner/tiny-GGUF:Q8_0", "--json")
    assert code == 0, error
    for part in ("pinned_bytes", "outer_bytes", "cache_bytes", "working_bytes"):
        assert json.loads(out)[part] == planned[part]


def test_another_file_under_the_name_is_converted_anew(hub, tmp_path):
    name = "owner/tiny-GGUF:Q4_0"
    edits = [
        {},
        {"commit": "another"},
        {"commit": "another", "blobs": ["another 1"]},
        {"version": "another"},
        {"files": None},
    ]
    calls = [[name, edited] for edited in edits]
    answers = answer_of(CONVERT, calls, hub_environment(hub.address, tmp_path / "home"))
    assert [bool(said) for _, said in answers] == [True, False, True, True, True]
    record = tmp_path / "home/ours/edgellm/models/owner--tiny-GGUF--Tiny-Q4_0.source.json"
    assert read_json(record)["files"] == ["Tiny-Q4_0.gguf"]


def test_shards_in_a_folder_are_one_model(hub, tmp_path):
    environment = hub_environment(hub.address, tmp_path / "home")
    folder = tmp_path / "repository" / "BF16"
    folder.mkdir()
    write_gguf(folder / "Tiny-BF16.gguf", WIDE, kinds=lambda _: "BF16", shards=8)
    assert len(list(folder.iterdir())) == 3
    code, _, error = edgellm(environment, "plan", "owner/tiny-GGUF:BF16")
    assert code == 0, error
    names = ["owner/tiny-GGUF:bf16", "owner/tiny-GGUF/BF16/Tiny-BF16-00002-of-00003.gguf"]
    first, again = answer_of(CONVERT, [[name, {}] for name in names], environment)
    assert "is converted once" in first[1][0]
    assert again == [first[0], []]
    config = read_json(Path(first[0]) / "config.json")
    assert "quantization" not in config, "who names a 16-bit file wants 16 bits"


def test_every_command_takes_a_file_and_says_that_it_is_converted(hub, tmp_path):
    environment = hub_environment(hub.address, tmp_path / "home")
    code, _, error = edgellm(environment, "verify", "owner/tiny-GGUF:Q8_0")
    assert code == 0, error
    assert "warning: owner/tiny-GGUF:Q8_0 is converted once" in error


def test_a_path_that_is_mistyped_is_said_as_a_path_too(tmp_path):
    environment = hub_environment("http://127.0.0.1:9", tmp_path / "home")
    code, _, error = edgellm(environment, "convert", "models/tiny/x.gguf", str(tmp_path / "made"))
    assert code == 1
    assert "there is no file models/tiny/x.gguf here, and models/tiny is not in the cache" in error


def test_a_repository_of_gguf_files_says_how_they_are_named(hub, tmp_path):
    environment = hub_environment(hub.address, tmp_path / "home")
    for command in (["plan"], ["generate", "-p", "x"]):
        code, _, error = edgellm(environment, command[0], "owner/tiny-GGUF", *command[1:])
        assert code == 1
        assert "holds GGUF files" in error
        assert "owner/tiny-GGUF:Q4_0, owner/tiny-GGUF:Q8_0" in error


def test_a_file_is_a_source_of_conversions_and_of_chats(hub, tmp_path):
    environment = hub_environment(hub.address, tmp_path / "home")
    made = tmp_path / "made"
    code, _, error = edgellm(environment, "convert", "owner/tiny-GGUF:Q8_0", str(made))
    assert code == 0, error
    assert read_json(made / "config.json")["quantization"]["bits"] == 8
    code, _, error = edgellm(environment, "chat", "owner/tiny-GGUF:Q8_0")
    assert code == 1
    assert "chat template" in error
