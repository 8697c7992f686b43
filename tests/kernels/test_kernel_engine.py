"""Steps are made from arguments by name."""

import pytest

from edgellm.kernels.codegen.abi import STEP_SLOTS, SWIGLU
from edgellm.kernels.kernel_engine import make_step, step_array


def test_arguments_stand_in_their_slots_and_others_are_zero():
    rows = step_array([make_step(7, SWIGLU, inner=3, gate_up=1), make_step(8, SWIGLU)])
    assert rows.shape == (2, STEP_SLOTS)
    assert rows[:, :5].tolist() == [[7, 1, 0, 3, 0], [8, 0, 0, 0, 0]]


def test_an_argument_that_the_kernel_has_not_is_refused():
    with pytest.raises(KeyError, match="width"):
        make_step(7, SWIGLU, width=3)
