"""Scores are those of the logits, whatever shares a pass with what; what is common is run once."""

import numpy as np
import pytest
from support import tiny
from support.counting import open_counted, paged_settings
from support.mlx_lm_models import write_mlx_lm_model

from edgellm.errors import ClosedError, ConfigError, ContextError, EdgeLLMError
from edgellm.scoring.pairs import encode_pairs
from edgellm.tokenizer import Tokenizer

SHOTS = [tiny.BEGIN, *range(40, 90)]
LONG = {"max_position_embeddings": 2048}


def questions(count=4, options=3):
    """Pairs whose contexts begin alike, each with options of one token and of more."""
    random = np.random.RandomState(1)
    pairs = []
    for number in range(count):
        context = [*SHOTS, *random.randint(5, 300, 3 + number).tolist()]
        for option in range(options):
            pairs.append((context, random.randint(5, 300, 1 + 2 * option).tolist()))
    return pairs


def scores_by_logits(llm, pairs):
    """Log-probabilities in float64 by ``LLM.logits``, and whether every token is the likeliest."""
    found = []
    for context, continuation in pairs:
        ids = [*context, *continuation]
        logits = np.array(llm.logits(ids[:-1]), np.float64)[len(context) - 1 :]
        own = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        values = own[np.arange(len(continuation)), continuation]
        found.append((values, logits.argmax(axis=-1).tolist() == list(continuation)))
    return found


@pytest.mark.parametrize("settings", [{}, {"prefill_chunk": 16}, {"paged": True}])
def test_scores_are_those_of_the_logits(settings, tiny_folder):
    folder = tiny_folder("llama-2", seed=1, config=LONG)
    if settings.pop("paged", False):
        settings = paged_settings(folder, context=600)
    llm, layers = open_counted(folder, **{"activations": "float"} | settings)
    with llm:
        pairs = questions()
        greedy = [int(llm.generate(SHOTS, max_tokens=1).ids[0])]
        greedy += llm.generate([*SHOTS, *greedy], max_tokens=3).ids
        pairs += [(SHOTS, greedy), (SHOTS, [greedy[0], 7]), ([tiny.BEGIN], [9]), ([], [9, 10])]
        expected = scores_by_logits(llm, [*pairs[:-1], ([tiny.BEGIN], [9, 10])])
        layers.lengths.clear()
        scores = llm.score(pairs)
        for score, (_, continuation), (values, is_greedy) in zip(
            scores, pairs, expected, strict=True
        ):
            np.testing.assert_allclose(score.logprobs, values, atol=2e-4)
            assert score.logprob == pytest.approx(values.sum(), abs=1e-3)
            assert (score.is_greedy, score.ids) == (is_greedy, tuple(continuation))
        assert sum(score.is_greedy for score in scores) >= 1


@pytest.mark.parametrize("settings", [{}, {"prefill_chunk": 16}, {"backend": "mlx"}])
def test_each_beginning_goes_through_the_model_once(settings, tiny_folder):
    llm, layers = open_counted(tiny_folder("llama-2", seed=1, config=LONG), **settings)
    with llm:
        pairs = questions(count=6)
        pairs += [(SHOTS, [7, 8, 9]), (SHOTS, [7, 8]), (SHOTS[:9], [50]), pairs[0]]
        with llm.stream_scores(pairs[::-1]) as stream:  # in any order
            scores = dict(stream)
        ids = [(*context, *continuation) for context, continuation in pairs]
        beginnings = {own[:end] for own in ids for end in range(1, len(own))}
        scoring = {
            own[:end]
            for own, (context, _) in zip(ids, pairs, strict=True)
            for end in range(len(context), len(own))
        }
        assert sum(layers.lengths) == stream.stats.layer_tokens == len(beginnings)
        assert stream.stats.head_rows == len(scoring)
        assert scores[0] == scores[len(pairs) - 1]


@pytest.mark.parametrize(
    "settings",
    [
        {"activations": "float"},
        {"activations": "int8", "threads": 2, "kv_bits": 8},
        {"context_window": 24},
        {"backend": "mlx", "context_window": 24, "kv_bits": 8},
    ],
)
def test_a_score_does_not_depend_on_what_else_is_scored(settings, tiny_folder, open_llm):
    llm = open_llm(tiny_folder("llama-2", seed=1, config=LONG), load=settings)
    pairs = [*questions(), ([5], [6, 7]), (SHOTS[:9], [*range(100, 150)])]
    together = llm.score(pairs)[::-3]
    pairs = pairs[::-3]
    alone = [llm.score([pair])[0] for pair in pairs]
    if llm.model.layers.max_exact_rows:
        assert together == alone
    for pair, score, own in zip(pairs, together, alone, strict=True):
        assert score.logprobs == pytest.approx(own.logprobs, abs=1e-4)
        (values, _), *_ = scores_by_logits(llm, [pair])
        if settings.get("activations") != "int8":
            np.testing.assert_allclose(score.logprobs, values, atol=1e-3)


