"""Guesses save passes and change nothing: what is said, how it is drawn, where it ends, and what is kept."""

import math

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as given_settings
from hypothesis import strategies as st
from support import tiny
from support.counting import open_counted, paged_settings

import edgellm
from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.errors import ConfigError, MemoryBudgetError
from edgellm.hub.resolve import locate
from edgellm.plan.planner import plan_for
from edgellm.sampling.distribution import Distribution
from edgellm.sampling.sampler import Sampler
from edgellm.settings import LoadSettings, Sampling
from edgellm.speculation.controller import MIN_COOLDOWN, Speculation
from edgellm.speculation.factory import load_draft
from edgellm.speculation.ngram import NGramDrafter
from edgellm.speculation.proposal import DraftToken

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


class SlowPasses(Speculation):
    """A speculation for which every pass takes a second, however many rows it has: as many guesses as there are pay."""

    def record_step(self, rows, seconds):
        super().record_step(rows, 1.0)


class Prompter:
    """A drafter that knows the text; at some places it says something else."""

    costs_time = False
    prior_acceptance = (0.9,)

    def __init__(self):
        self.text, self.wrong, self.place = [], frozenset(), 0

    def begin(self, tokens, sampling):
        self.place = len(tokens)

    def add(self, token):
        self.place += 1

    def catch_up(self):
        pass

    def close(self):
        pass

    def propose(self):
        for place in range(self.place, len(self.text)):
            yield DraftToken((self.text[place] + (place in self.wrong)) % tiny.VOCABULARY, 0)


def slow(drafter):
    """What makes a speculation with some drafter."""
    return lambda *_: SlowPasses(drafter, extra_row_cost=0.0)


def with_draft(folder):
    """What makes a speculation with a draft model."""

    def make(model, tokenizer, settings, plan):
        return SlowPasses(
            load_draft(read_checkpoint(folder), model, tokenizer, settings, plan),
            extra_row_cost=0.0,
        )

    return make


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


def close_to_chance(counts, chances):
    """Whether counts are those of draws with these chances, by a chi-square test at 0.001."""
    counts, expected = np.asarray(counts, float), np.asarray(chances) * np.sum(counts)
    assert counts[expected == 0].sum() == 0
    counts, expected = counts[expected > 0], expected[expected > 0]
    freedom = len(counts) - 1
    # Wilson and Hilferty 1931
    limit = freedom * (1 - 2 / (9 * freedom) + 3.0902 * math.sqrt(2 / (9 * freedom))) ** 3
    return ((counts - expected) ** 2 / expected).sum() < limit


@pytest.mark.parametrize("paged", [False, True])
@pytest.mark.parametrize(("kind", "load"), CACHES)
def test_guesses_right_and_wrong_leave_the_text_as_it_is(kind, load, paged, tiny_folder):
    folder = tiny_folder(kind, seed=1)
    settings = paged_settings(folder, context=128, **load) if paged else load
    prompter = Prompter()
    plain, guessed = (
        open_counted(folder, **settings)[0],
        open_counted(folder, speculation=slow(prompter), **settings)[0],
    )
    with plain, guessed:
        assert plain.plan.resident == (not paged)
        for length in range(1, 41, 3):
            prompt = PROMPT[:length]
            whole = plain.generate(prompt, max_tokens=40, logprobs=True)
            prompter.text = [*prompt, *ids_of(whole)]
            for wrong in (
                (),
                range(length, 200, 5),
                range(length, 200, 16),
                range(length + 1, 200, 2),
            ):
                prompter.wrong = frozenset(wrong)
                answer = guessed.generate(prompt, max_tokens=40, logprobs=True)
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


