"""How clients are pointed at a server, and their settings restored."""

import json
import tomllib
from pathlib import Path

import pytest
import yaml
from support.openai_server import openai_server

from edgellm.cli.server_commands.launch import NAMES
from edgellm.clients import written
from edgellm.clients.served import ask_server
from edgellm.clients.setup import Target
from edgellm.clients.table import CLIENTS, find_client
from edgellm.errors import BackendError, ConfigError

TARGET = Target(url="http://127.0.0.1:8080", model="a/model", context=8192)
WRITABLE = [name for name, client in CLIENTS.items() if client.setup(TARGET).can_be_written]
KEYED = Target(url="https://box", model="m", has_keys=True)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_the_command_lists_all_clients():
    assert NAMES.split("|") == list(CLIENTS)


@pytest.mark.parametrize("name", CLIENTS)
@pytest.mark.parametrize("target", [TARGET, KEYED], ids=["open", "keyed"])
def test_each_setup_names_the_server_and_its_model_and_no_key(name, target):
    setup = find_client(name).setup(target)
    parts = (setup.command, *setup.variables.values(), json.dumps(setup.merged), setup.text)
    text = " ".join(map(str, parts))
    assert target.url in text
    assert target.model in text or name == "openai"
    if setup.text is not None and name == "codex":
        profile = tomllib.loads(setup.text)
        assert profile["model_providers"]["edgellm"]["base_url"] == f"{target.url}/v1"
    elif setup.text is not None:
        assert yaml.safe_load(setup.text)


@pytest.mark.parametrize("name", WRITABLE)
@pytest.mark.parametrize("before", [None, "", '{"theme": "dark", "env": {"A": "1"}}'])
def test_what_was_written_can_be_undone(name, before, home):
    setup = find_client(name).setup(TARGET)
    if before is not None:
        setup.path.parent.mkdir(parents=True)
        setup.path.write_text(before)
    for target in (TARGET, Target(url="http://127.0.0.1:9", model="b")):  # twice, with a change
        written.write_setup(find_client(name).setup(target))
    text = setup.path.read_text()
    assert "http://127.0.0.1:9" in text
    if before and setup.merged is not None:
        assert json.loads(text)["theme"] == "dark"
    written.undo(setup)
    if before is None:
        assert not setup.path.exists()
    else:
        assert setup.path.read_text() == before
    assert list(home.rglob("*before-edgellm*")) == []
    with pytest.raises(ConfigError, match="nothing was written"):
        written.undo(setup)


def test_what_a_person_has_changed_since_is_left_alone():
    setup = find_client("claude-code").setup(TARGET)
    written.write_setup(setup)
    mine = setup.path.read_text().replace("{", '{"mine": 1,', 1)
    setup.path.write_text(mine)
    with pytest.raises(ConfigError, match="changed since"):
        written.undo(setup)
    assert setup.path.read_text() == mine


@pytest.mark.parametrize(
    "text", ['// mine\n{"a": 1}', "[]", '{"env": 3}', '{"env": {}, "env": {}}']
)
def test_settings_that_would_lose_something_are_not_touched(text):
    setup = find_client("claude-code").setup(TARGET)
    setup.path.parent.mkdir(parents=True)
    setup.path.write_text(text)
    with pytest.raises(ConfigError, match="not plain JSON"):
        written.write_setup(setup)
    assert setup.path.read_text() == text


def test_a_setup_without_settings_is_not_written():
    with pytest.raises(ConfigError, match="no settings file"):
        written.write_setup(find_client("aider").setup(TARGET))


def test_a_server_is_asked_for_its_models():
    with openai_server() as (url, _):
        assert ask_server(f"{url}/v1/") == Target(url=url, model="words")
        with pytest.raises(ConfigError, match="has no model 'other'; it has words"):
            ask_server(url, "other")
    with pytest.raises(BackendError, match="no server answers"):
        ask_server(url)
    for wrong in ("box:8080", "ftp://box", "http://"):
        with pytest.raises(ConfigError, match="not a server's URL"):
            ask_server(wrong)


def test_other_clients_are_not_known():
    with pytest.raises(ConfigError, match="no client that is known"):
        find_client("emacs")
    assert isinstance(find_client("zed").setup(TARGET).path, Path)
