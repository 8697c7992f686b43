"""Which schemas are refused, and where."""

import pytest

from edgellm import ConfigError, Grammar

INTEGER = {"type": "integer"}


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"type": "array", "uniqueItems": True}, "#/uniqueItems"),
        ({"properties": {"a": {"type": "string", "format": "colour"}}}, "#/properties/a/format"),
        ({"items": {"anyOf": [INTEGER, {"not": INTEGER}]}}, "#/items/anyOf/1/not"),
        (
            {"properties": {"a/b": {"$ref": "#/$defs/x"}}, "$defs": {"x": {"if": {}}}},
            "#/$defs/x/if",
        ),
        ({"properties": {"a": {"pattern": "(?=x)", "type": "string"}}}, "#/properties/a/pattern"),
        ({"properties": {"a": {"$ref": "http://localhost/x"}}}, "#/properties/a/$ref"),
        ({"oneOf": [INTEGER, {"type": "number"}]}, "#/oneOf"),
        ({"x-guidance": {"lenient": True}, "contains": INTEGER}, "#/contains"),
        ({"properties": {"~": {"minimum": "3", "type": "integer"}}}, "#/properties/~0/minimum"),
    ],
)
def test_what_cannot_be_enforced_is_refused_with_its_place(schema, place):
    with pytest.raises(ConfigError) as caught:
        Grammar.json_schema(schema)
    assert f"cannot be enforced at {place}: " in caught.value.message
