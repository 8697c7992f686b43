"""Training on a terminal, and without one."""

import pytest

from edgellm.console.training.end_view import show_answers, show_epochs
from edgellm.console.training.plan_table import show_training_plan
from edgellm.console.training.steps_view import ShownStep, StepsView, line_of


def shown(done, total, **more):
    step = {
        "loss": 2.5,
        "tokens_per_second": 120.0,
        "seconds_left": 75.0,
        "memory": 300_000_000,
        "planned": 400_000_000,
    }
    return ShownStep(done=done, total=total, **step | more)


@pytest.mark.parametrize("columns", range(1, 100, 7))
def test_a_line_is_as_long_as_there_is_room_and_says_the_step_first(columns):
    parts = shown(12, 150, figures={"accuracy": 0.75}).parts
    line = line_of(parts, columns)
    assert line.startswith("step 12 of 150")
    assert len(line) <= max(columns, len(parts[0]))
    assert line_of(parts, 200) == (
        "step 12 of 150 · loss 2.500 · 75.0 s left · 120 tokens/s · accuracy 0.750 · "
        "300 MB of 400 MB"
    )


def test_without_a_terminal_a_line_comes_each_tenth_or_half_minute(capsys):
    now = [0.0]
    view = StepsView(clock=lambda: now[0])
    for step in range(1, 101):  # of a second each
        now[0] += 1.0
        view.step(shown(step, 100))
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(",")[0] for line in lines] == [
        f"step {step} of 100" for step in (1, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100)
    ]
    for step in range(1, 5):  # of 20 seconds each
        now[0] += 20.0
        view.step(shown(step, 1000))
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_a_step_without_a_loss_has_none():
    assert not any("loss" in part for part in shown(1, 9, loss=None).parts)


def test_losses_and_answers_are_plain_lines_in_a_pipe(capsys):
    show_epochs([])
    show_epochs([{"epoch": 0, "train": None, "valid": 3.0}, {"epoch": 1, "train": 2, "valid": 1.0}])
    show_answers(
        [
            {"prompt": "Who?\nYou.", "expected": "Me.", "before": "", "after": "x" * 2000},
            {"prompt": "p", "expected": "e", "before": "b", "after": None},
        ]
    )
    out, err = capsys.readouterr()
    assert not out
    assert "before     -          3.0000" in err
    assert "1          2.0000     1.0000" in err
    assert "question 1: Who?\nYou." in err
    assert "before: (nothing)" in err
    assert "after: " + "x" * 600 + " ...\n" in err
    assert err.count("after: ") == 1


def test_of_many_epochs_the_first_and_the_last_are_shown(capsys):
    show_epochs([{"epoch": number, "train": 1.0, "valid": None} for number in range(1, 401)])
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 21
    assert [line.split()[0] for line in (lines[1], lines[10], lines[11], lines[-1])] == [
        "1",
        "10",
        "...",
        "400",
    ]


@pytest.mark.parametrize(
    ("hidden", "said", "limit"),
    [
        (50, "hidden behind the arithmetic from 50 tokens a step on", "arithmetic"),
        (900, "hidden behind the arithmetic from 900 tokens a step on", "the disk"),
        (None, "never hidden behind the arithmetic", "the disk"),
    ],
)
def test_the_plan_says_what_a_step_waits_for(capsys, hidden, said, limit):
    plan = {
        "learned": 8_388_608,
        "parts": {"layers": 900_000_000, "kept inputs": 140_000_000},
        "total": 1_040_000_000,
        "budget": 2_000_000_000,
        "least": 900_000_000,
        "pinned": 6,
        "layers": 32,
        "step_tokens": 256,
        "micro_tokens": 128,
        "bytes_read": 5_460_000_000,
        "bytes_written": 0,
        "disk": 1.6e9,
        "arithmetic": 2.1e10,
        "is_measured": False,
        "busy": "",
        "hidden_from_tokens": hidden,
        "seconds_a_step": 475.0,
    }
    show_training_plan(plan, name="a model")
    out = capsys.readouterr().out
    for text in (
        said,
        f"limited by {limit}",
        "8.39 million",
        "6 of 32",
        "--memory 900MB",
        "assumed",
    ):
        assert text in out
