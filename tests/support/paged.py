"""Models that are opened in budgets in which some of their layers stream."""

from bisect import bisect_left
from functools import cache

import numpy as np
import pytest

from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.errors import MemoryBudgetError
from edgellm.memory_plan.plan_checkpoint import plan_for
from edgellm.open_llm import open_llm
from edgellm.settings import LoadSettings
from edgellm.tokenizer import Tokenizer

CONTEXT = 96
PROMPT = [3, 1, 4, 1, 5, 92, 65, 35, 89, 79]


def open_model(folder, reader=None, **keywords):
    checkpoint = read_checkpoint(folder)
    settings = LoadSettings(**{"context": CONTEXT} | keywords)
    tokenizer = tokenizer_of(folder, checkpoint.config.vocab_size)
    return open_llm(checkpoint, tokenizer, settings, reader=reader)


@cache
def tokenizer_of(folder, vocab_size):
    return Tokenizer.from_folder(folder, vocab_size=vocab_size)


def least_budget(folder, **keywords):
    with pytest.raises(MemoryBudgetError) as raised:
        plan_for(
            read_checkpoint(folder), LoadSettings(**{"context": CONTEXT, "memory": 1} | keywords)
        )
    return int(raised.value.hint.split("--memory ")[1].split("MB")[0]) * 1_000_000


def paged_budget(folder, pinned, **keywords):
    """A budget that pins this many layers; those of the tiny models are far below a megabyte."""
    return pinning_budget(read_checkpoint(folder), pinned, keywords)


def pinning_budget(checkpoint, pinned, keywords, *, layers_only=False):
    """The least budget in which a model, or its layers alone, has this many layers pinned."""

    def pins(memory):
        settings = LoadSettings(**{"context": CONTEXT, "memory": memory} | keywords)
        try:
            plan = plan_for(checkpoint, settings, layers_only=layers_only)
        except MemoryBudgetError:
            return False
        return len(plan.pinned) >= pinned

    return bisect_left(range(1 << 32), True, lo=1, key=pins)


def logits_of(llm, prompt=PROMPT):
    return np.array(llm.logits(prompt))
