"""A sequence that runs alone speculates, and says what it says without."""

import pytest
from support.counting import paged_settings
from support.engines import seen

import edgellm
from edgellm.settings import Sampling

REPEATING = [5, 6, 7, 8, 9, 10, 11, 12] * 4
HOWS = [
    Sampling(max_tokens=40, logprobs=True),
    Sampling(max_tokens=40, temperature=0.5, seed=3, repetition_penalty=1.1),
]


@pytest.fixture(scope="module", params=["resident", "paged"])
def models(request, tiny_folder):
    """The same model without and with draft tokens; streamed layers take trees of them."""
    folder = tiny_folder("llama-2", seed=1)
    load = {"memory": "500MB", "context": 200}
    if request.param == "paged":
        load = paged_settings(folder, context=200)
    with (
        edgellm.load(folder, **load | {"speculate": "off"}) as plain,
        edgellm.load(folder, **load | {"speculate": "auto"}) as drafting,
    ):
        for llm in (plain, drafting):
            llm.eos_token_ids = frozenset()
        yield plain, drafting


def run(engine, found):
    while not engine.idle:
        for number, token in engine.step():
            found.setdefault(number, []).append(token)


@pytest.mark.parametrize("how", HOWS, ids=["greedy", "drawn"])
def test_a_sequence_alone_says_the_same_in_fewer_passes(models, how):
    plain, drafting = models
    expected = seen(plain.generate(REPEATING, how).tokens)
    with drafting.engine() as engine:
        number = engine.submit(REPEATING, how)
        found = {}
        run(engine, found)
        stats = found[number][-1].stats
        assert seen(found[number]) == expected
        assert stats.completion_tokens == 40
        if how.temperature == 0:
            assert stats.accepted_tokens > 0
            assert stats.decode_passes + stats.accepted_tokens == 39
            assert engine.stats.passes < 40
        kv_bytes = engine.kv_bytes
        assert (kv_bytes.in_use, drafting.prefix_cache.running_bytes) == (0, 0)


def test_others_that_come_and_go_change_nothing(models):
    plain, drafting = models
    how = HOWS[0]
    other = [9, 30, 31, 32]
    expected = {
        name: seen(plain.generate(prompt, how, max_tokens=most).tokens)
        for name, prompt, most in [("long", REPEATING, 100), ("short", other, 10)]
    }
    with drafting.engine() as engine:
        found, shorts = {}, []
        long = engine.submit(REPEATING, how, max_tokens=100)
        for _ in range(3):
            for _ in range(4):
                for number, token in engine.step():
                    found.setdefault(number, []).append(token)
            shorts.append(engine.submit(other, how, max_tokens=10))
        run(engine, found)
    assert seen(found[long]) == expected["long"]
    for number in shorts:
        assert seen(found[number]) == expected["short"]


def test_a_stop_text_in_the_middle_of_a_pass_leaves_the_rest_out(models):
    plain, drafting = models
    whole = plain.generate(REPEATING, max_tokens=40)
    stop = next(token.text for token in whole.tokens[20:] if token.text.strip())
    expected = plain.generate(REPEATING, max_tokens=40, stop=stop)
    assert expected.finish_reason == "stop"
    with drafting.engine() as engine:
        for _ in range(2):  # what is kept of the first serves the second
            number = engine.submit(REPEATING, max_tokens=40, stop=stop)
            found = {}
            run(engine, found)
            assert seen(found[number]) == seen(expected.tokens)
