"""Jinja's sandbox with a meter: a chat template from anywhere ends, and stays small.

Jinja keeps a template away from Python's inner workings, but not from ``range(100000)`` in a loop
in a loop, or from a string that doubles forty times. Here every step and every value that a
template makes is paid for (see ``meter``), and an empty purse ends the rendering: without signals
or threads, so it works in any thread and leaves nothing running.

This module imports Jinja, so it is itself imported only when a template is used.
"""

from __future__ import annotations

import json
import operator
import re
import types
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from functools import wraps
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import loopcontrols
from jinja2.runtime import Context, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedFormatter
from jinja2.utils import Namespace

from edgellm.chat_template.ast_metering import Generation, Metering
from edgellm.chat_template.work_budget import (
    CONTAINERS,
    FILTER_PRICE,
    FILTER_PRICES,
    MAX_INDENT,
    METER,
    METHOD_PRICE,
    METHOD_PRICES,
    NODE,
    TEST_PRICE,
    ExhaustedError,
    Lazy,
    Meter,
    RefusedError,
    digits,
    limit_bits,
)

MAX_NODES = 12_000
# multiplied: Jinja copies what is assigned for each branch; known templates have 5,000
MAX_NAMES_AND_BRANCHES = 300_000
MAX_CODE = 400_000  # characters of Python; it takes up to 100 bytes each to compile

# What chat templates use. The rest of Jinja's filters repeat, pad or search at a cost that is hard
# to foresee.
FILTERS = [
    "abs", "attr", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first", "float", "format",
    "groupby", "indent", "int", "items", "join", "last", "length", "list", "lower", "map", "max", "min", "reject",
    "rejectattr", "replace", "reverse", "round", "safe", "select", "selectattr", "sort", "string", "sum", "title",
    "trim", "truncate", "unique", "upper", "urlencode", "wordcount",
]  # fmt: skip
METHODS = {
    "capitalize", "casefold", "count", "endswith", "find", "format", "get", "index", "isalnum", "isalpha",
    "isascii", "isdecimal", "isdigit", "islower", "isnumeric", "isspace", "istitle", "isupper", "items", "join",
    "keys", "lower", "lstrip", "partition", "removeprefix", "removesuffix", "replace", "rfind", "rindex",
    "rpartition", "rsplit", "rstrip", "split", "splitlines", "startswith", "strip", "swapcase", "title", "upper",
    "values",
}  # fmt: skip
READING_TESTS = [
    "!=", "<", "<=", "==", ">", ">=", "eq", "equalto", "ge", "greaterthan", "gt", "in", "le", "lessthan", "lower",
    "lt", "ne", "upper",
]  # fmt: skip
REMAINDER_TESTS = ["divisibleby", "even", "odd"]
COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "lteq": operator.le,
    "gt": operator.gt,
    "gteq": operator.ge,
}
# escaped text is a str with methods in Python
METHOD_TYPES = (types.BuiltinMethodType, types.MethodType)
PLAIN: tuple[type[Any], ...] = (str, bytes, int, float, complex, type, *CONTAINERS)


