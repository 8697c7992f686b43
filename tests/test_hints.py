"""Every error says a next step: its own, its kind's, or in its sentence what is allowed."""

import ast
import re
from functools import cache

from support.paths import ROOT

from edgellm import errors

SAYS_WHAT_IS_ALLOWED = re.compile(r"must be|; it is a |; a size is ")

NOBODY_SEES_THEM = {
    "bench/records/fields.py",
    "edgellm/kernels/code_cache.py",
    "edgellm/kernels/codegen/isa.py",
    "edgellm/kernels/codegen/weight_format.py",
    "edgellm/models/cpu/block.py",
    "edgellm/models/cpu/kv_memory.py",
    "edgellm/models/cpu/linear.py",
    "edgellm/training/operations/backward_product.py",
}
"""A field's error is told as its record's; where there is no kernel, MLX computes instead."""

NO_STEP = {
    "the machine's own limits could not be measured",
    "llama.cpp failed to compute",
    "llama.cpp failed to decode",
    "llama.cpp cannot load",
    "it ended with status",  # quotes the last words of a worker that died
    "it sent something that is not a message",
    "kind",  # another library's error, as it is
}
"""Failures of other programs whose reasons we do not know."""

USUAL = {
    name: bool(kind.usual_hint)
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, errors.EdgeLLMError)
}


@cache
def errors_made():
    """The place, the message, whether there is a hint, for each error that the product makes."""
    return [
        found
        for top in ("edgellm", "converters", "bench")
        for path in sorted((ROOT / top).rglob("*.py"))
        for found in errors_in(path)
    ]


def errors_in(path):
    place = path.relative_to(ROOT).as_posix()
    has_usual = dict(USUAL)
    calls = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef):
            bases = {base.id for base in node.bases if isinstance(base, ast.Name)} & USUAL.keys()
            if bases:
                has_usual[node.name] = any(USUAL[base] for base in bases)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            calls.append(node)
    for node in calls:
        if node.func.id in has_usual:
            message = ast.unparse(node.args[0]) if node.args else ""
            says = any(keyword.arg == "hint" for keyword in node.keywords)
            yield place, message, says or has_usual[node.func.id]


def without_hint():
    """The errors of which nothing says a next step."""
    return [
        f"{place}: {message}"
        for place, message, has_hint in errors_made()
        if not has_hint
        and place not in NOBODY_SEES_THEM
        and not SAYS_WHAT_IS_ALLOWED.search(message)
        and not any(begin in message[:60] for begin in NO_STEP)
    ]


def test_every_error_says_a_next_step():
    assert without_hint() == []


def test_the_search_finds_the_errors():
    assert len(errors_made()) > 400
    assert {place.partition("/")[0] for place, *_ in errors_made()} == {
        "edgellm",
        "converters",
        "bench",
    }


def test_what_is_exempt_is_still_there():
    assert {place for place, *_ in errors_made()} >= NOBODY_SEES_THEM
    for begin in NO_STEP:
        assert any(begin in message for _, message, _ in errors_made()), begin
