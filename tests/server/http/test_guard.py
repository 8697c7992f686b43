"""Who may ask: hosts, origins and keys."""

import json

import pytest
from support.served import served

from edgellm.cli.server_commands.api_keys import read_keys
from edgellm.errors import ConfigError
from edgellm.server.http.addresses import require_origins, require_safe_address

MODELS = "/v1/models"


@pytest.fixture(scope="module")
def keyed(stories):
    with served(
        stories,
        name="stories",
        api_keys=("one", "two", "k\u00e9y"),
        cors_origins=("https://a.example",),
    ) as client:
        yield client


def status_of(client, path=MODELS, method="GET", **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    status, got, text = client.request(method, path, headers=headers)
    if status >= 400:
        assert json.loads(text)["error"]["message"]
    return status, got


@pytest.mark.parametrize(
    "host", ["localhost:80", "127.0.0.1", "[::1]:9", "a.localhost", "127.9.9.9"]
)
def test_names_of_this_machine_are_served(client, host):
    assert status_of(client, Host=host)[0] == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "[", ""]
)
def test_other_names_are_refused_without_keys(client, host):
    assert status_of(client, Host=host)[0] == 403


def test_other_names_are_served_to_whoever_has_a_key(keyed):
    assert status_of(keyed, Host="box.lan", Authorization="Bearer two")[0] == 200
    assert status_of(keyed, Host="box.lan")[0] == 401


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer three"}, 401),
        ({"Authorization": "one"}, 401),
        ({"Authorization": "Bearer "}, 401),
        ({"Authorization": "Bearer one"}, 200),
        ({"Authorization": "bearer two"}, 200),
        ({"x-api-key": "one"}, 200),
        ({"x-api-key": "k\u00e9y".encode()}, 200),
        ({"x-api-key": "on\xe9"}, 401),
    ],
)
def test_a_key_is_asked_for(keyed, headers, status):
    assert status_of(keyed, **headers)[0] == status


def test_the_pages_own_requests_are_served_and_those_of_others_refused(client):
    own = {"Host": f"127.0.0.1:{client.port}"}
    assert status_of(client, **own, Origin=client.url)[0] == 200
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1", "http://["):
        status, headers = status_of(client, **own, Origin=origin)
        assert status == 403
        assert "access-control-allow-origin" not in headers


def test_a_listed_page_may_ask_and_gets_no_star(keyed):
    page = {"Origin": "https://a.example"}
    status, headers = status_of(keyed, method="OPTIONS", path="/v1/chat/completions", **page)
    assert status == 204
    assert headers["access-control-allow-origin"] == "https://a.example"
    status, headers = status_of(keyed, **page, Authorization="Bearer one")
    assert (status, headers["access-control-allow-origin"]) == (200, "https://a.example")
    # an error can be read by the page, too
    status, headers = status_of(keyed, **page)
    assert (status, headers["access-control-allow-origin"]) == (401, "https://a.example")
    assert status_of(keyed, Origin="https://b.example", Authorization="Bearer one")[0] == 403


def test_keys_are_read_from_a_file(tmp_path):
    path = tmp_path / "keys"
    path.write_text("# mine\n one \n\ntwo\n")
    assert read_keys(str(path)) == ("one", "two")
    path.write_text("\ufeffone\nk\u00e9y\n", encoding="utf-8")
    assert read_keys(str(path)) == ("one", "k\u00e9y")
    path.write_text("#\n")
    with pytest.raises(ConfigError, match="has no key"):
        read_keys(str(path))
    assert read_keys(None) == ()


def test_others_cannot_reach_a_server_without_keys():
    for host in ("127.0.0.1", "localhost", "::1"):
        require_safe_address(host, ())
    for host in ("0.0.0.0", "::", "192.168.1.2", "box.lan"):
        with pytest.raises(ConfigError, match="no key"):
            require_safe_address(host, ())
        require_safe_address(host, ("key",))


@pytest.mark.parametrize("origin", ["*", "https://*", "null", "file://", "https://a.example/path"])
def test_an_origin_is_one_page(origin):
    with pytest.raises(ConfigError, match="not the origin"):
        require_origins([origin])


def test_origins_lose_their_last_slash():
    assert require_origins(["https://a.example/"]) == ("https://a.example",)