def _metered_filter(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``function`` with its work and its result paid for."""
    price = FILTER_PRICES.get(name, FILTER_PRICE)
    # the context or the environment comes first
    skip = 1 if hasattr(function, "jinja_pass_arg") else 0

    @wraps(function)  # keeps Jinja's mark that asks for that first argument
    def metered(*given: Any, **named: Any) -> Any:
        meter = METER.get()
        arguments = list(given)
        if name == "join" and isinstance(arguments[skip], Iterator):
            # an iterator can be weighed only once it has run
            arguments[skip] = list(arguments[skip])
        meter.spend(NODE * (len(arguments) + len(named)))
        price(meter, *arguments[skip:], **named)
        result = function(*arguments, **named)
        return (
            Lazy(result, arguments[skip], meter)
            if isinstance(result, Iterator)
            else meter.pay(result)
        )

    return metered


def _metered_test(function: Any) -> Callable[..., Any]:
    @wraps(function)
    def metered(*given: Any) -> Any:
        TEST_PRICE(METER.get(), *given)
        return function(*given)

    return metered


def _of_numbers(function: Any) -> Callable[..., Any]:
    """Return a test that takes the remainder of numbers only: of a string, ``%`` would be a format of any width."""

    @wraps(function)
    def checked(*given: Any) -> Any:
        if not all(isinstance(value, int | float) for value in given):
            raise RefusedError("a remainder of something that is no number")
        return function(*given)

    return checked


def _compare(left: Any, *rest: Any) -> Any:
    """Return ``left < right`` or another comparison, or a chain of them; ``rest`` has names and right sides in turn."""
    meter, result = METER.get(), True
    for name, right in zip(rest[::2], rest[1::2], strict=True):
        if name in ("in", "notin"):
            meter.search(left, right)
            result = (left in right) is (name == "in")
        else:
            meter.compare(left, right)
            result = COMPARISONS[name](left, right)
        if not result:
            break
        left = right
    return result


def _spend(units: int) -> bool:
    METER.get().spend(units)
    return True


def _slice(value: Any, start: Any, stop: Any, step: Any) -> Any:
    return METER.get().pay(value[start:stop:step])


def _concatenate(parts: list[Any]) -> str:
    texts = [str(part) for part in parts]
    METER.get().spend(NODE + sum(map(len, texts)))
    return "".join(texts)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: Any = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    """Return ``value`` as JSON, without the HTML escapes of Jinja's own filter, as chat templates expect."""
    for text in (indent, *(separators or ())):
        if (len(text) if isinstance(text, str) else text or 0) > MAX_INDENT:
            raise RefusedError(
                f"JSON that is indented or separated by more than {MAX_INDENT} characters"
            )
    meter = METER.get()
    encoder = json.JSONEncoder(
        ensure_ascii=bool(ensure_ascii),
        indent=indent,
        separators=separators,
        sort_keys=bool(sort_keys),
    )
    parts = []
    for part in encoder.iterencode(value):
        meter.spend(len(part))
        parts.append(part)
    return "".join(parts)


def _raise_exception(message: Any) -> None:
    raise jinja2.TemplateError(str(message))


def _strftime_now(form: str) -> str:
    if len(form) > 256 or re.search(r"%[^A-Za-z%]", form):  # "%999999999d" would be padded in C
        raise RefusedError("a date with other codes than plain ones such as %d %b %Y")
    return datetime.now().strftime(form)


def _dict(*given: Any, **named: Any) -> dict[Any, Any]:
    return dict(*given, **named)


class _Namespace(Namespace):
    """Jinja's namespace without private names; it prints without what it holds."""

    def __init__(*given: Any, **named: Any) -> None:
        Namespace.__init__(given[0])
        for name, value in dict(*given[1:], **named).items():
            _Namespace.__setitem__(given[0], name, value)

    def __setitem__(self, name: str, value: Any) -> None:
        if str(name).startswith("_"):
            raise SecurityError(f"a namespace keeps no private name such as {name!r}")
        super().__setitem__(name, value)

    def __repr__(self) -> str:
        return "<namespace>"


class _Formatter(SandboxedFormatter):
    """str.format with each field paid for."""

    def format_field(self, value: Any, format_spec: str) -> str:
        meter = METER.get()
        meter.spend(digits(format_spec) + NODE)
        return str(meter.pay(super().format_field(value, format_spec)))


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment in which chat templates are compiled and run; it may serve many threads."""

    intercepted_binops = frozenset(ImmutableSandboxedEnvironment.default_binop_table)

    def __init__(self) -> None:
        @jinja2.pass_context  # with a context, Jinja does not finalize constants while it compiles
        def finalize(_: Context, value: Any) -> str:
            text = value if isinstance(value, str) else str(value)
            METER.get().spend(NODE + len(text))
            return text

        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,  # nothing of a template is computed while it is compiled
            finalize=finalize,
            extensions=[Generation, loopcontrols],
        )
        self.filters = {name: _metered_filter(name, self.filters[name]) for name in FILTERS}
        self.filters["tojson"] = _metered_filter("tojson", _tojson)
        self.filters["@spend"] = _spend
        self.filters["@pay"] = lambda value: METER.get().pay(value)
        self.filters["@compare"] = _compare
        self.filters["@slice"] = _slice
        self.filters["@concatenate"] = _concatenate
        self.tests.update({name: _metered_test(self.tests[name]) for name in READING_TESTS})
        self.tests.update({name: _of_numbers(self.tests[name]) for name in REMAINDER_TESTS})
        del self.globals["lipsum"]
        self.globals |= {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
        self.globals |= {"dict": _dict, "namespace": _Namespace}
        self.concat = _concatenate  # type: ignore[assignment]

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        stores = sum(name.ctx == "store" for name in tree.find_all(nodes.Name))
        branches = sum(1 for _ in tree.find_all((nodes.If, nodes.For)))
        if (
            sum(1 for _ in tree.find_all(nodes.Node)) > MAX_NODES
            or stores * branches > MAX_NAMES_AND_BRANCHES
        ):
            raise ExhaustedError
        Metering().visit(tree)
        tree.set_environment(self)
        return tree

    def _compile(self, source: str, filename: str) -> types.CodeType:
        if len(source) > MAX_CODE:
            raise ExhaustedError
        return super()._compile(source, filename)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Return whether a template may use ``obj.attr``: of plain data only the methods in ``METHODS``."""
        return super().is_safe_attribute(obj, attr, value) and (
            not isinstance(obj, PLAIN) or attr in METHODS
        )

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Return a paid form of ``str.format``, and ``None`` for everything else."""
        if (
            not isinstance(value, METHOD_TYPES)
            or value.__name__ != "format"
            or not isinstance(value.__self__, str)
        ):
            return None
        text = str(value.__self__)
        return lambda *given, **named: _Formatter(self).vformat(text, given, named)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Return ``left operator right``, paid for before it is made where it could be large."""
        meter = METER.get()
        if operator == "*":
            meter.multiply(left, right)
        elif operator == "**" and isinstance(left, int) and isinstance(right, int):
            limit_bits(left.bit_length() * max(right, 0))
        elif operator == "%" and isinstance(left, str):
            meter.percent(left, right)
        return meter.pay(super().call_binop(context, operator, left, right))

    def call(self, context: Context, obj: Any, /, *given: Any, **named: Any) -> Any:
        """Call ``obj`` as the sandbox does, with its work and its result paid for."""
        meter = METER.get()
        meter.spend(NODE * (1 + len(given) + len(named)))  # *range(99999) makes many
        if not isinstance(obj, Macro):
            meter.look((given, named))
        owner = obj.__self__ if isinstance(obj, METHOD_TYPES) else None
        if isinstance(owner, str | list | tuple):
            if obj.__name__ == "join" and given and isinstance(given[0], Iterator):
                given = (list(given[0]), *given[1:])
            # the rest is Jinja's
            own = {name: value for name, value in named.items() if not name.startswith("_")}
            METHOD_PRICES.get(obj.__name__, METHOD_PRICE)(meter, owner, *given, **own)
        return meter.pay(super().call(context, obj, *given, **named))

    def run(self, code: types.CodeType, variables: Mapping[str, Any]) -> str:
        """Render compiled ``code``; raises ``ExhaustedError``, ``RefusedError`` and whatever a template raises."""
        meter = Meter(variables)
        token = METER.set(meter)
        try:
            template = self.template_class.from_code(self, code, self.make_globals(None))
            parts: list[str] = []
            length = 0
            for part in template.root_render_func(template.new_context(dict(variables))):
                meter.spend(NODE)
                length += len(part)
                if length > meter.largest:
                    raise ExhaustedError
                parts.append(part)
            return "".join(parts)
        finally:
            METER.reset(token)
