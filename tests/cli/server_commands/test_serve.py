"""``edgellm serve``: names of models, times, and a process that ends when it is told to."""

import http.client
import json
import re
import signal
import subprocess
import sys

import pytest
from support.processes import started

from edgellm.cli.server_commands.served_models import find_models, parse_keep_alive
from edgellm.errors import ConfigError


def test_models_have_the_names_of_their_folders(tmp_path):
    for name in ("b", "a", "not-a-model"):
        (tmp_path / "models" / name).mkdir(parents=True)
    for name in ("a", "b"):
        (tmp_path / "models" / name / "config.json").touch()
    folder = str(tmp_path / "models")
    assert find_models(folder, []) == {"a": f"{folder}/a", "b": f"{folder}/b"}
    assert find_models(f"{folder}/a", []) == {"a": f"{folder}/a"}
    assert find_models(f"{folder}/a/", ["big=owner/name"])["big"] == "owner/name"
    assert find_models("owner/name", []) == {"owner/name": "owner/name"}
    assert find_models("", ["x=stories"]) == {"x": "stories"}


@pytest.mark.parametrize("named", [["x"], ["=x"], ["x="], ["x=a", "x=b"]])
def test_a_further_model_has_a_name_of_its_own(named):
    with pytest.raises(ConfigError):
        find_models("stories", named)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5m", 300), ("90s", 90), ("2h", 7200), ("0", 0), ("1.5m", 90), ("-1", None), ("-1s", None)],
)
def test_times_that_a_model_stays(text, seconds):
    assert parse_keep_alive(text, several=True) == seconds


def test_one_model_stays_and_several_leave():
    assert parse_keep_alive(None, several=False) is None
    assert parse_keep_alive(None, several=True) == 300
    for text in ("", "m", "5 minutes", "1e9", "nan"):
        with pytest.raises(ConfigError, match="no time"):
            parse_keep_alive(text, several=True)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_server_answers_until_a_signal_comes(number, code):
    command = [sys.executable, "-m", "edgellm", "serve", "stories", "--port", "0"]
    with started(command, stderr=subprocess.PIPE, text=True) as process:
        said = process.stderr.readline()
        address = re.search(r"http://([\d.:]+)/v1", said)
        assert address, said
        connection = http.client.HTTPConnection(address.group(1), timeout=60)
        connection.request("GET", "/v1/models")
        models = json.loads(connection.getresponse().read())
        connection.close()
        assert [model["id"] for model in models["data"]] == ["stories"]
        process.send_signal(number)
        rest = process.stderr.read()
        assert process.wait() == code
    assert "Traceback" not in rest


def test_an_address_that_others_reach_needs_a_key():
    anywhere = "0.0.0.0"
    command = [sys.executable, "-m", "edgellm", "serve", "stories", "--host", anywhere]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--api-key-file" in done.stderr


def test_an_adapter_belongs_to_one_model(run, tmp_path):
    asked = ("serve", "stories", "--model", "other=stories-draft", "--adapter", str(tmp_path))
    code, _, err = run(*asked)
    assert code == 2
    assert "--adapter belongs to one model, and there are 2" in err
