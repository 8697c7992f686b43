"""Every field of the APIs: it is read, refused by its name, or means nothing to the answer."""

import json
import re
from pathlib import Path

import pytest

from edgellm.server.anthropic.field_tables import COUNT_TOKENS, MESSAGES
from edgellm.server.http.field_table import OF_OTHER_SERVERS
from edgellm.server.openai.field_tables import CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES

MESSAGE = [{"role": "user", "content": "Hello"}]
ENDPOINTS = {
    "/v1/chat/completions": (CHAT, {"messages": MESSAGE, "max_tokens": 1}),
    "/v1/responses": (RESPONSES, {"input": "Hello", "max_output_tokens": 1}),
    "/v1/completions": (COMPLETIONS, {"prompt": "Hello", "max_tokens": 1}),
    "/v1/embeddings": (EMBEDDINGS, {"input": "Hello"}),
    "/v1/messages": (MESSAGES, {"messages": MESSAGE, "max_tokens": 1}),
    "/v1/messages/count_tokens": (COUNT_TOKENS, {"messages": MESSAGE}),
}
NEVER_RIGHT = -7.5
"""A value that no field takes."""

SERVING = Path(__file__).parents[2] / "docs" / "serving.md"


def refusals(client, path, body, names):
    """Those of some fields that are not refused by their names where their value is never right."""
    missed = []
    for name in sorted(names):
        _, _, text = client.request("POST", path, body | {"model": client.model, name: NEVER_RIGHT})
        if not re.search(rf'"(param|message)":"{name}\b', text.decode()):
            missed.append((name, text))
    return missed


@pytest.mark.parametrize("path", ENDPOINTS)
def test_what_is_read_or_refused_is_so_by_its_name(client, path):
    table, body = ENDPOINTS[path]
    fields = {*table.supported, *table.limited, *table.refused, *OF_OTHER_SERVERS}
    assert refusals(client, path, body, fields) == []


@pytest.mark.parametrize("path", ENDPOINTS)
def test_what_is_ignored_changes_nothing(client, path):
    table, body = ENDPOINTS[path]
    values = {name: values[0] for name, (values, _) in table.limited.items()}
    ignored = dict.fromkeys(table.ignored, NEVER_RIGHT)
    status, plain = client.post(path, **body)
    assert status == 200
    status, value = client.post(path, **body, **values, **ignored, unheard_of=1)
    assert status == 200, value
    for name in ("choices", "data", "content", "input_tokens"):
        assert value.get(name) == plain.get(name)
    texts = [one["output"][0]["content"] for one in (plain, value) if "output" in one]
    assert texts == texts[:1] * len(texts)


def listed(table):
    """The lines of the documentation about a table."""
    lines = {
        "Read": [f"`{name}`" for name in table.supported],
        "Refused unless": [
            f"`{name}` is `{json.dumps(values[0])}`" for name, (values, _) in table.limited.items()
        ],
        "Refused": [f"`{name}`" for name in table.refused],
        "Without effect": [f"`{name}`" for name in table.ignored],
    }
    return [f"- {title}: {', '.join(sorted(names))}." for title, names in lines.items() if names]


@pytest.mark.parametrize("path", ENDPOINTS)
def test_the_documentation_has_the_table(path):
    table, _ = ENDPOINTS[path]
    page = " ".join(SERVING.read_text(encoding="utf-8").split())
    assert f"### `POST {path}` {' '.join(listed(table))}" in page
