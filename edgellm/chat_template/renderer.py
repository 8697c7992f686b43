"""The render process's program: Jinja's sandbox as transformers sets it up, with limits.

Started by ``render_process.py``, it reads pickled requests from its standard input and answers each
with a line of JSON. It imports nothing of edgellm, so that it starts fast.
"""

from __future__ import annotations

import functools
import json
import pickle
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import meta, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

MAX_MESSAGE = 200  # characters of an error
MEMORY_CHECK_SECONDS = 0.02


class Generation(Extension):
    """The block {% generation %}, which marks text to train on: only its scope matters here."""

    tags = {"generation"}  # noqa: RUF012 - Jinja reads it from the class

    def parse(self, parser: Parser) -> nodes.Node:
        """Return the block's content, in a scope of its own."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class TemplateDict:
    """The ``dict`` of templates: it makes dictionaries, and is not a class to climb up from."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        """Return ``dict(*args, **kwargs)``."""
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        """Return ``dict.fromkeys(*args)``."""
        return dict.fromkeys(*args)


class TemplateNamespace(Namespace):
    """Jinja's namespace without private names, which Python itself would read from it."""

    # no named self: a template may write namespace(self=...)
    def __init__(*args: Any, **kwargs: Any) -> None:
        self, *pairs = args
        Namespace.__init__(self)
        for name, value in dict(*pairs, **kwargs).items():
            self[name] = value

    def __setitem__(self, name: str, value: Any) -> None:
        if str(name).startswith("_"):
            raise SecurityError(f"a namespace cannot have a private name such as {name!r}")
        super().__setitem__(name, value)


def raise_exception(message: Any) -> None:
    """Refuse the conversation, in a template's own words."""
    raise jinja2.TemplateError(str(message))


def strftime_now(date_format: str) -> str:
    """Return the time of this moment in ``date_format``."""
    return datetime.now().strftime(date_format)


def with_its_day(variables: dict[str, Any]) -> dict[str, Any]:
    """Return variables in which a date in the clock's place, as a text, is a clock that stands."""
    day = variables.get("strftime_now")
    if not isinstance(day, str):
        return variables
    moment = datetime.fromisoformat(day)

    def standing_clock(date_format: str) -> str:
        return moment.strftime(date_format)

    return {**variables, "strftime_now": standing_clock}


def tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: Any = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    """Return ``value`` as JSON, without the HTML escapes of Jinja's own filter."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def chat_environment() -> jinja2.Environment:
    """Return the environment that transformers renders chat templates in."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals |= {
        "raise_exception": raise_exception,
        "strftime_now": strftime_now,
        "dict": TemplateDict(),
        "namespace": TemplateNamespace,
    }
    return environment


ENVIRONMENT = chat_environment()


@functools.lru_cache(maxsize=8)
def compile_template(source: str) -> jinja2.Template:
    """Return a compiled template; those used last are kept."""
    return ENVIRONMENT.from_string(source)


def names(source: str) -> dict[str, Any]:
    """Return the "variables" that a template reads, and the "words" that it has for anything."""
    tree = ENVIRONMENT.parse(source)
    words = {node.attr for node in tree.find_all(nodes.Getattr)}
    words |= {node.value for node in tree.find_all(nodes.Const) if isinstance(node.value, str)}
    variables = meta.find_undeclared_variables(tree)
    return {"variables": sorted(variables), "words": sorted(words)}


def answer(source: str, variables: dict[str, Any] | None, max_characters: int) -> dict[str, Any]:
    """Return the "text", or why there is none.

    That is a "refusal" of the conversation, or a "failure" as what follows the words "the chat
    template". Nothing is there when the text, or the memory that it took, goes beyond its limit.
    Without variables the answer is that of ``names``.
    """
    try:
        if variables is None:
            return names(source)
        text = compile_template(source).render(with_its_day(variables))
    except MemoryError:
        return {}
    except jinja2.TemplateSyntaxError as error:
        return {"failure": f"is damaged in line {error.lineno}: {_brief(error)}"}
    except (jinja2.TemplateRuntimeError, jinja2.TemplateNotFound) as error:
        return {"failure": f"fails: {_brief(error)}"}
    except jinja2.TemplateError as error:  # what raise_exception raises
        return {"refusal": _brief(error)}
    except Exception as error:  # a stranger's program can fail in any way
        return {"failure": f"fails: {type(error).__name__}: {_brief(error)}"}
    if len(text) > max_characters:
        return {}
    return {"text": text}


@contextmanager
def limited(seconds: float, max_bytes: int) -> Iterator[None]:
    """Hold what runs inside to some processor time, or end the process, and to some memory.

    Args:
        seconds: processor time; when it is over the system ends this process, whatever it is in
            the middle of. A handler in Python would wait for the end of a long call into C.
        max_bytes: memory of the whole process; what goes beyond is a MemoryError.
    """

    def check_memory(*_: Any) -> None:
        if _peak_memory() > max_bytes:
            raise MemoryError

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    # Linux refuses the allocation itself; where a system does not, the check comes soon after it
    _set_data_limit(max_bytes, hard)
    signal.signal(signal.SIGALRM, check_memory)
    signal.setitimer(signal.ITIMER_REAL, MEMORY_CHECK_SECONDS, MEMORY_CHECK_SECONDS)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        _set_data_limit(soft, hard)


def main() -> None:
    """Answer requests until there are no more."""
    while True:
        try:
            source, seconds, max_bytes, max_characters = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        variables = pickle.load(sys.stdin.buffer)
        with limited(seconds, max_bytes):
            reply = answer(source, variables, max_characters)
        sys.stdout.write(json.dumps({**reply, "peak_bytes": _peak_memory()}) + "\n")
        sys.stdout.flush()


def _set_data_limit(soft: int, hard: int) -> None:
    with suppress(ValueError, OSError):  # the hard limit is lower, or the system knows none
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _peak_memory() -> int:
    """Return the most bytes that this process has held at once."""
    try:
        # Linux: its ru_maxrss would go on from that of the process that started this one
        status = Path("/proc/self/status").read_text()
    except OSError:  # macOS, where ru_maxrss counts bytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _, _, peak = status.partition("VmHWM:")
    return int(peak.split()[0]) * 1024


def _brief(error: Exception) -> str:
    text = " ".join(str(error).split())
    if len(text) > MAX_MESSAGE:
        return text[:MAX_MESSAGE] + "..."
    return text


if __name__ == "__main__":
    main()
