"""Prompts as Jinja templates: those of the kinds, or one's own."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from edgellm.errors import ConfigError
from edgellm.files.bounded import read_given_text
from edgellm.files.given_path import given_path
from edgellm.files.strict_json import quoted

MAX_LETTERS = 1 << 20

ENVIRONMENT = ImmutableSandboxedEnvironment(
    undefined=jinja2.StrictUndefined, keep_trailing_newline=True
)

VARIABLE_HINT = "write {{ FIELD }} where a field of the row goes, such as 'Text: {{ text }}'"


def read_prompt(prompt: str | Path) -> str:
    """Return the template in a text, or in the file that it names.

    Raises:
        ConfigError: it is neither, or no text.
    """
    text = str(prompt)
    if isinstance(prompt, str) and ("{{" in text or "{%" in text or "\n" in text):
        return text
    path = given_path(prompt)
    if not path.is_file():
        raise ConfigError(
            f"the prompt {quoted(text)} names no field, and there is no such file",
            hint=VARIABLE_HINT,
        )
    return read_given_text(path, MAX_LETTERS).removesuffix("\n")


class PromptTemplate:
    """A compiled prompt.

    Args:
        source: of the template.
        fields: that it may name.
        hidden: fields that would give the answer away.

    Raises:
        ConfigError: it is damaged, names none of the fields, or one that is not there or hidden.
    """

    def __init__(self, source: str, fields: Collection[str], hidden: Collection[str] = ()) -> None:
        self.source = source
        try:
            variables = meta.find_undeclared_variables(ENVIRONMENT.parse(source))
            self._template = ENVIRONMENT.from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise ConfigError(
                f"the prompt is damaged in its line {error.lineno}: {error.message}",
                hint="write it in Jinja, as in 'Text: {{ text }}'",
            ) from error
        variables -= ENVIRONMENT.globals.keys()
        listed = ", ".join(sorted(fields))
        shown_answers = variables & set(hidden)
        if shown_answers:
            raise ConfigError(
                f"the prompt shows the answer: {{{{ {min(shown_answers)} }}}}",
                hint=f"leave it out; examples get theirs by themselves. The fields are {listed}",
            )
        unknown = variables - set(fields)
        if unknown:
            raise ConfigError(
                f"the prompt names {{{{ {min(unknown)} }}}}, which the rows do not have",
                hint=f"the fields are {listed}",
            )
        if not variables - {"chat", "labels"}:
            raise ConfigError(
                "the prompt is the same for every row: it names no field",
                hint=f"{VARIABLE_HINT}; the fields are {listed}",
            )

    def render(self, fields: Mapping[str, Any], line: int, *, chat: bool) -> str:
        """Return the prompt of a row.

        Raises:
            ConfigError: the template fails on this row, or leaves nothing.
        """
        try:
            text = self._template.render({**fields, "chat": chat})
        except Exception as error:  # a template can fail in any way
            reason = " ".join(str(error).split())
            raise ConfigError(
                f"the prompt fails on the row in line {line}: {reason}",
                hint="mend the template; {{ field | default('') }} allows for rows without it",
            ) from error
        if not text.strip():
            raise ConfigError(
                f"the prompt of the row in line {line} is empty", hint="add some text to it"
            )
        return text.lstrip("\n")
