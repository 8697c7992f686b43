"""GGUF files on the Hub as models: converted once, found again, planned from their headers."""

import json
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.gguf_files import WIDE, write_gguf
from support.processes import answer_of, results_of
from support.stand_in_hub import hub_environment, paths_asked, serving_hub

from edgellm.files.strict_json import read_json


@contextmanager
def serving_gguf(folder):
    """A Hub with a GGUF repository."""
    folder.mkdir()
    for kind in ("Q8_0", "Q4_0"):
        write_gguf(folder / f"Tiny-{kind}.gguf", WIDE, kinds=lambda _, kind=kind: kind)

    with serving_hub({"owner/tiny-GGUF": folder}) as server:
        yield server


@pytest.fixture
def hub(tmp_path):
    with serving_gguf(tmp_path / "repository") as server:
        yield server


def planned_and_generated(environment, name):
    """A plan, and what is generated and said."""
    words = [["plan", name, "--json"], ["generate", name, "-p", "Once", "--max-tokens", "4"]]
    plan, generation = results_of(words, environment)
    for code, _, error in (plan, generation):
        assert code == 0, error
    return json.loads(plan[1]), generation[1:]


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
    planned, (first, said) = planned_and_generated(online, "owner/tiny-GGUF:Q8_0")
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
    from_cache, generation = planned_and_generated(offline, "owner/tiny-GGUF:q8_0")
    assert generation == [first, ""]
    for part in ("pinned_bytes", "outer_bytes", "cache_bytes", "working_bytes"):
        assert from_cache[part] == planned[part]
    names = [["owner/tiny-GGUF:Q8_0", {}], ["owner/tiny-GGUF:Q4_0", {}]]
    again, absent = answer_of(CONVERT, names, offline)
    assert again == [str(made), []]
    assert absent[0] == "DownloadError"
    assert "owner/tiny-GGUF is not in the cache and HF_HUB_OFFLINE forbids" in absent[1]


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
    ((code, _, error),) = results_of([["plan", "owner/tiny-GGUF:BF16"]], environment)
    assert code == 0, error
    names = ["owner/tiny-GGUF:bf16", "owner/tiny-GGUF/BF16/Tiny-BF16-00002-of-00003.gguf"]
    first, again = answer_of(CONVERT, [[name, {}] for name in names], environment)
    assert "is converted once" in first[1][0]
    assert again == [first[0], []]
    config = read_json(Path(first[0]) / "config.json")
    assert "quantization" not in config, "who names a 16-bit file wants 16 bits"


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """What commands that name files or the repository answer, in this order; what is made."""
    folder = tmp_path_factory.mktemp("commands")
    file, repository, made = "owner/tiny-GGUF:Q8_0", "owner/tiny-GGUF", folder / "made"
    commands = {
        "verify": ["verify", file],
        "mistyped": ["convert", "models/tiny/x.gguf", folder / "other"],
        "plan": ["plan", repository],
        "generate": ["generate", repository, "-p", "x"],
        "convert": ["convert", file, made],
        "chat": ["chat", file],
    }
    with serving_gguf(folder / "repository") as hub:
        environment = hub_environment(hub.address, folder / "home")
        results = results_of(commands.values(), environment)
    return dict(zip(commands, results, strict=True)), made


def test_every_command_takes_a_file_and_says_that_it_is_converted(said):
    code, _, error = said[0]["verify"]
    assert code == 0, error
    assert "warning: owner/tiny-GGUF:Q8_0 is converted once" in error


def test_a_path_that_is_mistyped_is_said_as_a_path_too(said):
    code, _, error = said[0]["mistyped"]
    assert code == 1
    assert "there is no file models/tiny/x.gguf here, and there is no models/tiny on the" in error


def test_a_repository_of_gguf_files_says_how_they_are_named(said):
    for command in ("plan", "generate"):
        code, _, error = said[0][command]
        assert code == 1
        assert "holds GGUF files" in error
        assert "owner/tiny-GGUF:Q4_0, owner/tiny-GGUF:Q8_0" in error


def test_a_file_is_a_source_of_conversions_and_of_chats(said):
    answers, made = said
    code, _, error = answers["convert"]
    assert code == 0, error
    assert read_json(made / "config.json")["quantization"]["bits"] == 8
    code, _, error = answers["chat"]
    assert code == 1
    assert "chat template" in error
