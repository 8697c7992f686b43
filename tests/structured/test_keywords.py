"""Keywords of JSON schemas beside jsonschema: enforced in full, or refused with their place."""

import json
from datetime import datetime
from pathlib import Path

import jsonschema
import pytest

import edgellm
from edgellm import ConfigError, EdgeLLMError, Grammar
from edgellm.structured.constraint import constraint_for

END = 2
ONE = {"a": 1}
OPEN = {"type": "object", "properties": {"a": {"type": "integer"}}}
CLOSED = OPEN | {"additionalProperties": False}
TREE = {
    "$ref": "#/$defs/node",
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "v": {"type": "integer"},
                "next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/node"}]},
            },
            "required": ["v", "next"],
            "additionalProperties": False,
        }
    },
}
SHAPES = {
    "oneOf": [
        {"type": "object", "properties": {"kind": {"const": kind}, "x": {"type": value}},
         "required": ["kind", "x"], "additionalProperties": False}
        for kind, value in (("circle", "number"), ("name", "string"))
    ]
}  # fmt: skip
TEXT = {"type": "string"}

ENFORCED = {
    "type": ({"type": "integer"}, [1, -7, 1.5, "1", None, True]),
    "types": ({"type": ["string", "null"]}, ["", None, 1, []]),
    "boolean": ({"type": "boolean"}, [True, False, 0, "true"]),
    "null": ({"type": "null"}, [None, 0, False]),
    "enum": ({"enum": ["a", 2, None, {"b": [1]}]}, ["a", 2, None, {"b": [1]}, "b", 3, {"b": [2]}]),
    "const": ({"const": [1, "x"]}, [[1, "x"], [1], [1, "y"]]),
    "minimum": ({"type": "integer", "minimum": -3}, [-3, 0, 999, -4, -10]),
    "maximum": ({"type": "integer", "maximum": 120}, [120, 0, -5, 121, 1000]),
    "exclusiveMinimum": ({"type": "number", "exclusiveMinimum": 0}, [0.1, 5, 0, -1]),
    "exclusiveMaximum": ({"type": "number", "exclusiveMaximum": 1.5}, [1.4, -2, 1.5, 2]),
    "a range": ({"type": "number", "minimum": 0.5, "maximum": 0.75}, [0.5, 0.6, 0.76, 0.4]),
    "multipleOf": ({"type": "integer", "multipleOf": 5}, [0, 5, -10, 3, 12]),
    "multipleOf 0.01": ({"type": "number", "multipleOf": 0.01}, [1.25, 3, 0.001, 1.255]),
    "minLength": (TEXT | {"minLength": 2}, ["ab", "éé", "a", ""]),
    "maxLength": (TEXT | {"maxLength": 3}, ["", "abc", "éèà", "abcd"]),
    "pattern": (TEXT | {"pattern": "^[a-z]+-[0-9]{2}$"}, ["ab-12", "ab-1", "AB-12", "xab-12x"]),
    "loose pattern": (TEXT | {"pattern": "b"}, ["b", "abc", "ac", ""]),
    "email": (TEXT | {"format": "email"}, ["a@b.org", "a"]),
    "uuid": (TEXT | {"format": "uuid"}, ["123e4567-e89b-12d3-a456-426614174000", "123e4567", "x"]),
    "ipv4": (TEXT | {"format": "ipv4"}, ["127.0.0.1", "256.1.1.1", "1.2.3"]),
    "date": (
        TEXT | {"format": "date"},
        ["2024-02-29", "2000-02-29", "2025-12-31", "2025-02-29", "1900-02-29", "2025-04-31",
         "2024-13-01", "24-01-01", "0000-01-01"],
    ),
    "date-time": (
        {"properties": {"format": TEXT | {"format": "date-time"}}},
        [{"format": "2024-02-29T12:00:00Z"}, {"format": "2023-02-29T12:00:00Z"},
         {"format": "2024-02-28"}, {"format": 1}],
    ),
    "items": ({"type": "array", "items": {"type": "integer"}}, [[], [1, 2], ["1"], [1, None]]),
    "prefixItems": (
        {"type": "array", "prefixItems": [{"type": "integer"}, TEXT], "items": False,
         "minItems": 2},
        [[1, "a"], [1], ["a", 1], [1, "a", 2]],
    ),
    "minItems": ({"type": "array", "items": {"type": "null"}, "minItems": 2}, [[None] * 2, [None]]),
    "maxItems": (
        {"type": "array", "items": {"type": "null"}, "maxItems": 2}, [[], [None] * 2, [None] * 3]
    ),
    "properties": (OPEN, [{}, ONE, {"a": "1"}, {"a": 1, "b": 2}, {"b": None}, [1]]),
    "closed": (CLOSED, [{}, ONE, {"b": 1}, {"a": 1, "b": 2}]),
    "typed others": (OPEN | {"additionalProperties": TEXT}, [{"b": "x"}, {"b": 1}, ONE]),
    "required": (CLOSED | {"required": ["a"]}, [ONE, {}]),
    "required of others": (OPEN | {"required": ["b"]}, [{"b": 1}, {"a": 1, "b": 2}, {}, ONE]),
    "patternProperties": (
        {"type": "object", "patternProperties": {"^x-": {"type": "integer"}},
         "additionalProperties": False},
        [{}, {"x-a": 1}, {"x-a": "1"}, {"y": 1}],
    ),
    "minProperties": (
        {"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 1,
         "maxProperties": 2},
        [{"a": 1}, {"a": 1, "b": 2}, {}, {"a": 1, "b": 2, "c": 3}],
    ),
    "anyOf": ({"anyOf": [{"type": "integer"}, TEXT | {"maxLength": 1}]}, [1, "a", "ab", 1.5]),
    "allOf": ({"allOf": [{"type": "integer"}, {"minimum": 3}, {"maximum": 5}]}, [3, 5, 2, 6, "4"]),
    "oneOf": (SHAPES, [{"kind": "circle", "x": 1.5}, {"kind": "name", "x": "n"},
                       {"kind": "circle", "x": "n"}, {"kind": "other", "x": 1}]),
    "recursive $ref": (TREE, [{"v": 1, "next": None}, {"v": 1, "next": {"v": 2, "next": None}},
                              {"v": 1}, {"v": 1, "next": {"v": "2", "next": None}}]),
    "true": (True, [1, "a", {"b": [None]}]),
}  # fmt: skip

