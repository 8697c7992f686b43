"""The forms that answers are held to: JSON by a schema, or a grammar."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from edgellm.errors import ConfigError
from edgellm.server.http.api_error import refused, with_hint
from edgellm.server.http.fields import Fields
from edgellm.structured.grammar import Grammar


async def read_form(form: Fields | None, *, nested: str | None = None) -> Grammar | None:
    """Return the grammar of a format of an API; None where any text will do.

    Args:
        form: the format; None where it was left out.
        nested: the field of it that has the schema in ``schema``; None: that is the format itself.

    Raises:
        ApiError: there is no such format, or the schema cannot be enforced; names its keyword.
    """
    if form is None:
        return None
    kind = form.choice("type", ("text", "json_object", "json_schema"), "")
    if kind == "text":
        return None
    if kind == "json_object":
        return await compiled(Grammar.json_object, form.path("type"))
    holder = form
    if nested is not None:
        holder = form.object(nested) or Fields({}, form.path(nested))
    schema = holder.object("schema")
    if schema is None:
        raise holder.wrong("schema", "a JSON schema")
    return await compiled(lambda: Grammar.json_schema(schema.values()), holder.path("schema"))


async def read_grammar(fields: Fields) -> Grammar | None:
    """Return the grammar in ``grammar``, in Lark's syntax or GBNF; None where it was left out.

    Raises:
        ApiError: it is not valid, or there is a ``response_format``, too.
    """
    if not fields.has("grammar"):
        return None
    text = fields.text("grammar")
    if fields.has("response_format"):
        raise refused("grammar", "grammar and response_format exclude one another; give one")
    if "::=" in text:
        return await compiled(lambda: Grammar.gbnf(text), "grammar")
    return await compiled(lambda: Grammar.lark(text), "grammar")


async def compiled(compile_: Callable[[], Grammar], path: str) -> Grammar:
    """Return a grammar; it holds nobody up while it is compiled.

    Args:
        compile_: returns it.
        path: the field that it is in.

    Raises:
        ApiError: it cannot be enforced.
    """
    try:
        return await asyncio.to_thread(compile_)
    except ConfigError as error:
        raise refused(path, with_hint(error), "unsupported_schema") from None
