"""Logit bias and logits processors: what mlx-lm and llama-cpp-python do with the same functions."""

import mlx.core as mx
import numpy as np
import pytest
from support import tiny
from support.counting import open_counted
from support.drafters import KnownText, all_drafts

from edgellm.errors import ConfigError
from edgellm.sampling.sampler import Sampler
from edgellm.settings import Sampling

PROMPT = [tiny.BEGIN, *range(40, 60)]
LIMIT = 12


class LogitsProcessorList(list):
    """As llama-cpp-python has it: a list that can be called."""

    def __call__(self, tokens, scores):
        for function in self:
            scores = function(tokens, scores)
        return scores


def away_from_the_last(tokens, logits):
    """A processor as mlx-lm has them, which depends on all tokens so far."""
    assert isinstance(tokens, mx.array)
    assert logits.shape == (1, tiny.VOCABULARY)
    logits[:, tokens[-3:]] -= 4.0
    return logits - 0.2 * ((mx.arange(tiny.VOCABULARY) * tokens.size) % 7)[None]


def away_in_numpy(tokens, scores):
    """The same as llama-cpp-python has them."""
    assert (tokens.dtype, scores.dtype) == (np.intc, np.float32)
    assert scores.shape == (tiny.VOCABULARY,)
    scores[np.unique(tokens[-3:])] -= np.float32(4.0)
    return scores - np.float32(0.2) * ((np.arange(tiny.VOCABULARY) * len(tokens)) % 7)


def ids_of(completion):
    return [token.id for token in completion.tokens]


@pytest.fixture(scope="module")
def model_folder(tiny_folder):
    return tiny_folder("llama-2", seed=1)


@pytest.fixture
def llm(open_llm, model_folder):
    return open_llm(model_folder, load={"activations": "float", "kv_bits": 32})


def test_tokens_are_those_of_mlx_lm(llm, model_folder):
    from mlx_lm.generate import generate_step
    from mlx_lm.sample_utils import make_logits_processors
    from mlx_lm.utils import load_model

    reference, _ = load_model(model_folder)
    plain = ids_of(llm.generate(PROMPT, max_tokens=LIMIT))
    bias = {plain[0]: -100.0, 7: 3.5, plain[3]: -1.25}
    for penalty, function in ((1.0, None), (1.3, None), (1.3, away_from_the_last)):
        theirs = make_logits_processors(bias)
        if function is not None:
            theirs.append(function)
        theirs += make_logits_processors(repetition_penalty=penalty, repetition_context_size=999)
        steps = generate_step(
            mx.array(PROMPT), reference, max_tokens=LIMIT, logits_processors=theirs
        )
        ours = llm.generate(
            PROMPT,
            max_tokens=LIMIT,
            logit_bias=bias,
            logits_processors=[function] if function else [],
            repetition_penalty=penalty,
        )
        assert ids_of(ours) == [token for token, _ in steps]
        assert ids_of(ours) != plain


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.8, "seed": 3, "top_k": 40}])
def test_functions_of_llama_cpp_python_do_the_same(settings, llm):
    expected = llm.generate(
        PROMPT, max_tokens=LIMIT, logits_processors=[away_from_the_last], **settings
    )
    assert ids_of(expected) != ids_of(llm.generate(PROMPT, max_tokens=LIMIT, **settings))
    for given in (away_in_numpy, [away_in_numpy], LogitsProcessorList([away_in_numpy])):
        found = llm.generate(PROMPT, max_tokens=LIMIT, logits_processor=given, **settings)
        assert ids_of(found) == ids_of(expected)
    both = llm.generate_batch(
        [PROMPT, PROMPT], max_tokens=LIMIT, logits_processor=away_in_numpy, **settings
    )
    assert [ids_of(one) for one in both] == [ids_of(expected)] * 2


@pytest.mark.parametrize("async_compute", [True, False])
@pytest.mark.parametrize("wrong", [(), (2, 3, 8)])
def test_draft_tokens_and_steps_launched_ahead_change_nothing(async_compute, wrong, model_folder):
    drafter = KnownText()
    llm, layers = open_counted(
        model_folder, async_compute=async_compute, speculation=all_drafts(drafter)
    )
    called = []

    def noted(tokens, logits):
        called.append(tokens.tolist())
        return away_from_the_last(tokens, logits)

    for settings in (
        {"logits_processors": [noted]},
        {"logits_processors": [noted], "temperature": 0.9, "seed": 5, "logit_bias": {9: 2.0}},
        {"logits_processor": away_in_numpy, "repetition_penalty": 1.2},
        {"logit_bias": {"11": 4.0, "12": float("-inf")}},
    ):
        drafter.text, drafter.wrong = [], frozenset()
        expected = ids_of(llm.generate(PROMPT, max_tokens=LIMIT, **settings))
        drafter.text = [*PROMPT, *expected]
        drafter.wrong = frozenset(len(PROMPT) + place for place in wrong)
        layers.lengths.clear()
        called.clear()
        found = llm.generate(PROMPT, max_tokens=LIMIT, logprobs=True, **settings)
        assert ids_of(found) == expected
        assert found.stats.accepted_tokens > 0
        assert len(layers.lengths) < LIMIT
        if "logits_processors" in settings:
            # once for each token that is taken, after exactly the tokens before it
            texts = [[*PROMPT, *expected[:length]] for length in range(LIMIT)]
            assert called == texts
    llm.close()


