"""Points with intervals: inside the drawing, their areas and their names."""

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from edgellm.bench.report.parts.interval_plot import Point, interval_plot, log_ticks

values = st.floats(-1e6, 1e6)
points = st.builds(
    Point,
    x=st.floats(1e-3, 1e6),
    y=values,
    name=st.text(max_size=12),
    line=st.integers(0, 20),
    low=st.none() | values,
    high=st.none() | values,
    weight=st.none() | st.floats(0, 1),
    is_filled=st.booleans(),
)


@settings(max_examples=25, deadline=None)
@given(st.lists(points, min_size=1, max_size=6), st.none() | values)
def test_points_lie_inside_the_drawing(shown, across):
    text = interval_plot(shown, x_name="x", y_name="y", across=across)
    drawn = re.findall(r'<circle class="\w+ c\d" cx="([\d.-]+)" cy="([\d.-]+)" r="([\d.]+)"', text)
    assert len(drawn) == len(shown)
    assert all(40 <= float(x) <= 420 and 0 <= float(y) <= 300 for x, y, _ in drawn)
    assert "nan" not in text


def test_areas_are_weights_and_what_is_beaten_is_a_ring():
    shown = [
        Point(x=1.0, y=1.0, name="a", weight=0.25, is_filled=False),
        Point(x=2.0, y=2.0, name="b", weight=1.0),
    ]
    text = interval_plot(shown, x_name="x", y_name="y")
    radii = dict(re.findall(r'<circle class="(disc|ring) .*?r="([\d.]+)"', text))
    assert float(radii["disc"]) == 2 * float(radii["ring"])
    assert text.count('class="line') == 1, "both are of one line"
    assert text.index(">a</text>") < text.index(">b</text>")


@settings(max_examples=25, deadline=None)
@given(st.floats(1e-6, 1e6), st.floats(1.0001, 1e6))
def test_ticks_of_a_logarithmic_axis_lie_on_it(low, ratio):
    found = log_ticks(low, low * ratio)
    assert 2 <= len(found) <= 25
    assert all(low <= tick <= low * ratio for tick in found)
