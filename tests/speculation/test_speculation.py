"""Draft tokens save passes and change nothing: text, distribution, end, and what stays cached."""

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as given_settings
from hypothesis import strategies as st
from support import tiny
from support.chi_square import close_to_chance
from support.counting import open_counted, paged_settings
from support.drafters import KnownText, KnownTree, all_drafts, with_draft

from edgellm.hub.resolve import locate
from edgellm.settings import Sampling
from edgellm.speculation.ngram import NGramDrafter

PROMPT = [tiny.BEGIN, *range(20, 60)]
CACHES = [
    ("llama-2", {}),
    ("llama-2", {"kv_bits": 16}),
    ("llama-2", {"kv_bits": 8}),
    ("llama-2", {"context_window": 12}),
    ("llama-2", {"context_window": 40, "kv_bits": 4}),
    ("mistral-window", {}),
    ("qwen2-window", {}),
    ("qwen3", {"kv_bits": 4}),
]


def nearly(folder, place, *, noise):
    """A model folder whose weights are almost those of another."""
    random = np.random.RandomState(7)
    place.mkdir()
    for file in folder.iterdir():
        if file.suffix != ".safetensors":
            (place / file.name).write_bytes(file.read_bytes())
            continue
        tensors = mx.load(str(file))
        moved = {
            name: tensor * mx.array(1 + noise * random.standard_normal(tensor.shape))
            for name, tensor in tensors.items()
        }
        mx.save_safetensors(str(place / file.name), moved, metadata={"format": "pt"})
    return place


def ids_of(answer):
    return [token.id for token in answer.tokens]


