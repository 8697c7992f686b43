"""Models that other programs have fetched, used without the Hub; a Hub that does not answer."""

import json
import socket
import subprocess
import sys
import time

import pytest
from support.processes import answer_of
from support.stand_in_hub import Hub, hub_environment, serving_hub
from support.tiny import CONFIGS, write_model

LLAMA = CONFIGS["llama-2"] | {"num_hidden_layers": 1}

FETCH = """
import json, sys, warnings
from huggingface_hub import snapshot_download
patterns, offline = json.loads(sys.argv[1])
print(json.dumps(snapshot_download("owner/whole", allow_patterns=patterns)))
"""

USE = """
import json, sys, warnings
from edgellm.errors import EdgeLLMError
from edgellm.hub.download import download
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    try:
        answer = ["folder", str(download("owner/whole", **json.loads(sys.argv[1])))]
    except EdgeLLMError as error:
        answer = [type(error).__name__, error.message, error.hint]
print(json.dumps([answer, [str(warning.message) for warning in caught]]))
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """The address of a Hub with a model in two shards that has a license."""
    whole = write_model(tmp_path_factory.mktemp("hub") / "whole", LLAMA, shards=2)
    (whole / "LICENSE").write_text("terms")
    (whole / "generation_config.json").write_text('{"eos_token_id": 2}')
    with serving_hub({"owner/whole": whole}) as server:
        yield server.address


def fetched(hub, home, *patterns):
    """Have another program fetch the files of some patterns; return what it says is the folder."""
    return answer_of(FETCH, [patterns, False], hub_environment(hub, home))


def used(home, *, address="http://127.0.0.1:9", offline=True, **options):
    """Return what ``download`` answers without the Hub, and its warnings."""
    return answer_of(USE, options, hub_environment(address, home, offline=offline))


@pytest.mark.parametrize("offline", [True, False])
def test_what_another_program_fetched_is_used_without_its_license(hub, tmp_path, offline):
    folder = fetched(hub, tmp_path, "*.json", "model*.safetensors")
    assert used(tmp_path, offline=offline) == [["folder", folder], []]


def test_a_missing_small_file_is_said(hub, tmp_path):
    names = ["config.json", "tokenizer.json", "model*.safetensors", "*.index.json"]
    folder = fetched(hub, tmp_path, *names)
    answer, warned = used(tmp_path)
    assert answer == ["folder", folder]
    assert len(warned) == 1
    assert "lacks small files of owner/whole" in warned[0]


@pytest.mark.parametrize(
    "names",
    [
        ["config.json"],
        ["*.json"],
        ["*.json", "model-00002-of-00002.safetensors"],
        ["*config.json", "*.index.json", "model*.safetensors"],  # no tokenizer
        ["config.json", "tokenizer*", "model*.safetensors"],  # no index
        ["tokenizer*", "*.index.json", "model*.safetensors"],  # no config
    ],
)
def test_a_part_is_not_used_and_not_called_a_repository_without_weights(hub, tmp_path, names):
    fetched(hub, tmp_path, *names)
    (kind, fact, hint), _ = used(tmp_path)
    assert kind == "DownloadError"
    assert fact == "owner/whole is only in part in the cache and HF_HUB_OFFLINE forbids to fetch it"
    assert hint


def test_an_older_one_that_is_whole_goes_before_a_newer_one_that_is_not(hub, tmp_path):
    folder = fetched(hub, tmp_path, "*")
    repository = tmp_path / "hub" / "models--owner--whole"
    newer = repository / "snapshots" / ("f" * 40)
    newer.mkdir()
    (newer / "config.json").write_text("{}")
    (repository / "refs" / "main").write_text("f" * 40)
    answer, warned = used(tmp_path)
    assert answer == ["folder", folder]
    assert "taking an older one, 01234567" in warned[0]
    (kind, _, _), _ = used(tmp_path, revision="main")
    assert kind == "DownloadError"


def test_a_plan_beforehand_does_not_make_the_model_one_without_weights(hub, tmp_path):
    environment = hub_environment(hub, tmp_path)
    command = [sys.executable, "-m", "edgellm"]
    plan = subprocess.run(
        [*command, "plan", "owner/whole"], env=environment, capture_output=True, check=False
    )
    assert plan.returncode == 0, plan.stderr
    done = subprocess.run(
        [*command, "generate", "owner/whole", "--prompt", "x"],
        env=hub_environment(hub, tmp_path, offline=True),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "owner/whole is only in part in the cache" in done.stderr
    assert "safetensors" not in done.stderr


@pytest.mark.parametrize("ask", ["download(name)", "remote_folder(name)", "upload"])
def test_a_hub_that_accepts_and_never_answers_is_told_in_time_and_in_our_words(tmp_path, ask):
    code = f"""
import json, sys, time
from edgellm.errors import EdgeLLMError
from edgellm.hub.download import download
from edgellm.hub.remote_folder import remote_folder
from edgellm.hub.upload import require_account
import huggingface_hub
name = json.loads(sys.argv[1])
begun = time.monotonic()
try:
    {ask.replace("upload", "require_account(name)")}
except EdgeLLMError as error:
    print(json.dumps([error.message, time.monotonic() - begun]))
"""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        environment = hub_environment(f"http://127.0.0.1:{silent.getsockname()[1]}", tmp_path)
        environment["HF_TOKEN"] = "hf_" + "a" * 34
        begun = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", code, '"owner/whole"'],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert time.monotonic() - begun < 60
    assert done.stderr == ""
    fact, seconds = json.loads(done.stdout)
    assert "the Hub cannot be reached" in fact
    assert seconds < 4.5


def test_the_librarys_lines_about_second_tries_stay_off_the_screen(tmp_path):
    whole = write_model(tmp_path / "whole", LLAMA)

    stumbled = []

    class Stumbling(Hub):
        def reply(self, path):
            if "/tree/" in path and len(stumbled) < 2:
                stumbled.append(path)
                self.answer(503, b"")
            else:
                super().reply(path)

    code = "from edgellm.hub.download import download; print(download('owner/whole').name)"
    with serving_hub({"owner/whole": whole}, Stumbling) as server:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=hub_environment(server.address, tmp_path / "home"),
            capture_output=True,
            text=True,
            check=False,
        )
    assert stumbled
    assert done.stdout
    assert done.stderr == ""
