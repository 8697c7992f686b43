"""The page of a run, and the steps that it is drawn of."""

import math

import pytest

from edgellm.training.page.curves import Smoothing, smoothed, thinned
from edgellm.training.page.step_log import FILE, StepLog
from edgellm.training.page.training_page import PageFacts, ShownAnswer, training_page


def step(number, loss=2.0, **more):
    return {
        "step": number,
        "epoch": 1,
        "loss": loss,
        "rate": 1e-3,
        "norm": 0.5,
        "tokens": 100,
        "asked": 60,
        "seconds": 2.0,
        "applied": True,
        "figures": {},
        **more,
    }


def test_steps_that_are_taken_again_are_in_the_log_once(tmp_path):
    log = StepLog(tmp_path, 0)
    for number in (1, 2, 3):
        log.add(step(number, loss=float(number)))
        log.save()
    with (tmp_path / FILE).open("a") as file:
        file.write('{"step": 4, "loss"')  # cut off with the power
    again = StepLog(tmp_path, 2)
    assert [one["loss"] for one in again.steps] == [1.0, 2.0]
    again.add(step(3, loss=math.nan))
    again.save()
    again.add(step(4, loss=4.0))
    again.save()
    assert [one["loss"] for one in StepLog(tmp_path, 9).steps] == [1.0, 2.0, None, 4.0]
    written = (tmp_path / FILE).read_text()
    (tmp_path / FILE).write_text(written + written.splitlines()[-1] + "\n")
    assert len(StepLog(tmp_path, 9).steps) == 4, "a line that was written twice is one step"
    assert StepLog(tmp_path, 0).steps == [], "a run that begins anew has none"


@pytest.mark.parametrize(
    "line", ["[]", "nan", '{"step": "1"}', '{"step": 1, "figures": {"a": "b"}}', "[" * 100_000]
)
def test_damaged_lines_of_the_log_are_left_out(tmp_path, line):
    StepLog(tmp_path, 0).save()
    (tmp_path / FILE).write_text(line + "\n")
    assert StepLog(tmp_path, 9).steps == []


def test_a_smoothed_line_neither_lags_behind_nor_moves_sideways():
    points = [(float(x), 3.0 * x + (-1) ** x) for x in range(200)]
    line = smoothed(points)
    assert [x for x, _ in line] == [x for x, _ in points]
    assert all(abs(y - 3 * x) < 0.2 for x, y in line[5:-5]), "a straight line stays where it is"
    assert smoothed(points[:3]) == points[:3]


def test_what_is_shown_while_it_learns_forgets_what_was_long_ago():
    mean = Smoothing(10)
    assert mean.add(5.0) == 5.0
    assert 1.0 < mean.add(1.0) < 5.0
    for _ in range(100):
        last = mean.add(2.0)
    assert last == pytest.approx(2.0, abs=0.01)


def test_a_thinned_line_has_few_points_and_the_same_mean():
    points = [(float(x), float(x % 7)) for x in range(10_000)]
    line = thinned(points, 300)
    assert len(line) <= 300
    assert line[-1] == points[-1]
    assert sum(y for _, y in line) / len(line) == pytest.approx(3.0, abs=0.1)


def test_the_page_says_what_a_run_did():
    steps = [step(number, 3.0 / number, figures={"margin": 0.1 * number}) for number in range(1, 9)]
    steps[3] = step(4, loss=None, applied=False)
    text = training_page(
        PageFacts(
            title="Training <x>",
            lines=["a & b"],
            steps=steps,
            epochs=[
                {"epoch": 0, "train": None, "valid": 3.0, "step": 0},
                {"epoch": 1, "train": 1.5, "valid": 1.0, "step": 8},
            ],
            answers=[ShownAnswer("Who?", "I.", "<script>", "me")],
            limit=1.0,
            tables={"Settings": [("rank", "16")]},
        )
    )
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    assert "Training &lt;x&gt;" in text
    for said in (
        "before",
        "2.718",
        "margin",
        "step 4",
        "learning rate",
        "rank",
        "record&#x27;s own",
    ):
        assert said in text, said


def test_a_run_that_has_taken_no_step_has_a_page():
    text = training_page(PageFacts(title="t", lines=[], steps=[], epochs=[]))
    assert "<h1>t</h1>" in text
