"""Every argument of everything public, of every kind: a right result or our error."""

import inspect
import math
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

import edgellm
from edgellm.errors import EdgeLLMError
from edgellm.settings import LoadSettings, Sampling
from edgellm.settings.argument_names import names_of

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
    len,
]

LAST_RESORT = {
    "close",
    "from_folder",
}


def valid_arguments(llm, folder):
    """One good value for each argument without a default, and for what would take long."""
    return {
        "prompt": "Once",
        "prompts": ["Once"],
        "text": "Once",
        "tokens": [5],
        "ids": [5],
        "path": folder / "chat.json",
        "number": 0,
        "model": llm.path,
        "llm": llm,
        "messages": [{"role": "user", "content": "hello"}],
        "other": llm.tokenizer,
        "token": "a",
        "token_id": 5,
        "named": frozenset({5}),
    }


def public_calls(llm, chat, engine):
    """Every public function and method, and what each is bound to."""
    yield from (edgellm.load, edgellm.plan, edgellm.Chat, Sampling, LoadSettings)
    yield edgellm.Tokenizer.from_folder
    for made in (llm, chat, engine, llm.tokenizer):
        for name, member in inspect.getmembers(made, inspect.ismethod):
            if not name.startswith("_") and name not in LAST_RESORT:
                yield member
