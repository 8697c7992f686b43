"""Plots: their ticks and points."""

import re

from hypothesis import given
from hypothesis import strategies as st

from edgellm.pages.plots import Series, chart, round_ticks, tick_text


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_ticks_enclose_what_they_are_for(low, span):
    high = low + span
    found = round_ticks(low, high)
    assert 2 <= len(found) <= 8
    assert found == sorted(set(found))
    if span > 0 and high - low > 1e-3 * max(abs(low), abs(high)):
        assert found[0] <= low + 1e-9 * span
        assert found[-1] >= high - 1e-6 * span


def test_points_of_a_chart_lie_inside_it():
    lines = [Series("a", [(1, 5.0), (8, 1.0)]), Series("b", [(2, 0.0)], 1)]
    text = chart(lines, x_name="x", y_name="y", x_ticks=[1, 2, 8], logarithmic=True)
    drawn = [
        tuple(map(float, found))
        for found in re.findall(r'circle cx="([\d.]+)" cy="([\d.]+)"', text)
    ]
    assert all(0 <= x <= 420 and 0 <= y <= 300 for x, y in drawn)


def test_an_axis_may_begin_below_zero_and_lines_of_many_points_have_no_marks():
    many = Series("each", [(step, step / 50 - 1) for step in range(100)], marked=False, faint=True)
    text = chart([many, Series("end", [(99, 1.0)], 1)], x_name="x", y_name="y", y_low=-1.0)
    heights = [float(y) for y in re.findall(r"[ML][\d.]+ ([\d.]+)", text.split('class="faint"')[1])]
    assert all(0 <= y <= 260 for y in heights)
    assert text.count("<circle") == 0
    assert text.count("<rect") == 2, "the end, and its key"


@given(st.floats(1e-12, 1e6))
def test_what_stands_at_a_tick_has_room(high):
    # a letter takes 7 of the 46 units beside the axis
    assert all(len(tick_text(tick)) <= 7 for tick in round_ticks(0, high))
    assert [tick_text(tick) for tick in (0, 1.5e-4, 0.25, 15e3)] == ["0", "1.5e-4", "0.25", "15k"]