@given_settings(max_examples=40)
@given(data=st.data())
def test_an_answer_ends_where_it_would_end_without_guesses(data, tiny_folder):
    folder = tiny_folder("mistral-window", seed=1)
    prompter = Prompter()
    plain, guessed = open_counted(folder)[0], open_counted(folder, speculation=slow(prompter))[0]
    with plain, guessed:
        whole = plain.generate(PROMPT, max_tokens=40)
        prompter.text = [*PROMPT, *ids_of(whole)]
        prompter.wrong = frozenset(
            data.draw(st.sets(st.integers(len(PROMPT), len(PROMPT) + 40), max_size=6))
        )
        limit = data.draw(st.integers(1, 40))
        kind = data.draw(st.sampled_from(["length", "end token", "stop text", "closed"]))
        settings = {"max_tokens": limit}
        if kind == "end token":
            plain.eos_token_ids = guessed.eos_token_ids = frozenset({ids_of(whole)[limit - 1]})
        elif kind == "stop text":
            settings = {"max_tokens": 40, "stop": whole.tokens[limit - 1].text or "no text"}
        if kind == "closed":
            streams = plain.stream(PROMPT, max_tokens=40), guessed.stream(PROMPT, max_tokens=40)
            for stream in streams:
                for _ in range(limit):
                    next(stream)
                stream.close()
        else:
            first, second = plain.generate(PROMPT, **settings), guessed.generate(PROMPT, **settings)
            assert (ids_of(second), second.text, second.finish_reason) == (
                ids_of(first),
                first.text,
                first.finish_reason,
            )
            assert second.stats.completion_tokens == first.stats.completion_tokens
        # What is kept is what was said: the next answer begins with as many known tokens, and says
        # the same.
        more = [*PROMPT, *ids_of(whole)[: limit + 1], 7]
        again = [llm.generate(more, max_tokens=3, reuse_cache=True) for llm in (plain, guessed)]
        assert ids_of(again[0]) == ids_of(again[1])
        assert (
            again[0].stats.cached_tokens
            <= again[1].stats.cached_tokens
            <= again[0].stats.cached_tokens + 1
        )


def test_the_context_may_end_in_mid_guess(tiny_folder):
    prompter = Prompter()
    folder = tiny_folder("llama-2", seed=1)
    plain, guessed = (
        open_counted(folder, context=48)[0],
        open_counted(folder, context=48, speculation=slow(prompter))[0],
    )
    with plain, guessed:
        whole = plain.generate(PROMPT, max_tokens=100)
        prompter.text = [*PROMPT, *ids_of(whole), *range(40)]
        answer = guessed.generate(PROMPT, max_tokens=100)
    assert (ids_of(answer), answer.finish_reason) == (ids_of(whole), "length")
    assert answer.stats.prompt_tokens + answer.stats.completion_tokens == 48
    assert answer.stats.decode_passes == 1


def test_cancelled_in_mid_guess(tiny_folder):
    prompter = Prompter()
    llm, _ = open_counted(tiny_folder("llama-2", seed=1), speculation=slow(prompter))
    with llm:
        whole = ids_of(llm.generate(PROMPT, max_tokens=30))
        prompter.text = [*PROMPT, *whole]
        stream = llm.stream(PROMPT, max_tokens=30)
        tokens = [next(stream) for _ in range(4)]
        llm.cancel()
        tokens += stream
        assert [token.id for token in tokens] == [*whole[:4], None]
        assert tokens[-1].finish_reason == "cancelled"
        again = llm.generate([*PROMPT, *whole[:4], 9], max_tokens=2, reuse_cache=True)
        assert again.stats.cached_tokens == len(PROMPT) + 4


@pytest.mark.parametrize("how", ["plain", "narrow", "penalty"])
@pytest.mark.parametrize("which", ["prompter", "ngrams", "draft"])
def test_a_seed_draws_the_same_text_with_guesses(which, how, tiny_folder, tmp_path):
    folder = tiny_folder("llama-3.2", seed=1)
    prompter = Prompter()
    draft = nearly(folder, tmp_path / "draft", noise=0.05)
    make = {"prompter": slow(prompter), "ngrams": slow(NGramDrafter()), "draft": with_draft(draft)}[
        which
    ]
    sampling = {
        "plain": Sampling(temperature=0.5),
        "narrow": Sampling(temperature=1.0, top_k=20, top_p=0.9, min_p=0.05),
        "penalty": Sampling(temperature=0.7, repetition_penalty=1.3, top_k=3),
    }[how]
    plain, guessed = open_counted(folder)[0], open_counted(folder, speculation=make)[0]
    drafted = 0
    with plain, guessed:
        for seed in range(6):
            whole = plain.generate(PROMPT, sampling, max_tokens=30, seed=seed)
            prompter.text, prompter.wrong = [*PROMPT, *ids_of(whole)], frozenset(range(0, 100, 4))
            answer = guessed.generate(PROMPT, sampling, max_tokens=30, seed=seed)
            assert ids_of(answer) == ids_of(whole)
            drafted += answer.stats.drafted_tokens
    assert drafted > 0 or which == "ngrams"