REFUSED = {
    "uniqueItems": ({"type": "array", "uniqueItems": True}, "/uniqueItems"),
    "not": ({"not": {"type": "null"}}, "/not"),
    "if": ({"properties": {"a": {"if": {"type": "null"}, "then": {}}}}, "/properties/a/if"),
    "contains": ({"items": {"contains": {"type": "null"}}}, "/items/contains"),
    "propertyNames": ({"propertyNames": {"maxLength": 3}}, "/propertyNames"),
    "dependentRequired": ({"dependentRequired": {"a": ["b"]}}, "/dependentRequired"),
    "dependentSchemas": ({"dependentSchemas": {"a": {}}}, "/dependentSchemas"),
    "dependencies": ({"dependencies": {"a": ["b"]}}, "/dependencies"),
    "unevaluatedProperties": ({"unevaluatedProperties": False}, "/unevaluatedProperties"),
    "unevaluatedItems": ({"unevaluatedItems": False}, "/unevaluatedItems"),
    "$dynamicRef": ({"$dynamicRef": "#x"}, "/$dynamicRef"),
    "format": ({"items": TEXT | {"format": "colour"}}, "/items/format"),
    "look-ahead": (TEXT | {"pattern": "^(?!x)"}, "/pattern"),
    "word border": (TEXT | {"pattern": r"\bx"}, "/pattern"),
    "oneOf": ({"oneOf": [TEXT, TEXT | {"maxLength": 3}]}, "/oneOf"),
    "nothing": (False, ""),
    "nothing between": ({"type": "integer", "minimum": 3, "maximum": 2}, ""),
    "remote $ref": ({"$ref": "http://127.0.0.1:9/schema.json"}, "/$ref"),
    "lost $ref": ({"items": {"$ref": "#/$defs/none"}}, "/items/$ref"),
    "type": ({"properties": {"a": {"type": "int"}}}, "/properties/a/type"),
    "value": ({"type": "string", "maxLength": "3"}, "/maxLength"),
}


@pytest.fixture(scope="module")
def tokenizer():
    return edgellm.Tokenizer.from_folder(Path(edgellm.__file__).parent / "bundled" / "stories")


@pytest.fixture(scope="module")
def by_bytes(tokenizer):
    return {tokenizer.token_bytes(token): token for token in range(3, 300)}


def is_time(text):
    return "T" in text and bool(datetime.fromisoformat(text.replace("Z", "+00:00")))


@pytest.mark.parametrize("name", ENFORCED)
def test_a_keyword_is_enforced(tokenizer, by_bytes, name):
    schema, documents = ENFORCED[name]
    held = constraint_for(Grammar.json_schema(schema), tokenizer, frozenset({END}), 4096)
    checker = jsonschema.FormatChecker()
    checker.checks("date-time", ValueError)(is_time)  # its own needs another library
    validator = jsonschema.Draft202012Validator(schema, format_checker=checker)
    for document in documents:
        text = json.dumps(document, ensure_ascii=False)
        try:
            held.go_on([by_bytes[bytes([byte])] for byte in text.encode()])
            is_taken = bool(held.ceiling()[END] > 0)
        except EdgeLLMError:
            is_taken = False
        assert is_taken == validator.is_valid(document), text


@pytest.mark.parametrize("name", REFUSED)
def test_a_keyword_is_refused_with_its_place(name):
    schema, place = REFUSED[name]
    with pytest.raises(ConfigError, match="cannot be enforced") as caught:
        Grammar.json_schema(schema)
    assert f" at #{place}: " in caught.value.message or not place
