"""Settings of the harness' tasks mean here what they mean there."""

import pytest

from edgellm.bench.evaluation.harness.generation_settings import sampling_of
from edgellm.errors import ConfigError


def test_settings_of_tasks():
    plain = sampling_of({"until": ["\n", ""], "max_gen_toks": 24, "do_sample": False}, seed=3)
    assert (plain.stop_texts, plain.max_tokens, plain.temperature) == (("\n",), 24, 0)
    assert plain.seed is None
    assert sampling_of({}, seed=0).max_tokens == 256
    assert sampling_of({"until": "Q:"}, seed=0).stop_texts == ("Q:",)
    assert sampling_of({"max_tokens": 9, "max_new_tokens": 7}, seed=0).max_tokens == 7
    drawn = sampling_of({"temperature": 0.8, "top_p": 0.9}, seed=5)
    assert (drawn.temperature, drawn.top_p, drawn.seed) == (0.8, 0.9, 5)
    # a temperature without sampling is none, and sampling without one is that of 1
    assert sampling_of({"temperature": 0.8, "do_sample": False}, seed=5).temperature == 0
    assert sampling_of({"do_sample": True}, seed=5).temperature == 1
    assert sampling_of({"num_beams": 4}, seed=5).beams == 4


def test_unknown_settings_are_refused():
    with pytest.raises(ConfigError, match="'no_repeat_ngram_size'"):
        sampling_of({"no_repeat_ngram_size": 3}, seed=0)
    with pytest.raises(ConfigError, match="until"):
        sampling_of({"until": 3}, seed=0)
