"""Logits bit for bit: a prompt's do not depend on where it is cut, on memory, caches or company."""

import random

import pytest
from support.paged import open_model, paged_budget
from support.readers import FailingReader

from edgellm.errors import ReadError
from edgellm.hub.resolve import locate
from edgellm.kernels.host import unavailable
from edgellm.settings import DEFAULT_MODEL, Sampling

pytestmark = [
    pytest.mark.skipif(unavailable() is not None, reason=str(unavailable())),
    pytest.mark.usefixtures("on_the_cpu"),
]

CONTEXT = 256
NEW = 4


@pytest.fixture(scope="module", params=[{}, {"kv_bits": 8}, {"context_window": 50}], ids=str)
def loading(request):
    """Settings of the bundled model, whose matrices the int8 kernels multiply."""
    return {"context": CONTEXT, "threads": 1} | request.param


@pytest.fixture(scope="module")
def whole(loading):
    """The model that others are compared with: whole in memory."""
    with open_stories(loading) as llm:
        yield llm


@pytest.fixture(scope="module")
def alone(whole):
    """A function that returns what it says to a prompt, and is not asked twice."""
    known = {}

    def answer(prompt):
        key = tuple(prompt)
        if key not in known:
            known[key] = continuation(whole, prompt)
        return known[key]

    return answer


@pytest.fixture(scope="module")
def logits(whole):
    """A function that returns its logits of a prompt, and is not asked twice."""
    known = {}

    def answer(prompt):
        key = tuple(prompt)
        if key not in known:
            known[key] = whole.logits(prompt)
        return known[key]

    return answer


def open_stories(loading, reader=None, **keywords):
    return open_model(locate(DEFAULT_MODEL), reader, **(loading | keywords))


def prompts(count, seed=0):
    """Prompts of random tokens, of random lengths and of those around which kernels change."""
    draw = random.Random(seed)
    lengths = [1, 16, 17, 33, 65, *(draw.randrange(2, CONTEXT - 64) for _ in range(count))]
    return [[draw.randrange(3, 4000) for _ in range(length)] for length in lengths]


def continuation(llm, prompt, **settings):
    """The tokens that follow, and the log-probability of each, to the last bit."""
    completion = llm.generate(prompt, max_tokens=NEW, logprobs=True, **settings)
    return [(token.id, token.logprob) for token in completion.tokens]


@pytest.mark.parametrize(
    ("chunk", "pinned"),
    [(5, None), (16, 2), (32, 0), (33, None), (100, 4)],
)
def test_every_budget_and_every_prefill_chunk_give_the_same_bits(
    chunk, pinned, loading, logits, alone
):
    keywords = {"prefill_chunk": chunk}
    if pinned is not None:
        keywords["memory"] = paged_budget(locate(DEFAULT_MODEL), pinned, **(loading | keywords))
    with open_stories(loading, **keywords) as cut:
        assert cut.plan.resident == (pinned is None)
        for prompt in prompts(2):
            assert (logits(prompt) == cut.logits(prompt)).all().item()
            assert alone(prompt) == continuation(cut, prompt)


def test_what_a_cache_held_of_a_prompt_changes_no_bit(whole, alone):
    for prompt in prompts(4, seed=1):
        for held in {17, len(prompt) // 2, len(prompt) - 3, len(prompt) - 1}:
            if 16 < held < len(prompt):
                expected = alone(prompt)
                whole.prefix_cache.clear()
                list(whole.stream(prompt[:held], max_tokens=1))
                found = list(whole.stream(prompt, max_tokens=NEW, logprobs=True, reuse_cache=True))
                assert found[-1].stats.cached_tokens == held
                assert [(token.id, token.logprob) for token in found] == expected


def test_prompts_kept_on_disk_give_the_same_bits(loading, alone, tmp_path):
    (prompt,) = [prompt for prompt in prompts(9, seed=2) if len(prompt) > 150][:1]
    for length in (70, 101, len(prompt)):
        with open_stories(loading, prompt_cache=tmp_path / str(length)) as llm:
            llm.generate(prompt[:length], max_tokens=1)
        with open_stories(loading, prompt_cache=tmp_path / str(length)) as llm:
            assert continuation(llm, prompt) == alone(prompt)
            assert llm.generate(prompt, max_tokens=1).stats.cached_tokens > 0


@pytest.mark.parametrize("chunk", [13, 40, 512])
def test_company_changes_no_bit(chunk, loading, alone):
    asked = prompts(6, seed=3)
    with open_stories(loading, prefill_chunk=chunk) as llm:
        together = llm.generate_batch(asked, Sampling(max_tokens=NEW, logprobs=True))
    found = [[(token.id, token.logprob) for token in one.tokens] for one in together]
    assert found == list(map(alone, asked))


def test_sequences_that_begin_anew_after_a_failure_have_the_same_bits(loading, alone):
    asked = prompts(2, seed=5)
    reader = FailingReader()
    memory = paged_budget(locate(DEFAULT_MODEL), 2, **loading)
    with open_stories(loading, reader, memory=memory) as llm, llm.batch() as batch:
        sampling = Sampling(max_tokens=NEW, logprobs=True)
        found = {batch.submit(prompt, sampling): [] for prompt in asked}
        steps = failures = 0
        while not batch.idle:
            steps += 1
            if steps == NEW // 2:
                reader.fail_at = reader.bytes_read + 1
            try:
                for number, token in batch.step():
                    found[number].append((token.id, token.logprob))
            except ReadError:
                failures += 1
                reader.fail_at = None
    assert failures == 1
    assert list(found.values()) == list(map(alone, asked))


def test_verified_draft_tokens_change_no_bit(loading):
    with open_stories(loading, speculate="off") as llm:
        plain = [continuation(llm, prompt * 2) for prompt in prompts(3, seed=4)[1:4]]
    with open_stories(loading, speculate="ngram", prefill_chunk=21) as llm:
        assert [continuation(llm, prompt * 2) for prompt in prompts(3, seed=4)[1:4]] == plain
