"""Every field of the APIs: it is read, refused by its name, or means nothing to the answer."""

import json
import re
from pathlib import Path

import pytest

from edgellm.server.anthropic import field_tables as anthropic_tables
from edgellm.server.anthropic.field_tables import COUNT_TOKENS, MESSAGES
from edgellm.server.http.field_table import OF_OTHER_SERVERS
from edgellm.server.openai import field_tables as openai_tables
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
PARTS = [
    (path, place, table)
    for path, parts in {**openai_tables.PARTS, **anthropic_tables.PARTS}.items()
    for place, table in parts.items()
]
SCHEMA = {"type": "object"}
WITH_PART = {
    "messages[]": lambda part: {"messages": [MESSAGE[0] | part]},
    "messages[].content[]": lambda part: {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hello"} | part]}]
    },
    "input[]": lambda part: {"input": [MESSAGE[0] | part]},
    "stream_options": lambda part: {"stream_options": part},
    "reasoning": lambda part: {"reasoning": part},
    "text": lambda part: {"text": part},
    "output_config": lambda part: {"output_config": part},
    "thinking": lambda part: {"thinking": {"type": "disabled"} | part},
    "tool_choice": lambda part: {"tool_choice": {"type": "none"} | part},
    "tools[].function": lambda part: {
        "tool_choice": "none",
        "tools": [{"type": "function", "function": {"name": "f"} | part}],
    },
}
TOOLS = {
    "/v1/responses": lambda part: {
        "tool_choice": "none",
        "tools": [{"type": "function", "name": "f"} | part],
    },
    "/v1/messages": lambda part: {
        "tool_choice": {"type": "none"},
        "tools": [{"name": "f", "input_schema": SCHEMA} | part],
    },
}
"""Requests with a part that has some more fields."""

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


@pytest.mark.parametrize(("path", "place", "table"), PARTS)
def test_what_is_inside_fields_is_refused_or_ignored_by_its_name(client, path, place, table):
    _, body = ENDPOINTS[path]
    with_part = WITH_PART.get(place) or TOOLS[path]
    for name in sorted({*table.limited, *table.refused}):
        status, value = client.post(path, **{**body, **with_part({name: NEVER_RIGHT})})
        assert status == 400
        assert f"{name} " in str(value)
    limited = {name: values[0] for name, (values, _) in table.limited.items()}
    ignored = dict.fromkeys(table.ignored, NEVER_RIGHT)
    status, value = client.post(path, **{**body, **with_part(limited | ignored)})
    assert status == 200, value


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


def described(table):
    """Phrases of the documentation about a table."""
    phrases = {
        "Read": [f"`{name}`" for name in table.supported],
        "Refused unless": [
            f"`{name}` is `{json.dumps(values[0])}`" for name, (values, _) in table.limited.items()
        ],
        "Refused": [f"`{name}`" for name in table.refused],
        "Without effect": [f"`{name}`" for name in table.ignored],
    }
    return [f"{title}: {', '.join(sorted(names))}." for title, names in phrases.items() if names]


def listed(path):
    """The lines of the documentation about an endpoint."""
    table, _ = ENDPOINTS[path]
    lines = [f"- {phrase}" for phrase in described(table)]
    for of, place, part in PARTS:
        if of == path:
            lines.append(f"- In `{place}`. {' '.join(described(part))}")
    return lines


@pytest.mark.parametrize("path", ENDPOINTS)
def test_the_documentation_has_the_table(path):
    page = " ".join(SERVING.read_text(encoding="utf-8").split())
    assert f"### `POST {path}` {' '.join(listed(path))}" in page
