"""`edgellm bench serve` on the command line: what it refuses, before it loads anything."""

import pytest

from edgellm.bench.commands import serve
from edgellm.bench.serving.load import Level, Load, parse_server
from edgellm.cli.app import main
from edgellm.errors import ConfigError, EdgeLLMError


def test_servers_have_names_or_are_called_by_their_hosts():
    assert parse_server("http://localhost:8080/v1") == (
        "localhost:8080",
        "http://localhost:8080/v1",
    )
    assert parse_server("mine=http://localhost:8080") == ("mine", "http://localhost:8080")
    with pytest.raises(ConfigError, match="is not the URL of a server"):
        parse_server("mine=here")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"endpoint": "chats"}, "choose from chat, completions"),
        ({"spawn_rate": 0.0}, "--spawn-rate is 0"),
        ({"levels": [Level(users=0)]}, "0 users"),
        ({"levels": [Level(users=5000)]}, "5000 users"),
        ({"levels": [Level(rate=-1.0)]}, "--rate is -1"),
    ],
)
def test_a_load_that_cannot_be_is_refused(more, said):
    with pytest.raises(EdgeLLMError) as caught:
        Load(**({"levels": [Level(users=1)]} | more))
    assert said in f"{caught.value.message} {caught.value.hint}"


def test_levels_are_users_or_rates_each_once():
    assert serve.levels_of("1,8,8", "") == [Level(users=1), Level(users=8)]
    assert serve.levels_of("1,8", "0.5,2") == [Level(rate=0.5), Level(rate=2.0)]
    with pytest.raises(ConfigError, match="--rate fast is not a list of numbers"):
        serve.levels_of("1", "fast")


def test_a_model_is_named_for_all_servers_or_for_each():
    assert serve.models_of([], 2) == ["", ""]
    assert serve.models_of(["a"], 2) == ["a", "a"]
    assert serve.models_of(["a", "b"], 2) == ["a", "b"]
    with pytest.raises(ConfigError, match="there are 3 servers and 2 models"):
        serve.models_of(["a", "b"], 3)


def test_a_key_is_alone_in_its_file(tmp_path):
    path = tmp_path / "key"
    path.write_text("secret\n")
    assert serve.key_in_file(path) == "secret"
    for text in ("", "two\nlines"):
        path.write_text(text)
        with pytest.raises(ConfigError, match="holds no key"):
            serve.key_in_file(path)


def test_a_missing_locust_is_said_with_what_installs_it(capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "locust", None)
    assert main(["bench", "serve", "http://localhost:1"]) == 1
    assert "pip install '.[load]'" in capsys.readouterr().err
