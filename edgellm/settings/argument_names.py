"""Names of arguments: an unknown one is a ConfigError that says which was meant."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from difflib import get_close_matches
from functools import cache, wraps
from typing import Any, TypeVar, cast, get_args

from edgellm.errors import ConfigError
from edgellm.setting_values import shown
from edgellm.settings.peer_names import OUR_NAMES, WAYS_ROUND

Public = TypeVar("Public", bound=Callable[..., Any])

_functions: list[Callable[..., Any]] = []
"""The checked functions, in which an argument is looked for that was given to another."""


def check_names(public: Public) -> Public:
    """Let a function, or a class's methods, refuse arguments of unknown names with ConfigError.

    A missing argument stays Python's TypeError.
    """
    if not isinstance(public, type):
        return _checked(public)
    for name, member in list(vars(public).items()):
        if name.startswith("_") and name != "__init__":
            continue
        if inspect.isfunction(member):
            setattr(public, name, _checked(member))
        elif isinstance(member, classmethod):
            setattr(public, name, classmethod(_checked(member.__func__)))
    return public


def unknown_name(function: str, name: str, known: frozenset[str]) -> ConfigError:
    """Return the error for an argument that a function does not have."""
    return ConfigError(f"{function} has no argument {shown(name)}", hint=_hint(name, known))


def _hint(name: str, known: frozenset[str]) -> str:
    ours = OUR_NAMES.get(name, name)
    if ours in known:
        return f"did you mean {ours}?"
    if name in WAYS_ROUND:
        return WAYS_ROUND[name]
    # those of a model first, whichever module was imported before the others
    for function in sorted(_functions, key=lambda one: not one.__qualname__.startswith("LLM.")):
        if ours in (names_of(function) or ()):
            return f"did you mean {ours}, an argument of {_called(function)}?"
    if ours != name:
        return f"edgellm calls it {ours}"
    for names, cutoff in (({*known, *OUR_NAMES, *WAYS_ROUND}, 0.75), (known, 0.6)):
        for close in get_close_matches(name.lower(), sorted(names - {name}), n=1, cutoff=cutoff):
            return _hint(close, known)
    if not known:
        return "leave it out: it takes no arguments by name"
    return f"its arguments are {', '.join(sorted(known))}"


def _checked(function: Public) -> Public:
    """Return a function that looks at the names of its arguments before it runs."""
    if function.__name__ != "__init__":
        _functions.append(function)

    def check(named: dict[str, Any]) -> None:
        known = names_of(function)
        if known is None or known.issuperset(named):
            return
        name = next(name for name in named if name not in known)
        raise unknown_name(_called(function), name, known)

    if inspect.iscoroutinefunction(function):

        @wraps(function)
        async def call_later(*arguments: Any, **named: Any) -> Any:
            if named:
                check(named)
            return await function(*arguments, **named)

        return cast("Public", call_later)

    @wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        if named:
            check(named)
        return function(*arguments, **named)

    return cast("Public", call)


@cache
def names_of(function: Callable[..., Any]) -> frozenset[str] | None:
    """Return the names of a function's arguments, settings included; None where any will do."""
    names = set()
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            names.add(parameter.name)
        elif parameter.kind == parameter.VAR_KEYWORD:
            fields = _fields_of(function, parameter.annotation)
            if fields is None:
                return None
            names |= fields
    return frozenset(names - {"self", "cls"})


def _fields_of(function: Callable[..., Any], annotation: Any) -> frozenset[str] | None:
    """Return the names that ``Unpack[TypedDict]`` has, as which settings are annotated."""
    if isinstance(annotation, str):
        # of this one alone: the others may name what is imported for type checkers only
        holder = type("Annotated", (), {"__annotations__": {"settings": annotation}})
        names = inspect.unwrap(function).__globals__
        annotation = inspect.get_annotations(holder, globals=names, eval_str=True)["settings"]
    for fields in get_args(annotation):
        return frozenset(fields.__optional_keys__ | fields.__required_keys__)
    return None


def _called(function: Callable[..., Any]) -> str:
    """Return what a person called: a class by its name, and a method by its own."""
    owner, _, name = function.__qualname__.rpartition(".")
    if name == "__init__":
        return owner.rpartition(".")[2]
    return name
