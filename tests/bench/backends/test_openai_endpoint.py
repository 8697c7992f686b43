"""Endpoints: a server of our own that answers as OpenAI-compatible and as broken ones do."""

import json
import statistics

import pytest
from support.openai_server import PIECE
from support.openai_server import openai_server as server

from edgellm.bench.backends.openai_endpoint import Endpoint
from edgellm.cli.app import main
from edgellm.errors import BackendError, ConfigError


def records_of(capsys, *arguments):
    lengths = ["--prompt-tokens", "16", "--gen-tokens", "6", "--repetitions", "2"]
    code = main(["bench", *arguments, "--json", *lengths])
    return code, json.loads(capsys.readouterr().out)["records"]


def test_an_endpoint_is_measured_as_it_streams(capsys):
    with server() as (url, seen):
        code, (prompt, generation) = records_of(capsys, "--endpoint", url)
    assert code == 0
    assert prompt["model"] == generation["model"] == "words"
    assert prompt["device"] == url.removeprefix("http://")
    assert prompt["tokens"] == 32, "as the server counts them"
    assert prompt["time_to_first_token"] >= PIECE
    assert generation["tokens"] == 6, "those after the first"
    assert min(generation["seconds"]) > 0
    assert len(generation["step_seconds"]) == 12
    assert len(generation["first_token_seconds"]) == 2
    assert generation["peak_memory_bytes"] is None
    prompts = [body["prompt"] for _, body in seen]
    assert len(set(prompts)) == len(prompts), "no answer comes from a cache"
    assert {len(text.split()) for text in prompts} == {16, 8}
    assert all(body["stream"] and body["temperature"] == 0 for _, body in seen)


def test_an_endpoint_that_only_chats_and_does_not_count(capsys):
    with server(chat_only=True, usage=False) as (url, seen):
        _, (prompt, generation) = records_of(capsys, "mine", "--endpoint", f"{url}/v1/")
    assert prompt["model"] == "mine"
    assert prompt["tokens"] == 16
    assert generation["tokens"] == 6
    assert [path for path, _ in seen][:2] == ["/v1/completions", "/v1/chat/completions"]
    assert {path for path, _ in seen[1:]} == {"/v1/chat/completions"}


def test_several_sequences_are_asked_for_at_once(capsys):
    with server(together=4) as (url, _):  # it answers nobody before four have asked
        code, records = records_of(capsys, "--endpoint", url, "--batch", "4")
    assert code == 0
    assert records[1]["batch"] == 4
    assert records[1]["tokens_per_second"] == pytest.approx(
        4 * 6 / statistics.median(records[1]["seconds"])
    )


def test_several_at_once_may_find_that_a_server_only_chats(capsys):
    with server(chat_only=True, together=3) as (url, seen):
        code, records = records_of(capsys, "--endpoint", url, "--batch", "3")
    assert code == 0
    assert records[1]["tokens"] == 6
    assert {path for path, _ in seen[6:]} == {"/v1/chat/completions"}


def test_a_key_comes_from_the_environment(capsys, monkeypatch):
    monkeypatch.setenv("SOME_KEY", "secret")
    with server(key="secret") as (url, _):
        code, records = records_of(capsys, "--endpoint", url, "--key-variable", "SOME_KEY")
        assert code == 0
        assert "secret" not in json.dumps(records)
        _, (refused, _) = records_of(capsys, "--endpoint", url)
        assert "401: who are you?" in refused["error"]
        assert "--key-variable" in refused["error"]
        assert main(["bench", "--endpoint", url, "--key-variable", "NOBODY_HAS_THIS"]) == 2
        assert "no variable NOBODY_HAS_THIS" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("error", "says: out of memory"),
        ("silent", "streamed no token"),
        ("no json", "streams no JSON"),
    ],
)
def test_a_broken_server_is_an_error(broken, said):
    with server(broken=broken) as (url, _), pytest.raises(BackendError, match=said):
        Endpoint(url, "words").complete("a word", 3)


def test_a_server_that_is_not_there_or_no_server_at_all():
    with pytest.raises(BackendError, match="cannot be reached") as raised:
        Endpoint("http://127.0.0.1:9", "words").complete("a word", 3)
    assert raised.value.hint
    for url in ("file:///etc/passwd", "localhost:80", "http://"):
        with pytest.raises(ConfigError, match="not the URL of a server"):
            Endpoint(url, "words")
    with server() as (url, _), pytest.raises(BackendError, match="does not say what models"):
        Endpoint(f"{url}/other")


@pytest.mark.parametrize(
    "url", ["localhost", "ftp://host/v1", "http://", "http://[::1", "http://host:port/v1"]
)
def test_a_url_of_no_server_is_wrong_usage(capsys, url):
    assert main(["bench", "--endpoint", url]) == 2
    shown = capsys.readouterr()
    assert "is not the URL of a server" in shown.err
    assert not shown.out


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/", "/v1/completions"])
def test_a_url_may_be_written_in_several_ways(path):
    with server() as (url, seen):
        assert Endpoint(url + path, "words").complete("a word", 2).tokens == 2
    assert seen[0][0] == "/v1/completions"


def test_a_url_with_the_route_of_chats_asks_no_other():
    with server(chat_only=True) as (url, seen):
        Endpoint(f"{url}/v1/chat/completions", "words").complete("a word", 2)
    assert [path for path, _ in seen] == ["/v1/chat/completions"]
