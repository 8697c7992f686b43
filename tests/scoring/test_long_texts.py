"""A text longer than the context in windows, and logits of a text a few rows at a time."""

import numpy as np
import pytest
from support.counting import paged_settings
from support.mlx_lm_models import write_mlx_lm_model

from edgellm.errors import ConfigError, ContextError
from edgellm.scoring.windows import windows


@pytest.mark.parametrize(("length", "context", "stride"), [(50, 16, 4), (50, 16, 15), (17, 16, 8)])
def test_windows_score_each_token_once_after_those_before_it(length, context, stride):
    text = list(range(length))
    pairs = list(windows(text, context=context, stride=stride))
    assert [token for _, new in pairs for token in new] == text[1:]
    for before, new in pairs:
        assert before + new == text[before[0] : before[0] + len(before + new)]
        assert len(before + new) <= context
    assert pairs[0] == (text[:1], text[1:context])
    assert all(len(before) >= context - stride and len(new) <= stride for before, new in pairs[1:])


def test_a_short_text_is_one_window_and_a_lone_token_none():
    assert list(windows([1, 2, 3], context=8)) == [([1], [2, 3])]
    assert list(windows([1], context=8)) == list(windows([], context=8)) == []
    assert len(list(windows(range(64), context=16))) == 1 + 6


@pytest.mark.parametrize(
    "settings", [{"context": 1}, {"stride": 0}, {"stride": 16}, {"stride": 2.5}]
)
def test_windows_out_of_range_are_refused(settings):
    with pytest.raises(ConfigError, match="must be"):
        list(windows([1, 2, 3], **{"context": 16} | settings))


@pytest.mark.parametrize("paged", [False, True])
def test_logits_in_parts_are_those_of_all_at_once(paged, tiny_folder, open_llm):
    folder = tiny_folder("llama-2", seed=1)
    settings = paged_settings(folder, context=200) if paged else {}
    llm = open_llm(folder, load=settings)
    tokens = [int(token) for token in np.random.RandomState(5).randint(5, 300, 150)]
    whole = np.array(llm.logits(tokens))
    parts = list(llm.stream_logits(tokens))
    assert [len(part) for part in parts] == [64, 64, 22]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    later = llm.stream_logits(tokens, begin=100)
    np.testing.assert_array_equal(next(later), whole[100:])
    with pytest.raises(ContextError):
        llm.stream_logits([5] * 300)
    with pytest.raises(ConfigError, match="begin"):
        llm.stream_logits(tokens, begin=150)


def test_a_model_of_mlx_lms_gives_them_in_parts(open_llm, tmp_path):
    folder = write_mlx_lm_model(tmp_path / "model", "qwen3_moe")
    with pytest.warns(UserWarning, match="run through"):
        llm = open_llm(folder, load={"threads": None})
    tokens = [int(token) for token in np.random.RandomState(5).randint(5, 300, 70)]
    parts = list(llm.stream_logits(tokens, begin=3))
    np.testing.assert_allclose(np.concatenate(parts), np.array(llm.logits(tokens))[3:], atol=1e-3)