@pytest.mark.parametrize(
    ("kind", "load", "paged"),
    [
        *((kind, load, False) for kind, load in CACHES),
        *((kind, load, True) for kind, load in CACHES[::2]),
    ],
)
def test_draft_tokens_right_and_wrong_leave_the_text_as_it_is(kind, load, paged, tiny_folder):
    folder = tiny_folder(kind, seed=1)
    settings = paged_settings(folder, context=128, **load) if paged else load
    drafter = KnownText()
    plain, drafting = (
        open_counted(folder, **settings)[0],
        open_counted(folder, speculation=all_drafts(drafter), **settings)[0],
    )
    with plain, drafting:
        assert plain.plan.resident == (not paged)
        for length in (1, 9, 33):
            prompt = PROMPT[:length]
            whole = plain.generate(prompt, max_tokens=40, logprobs=True)
            drafter.text = [*prompt, *ids_of(whole)]
            for wrong in ((), range(length, 200, 16), range(length + 1, 200, 3)):
                drafter.wrong = frozenset(wrong)
                answer = drafting.generate(prompt, max_tokens=40, logprobs=True)
                assert (ids_of(answer), answer.text) == (ids_of(whole), whole.text)
                logprobs = [[token.logprob for token in found.tokens] for found in (answer, whole)]
                np.testing.assert_allclose(*logprobs, atol=1e-4)
                stats = answer.stats
                assert (
                    stats.completion_tokens - 1
                    <= stats.decode_passes + stats.accepted_tokens
                    <= stats.completion_tokens
                )
                if not wrong:
                    assert stats.decode_passes == -(-(stats.completion_tokens - 1) // 16)


@pytest.mark.parametrize(
    ("kind", "load", "paged"),
    [
        ("llama-2", {"kv_bits": 32}, True),
        ("llama-2", {}, False),
        ("llama-2", {"context_window": 40, "kv_bits": 4}, True),
        ("mistral-window", {}, False),
        ("qwen3", {"kv_bits": 8}, False),
        ("qwen3", {"kv_bits": 32}, False),
    ],
)
def test_a_tree_of_draft_tokens_leaves_the_text_as_it_is(kind, load, paged, tiny_folder):
    folder = tiny_folder(kind, seed=1)
    settings = paged_settings(folder, context=80, **load) if paged else {"context": 80} | load
    drafter = KnownTree()
    plain, drafting = (
        open_counted(folder, **settings)[0],
        open_counted(folder, speculation=all_drafts(drafter), **settings)[0],
    )
    with plain, drafting:
        assert plain.plan.resident == (not paged)
        whole = plain.generate(PROMPT, max_tokens=39, logprobs=True)
        drafter.text = [*PROMPT, *ids_of(whole)]
        for wrong in ((), range(0, 200, 2), range(1, 200, 3)):
            drafter.wrong = frozenset(wrong)
            answer = drafting.generate(PROMPT, max_tokens=39, logprobs=True)
            logprobs = [[token.logprob for token in found.tokens] for found in (answer, whole)]
            assert (ids_of(answer), answer.text) == (ids_of(whole), whole.text)
            np.testing.assert_array_equal(*logprobs)
            # a tree of 15 with the text among them has three tokens of it
            assert answer.stats.decode_passes < 20


@pytest.fixture(scope="module")
def plain_and_drafting(tiny_folder):
    """A model without and with drafts, the drafter, and what both say without an end."""
    folder, drafter = tiny_folder("mistral-window", seed=1), KnownText()
    plain = open_counted(folder)[0]
    with plain, open_counted(folder, speculation=all_drafts(drafter))[0] as drafting:
        yield plain, drafting, drafter, plain.generate(PROMPT, max_tokens=40)


@given_settings(max_examples=25)
@given(data=st.data())
def test_a_completion_ends_where_it_would_end_without_drafts(data, plain_and_drafting):
    plain, drafting, drafter, whole = plain_and_drafting
    for llm in (plain, drafting):
        llm.prefix_cache.clear()  # only one of them has said the whole
    ends = plain.eos_token_ids
    drafter.text = [*PROMPT, *ids_of(whole)]
    drafter.wrong = frozenset(
        data.draw(st.sets(st.integers(len(PROMPT), len(PROMPT) + 40), max_size=6))
    )
    limit = data.draw(st.integers(1, 40))
    kind = data.draw(st.sampled_from(["length", "end token", "stop text", "closed"]))
    settings = {"max_tokens": limit}
    if kind == "end token":
        plain.eos_token_ids = drafting.eos_token_ids = frozenset({ids_of(whole)[limit - 1]})
    elif kind == "stop text":
        settings = {"max_tokens": 40, "stop": whole.tokens[limit - 1].text or "no text"}
    if kind == "closed":
        streams = plain.stream(PROMPT, max_tokens=40), drafting.stream(PROMPT, max_tokens=40)
        for stream in streams:
            for _ in range(limit):
                next(stream)
            stream.close()
    else:
        first, second = (llm.generate(PROMPT, **settings) for llm in (plain, drafting))
        said = (ids_of(first), first.text, first.finish_reason)
        assert (ids_of(second), second.text, second.finish_reason) == said
        assert second.stats.completion_tokens == first.stats.completion_tokens
    # What is kept is what was said: the next answer begins with as many known tokens, and says
    # the same. The pass that was last before a stream was closed may have come to its end.
    more = [*PROMPT, *ids_of(whole)[: limit + 1], 7]
    again = [llm.generate(more, max_tokens=3, reuse_cache=True) for llm in (plain, drafting)]
    assert ids_of(again[0]) == ids_of(again[1])
    cached = again[0].stats.cached_tokens
    most = cached + 1
    if kind == "closed":
        most = len(more) - 1
    assert cached <= again[1].stats.cached_tokens <= most
    plain.eos_token_ids = drafting.eos_token_ids = ends


def test_the_context_may_end_within_a_draft(tiny_folder):
    drafter = KnownText()
    folder = tiny_folder("llama-2", seed=1)
    plain, drafting = (
        open_counted(folder, context=48)[0],
        open_counted(folder, context=48, speculation=all_drafts(drafter))[0],
    )
    with plain, drafting:
        whole = plain.generate(PROMPT, max_tokens=100)
        drafter.text = [*PROMPT, *ids_of(whole), *range(40)]
        answer = drafting.generate(PROMPT, max_tokens=100)
    assert (ids_of(answer), answer.finish_reason) == (ids_of(whole), "length")
    assert answer.stats.prompt_tokens + answer.stats.completion_tokens == 48
    assert answer.stats.decode_passes == 1


def test_cancelled_within_a_draft(tiny_folder):
    drafter = KnownText()
    llm, _ = open_counted(tiny_folder("llama-2", seed=1), speculation=all_drafts(drafter))
    with llm:
        whole = ids_of(llm.generate(PROMPT, max_tokens=30))
        drafter.text = [*PROMPT, *whole]
        stream = llm.stream(PROMPT, max_tokens=30)
        tokens = [next(stream) for _ in range(4)]
        llm.cancel()
        tokens += stream
        assert [token.id for token in tokens] == [*whole[:4], None]
        assert tokens[-1].finish_reason == "cancelled"
        again = llm.generate([*PROMPT, *whole[:4], 9], max_tokens=2, reuse_cache=True)
        assert again.stats.cached_tokens == len(PROMPT) + 4


@pytest.mark.parametrize("how", ["plain", "narrow", "penalty"])
@pytest.mark.parametrize("which", ["known text", "ngrams", "draft"])
def test_a_seed_draws_the_same_text_with_drafts(which, how, tiny_folder, tmp_path):
    folder = tiny_folder("llama-3.2", seed=1)
    drafter = KnownText()
    draft = nearly(folder, tmp_path / "draft", noise=0.05)
    make = {
        "known text": all_drafts(drafter),
        "ngrams": all_drafts(NGramDrafter()),
        "draft": with_draft(draft),
    }[which]
    sampling = {
        "plain": Sampling(temperature=0.5),
        "narrow": Sampling(temperature=1.0, top_k=20, top_p=0.9, min_p=0.05),
        "penalty": Sampling(temperature=0.7, repetition_penalty=1.3, top_k=3),
    }[how]
    plain, drafting = open_counted(folder)[0], open_counted(folder, speculation=make)[0]
    drafted = 0
    with plain, drafting:
        for seed in range(4):
            whole = plain.generate(PROMPT, sampling, max_tokens=30, seed=seed)
            drafter.text, drafter.wrong = [*PROMPT, *ids_of(whole)], frozenset(range(0, 100, 4))
            answer = drafting.generate(PROMPT, sampling, max_tokens=30, seed=seed)
            assert ids_of(answer) == ids_of(whole)
            drafted += answer.stats.drafted_tokens
    assert drafted > 0 or which == "ngrams"


@pytest.mark.parametrize("async_compute", [False, True])
@pytest.mark.parametrize("penalty", [1.0, 1.2])
def test_a_draft_model_says_it_in_fewer_passes(penalty, async_compute, tiny_folder, tmp_path):
    folder = tiny_folder("llama-2", seed=1)
    make = with_draft(nearly(folder, tmp_path / "draft", noise=0.02))
    plain, (drafting, layers) = (
        open_counted(folder)[0],
        open_counted(folder, speculation=make, async_compute=async_compute),
    )
    passes = tokens = 0
    with plain, drafting:
        for length in range(2, 41, 12):
            whole = plain.generate(PROMPT[:length], max_tokens=40, repetition_penalty=penalty)
            layers.lengths.clear()
            answer = drafting.generate(PROMPT[:length], max_tokens=40, repetition_penalty=penalty)
            assert ids_of(answer) == ids_of(whole)
            assert len(layers.lengths) == answer.stats.forwards
            assert (
                sum(layers.lengths[1:]) == answer.stats.decode_passes + answer.stats.drafted_tokens
            )
            passes, tokens = passes + answer.stats.decode_passes, tokens + 39
    assert tokens > 2 * passes


def test_the_bundled_model_says_the_same_of_many_prompts(tmp_path):
    """With its own draft and by looking up, resident and paged."""
    words = [
        "Once",
        "One",
        "day",
        "Tom",
        "Lily",
        "dog",
        "cat",
        "was",
        "The",
        "big",
        "little",
        "said",
        "and",
        "went",
        "to",
        "a",
    ]
    random = np.random.RandomState(3)
    prompts = [" ".join(random.choice(words, 1 + number % 12)) for number in range(8)]
    draft = with_draft(locate("stories-draft"))
    paged = {"memory": 5_000_000, "context": 128}
    plain = open_counted(locate("stories"))[0]
    others = [
        open_counted(locate("stories"), speculation=draft)[0],
        open_counted(locate("stories"), speculation=all_drafts(NGramDrafter()))[0],
        open_counted(locate("stories"), speculation=draft, **paged)[0],
    ]
    assert not others[-1].plan.resident
    passes = 0
    for prompt in prompts:
        whole = ids_of(plain.generate(prompt, max_tokens=12))
        for other in others:
            answer = other.generate(prompt, max_tokens=12)
            assert ids_of(answer) == whole
        passes += answer.stats.decode_passes
    for llm in (plain, *others):
        llm.close()
    assert passes < len(prompts) * 11 / 2


def test_texts_are_drawn_as_without_drafts(tiny_folder, tmp_path):
    """Three tokens of a real model with a draft: 600 texts against the chances of all 27."""
    folder = tiny_folder("llama-3.2", seed=1)
    sampling = Sampling(temperature=1.0, top_k=3, repetition_penalty=1.2, max_tokens=3)
    # the texts' chances come from a prompt, which is rounded otherwise where it is not exact
    exact = {"activations": "float", "kv_bits": 32}
    drafting, _ = open_counted(
        folder, speculation=with_draft(nearly(folder, tmp_path / "draft", noise=0.02)), **exact
    )
    counts, accepted, drafted = {}, 0, 0
    with drafting:
        chances = {}

        def branch(tokens, chance):
            if len(tokens) == 3:
                chances[tokens] = chance
                return
            row = np.array(drafting.logits([*PROMPT, *tokens])[-1], np.float64)
            seen = list({*PROMPT, *tokens})
            row[seen] = np.where(row[seen] > 0, row[seen] / 1.2, row[seen] * 1.2)
            best = np.argsort(-row)[:3]
            shares = np.exp(row[best] - row[best[0]])
            for token, share in zip(best.tolist(), (shares / shares.sum()).tolist(), strict=True):
                branch((*tokens, token), chance * share)

        branch((), 1.0)
        for seed in range(600):
            answer = drafting.generate(PROMPT, sampling, seed=seed, reuse_cache=True)
            found = tuple(ids_of(answer))
            counts[found] = counts.get(found, 0) + 1
            accepted, drafted = (
                accepted + answer.stats.accepted_tokens,
                drafted + answer.stats.drafted_tokens,
            )
    assert set(counts) <= set(chances)
    assert 0.2 < accepted / drafted < 0.95
    assert close_to_chance([counts.get(text, 0) for text in chances], list(chances.values()))