def test_scores_come_in_waves_and_others_go_in_between(tiny_folder):
    llm, layers = open_counted(tiny_folder("llama-2", seed=1, config=LONG), prefill_chunk=16)
    with llm:
        pairs = questions(count=8)
        whole = llm.score(pairs)
        layers.lengths.clear()
        scores = {}
        with llm.stream_scores(pairs) as stream:
            assert (len(stream), stream.stats.pairs, stream.stats.waves) == (24, 0, 0)
            for place, score in stream:
                assert stream.stats.pairs > len(scores)
                scores[place] = score
            assert next(stream, None) is None
        assert [scores[place] for place in range(len(pairs))] == whole
        stats = stream.stats
        assert (stats.pairs, stats.layer_tokens) == (24, sum(layers.lengths))
        assert stats.waves > 1
        assert (stats.waves, stats.head_rows) <= (stats.passes, stats.layer_tokens)
        stream = llm.stream_scores(pairs)
        place, score = next(stream)
        assert score == whole[place]
        assert len(llm.generate(SHOTS, max_tokens=2).ids) == 2  # in between
        assert all(score == whole[place] for place, score in stream)


def test_a_stream_of_scores_ends_where_it_is_told_to(tiny_folder):
    llm, layers = open_counted(tiny_folder("llama-2", seed=1, config=LONG), prefill_chunk=16)
    with llm:
        stream = llm.stream_scores(questions(count=8))
        next(stream)
        first_wave = stream.stats.pairs
        llm.cancel()
        assert len([next(stream) for _ in range(first_wave - 1)]) == first_wave - 1  # those stay
        with pytest.raises(EdgeLLMError, match="cancelled"):
            next(stream)
        stream = llm.stream_scores(questions(count=8))
        next(stream)
        stream.close()
        passes = layers.passes
        assert (list(stream), layers.passes) == ([], passes)
        stream = llm.stream_scores(questions(count=8))
    with pytest.raises(ClosedError):
        next(stream)


def test_a_streamed_model_is_read_once_for_many_pairs(tiny_folder):
    folder = tiny_folder("llama-2", seed=1, config=LONG)
    llm, layers = open_counted(folder, **paged_settings(folder, context=1024))
    with llm:
        random = np.random.RandomState(3)
        pairs = [(random.randint(5, 300, 20).tolist(), [5, 6, 7]) for _ in range(12)]
        llm.score(pairs)
        assert layers.passes == 1
        llm.embed([context for context, _ in pairs])
        assert layers.passes == 2


def test_texts_are_cut_where_lm_evaluation_harness_cuts_them(tiny_folder):
    tokenizer = Tokenizer.from_folder(tiny_folder("llama-2"))

    def parts(context, continuation):
        (pair,) = encode_pairs([(context, continuation)], tokenizer)
        return list(pair.context), list(pair.continuation), pair.bytes

    context, continuation = "The little dog", " was happy é"
    whole = tokenizer.encode(context + continuation)
    cut = len(tokenizer.encode(context))
    assert parts(context, continuation) == (whole[:cut], whole[cut:], len(continuation.encode()))
    assert parts("The little dog ", "was")[:2] == parts("The little dog", " was")[:2]
    assert parts("", "The dog")[:2] == ([tiny.BEGIN], tokenizer.encode("The dog")[1:])
    assert parts("  ", "dog")[1] == tokenizer.encode("  dog")[1:]
    assert parts([7, 8], [9])[:2] == ([7, 8], [9])


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ("a text", "pairs is"),
        ([("one",)], r"pairs\[0\] is"),
        ([("a", "b"), ("a", [3])], r"pairs\[1\] is"),
        ([("a", "b"), ("a", "")], r"pairs\[1\] has no token"),
        ([([1], [2.5])], "whole number"),
        ([([1], [100_000])], r"pairs\[0\]: a token id"),
    ],
)
def test_what_is_no_pair_is_refused_with_its_place(pairs, message, open_llm):
    with pytest.raises(ConfigError, match=message):
        open_llm("llama-2", seed=1).score(pairs)


