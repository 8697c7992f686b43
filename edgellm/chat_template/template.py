"""Chat templates: found in a model folder, rendered in a metered sandbox.

A template is a program by a stranger. It runs in Jinja's immutable sandbox, on copies of plain data
only, and with a purse (see ``meter``): one that loops, recurses or swells without end is stopped
after a fraction of a second.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING, Any

from edgellm.errors import EdgeLLMError, TemplateError
from edgellm.files.strict_json import read_json, require_regular_file

if TYPE_CHECKING:
    from edgellm.chat_template.sandbox import Sandbox

MAX_SOURCE = 1 << 16  # characters; the longest template of a known model has 17,000
MAX_DEPTH = 32  # levels of nesting in what a template is given
DEFAULT = "default"
TOOL_USE = "tool_use"


class ChatTemplate:
    """One template.

    Args:
        source: what is written in Jinja's language; it is compiled when it is first rendered.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self._code: CodeType | None = None

    def render(self, messages: Sequence[Mapping[str, Any]], variables: Mapping[str, Any]) -> str:
        """Return the text of a conversation.

        Args:
            messages: plain data: mappings with "role", "content" and whatever else the template
                knows.
            variables: what the template sees beside ``messages``, plain data too.

        Raises:
            TemplateError: the template is damaged, fails, refuses the conversation or takes too
                long.
        """
        import jinja2

        from edgellm.chat_template.work_budget import ExhaustedError, RefusedError

        given = plain({**variables, "messages": list(messages)})
        try:
            if self._code is None:
                self._code = self._compile()
            return _sandbox().run(self._code, given)
        except EdgeLLMError:
            raise
        except ExhaustedError as error:
            raise TemplateError(
                "the chat template takes more time or memory than a conversation calls for"
            ) from error
        except RefusedError as error:
            raise TemplateError(
                f"the chat template asks for {error}, which is not allowed"
            ) from error
        except jinja2.TemplateSyntaxError as error:
            raise TemplateError(
                f"the chat template is damaged in line {error.lineno}: {_brief(error)}"
            ) from error
        except (jinja2.TemplateRuntimeError, jinja2.TemplateNotFound) as error:
            raise TemplateError(f"the chat template fails: {_brief(error)}") from error
        except jinja2.TemplateError as error:  # what raise_exception raises
            raise TemplateError(
                f"the chat template refuses the conversation: {_brief(error)}"
            ) from error
        except Exception as error:  # a stranger's program can fail in any way
            raise TemplateError(
                f"the chat template fails: {type(error).__name__}: {_brief(error)}"
            ) from error

    def _compile(self) -> CodeType:
        if len(self.source) > MAX_SOURCE:
            raise TemplateError(
                f"the chat template has {len(self.source)} characters; {MAX_SOURCE} are the most"
            )
        return _sandbox().compile(self.source)


def find_templates(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """Return the sources of a folder's chat templates by name; the usual one is called "default".

    ``chat_template.jinja`` and ``chat_templates/NAME.jinja`` go before ``chat_template.json``, and
    that goes before ``tokenizer_config.json``.

    Args:
        folder: the model folder.
        config: its tokenizer_config.json.

    Raises:
        TemplateError: one of these files is damaged or too large.
    """
    found = _named(config.get("chat_template"), "tokenizer_config.json")
    if (folder / "chat_template.json").exists():
        found |= _named(
            _read(folder / "chat_template.json").get("chat_template"), "chat_template.json"
        )
    for path in sorted((folder / "chat_templates").glob("*.jinja")):
        found[path.stem] = _text(path)
    if (folder / "chat_template.jinja").exists():
        found[DEFAULT] = _text(folder / "chat_template.jinja")
    return found


def choose(templates: Mapping[str, ChatTemplate], name: str | None, *, tools: bool) -> ChatTemplate:
    """Return the template called ``name``; without a name the one for tools, if there are any, or the default.

    Raises:
        TemplateError: there is none.
    """
    if name is None:
        name = TOOL_USE if tools and TOOL_USE in templates else DEFAULT
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


def plain(value: Any, depth: int = 0) -> Any:
    """Return a copy of ``value`` made of nothing but None, bool, int, float, str, list and dict.

    Whatever else is given to a template could have methods that do more than a template should.

    Raises:
        TemplateError: there is something else in it, or it is nested too deeply.
    """
    if depth > MAX_DEPTH:
        raise TemplateError(
            f"what a chat template is given is nested more than {MAX_DEPTH} levels deep"
        )
    if value is None or isinstance(value, bool):
        return value
    for kind, cast in _CASTS.items():
        if isinstance(value, kind):
            # a subclass could bring methods of its own
            return value if type(value) is kind else cast(value)
    if isinstance(value, Mapping):
        return {plain(key, depth + 1): plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return [plain(item, depth + 1) for item in value]
    raise TemplateError(
        f"a chat template takes plain data, not a {type(value).__name__}",
        hint="use text, numbers, lists and dictionaries",
    )


_CASTS: dict[type, Callable[[Any], Any]] = {
    str: str.__str__,
    int: int.__int__,
    float: float.__float__,
}


@functools.cache
def _sandbox() -> Sandbox:
    from edgellm.chat_template.sandbox import Sandbox

    return Sandbox()


def _brief(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else text[:200] + "..."


def _named(template: Any, file: str) -> dict[str, str]:
    """Return the templates that a JSON file gives: none, one text, or a list of names with texts."""
    if template is None:
        return {}
    if isinstance(template, str):
        return {DEFAULT: template}
    if isinstance(template, Mapping):
        template = [{"name": name, "template": text} for name, text in template.items()]
    if not isinstance(template, list):
        raise TemplateError(f"{file} has a chat_template that is no text")
    found = {}
    for entry in template:
        name, text = (
            (entry.get("name"), entry.get("template"))
            if isinstance(entry, Mapping)
            else (None, None)
        )
        if not isinstance(name, str) or not isinstance(text, str):
            raise TemplateError(f"{file} has a chat_template without a name or a text")
        found[name] = text
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except EdgeLLMError as error:
        raise TemplateError(error.message) from error


def _text(path: Path) -> str:
    try:
        if require_regular_file(path) > 4 * MAX_SOURCE:
            raise TemplateError(f"{path} is too large for a chat template")
        return path.read_text(encoding="utf-8")
    except TemplateError:
        raise
    except (EdgeLLMError, OSError, UnicodeDecodeError) as error:
        raise TemplateError(f"{path} cannot be read as text") from error
