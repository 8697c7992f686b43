"""Locust's users on the real server: closed and open loop, servers in turns, failures told."""

import json
from importlib.util import find_spec

import pytest

import edgellm
from edgellm.cli.app import main

pytest.importorskip("uvicorn", reason="the extra `acceptance` is not installed")
from support.openai_server import openai_server
from support.served import served

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(120),
    # not imported here: it would replace the sockets and threads of this process
    pytest.mark.skipif(find_spec("locust") is None, reason="the extra `acceptance` is missing"),
]


@pytest.fixture(scope="module")
def url():
    with edgellm.load("stories") as llm, served(llm, name="stories") as client:
        yield client.url


def records(path, *arguments):
    """The records of a load test, and its exit code."""
    code = main(["bench", "serve", *arguments, "--output", str(path)])
    return json.loads(path.read_text())["records"], code


def test_two_users_ask_two_servers_in_turns(url, tmp_path, capsys):
    with openai_server() as (other, _):
        found, code = records(
            tmp_path / "load.json",
            *(f"edgellm={url}", "--beside", f"words={other}", "--users", "2"),
            *("--requests", "4", "--max-tokens", "8", "--turns", "2"),
        )
    assert code == 0
    assert [(one["backend"], one["batch"]) for one in found] == [("edgellm", 2), ("words", 2)]
    for one in found:
        assert one["failures"] == {}
        assert len(one["latency_seconds"]) == 8, "four requests in each turn"
        assert len(one["seconds"]) == 2
        assert one["tokens_counted"] == "server"
        assert one["turn_tokens"] == [32, 32]
        assert one["client_seconds"] > 0
        assert one["tokens_per_second"] == pytest.approx(64 / sum(one["seconds"]))
    shown = capsys.readouterr()
    assert "2 users: edgellm has" in shown.out
    assert "of a core" in shown.err


def test_requests_arrive_at_a_rate_whatever_is_under_way(url, tmp_path):
    found, code = records(
        tmp_path / "load.json",
        *(url, "--rate", "20", "--duration", "2", "--endpoint", "completions"),
        *("--max-tokens", "4", "--spawn-rate", "5"),
    )
    assert code == 0
    (one,) = found
    assert (one["rate"], one["failures"]) == (20.0, {})
    # a Poisson process of 40: outside these once in a million runs
    assert 12 < len(one["latency_seconds"]) < 76


def test_failures_have_their_kinds(tmp_path):
    with openai_server(broken="error") as (url, _):
        found, code = records(tmp_path / "load.json", url, "--users", "2", "--requests", "2")
    assert code == 1
    assert "the first request failed: error in the stream" in found[0]["error"]