@pytest.mark.parametrize("async_compute", [False, True])
@pytest.mark.parametrize("penalty", [1.0, 1.2])
def test_a_draft_model_says_it_in_fewer_passes(penalty, async_compute, tiny_folder, tmp_path):
    folder = tiny_folder("llama-2", seed=1)
    make = with_draft(nearly(folder, tmp_path / "draft", noise=0.02))
    plain, (guessed, layers) = (
        open_counted(folder)[0],
        open_counted(folder, speculation=make, async_compute=async_compute),
    )
    passes = tokens = 0
    with plain, guessed:
        for length in range(2, 41, 6):
            whole = plain.generate(PROMPT[:length], max_tokens=40, repetition_penalty=penalty)
            layers.lengths.clear()
            answer = guessed.generate(PROMPT[:length], max_tokens=40, repetition_penalty=penalty)
            assert ids_of(answer) == ids_of(whole)
            assert len(layers.lengths) == answer.stats.forwards
            assert (
                sum(layers.lengths[1:]) == answer.stats.decode_passes + answer.stats.drafted_tokens
            )
            passes, tokens = passes + answer.stats.decode_passes, tokens + 39
    assert tokens > 2 * passes


def test_the_bundled_model_says_the_same_of_200_prompts(tmp_path):
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
    prompts = [" ".join(random.choice(words, 1 + number % 12)) for number in range(200)]
    draft = with_draft(locate("stories-draft"))
    paged = {"memory": 6_000_000, "context": 128}
    plain = open_counted(locate("stories"))[0]
    others = [
        open_counted(locate("stories"), speculation=draft)[0],
        open_counted(locate("stories"), speculation=slow(NGramDrafter()))[0],
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
    assert passes < 200 * 11 / 2


@pytest.mark.parametrize("drawn", [True, False])
@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=1.0),
        Sampling(temperature=0.7, top_k=5, repetition_penalty=1.5),
        Sampling(temperature=1.5, top_p=0.8),
    ],
)
def test_tokens_are_drawn_as_without_guesses(sampling, drawn):
    """A chi-square test at 0.001 over 50,000 draws from 8 tokens."""
    random = np.random.default_rng(5)
    logits = mx.array([[1.5, 0.2, -0.3, 1.1, -2.0, 0.6, 0.0, -0.9]])
    quotas = np.array([0.05, 0.3, 0.1, 0.0, 0.25, 0.1, 0.2, 0.0])
    odds = Distribution(np.arange(8)[::-1].copy(), quotas[::-1].copy())
    counts, agreed = np.zeros(8), 0
    sampler = Sampler(sampling, [0, 3], 8, lazy=False)
    seen = None if sampler.seen is None else np.array(sampler.seen)
    for uniform in random.random(50_000):
        if seen is not None:
            sampler.seen = mx.array(seen)
        guess = odds.sample(uniform) if drawn else 1
        token = sampler.verify(logits, guess, odds if drawn else None)
        counts[token] += 1
        agreed += token == guess
    row = np.array(logits[0], dtype=np.float64)
    if seen is not None:
        row = np.where(seen[0], np.where(row > 0, row / 1.5, row * 1.5), row)
    chances = np.exp(row / sampling.temperature)
    if sampling.top_k:
        chances[np.argsort(chances)[: -sampling.top_k]] = 0
    if sampling.top_p < 1:
        order = np.argsort(-chances)
        shares = np.cumsum(chances[order]) / chances.sum()
        chances[order[1 + np.searchsorted(shares, sampling.top_p) :]] = 0
    chances /= chances.sum()
    assert close_to_chance(counts, chances)
    best = np.minimum(chances, quotas).sum() if drawn else chances[1]
    assert abs(agreed / 50_000 - best) < 0.012, (
        "guesses are taken as often as rejection sampling can take them"
    )


def test_texts_are_drawn_as_without_guesses(tiny_folder, tmp_path):
    """Three tokens of a real model, of which a draft guesses: 2,000 texts against the chances of all 27."""
    folder = tiny_folder("llama-3.2", seed=1)
    sampling = Sampling(temperature=1.0, top_k=3, repetition_penalty=1.2, max_tokens=3)
    guessed, _ = open_counted(
        folder, speculation=with_draft(nearly(folder, tmp_path / "draft", noise=0.02))
    )
    counts, accepted, drafted = {}, 0, 0
    with guessed:
        chances = {}

        def branch(tokens, chance):
            if len(tokens) == 3:
                chances[tokens] = chance
                return
            row = np.array(guessed.logits([*PROMPT, *tokens])[-1], np.float64)
            seen = list({*PROMPT, *tokens})
            row[seen] = np.where(row[seen] > 0, row[seen] / 1.2, row[seen] * 1.2)
            best = np.argsort(-row)[:3]
            shares = np.exp(row[best] - row[best[0]])
            for token, share in zip(best.tolist(), (shares / shares.sum()).tolist(), strict=True):
                branch((*tokens, token), chance * share)

        branch((), 1.0)
        for _ in range(2000):
            answer = guessed.generate(PROMPT, sampling, reuse_cache=True)
            found = tuple(ids_of(answer))
            counts[found] = counts.get(found, 0) + 1
            accepted, drafted = (
                accepted + answer.stats.accepted_tokens,
                drafted + answer.stats.drafted_tokens,
            )
    assert set(counts) <= set(chances)
    assert 0.2 < accepted / drafted < 0.95
    assert close_to_chance([counts.get(text, 0) for text in chances], list(chances.values()))