def test_a_stream_that_gave_way_goes_on_with_its_functions(llm):
    def asked(prompt):
        return llm.stream(
            prompt,
            max_tokens=LIMIT,
            logits_processors=[away_from_the_last],
            temperature=0.7,
            seed=4,
        )

    expected = [token.id for token in asked(PROMPT)]
    stream = asked(PROMPT)
    ids = [next(stream).id for _ in range(4)]
    assert llm.generate([7, 8, 9], max_tokens=2).ids  # takes the place of the one that waits
    assert [*ids, *(token.id for token in stream)] == expected


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_tokens_that_are_drawn_on_the_device_follow_the_same_logits(temperature):
    """As on a GPU, where the sampler leaves everything unevaluated."""

    def after(tokens, logits):
        return mx.where(mx.arange(8)[None] == (tokens[-1] + 1) % 8, logits, -mx.inf)

    settings = Sampling(temperature=temperature, seed=1, logits_processors=[after])
    logits = mx.array(np.random.RandomState(2).standard_normal((1, 8)).astype(np.float32))
    for lazy in (True, False):
        sampler = Sampler(settings, [3], 8, lazy=lazy)
        assert [sampler(logits).read() for _ in range(6)] == [4, 5, 6, 7, 0, 1]
        biased = Sampler(
            Sampling(temperature=temperature, seed=1, logit_bias={6: 1000}), [3], 8, lazy=lazy
        )
        assert [biased(logits).read() for _ in range(3)] == [6] * 3


def test_log_probabilities_stay_the_models_own(llm):
    found = llm.generate(
        PROMPT, max_tokens=4, logprobs=True, logit_bias={5: 100}, logits_processors=[in_place]
    )
    assert ids_of(found) == [5] * 4
    logits = np.array(llm.logits([*PROMPT, 5, 5, 5]), np.float64)[len(PROMPT) - 1 :]
    own = logits[:, 5] - np.log(np.exp(logits).sum(axis=-1))
    np.testing.assert_allclose([token.logprob for token in found.tokens], own, atol=1e-4)


def in_place(tokens, logits):
    logits[:, 6] = 90.0
    return logits


def test_beams_are_ranked_by_what_functions_make_of_them(llm):
    plain = ids_of(llm.generate(PROMPT, max_tokens=6, beams=3))
    banned = llm.generate(PROMPT, max_tokens=6, beams=3, logit_bias={plain[0]: float("-inf")})
    assert plain[0] not in ids_of(banned)

    def only_one(tokens, logits):
        return mx.where(mx.arange(tiny.VOCABULARY)[None] == tokens[-1] + 1, logits, -mx.inf)

    forced = llm.generate(PROMPT, max_tokens=6, beams=3, logits_processors=[only_one])
    assert ids_of(forced) == list(range(60, 66))


def raising(tokens, logits):
    raise ValueError("no such rule")


FAULTS = [
    (raising, r"logits_processors\[0\] raised ValueError: no such rule"),
    (lambda tokens, logits: logits[:, :5], r"returned logits of the shape \(1, 5\)"),
    (lambda tokens, logits: None, "returned a NoneType"),
    (lambda tokens, logits: mx.full(logits.shape, float("nan")), "no token that can be drawn"),
    (lambda tokens, logits: np.full(logits.shape, -np.inf), "no token that can be drawn"),
    (lambda tokens, logits: logits + mx.inf, "no token that can be drawn"),
]


@pytest.mark.parametrize(("function", "message"), FAULTS)
def test_a_function_that_fails_ends_its_own_answer_and_no_other(function, message, llm):
    def later(tokens, logits):
        return function(tokens, logits) if tokens.size > len(PROMPT) + 2 else logits

    expected = ids_of(llm.generate(PROMPT, max_tokens=6))
    stream = llm.stream(PROMPT, max_tokens=6, logits_processors=[later])
    assert [next(stream).id for _ in range(3)] == expected[:3]
    with pytest.raises(ConfigError, match=message) as caught:
        next(stream)
    assert caught.value.hint
    with pytest.raises(ConfigError, match=message):
        llm.generate(PROMPT, max_tokens=6, beams=2, logits_processors=[function])
    samplings = [Sampling(logits_processors=[later]), Sampling(), Sampling()]
    failed, *others = llm.generate_batch([PROMPT] * 3, samplings, max_tokens=6)
    assert failed.finish_reason == "error"
    assert isinstance(failed.error, ConfigError)
    assert ids_of(failed)[:-1] == expected[:3]
    assert [ids_of(one) for one in others] == [expected] * 2


def test_functions_of_the_wrong_kind_are_told_where_they_belong(llm):
    with pytest.raises(ConfigError, match="LogitsProcessorList") as caught:
        llm.generate(PROMPT, logits_processors=LogitsProcessorList([away_in_numpy]))
    assert "logits_processor" in caught.value.hint
    with pytest.raises(ConfigError, match=r"logits_processor\[0\] raised") as caught:
        llm.generate(PROMPT, logits_processor=[away_from_the_last])
    assert "logits_processors" in caught.value.hint


@pytest.mark.parametrize(
    "bias",
    [
        {tiny.VOCABULARY: 1.0},
        {"dog": 1.0},
        {-1: 1.0},
        {3: float("nan")},
        {3: "1"},
        [3, 1.0],
        {3.0: 1},
    ],
)
def test_a_bias_for_what_is_no_token_is_refused(bias, llm):
    with pytest.raises(ConfigError, match="logit_bias"):
        llm.generate(PROMPT, max_tokens=1, logit_bias=bias)
    everything = dict.fromkeys(range(tiny.VOCABULARY), float("-inf"))
    with pytest.raises(ConfigError, match="every token"):
        llm.generate(PROMPT, max_tokens=1, logit_bias=everything)
    (batched,) = llm.generate_batch([PROMPT], max_tokens=1, logit_bias={tiny.VOCABULARY: 1.0})
    assert "logit_bias" in batched.error.message
