"""JSON schemas: which can be enforced, and where in them is what cannot."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from edgellm.errors import ConfigError
from edgellm.setting_values import shown
from edgellm.structured import library

MAX_SCHEMA = 300_000
"""Characters of a schema."""

MAX_DEPTH = 64
"""Objects and lists in one another; each costs llguidance, and JSON of Python, a call."""

MAX_LOOKS = 2_000
"""Parts of a refused schema that are compiled to find the one that is refused."""

MAX_PROPERTIES = 2_000
"""Properties of all objects in a schema: the time of compilation grows with their square."""

MAX_OPTIONAL = 480
"""Properties of an object that may be left out: llguidance keeps each in mind at the beginning."""

_SMALLER = "take a smaller schema, and check the rest of the answer yourself"
_JSON = 'give an object: {"type": "object", "properties": {"name": {"type": "string"}}}'
_HINT = "take it out of the schema, and check the finished answer for it"

_WITH_SCHEMA = (
    "additionalProperties", "additionalItems", "unevaluatedProperties", "unevaluatedItems", "items",
    "contains", "propertyNames", "not", "if", "then", "else",
)  # fmt: skip
_WITH_SCHEMAS = ("allOf", "anyOf", "oneOf", "prefixItems", "items")
_WITH_NAMED_SCHEMAS = (
    "properties", "patternProperties", "dependentSchemas", "dependencies", "$defs", "definitions",
)  # fmt: skip
"""Keywords by what they hold; definitions last, as they count only where they are referred to."""

_YEAR = "(?:000[1-9]|00[1-9][0-9]|0[1-9][0-9]{2}|[1-9][0-9]{3})"
_LEAP_YEAR = "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"
_DATE = (
    f"(?:{_YEAR}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])"
    "|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))"
    f"|{_LEAP_YEAR}-02-29)"
)
_DATES = {"date": f"^{_DATE}$", "date-time": f"^{_DATE}[Tt]"}
"""Formats of which llguidance takes February 29 of any year, and the patterns that do not."""

Schema = dict[str, Any] | bool


def checked_schema(schema: object) -> Schema:
    """Return a schema as plain data, of acceptable size. Raises ConfigError."""
    if isinstance(schema, Mapping | bool):
        try:
            schema = json.dumps(schema, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise ConfigError(f"the JSON schema is no JSON: {error}", hint=_JSON) from None
    if not isinstance(schema, str):
        raise ConfigError(
            f"the JSON schema is {shown(schema)}; it must be a mapping, or its text",
            hint=_JSON,
        )
    if len(schema) > MAX_SCHEMA:
        raise ConfigError(
            f"the JSON schema has {len(schema)} characters; at most {MAX_SCHEMA} are compiled",
            hint=_SMALLER,
        )
    try:
        parsed = json.loads(schema, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"the JSON schema is no JSON: {error}", hint=_JSON) from None
    if not isinstance(parsed, dict | bool):
        raise ConfigError(f"the JSON schema is {shown(parsed)}; it must be an object", hint=_JSON)
    if _depth(parsed) > MAX_DEPTH:
        raise ConfigError(f"the JSON schema is more than {MAX_DEPTH} levels deep", hint=_SMALLER)
    return parsed


def with_real_dates(schema: Any) -> Any:
    """Return a schema whose dates are days of the calendar."""
    if not isinstance(schema, dict):
        return schema
    changed = dict(schema)
    for keyword, value in schema.items():
        if keyword in _WITH_NAMED_SCHEMAS and isinstance(value, dict):
            changed[keyword] = {name: with_real_dates(child) for name, child in value.items()}
        elif keyword in _WITH_SCHEMAS and isinstance(value, list):
            changed[keyword] = [with_real_dates(child) for child in value]
        elif keyword in _WITH_SCHEMA:
            changed[keyword] = with_real_dates(value)
    pattern = _DATES.get(str(schema.get("format")))
    if pattern is not None:
        others = changed.get("allOf")
        if not isinstance(others, list):
            others = []
        changed["allOf"] = [*others, {"pattern": pattern}]
    return changed


def require_enforceable(schema: Schema) -> None:
    """Raise ConfigError, with the place in the schema, where it cannot be enforced in full."""
    _require_few_properties(schema)
    message = library.refusal(library.from_json_schema(schema))
    if message:
        place, reason = _Search(schema).find(message)
        raise ConfigError(f"the JSON schema cannot be enforced at {place}: {reason}", hint=_HINT)


def _require_few_properties(schema: Schema) -> None:
    """Raise ConfigError where an object, or the whole, has more properties than are compiled."""
    total = 0
    parts = [("#", schema)]
    for place, part in parts:
        parts += [(place + path, child) for path, child in _children(part)]
        if not isinstance(part, dict) or not isinstance(part.get("properties"), dict):
            continue
        properties = part["properties"]
        required = part.get("required")
        optional = len(properties)
        if isinstance(required, list):
            optional -= sum(isinstance(name, str) and name in properties for name in required)
        if optional > MAX_OPTIONAL:
            raise ConfigError(
                f"the JSON schema cannot be enforced at {place}/properties: {optional} of them "
                f"may be left out, of {MAX_OPTIONAL} allowed",
                hint="list more of them under required, or take a smaller schema",
            )
        total += len(properties)
    if total > MAX_PROPERTIES:
        raise ConfigError(
            f"the JSON schema has {total} properties, of {MAX_PROPERTIES} allowed", hint=_SMALLER
        )


class _Search:
    """Finds what llguidance refuses in a schema; its messages do not say where.

    Args:
        schema: a schema that is refused.
    """

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        # a part is compiled within the whole, which its references point into
        self._whole = _moved(schema)
        self._looks = 0

    def find(self, message: str) -> tuple[str, str]:
        """Return the place as a JSON pointer, and what is wrong there."""
        pointer, part = "#", self._schema
        seen = set()
        while pointer not in seen:
            seen.add(pointer)
            for place, child in self._below(pointer, part):
                found = self._refusal(place)
                if found and place not in seen:
                    pointer, part, message = place, child, found
                    break
        if isinstance(part, dict):
            pointer += self._keyword(part, message)
        return pointer, _one_line(message)

    def _below(self, pointer: str, part: Schema) -> Iterator[tuple[str, Schema]]:
        """Yield the schemas that one consists of, each with its place."""
        if isinstance(part, dict) and _is_within(part.get("$ref")):
            target = _target(self._schema, part["$ref"])
            if isinstance(target, dict | bool):
                yield part["$ref"], target
        for path, child in _children(part):
            yield pointer + path, child

    def _keyword(self, part: dict[str, Any], message: str) -> str:
        """Return the keyword that is refused, as a step of a pointer; "" where it is not one."""
        named = [key for key in part if f'"{key}"' in message or f"'{key}'" in message]
        if len(named) == 1:
            return _step(named[0])
        for key, value in part.items():
            if self._refuses({key: value}):
                return _step(key)
        for key in part:
            if not self._refuses({other: part[other] for other in part if other != key}):
                return _step(key)
        return ""

    def _refusal(self, pointer: str) -> str:
        """Return why the part at a pointer is refused, "" where it is not."""
        return self._compile({"$ref": f"#/$defs/whole{pointer[1:]}"})

    def _refuses(self, part: dict[str, Any]) -> bool:
        return bool(self._compile(_moved(part)))

    def _compile(self, part: dict[str, Any]) -> str:
        self._looks += 1
        if self._looks > MAX_LOOKS:
            return ""
        definitions = {**part.get("$defs", {}), "whole": self._whole}
        return library.refusal(library.from_json_schema({**part, "$defs": definitions}))


def _children(schema: Schema) -> Iterator[tuple[str, Schema]]:
    """Yield the schemas right within a schema, each with the pointer to it."""
    if not isinstance(schema, dict):
        return
    for keyword in _WITH_SCHEMA:
        if isinstance(schema.get(keyword), dict | bool):
            yield _step(keyword), schema[keyword]
    for keyword in _WITH_SCHEMAS:
        listed = schema.get(keyword)
        if isinstance(listed, list):
            for place, child in enumerate(listed):
                if isinstance(child, dict | bool):
                    yield f"{_step(keyword)}/{place}", child
    for keyword in _WITH_NAMED_SCHEMAS:
        named = schema.get(keyword)
        if isinstance(named, dict):
            for name, child in named.items():
                if isinstance(child, dict | bool):
                    yield _step(keyword) + _step(name), child


def _step(key: str) -> str:
    """Return a key as a step of a JSON pointer (RFC 6901)."""
    return "/" + key.replace("~", "~0").replace("/", "~1")


def _moved(value: Any) -> Any:
    """Return a schema whose own references lead to ``#/$defs/whole``."""
    if isinstance(value, list):
        return [_moved(item) for item in value]
    if not isinstance(value, dict):
        return value
    moved = {key: _moved(item) for key, item in value.items()}
    if _is_within(moved.get("$ref")):
        moved["$ref"] = f"#/$defs/whole{moved['$ref'][1:]}"
    return moved


def _is_within(reference: Any) -> bool:
    """Return whether a reference leads to a place in the same schema."""
    return isinstance(reference, str) and (reference == "#" or reference.startswith("#/"))


def _target(schema: Schema, reference: str) -> Any:
    """Return what a JSON pointer leads to; None where that is nothing."""
    found: Any = schema
    for step in reference.split("/")[1:]:
        key = unquote(step).replace("~1", "/").replace("~0", "~")
        if isinstance(found, list) and key.isdecimal() and int(key) < len(found):
            found = found[int(key)]
        elif isinstance(found, dict):
            found = found.get(key)
        else:
            return None
    return found


def _depth(value: Any) -> int:
    """Return how many objects and lists are in one another."""
    depth = 0
    level = [value]
    while level:
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inner += item.values()
            elif isinstance(item, list):
                inner += item
        level = [item for item in inner if isinstance(item, dict | list)]
        depth += 1
    return depth


def _one_line(message: str) -> str:
    return " ".join(message.split())


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")
