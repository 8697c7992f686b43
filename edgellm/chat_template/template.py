"""Chat templates: found in a model folder, and rendered to the text of a conversation.

A template is a program by a stranger. It sees copies of plain data only, and runs in Jinja's
immutable sandbox in a process of its own, which ends when it takes too much time or memory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from edgellm.chat_template.render_process import RenderLimits, TemplateNames, render_process
from edgellm.errors import EdgeLLMError, TemplateError
from edgellm.files.bounded import read_bounded
from edgellm.files.strict_json import read_json

MAX_SOURCE = 1 << 16  # characters; the longest template of a known model has 17,000
MAX_DEPTH = 32  # levels of nesting in what a template is given
DEFAULT = "default"
TOOL_USE = "tool_use"
TEMPLATES_FOLDER = "additional_chat_templates"
REASONING_FIELDS = ("reasoning_content", "thinking", "reasoning")
"""Names of a message's thinking; the first goes before the others."""

DEFAULT_LIMITS = RenderLimits()


class ChatTemplate:
    """One template.

    Args:
        source: a text in Jinja's language.
        limits: bounds on each rendering.
    """

    def __init__(self, source: str, limits: RenderLimits = DEFAULT_LIMITS) -> None:
        self.source = source
        self._limits = limits

    def render(self, messages: Sequence[Mapping[str, Any]], variables: Mapping[str, Any]) -> str:
        """Return the text of a conversation.

        Args:
            messages: plain data: mappings with "role", "content" and whatever else the template
                knows.
            variables: further names that the template sees, plain data too.

        Raises:
            TemplateError: the template is damaged, fails, refuses the conversation or takes too
                much time or memory.
        """
        self._require_bounded()
        visible = plain_data({**variables, "messages": list(map(_visible_message, messages))})
        return render_process(os.getpid()).render(self.source, visible, self._limits)

    @cached_property
    def names(self) -> TemplateNames:
        """The names that the template reads. Raises TemplateError where it is damaged."""
        self._require_bounded()
        return render_process(os.getpid()).names(self.source, self._limits)

    def _require_bounded(self) -> None:
        if len(self.source) > MAX_SOURCE:
            raise TemplateError(
                f"the chat template has {len(self.source)} characters; the maximum is {MAX_SOURCE}"
            )


def _visible_message(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a message as transformers shows it to templates.

    Fields that are None are left out. Thinking goes by its usual name and by that of gpt-oss,
    whichever it has here.
    """
    if not isinstance(message, Mapping):
        return message
    given = {name: value for name, value in message.items() if value is not None}
    for name in REASONING_FIELDS:
        if name in given:
            return {"thinking": given[name], **given, "reasoning_content": given[name]}
    return given


def find_templates(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """Return a folder's chat templates by name; the usual one is called "default".

    As in transformers, files of templates stand for all that ``tokenizer_config.json`` has, but
    for its default where they have none. ``chat_template.json`` is a processor's, for where there
    is no other.

    Args:
        folder: the model folder.
        config: its tokenizer_config.json.

    Raises:
        TemplateError: one of these files is damaged or too large.
    """
    files = {file.stem: _read_text(file) for file in named_template_files(folder)}
    if (folder / "chat_template.jinja").exists():
        files[DEFAULT] = _read_text(folder / "chat_template.jinja")
    if DEFAULT in files:
        return files
    templates = _sources(config.get("chat_template"), "tokenizer_config.json")
    if not templates and (folder / "chat_template.json").exists():
        document = _read_json(folder / "chat_template.json")
        templates = _sources(document.get("chat_template"), "chat_template.json")
    if files:
        return {name: text for name, text in templates.items() if name == DEFAULT} | files
    return templates


def named_template_files(folder: Path) -> list[Path]:
    """Return the files of templates that are there beside the default, called as their names."""
    return sorted((folder / TEMPLATES_FOLDER).glob("*.jinja"))


def choose_template(
    templates: Mapping[str, ChatTemplate], name: str | None, *, tools: bool
) -> ChatTemplate:
    """Return the template called ``name``; without a name the one for tools, or the default.

    Args:
        templates: the templates of a model by name.
        name: the name of one of them, ``None`` for the usual.
        tools: whether the conversation has tools, for which there may be a template "tool_use".

    Raises:
        TemplateError: there is no such template.
    """
    if name is None:
        name = DEFAULT
        if tools and TOOL_USE in templates:
            name = TOOL_USE
    if name in templates:
        return templates[name]
    if not templates:
        raise TemplateError(
            "this model has no chat template",
            hint="it completes text: use it with generate, or choose a chat model",
        )
    raise TemplateError(
        f"there is no chat template {name!r}", hint=f"there are: {', '.join(sorted(templates))}"
    )


def plain_data(value: Any, depth: int = 0) -> Any:
    """Return a copy of ``value`` made of None, bool, int, float, str, list, tuple and dict.

    Anything else could have methods that do more than a template should.

    Raises:
        TemplateError: there is something else in it, or it is nested too deeply.
    """
    if depth > MAX_DEPTH:
        raise TemplateError(
            f"the data for a chat template is nested more than {MAX_DEPTH} levels deep"
        )
    if value is None or isinstance(value, bool):
        return value
    for kind, cast in _CASTS.items():
        if isinstance(value, kind):
            return cast(value)
    if isinstance(value, Mapping):
        return {
            plain_data(key, depth + 1): plain_data(item, depth + 1) for key, item in value.items()
        }
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        items = [plain_data(item, depth + 1) for item in value]
        if isinstance(value, tuple):
            return tuple(items)
        return items
    raise TemplateError(
        f"a chat template takes plain data, not a {type(value).__name__}",
        hint="use text, numbers, lists and dictionaries",
    )


# A subclass could bring methods of its own: these return the plain value, and are not constructors,
# which the subclass could have a say in.
_CASTS: dict[type, Callable[[Any], Any]] = {
    str: str.__str__,
    int: int.__int__,
    float: float.__float__,
}


def _sources(template: Any, file: str) -> dict[str, str]:
    """Return the templates of a JSON file: none, one text, or a list of names with texts."""
    if template is None:
        return {}
    if isinstance(template, str):
        return {DEFAULT: template}
    if isinstance(template, Mapping):
        template = [{"name": name, "template": text} for name, text in template.items()]
    if not isinstance(template, list):
        raise TemplateError(f"{file} has a chat_template that is not text")
    sources = {}
    for entry in template:
        match entry:
            case {"name": str(name), "template": str(text)}:
                sources[name] = text
            case _:
                raise TemplateError(f"{file} has a chat_template without a name or a text")
    return sources


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except EdgeLLMError as error:
        raise TemplateError(error.message) from error


def _read_text(path: Path) -> str:
    try:
        data = read_bounded(path, 4 * MAX_SOURCE)  # UTF-8 has at most 4 bytes
    except EdgeLLMError as error:
        raise TemplateError(error.message) from error
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise TemplateError(f"{path} cannot be read as text") from error
