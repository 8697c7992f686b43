"""Prompts go through in parts while others generate, and nothing but the waiting changes."""

import pytest
from support import tiny
from support.engines import seen

from edgellm.engine.prefill_pace import MIN_TOKENS, PrefillPace
from edgellm.settings import Sampling

LONG = [5 + n * 7 % 290 for n in range(70)]
SHORT = [tiny.BEGIN, 20, 21]
HOW = Sampling(max_tokens=5, logprobs=True)


def test_a_prompt_takes_as_much_of_a_step_as_those_who_generate_can_spare():
    pace = PrefillPace()
    assert (pace.tokens(512), pace.layers(512)) == (512, None), "nobody's pace is known"
    pace.observe_step(0.020)
    assert (pace.tokens(512), pace.layers(64)) == (MIN_TOKENS, 1), "nor is what a prompt costs"
    pace.observe_prompt(64, 1, 64 * 0.0001)
    assert pace.tokens(512) == 224, "1.2 times a step, in multiples of 32"
    assert (pace.layers(224), pace.layers(60)) == (1, 4)
    pace.waiting_share = 2.0
    assert (pace.tokens(512), pace.tokens(300)) == (480, 300)
    for _ in range(40):
        pace.observe(0.120, 100, is_mixed=True)
    assert pace.tokens(512) == MIN_TOKENS, "a token of a prompt takes 0.001 s now"
    pace = PrefillPace()
    pace.observe_step(0.020)
    pace.observe(0.018, 100, is_mixed=True)
    assert pace.tokens(512) == 192, "it cost nothing, as far as can be seen"


@pytest.mark.parametrize("kind", ["int8", "window"])
def test_a_prompt_that_is_left_half_way_leaves_nothing(models, kind):
    load, answer = models
    llm = load(kind)
    expected = [answer(kind, prompt, HOW) for prompt in (SHORT, LONG, LONG[::-1])]
    llm.prefix_cache.clear()
    with llm.engine() as engine:
        first = engine.submit(SHORT, HOW, max_tokens=40)
        for _ in range(3):
            engine.step()
        gone = engine.submit(LONG, HOW)
        stays = engine.submit(LONG[::-1], HOW)
        engine.step()
        engine.cancel(gone)
        found = {}
        while not engine.idle:
            for number, token in engine.step():
                found.setdefault(number, []).append(token)
            kv_bytes = engine.kv_bytes
            assert llm.prefix_cache.running_bytes <= kv_bytes.in_use <= kv_bytes.budget
        assert seen(found[stays]) == expected[2]
        assert [token.finish_reason for token in found[gone]] == ["cancelled"]
        # all others have gone when a prompt is half-way
        engine.submit(SHORT, HOW, max_tokens=40)
        for _ in range(3):
            engine.step()
        again = engine.submit(LONG, HOW)
        engine.step()
        engine.cancel(again)
        found |= {number: [token] for number, token in engine.step()}
        assert found[again][0].finish_reason == "cancelled"
        number = engine.submit(LONG, HOW)
        found = {number: []}
        while not engine.idle:
            for who, token in engine.step():
                found.setdefault(who, []).append(token)
        assert seen(found[number]) == expected[1]
        assert found[number][-1].stats.cached_tokens < len(LONG)
        del first