def test_looking_up_takes_the_longest_run_and_the_latest_of_equal_ones():
    ngrams = NGramDrafter()
    ngrams.begin([1, 2, 3, 4, 9, 2, 3, 5, 8, 2, 3, 6, 1, 2, 3], Sampling())
    found = ngrams.propose()
    # 1 2 3, not the later 2 3
    assert [next(found) for _ in range(3)] == [DraftToken(4, 3), DraftToken(9, 4), DraftToken(2, 5)]
    ngrams.begin([7, 2, 3, 5, 8, 2, 3, 6, 9, 2, 3], Sampling())
    assert next(ngrams.propose()).token == 6
    ngrams.begin([5, 6, 7, 5, 6, 7, 5, 6], Sampling())
    found = ngrams.propose()
    # past the end of the text
    assert [next(found).token for _ in range(7)] == [7, 5, 6, 7, 5, 6, 7]
    for text in ([], [1], [1, 2], [1, 2, 3, 4]):
        ngrams.begin(text, Sampling())
        assert list(ngrams.propose()) == []
    ngrams.add(3)
    ngrams.add(4)
    assert next(ngrams.propose()).token == 3


@given(tokens=st.lists(st.integers(0, 3), max_size=60))
def test_looking_up_as_tokens_come_is_looking_up_at_once(tokens):
    one, other = NGramDrafter(), NGramDrafter()
    one.begin(tokens, Sampling())
    other.begin(tokens[:7], Sampling())
    for token in tokens[7:]:
        other.add(token)
    first, second = one.propose(), other.propose()
    assert [next(first, None) for _ in range(9)] == [next(second, None) for _ in range(9)]


class Fixed(Prompter):
    """A drafter that always guesses the token 5; each guess is said to cost something, or nothing."""

    def __init__(self, *, costs):
        super().__init__()
        self.costs_time = costs

    def propose(self):
        while True:
            yield DraftToken(5, 0)


@pytest.mark.parametrize("costs", [True, False])
@pytest.mark.parametrize(
    ("row_seconds", "right", "expected"),
    [(0.0, 0.95, 15), (0.5, 0.7, 1), (0.9, 0.6, 0), (0.3, 0.1, 0)],
)
def test_as_many_guesses_as_pay(costs, row_seconds, right, expected):
    """Cheap rows and a predictable text: long. Dear rows: short. Guesses that are wrong: off, with trials now and then."""
    random = np.random.default_rng(1)
    speculation = Speculation(Fixed(costs=costs), extra_row_cost=0.1)
    speculation.begin([1], Sampling())
    counts = []
    for _ in range(1500):
        guesses = speculation.propose(100)
        counts.append(len(guesses))
        speculation.record_step(len(guesses) + 1, 1.0 + row_seconds * len(guesses))
        for _ in range(len(guesses) + 1):
            hit = random.random() < right
            speculation.add(5 if hit else 6)
            if not hit:
                break
    late = counts[300:]
    assert np.median(late) == pytest.approx(
        expected, abs=4 if expected > 1 else 1 if expected else 0
    )
    if expected == 0:
        assert sum(late) < 0.05 * len(late)
    if right < 0.5:
        speculation.begin([1], Sampling())
        for _ in range(MIN_COOLDOWN + 200):  # a text that has become predictable is noticed
            guesses = speculation.propose(100)
            speculation.record_step(len(guesses) + 1, 1.0 + row_seconds * len(guesses))
            for _ in range(len(guesses) + 1):
                speculation.add(5)
        assert len(speculation.propose(100)) > 3
    assert speculation.propose(0) == []
    assert len(speculation.propose(2)) <= 2


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
        assert ids_of(llm.generate(PROMPT, max_tokens=9)) != []
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


def test_guesses_can_be_left_off(tiny_folder):
    with edgellm.load(tiny_folder("llama-2"), memory="500MB", speculate="off") as llm:
        stats = llm.generate([7, 8] * 15, max_tokens=30).stats
    assert (
        stats.drafted_tokens,
        stats.accepted_tokens,
        stats.acceptance,
        stats.tokens_per_weight_pass,
    ) == (0, 0, None, 1.0)
