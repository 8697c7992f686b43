"""Every argument of everything public, of every kind: a right result or our error."""

import asyncio
import contextlib
import inspect
import math
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

import edgellm
from edgellm.errors import EdgeLLMError
from edgellm.settings import Sampling

HOSTILE = [
    None,
    True,
    -1,
    1 << 200,
    math.nan,
    "",
    "text",
    "a\0b",
    "\ud800",
    b"bytes",
    Path("folder"),
    [],
    [5],
    [None],
    ["a"],
    [[5]],
    {"a": 1},
    {5},
    np.int64(5),
    np.float32(math.nan),
    np.bool_(True),
    np.array([5, 6]),
    np.array(5),
    Decimal(1),
    object(),
    lambda *_: None,
]

VALID = {
    "prompt": "Once",
    "prompts": ["Once"],
    "text": "Once",
    "message": "Once",
    "tokens": [5],
    "ids": [5],
    "number": 0,
    "pairs": [("Once", " upon")],
    "texts": ["Once"],
    "messages": [{"role": "user", "content": "hello"}],
    "token": "a",
    "token_id": 5,
    "path": "chat.json",
    "named": frozenset({5}),
    "mark": "\ue000",
}
"""A good value for each argument that has no default; others are objects of the test."""

BLOCKS = {"step", "wait"}
"""They wait for what never comes; of a closed engine they return at once."""

ENDS = {"close", "map", "model_closed"}


@pytest.fixture(scope="module")
def world(tiny_folder):
    """A model, a conversation, an engine over another model, and what else is handed over."""
    folder = tiny_folder("llama-2")
    with edgellm.load(folder, memory="500MB", threads=1) as llm:
        with edgellm.load(folder, memory="500MB", threads=1) as other, other.engine() as engine:
            asyncio_llm = edgellm.AsyncLLM(llm)
            closed = other.engine()
            closed.close()
            yield {
                "llm": llm,
                "chat": llm.chat(max_tokens=2),
                "engine": engine,
                "closed": closed,
                "async_llm": asyncio_llm,
                "tokenizer": llm.tokenizer,
                "other": llm.tokenizer,
                "model": folder,
            }
        assert llm.generate([5], max_tokens=2).finish_reason == "length"


def public_calls():
    """The name of an object, if it takes one, and of every public function or method."""
    yield from (
        (None, name) for name in ("load", "plan", "Chat", "AsyncLLM", "Sampling", "LoadSettings")
    )
    yield ("tokenizer", "from_folder")
    yield from (("async_llm", "stream"), ("async_llm", "generate"))
    kinds = {"llm": edgellm.LLM, "chat": edgellm.Chat, "engine": edgellm.Engine}
    for owner, kind in {**kinds, "tokenizer": edgellm.Tokenizer}.items():
        for name, _ in inspect.getmembers(kind, inspect.isfunction):
            if not name.startswith("_") and name not in ENDS:
                if owner == "engine" and name in BLOCKS:
                    yield "closed", name
                else:
                    yield owner, name


def parameters(call):
    """The arguments that a call takes by name; those that settings have only where they are."""
    return [
        name
        for name, parameter in inspect.signature(call).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]


async def until_it_ends(result):
    """Wait for a result."""
    async with asyncio.timeout(60):
        await result


def finish(result):
    """Read what comes bit by bit, and close what is open."""
    if inspect.isawaitable(result):
        asyncio.run(until_it_ends(result))
    if isinstance(result, Iterator):
        for _ in result:
            pass
    if isinstance(result, edgellm.LLM | edgellm.Engine):
        result.close()


@pytest.mark.parametrize(("owner", "name"), list(public_calls()), ids=str)
def test_an_argument_of_any_kind_is_used_or_refused(owner, name, world, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call = getattr(world[owner], name) if owner else getattr(edgellm, name)
    if name == "load" and owner == "chat":
        world["chat"].save("chat.json")
    needed = {
        argument: {**VALID, **world}[argument]
        for argument, parameter in inspect.signature(call).parameters.items()
        if parameter.default is parameter.empty and parameter.kind != parameter.VAR_KEYWORD
    }
    if "sampling" in parameters(call):
        needed["sampling"] = Sampling(max_tokens=2)
    for argument in parameters(call):
        for value in HOSTILE:
            with contextlib.suppress(EdgeLLMError):
                finish(call(**{**needed, argument: value}))


def test_numbers_of_numpy_and_paths_mean_what_they_mean(world, tmp_path):
    llm, tokenizer = world["llm"], world["tokenizer"]
    plain = llm.generate([5, 6], max_tokens=2, seed=3, temperature=0.5, reuse_cache=True)
    numbers = {"max_tokens": np.int32(2), "seed": np.uint64(3), "temperature": np.float32(0.5)}
    found = llm.generate(np.array([5, 6]), **numbers, reuse_cache=np.bool_(True))
    assert [token.id for token in found.tokens] == [token.id for token in plain.tokens]
    assert tokenizer.decode(np.array([5, 6])) == tokenizer.decode([5, 6])
    assert tokenizer.id_to_token(np.int64(5)) == tokenizer.id_to_token(5)
    assert tokenizer.encode("a", add_special_tokens=np.bool_(False)) == tokenizer.encode(
        "a", add_special_tokens=False
    )
    for path in (tmp_path / "chat.json", str(tmp_path / "chat.json")):
        llm.chat().save(path)
        llm.chat().load(path)
    numbers = world["engine"].submit(np.array([5, 6]), n=np.int64(2), timeout=np.float64(9))
    assert type(numbers) is int
    world["engine"].cancel(np.int64(numbers))
    for name in (world["model"], str(world["model"])):
        edgellm.load(name, memory=np.int64(5 * 10**8), prompt_cache=np.bool_(False)).close()
