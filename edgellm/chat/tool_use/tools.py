"""Tools: what a model may call, as JSON schemas or as Python functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from edgellm.errors import ConfigError
from edgellm.setting_values import listed, shown

Tool = Mapping[str, Any] | Callable[..., Any]
"""A schema in OpenAI's form, or a function with type hints and a docstring."""


def tool_schemas(tools: object) -> list[dict[str, Any]]:
    """Return the schemas of tools as transformers gives them to chat templates.

    Raises:
        ConfigError: one of them is not a tool, or a function whose arguments are not described.
    """
    if callable(tools) or isinstance(tools, Mapping):
        tools = [tools]
    schemas = [_schema(tool) for tool in listed("tools", tools, "a list of schemas or functions")]
    names = set()
    for place, schema in enumerate(schemas):
        function = schema["function"]
        _check_function(function, f"tools[{place}].function")
        if function["name"] in names:
            raise ConfigError(
                f"tools[{place}].function.name is {shown(function['name'])}, as another one's is",
                hint="give each tool a name of its own",
            )
        names.add(function["name"])
    return schemas


def _check_function(function: Mapping[str, Any], path: str) -> None:
    """Raise ConfigError where a field of a function has a value of another kind."""
    if not function["name"]:
        raise ConfigError(f"{path}.name is empty", hint="give each tool a name of its own")
    kinds: tuple[tuple[str, type, str], ...] = (
        ("description", str, "a text"),
        ("parameters", Mapping, "a JSON schema"),
        ("strict", bool, "true or false"),
    )
    for name, kind, expected in kinds:
        value = function.get(name)
        if value is not None and not isinstance(value, kind):
            raise ConfigError(
                f"{path}.{name} is {shown(value)}; it must be {expected}",
                hint="leave it out where there is none",
            )


def _schema(tool: object) -> dict[str, Any]:
    if isinstance(tool, Mapping):
        given: dict[str, Any] = dict(tool)
        function = given.get("function")
        if isinstance(function, Mapping) and isinstance(function.get("name"), str):
            return given
        if isinstance(given.get("name"), str):
            return {"type": "function", "function": given}
    if isinstance(tool, Mapping) or not callable(tool):
        raise ConfigError(
            f"a tool is {shown(tool)}, which has no name",
            hint='give a function, or {"type": "function", "function": {"name": "f", '
            '"description": "does this", "parameters": {}}}',
        )
    # imported at its first use: it takes a second
    from transformers.utils.chat_template_utils import (
        DocstringParsingException,
        TypeHintParsingException,
        get_json_schema,
    )

    try:
        schema: dict[str, Any] = get_json_schema(tool)
    except (DocstringParsingException, TypeHintParsingException, TypeError, ValueError) as error:
        raise ConfigError(
            f"a function cannot be a tool: {error}",
            hint="give it type hints, and a docstring that describes each argument under Args:",
        ) from error
    return schema
