"""What the settings ask for: a draft model that fits, or none."""

import pytest
from support import tiny

import edgellm
from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.errors import ConfigError, MemoryBudgetError
from edgellm.memory_plan.plan_checkpoint import plan_for
from edgellm.settings import LoadSettings

PROMPT = [tiny.BEGIN, *range(20, 60)]


def test_a_draft_counts_in_the_plan(tiny_folder):
    folder, draft = tiny_folder("llama-2"), tiny_folder("llama-3.2")
    alone = plan_for(read_checkpoint(folder), LoadSettings(memory="500MB"))
    both = plan_for(read_checkpoint(folder), LoadSettings(memory="500MB", draft=draft))
    assert both.draft_bytes >= read_checkpoint(draft).nbytes
    assert both.draft_cache_bytes > 0
    assert both.total_bytes >= alone.total_bytes + both.draft_bytes + both.draft_cache_bytes
    assert (alone.draft_bytes, alone.draft_cache_bytes) == (0, 0)
    with pytest.raises(MemoryBudgetError, match="for the draft model"):
        plan_for(read_checkpoint(folder), LoadSettings(memory=both.draft_bytes, draft=draft))
    with edgellm.load(folder, memory="500MB", draft=draft) as llm:
        assert len(llm.generate(PROMPT, max_tokens=9).tokens) == 9
        assert (
            llm.generate(PROMPT, max_tokens=1).stats.resident_bytes
            >= alone.pinned_bytes + both.draft_bytes
        )


def test_a_draft_with_another_tokenizer_is_refused(tiny_folder):
    with pytest.raises(
        ConfigError,
        match=r"another tokenizer: token 0 is '<\|begin\|>' in one and '<unk>' in the other",
    ):
        edgellm.load(tiny_folder("llama-2"), memory="500MB", draft="stories")
    for wrong in (
        {"speculate": "maybe"},
        {"speculate": "off", "draft": "stories"},
        {"speculate": "ngram", "draft": "stories"},
    ):
        with pytest.raises(ConfigError):
            LoadSettings(**wrong)


def test_speculation_can_be_left_off(tiny_folder):
    with edgellm.load(tiny_folder("llama-2"), memory="500MB", speculate="off") as llm:
        stats = llm.generate([7, 8] * 15, max_tokens=30).stats
    assert (
        stats.drafted_tokens,
        stats.accepted_tokens,
        stats.acceptance,
        stats.tokens_per_weight_pass,
    ) == (0, 0, None, 1.0)