def test_ends_and_limits(open_llm):
    llm = open_llm("llama-2", seed=1, load={"context": 64})
    assert llm.score([]) == []
    with pytest.raises(ContextError, match=r"pairs\[1\]: the prompt has 65 tokens"):
        llm.score([([1], [2]), ([5] * 60, [6] * 6)])
    full = llm.score([([5] * 60, [6] * 4), ([5] * 60, [7])])
    assert [len(score.logprobs) for score in full] == [4, 1]
    fullest = [([5] * 60, [6] * 5), ([5] * 60, [7]), ([9] * 64, [6]), ([8], [6] * 64)]
    with open_llm("llama-2", seed=1, load={"context": 128}) as roomier:
        assert llm.score(fullest) == roomier.score(fullest)  # a pair's last token takes no room
    alone = [llm.score([pair])[0] for pair in (([5] * 60, [6] * 4), ([5] * 60, [7]))]
    np.testing.assert_allclose(
        [score.logprob for score in full], [score.logprob for score in alone], atol=1e-3
    )


def test_cancelled_it_says_so_and_the_model_goes_on(tiny_folder):
    llm, layers = open_counted(tiny_folder("llama-2", seed=1))
    with llm:
        layers.before_layer = llm.cancel
        with pytest.raises(EdgeLLMError, match="cancelled"):
            llm.score(questions())
        layers.before_layer = lambda: None
        assert len(llm.score(questions())) == 12


def test_short_windows_are_gone_through_branch_by_branch(tiny_folder, open_llm):
    folder = tiny_folder("llama-2", seed=1, config=LONG)
    window = {"activations": "float", "context_window": 24, "context": 24}
    memory = open_llm(folder, load=window).plan.total_bytes
    llm = open_llm(folder, load=window | {"memory": memory})
    pairs = [*questions(), (SHOTS, [*range(100, 130)]), (SHOTS, [*range(100, 120), 5, 6])]
    assert llm.plan.kv_budget < llm.caches.nbytes(capacity=1) * len(SHOTS)
    for score, (values, is_greedy) in zip(
        llm.score(pairs), scores_by_logits(llm, pairs), strict=True
    ):
        np.testing.assert_allclose(score.logprobs, values, atol=1e-3)
        assert score.is_greedy == is_greedy


@pytest.mark.parametrize("family", ["qwen3_moe", "gpt_oss", "mamba2"])
def test_a_model_of_mlx_lms_is_scored_and_has_no_hidden_states(family, open_llm, tmp_path):
    folder = write_mlx_lm_model(tmp_path / "model", family)
    with pytest.warns(UserWarning, match="run through"):
        llm = open_llm(folder, load={"threads": None})
    pairs = questions(count=2)
    with llm.stream_scores(pairs) as stream:
        scores = dict(stream)
    beginnings = {(*context, *new)[:end] for context, new in pairs for end in range(1, 99)}
    assert stream.stats.layer_tokens < len(beginnings)
    for place, (values, is_greedy) in enumerate(scores_by_logits(llm, pairs)):
        score = scores[place]
        np.testing.assert_allclose(score.logprobs, values, atol=1e-3)
        assert score.is_greedy == is_greedy
    for ask in (lambda: llm.embed(["a"]), lambda: llm.hidden_states("a")):
        with pytest.raises(EdgeLLMError, match="no hidden states"):
            ask()


@pytest.mark.torch
def test_scores_are_those_of_transformers(tiny_folder, open_llm):
    from make_golden import open_reference, reference_logits

    folder = tiny_folder("qwen3")
    exact = {"activations": "float", "kv_bits": 32}
    llm, reference = open_llm(folder, load=exact), open_reference(folder)
    pairs = questions()
    for score, (context, continuation) in zip(llm.score(pairs), pairs, strict=True):
        rows = reference_logits(reference, [*context, *continuation][:-1])[len(context) - 1 :]
        rows = rows.astype(np.float64)
        own = rows - np.log(np.exp(rows).sum(axis=-1, keepdims=True))
        expected = own[np.arange(len(continuation)), continuation].sum()
        assert score.logprob == pytest.approx(expected, abs=1e-3)
        assert score.is_greedy == (rows.argmax(axis=-1).tolist() == continuation)
