"""Models that other programs have fetched, used without the Hub; a Hub that does not answer."""

import json
import socket
import subprocess
import sys

import pytest
from support.processes import answer_of
from support.stand_in_hub import Hub, hub_environment, serving_hub
from support.tiny import CONFIGS, write_model

LLAMA = CONFIGS["llama-2"] | {"num_hidden_layers": 1}

FETCH = """
import json, sys
from huggingface_hub import snapshot_download
print(json.dumps([
    snapshot_download(name, allow_patterns=patterns) for name, patterns in json.loads(sys.argv[1])
]))
"""

USE = """
import json, sys, warnings
from edgellm.errors import EdgeLLMError
from edgellm.hub.download import download
answers = []
for name, revision in json.loads(sys.argv[1]):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            answer = ["folder", str(download(name, revision=revision))]
        except EdgeLLMError as error:
            answer = [type(error).__name__, error.message, error.hint]
    answers.append([answer, [str(warning.message) for warning in caught]])
print(json.dumps(answers))
"""

FETCHED = {
    "owner/unlicensed": ["*.json", "model*.safetensors"],
    "owner/unset": ["config.json", "tokenizer.json", "model*.safetensors", "*.index.json"],
    "owner/whole": ["*"],
}
IN_PART = {
    "owner/config": ["config.json"],
    "owner/no-weights": ["*.json"],
    "owner/one-shard": ["*.json", "model-00002-of-00002.safetensors"],
    "owner/no-tokenizer": ["*config.json", "*.index.json", "model*.safetensors"],
    "owner/no-index": ["config.json", "tokenizer*", "model*.safetensors"],
    "owner/no-config": ["tokenizer*", "*.index.json", "model*.safetensors"],
}
"""What another program has fetched, by names of one and the same repository."""


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """The address of a Hub with a model in two shards that has a license."""
    whole = write_model(tmp_path_factory.mktemp("hub") / "whole", LLAMA, shards=2)
    (whole / "LICENSE").write_text("terms")
    (whole / "generation_config.json").write_text('{"eos_token_id": 2}')
    with serving_hub(dict.fromkeys(FETCHED | IN_PART, whole)) as server:
        yield server.address


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def folders(hub, home):
    """Have another program fetch; what it says are the folders, by repository."""
    asked = list((FETCHED | IN_PART).items())
    fetched = answer_of(FETCH, asked, hub_environment(hub, home))
    return dict(zip(FETCHED | IN_PART, fetched, strict=True))


def used(home, *calls, offline=True):
    """What ``download`` answers without the Hub to names and revisions, each with warnings."""
    environment = hub_environment("http://127.0.0.1:9", home, offline=offline)
    return answer_of(USE, calls, environment)


@pytest.fixture(scope="module")
def found(folders, home):
    """What ``download`` answers offline, by repository."""
    calls = [[name, None] for name in folders]
    return dict(zip(folders, used(home, *calls), strict=True))


def test_what_another_program_fetched_is_used_without_its_license(folders, found, home):
    expected = [["folder", folders["owner/unlicensed"]], []]
    assert found["owner/unlicensed"] == expected
    assert used(home, ["owner/unlicensed", None], offline=False) == [expected]


def test_a_missing_small_file_is_said(folders, found):
    answer, warned = found["owner/unset"]
    assert answer == ["folder", folders["owner/unset"]]
    assert len(warned) == 1
    assert "lacks small files of owner/unset" in warned[0]


@pytest.mark.parametrize("name", IN_PART)
def test_a_part_is_not_used_and_not_called_a_repository_without_weights(found, name):
    (kind, fact, hint), _ = found[name]
    assert kind == "DownloadError"
    assert fact == f"{name} is only in part in the cache and HF_HUB_OFFLINE forbids fetching it"
    assert hint


def test_an_older_one_that_is_whole_goes_before_a_newer_one_that_is_not(folders, found, home):
    assert found["owner/whole"][0] == ["folder", folders["owner/whole"]]
    repository = home / "hub" / "models--owner--whole"
    newer = repository / "snapshots" / ("f" * 40)
    newer.mkdir()
    (newer / "config.json").write_text("{}")
    (repository / "refs" / "main").write_text("f" * 40)
    newest, main = used(home, ["owner/whole", None], ["owner/whole", "main"])
    answer, warned = newest
    assert answer == ["folder", folders["owner/whole"]]
    assert "using an older one, 01234567" in warned[0]
    assert main[0][0] == "DownloadError"
    # a reference to what was never fetched
    (repository / "refs" / "main").write_text("e" * 40)
    assert used(home, ["owner/whole", None]) == [newest]


def test_a_plan_beforehand_does_not_make_the_model_one_without_weights(hub, tmp_path):
    environment = hub_environment(hub, tmp_path)
    command = [sys.executable, "-m", "edgellm"]
    plan = subprocess.run(
        # the address of its page will do
        [*command, "plan", "hf.co/owner/whole"],
        env=environment,
        capture_output=True,
        check=False,
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


ASK_TOGETHER = """
import json, sys, time
from concurrent.futures import ThreadPoolExecutor
from edgellm.errors import EdgeLLMError
from edgellm.hub import client
from edgellm.hub.download import download
from edgellm.hub.remote_folder import remote_folder
from edgellm.hub.upload import require_account
import huggingface_hub
huggingface_hub.HfApi  # its import takes a while
client.SECONDS = 0.5
def ask(question):
    begun = time.monotonic()
    try:
        question("owner/whole")
    except EdgeLLMError as error:
        return error.message, time.monotonic() - begun
with ThreadPoolExecutor() as threads:
    print(json.dumps(list(threads.map(ask, [download, remote_folder, require_account]))))
"""


def test_a_hub_that_accepts_and_never_answers_is_told_in_time_and_in_our_words(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        environment = hub_environment(f"http://127.0.0.1:{silent.getsockname()[1]}", tmp_path)
        environment["HF_TOKEN"] = "hf_" + "a" * 34
        done = subprocess.run(
            [sys.executable, "-c", ASK_TOGETHER],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.stderr == ""
    answers = json.loads(done.stdout)
    assert len(answers) == 3
    for fact, seconds in answers:
        assert "the Hub cannot be reached" in fact
        assert seconds < 8  # the HTTP library waits for 10, and asks again


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
