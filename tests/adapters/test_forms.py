"""Numbers of configs: against what PEFT makes of them."""

import math

import pytest

from edgellm.adapters.forms import alpha_of


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("alpha", [32, 16.0, 0.3, 5.5, -8, 1e20, 3.3])
@pytest.mark.parametrize("rank", [1, 3, 7, 10, 16, 24, 37])
def test_an_alpha_is_found_again_as_it_was_said(alpha, rank, rslora):
    scale = alpha / (math.sqrt(rank) if rslora else rank)
    found = alpha_of(scale, rank, rslora=rslora)
    assert found == alpha
    assert isinstance(found, int) == (float(alpha).is_integer() and abs(alpha) < 1e15)


def test_a_scale_that_nobody_wrote_is_not_rounded():
    scale = 0.1234567890123456789
    assert alpha_of(scale, 8) / 8 == scale
