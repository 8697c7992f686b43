"""Bodies that are no JSON objects, or try to harm."""

import pytest

PATH = "/v1/chat/completions"
MANY_NAMES = b"{" + b", ".join(b'"name %d": 1' % number for number in range(60_000))


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"", 400, "not JSON"),
        (b"[]", 400, "not a JSON object"),
        (b'{"a": 1, "a": 2}', 400, "twice"),
        (b'{"a": NaN}', 400, "NaN"),
        (b'{"a": 1e400}', 400, "too large"),
        (b'{"a": "\\ud800"}', 400, "surrogate"),
        (b'{"a": ' + b"[" * 300 + b"]" * 300 + b"}", 400, "nested"),
        (b'{"a": ' + b"[" * 200_000, 400, "nested"),
        (b"\xff\xfe", 400, "not JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", 400, "not JSON"),
        (b" " * ((32 << 20) + 1), 413, "32 MiB"),
        (b'{"a": [' + b"[]," * 600_000 + b"1]}", 400, "500000 lists"),
        (MANY_NAMES + b', "name 59999": 1}', 400, "twice"),
    ],
)
def test_a_body_is_refused(client, body, status, said):
    found, _, text = client.request("POST", PATH, body)
    assert found == status
    assert said in text.decode()


def test_the_server_answers_after_all_of_them(client):
    status, value = client.get("/v1/models")
    assert status == 200
    assert [model["id"] for model in value["data"]] == ["stories"]
    assert client.get("/v1/models/stories")[1] == value["data"][0]
    assert client.get("/nothing")[0] == 404
