"""How small a difference so many questions can show, in a sentence."""

from __future__ import annotations

import math

from edgellm.bench.metrics.metric import Unit

NORMAL_975 = 1.959964
"""A normal value lies beyond it on either side 5 times in 100."""

NORMAL_80 = 0.841621
"""A normal value lies below it 4 times in 5."""


def smallest_shown(standard_error: float) -> float:
    """Return the smallest true difference that so many questions show 4 times in 5.

    (1.96 + 0.84) standard errors of the paired difference: the interval of 1.96 on either side of
    what is seen then leaves 0 out with a chance of 80 %. What is smaller is missed more often.
    """
    return (NORMAL_975 + NORMAL_80) * standard_error


def questions_for(difference: float, *, questions: int, standard_error: float) -> int:
    """Return how many questions show a difference 4 times in 5.

    The standard error falls with the root of the number of questions, so it is
    questions x (smallest difference shown / difference)^2, rounded up to two digits.
    """
    exact = questions * (smallest_shown(standard_error) / difference) ** 2
    digit = 10.0 ** max(0, math.floor(math.log10(max(exact, 1.0))) - 1)
    return math.ceil(exact / digit - 1e-9) * int(digit)


def most_that_differ(questions: int) -> float:
    """Return the share of all questions that may differ, of which none did among so many.

    With a larger share, none would differ with a chance below 5 %: 1 - 0.05^(1/n), about 3 / n.
    """
    return -math.expm1(math.log(0.05) / questions)


def what_it_shows(
    questions: int, standard_error: float | None, *, unit: Unit, differing: int, seen: bool
) -> str:
    """Say in one sentence what a comparison over so many questions can show.

    Args:
        questions: that both runs were asked.
        standard_error: of the paired difference; None where there is none.
        unit: of the metric.
        differing: questions on which the runs differ.
        seen: whether a difference was found.
    """
    if questions == 1 or standard_error is None:
        return f"{_counted(questions)} cannot show a difference: nothing tells how much they vary."
    if standard_error == 0:
        share = f"{_number(100 * most_that_differ(questions))} % of all questions"
        if not differing:
            return f"Not one of {_counted(questions)} differs; at most {share} would."
        return f"All {_counted(questions)} differ by the same; at most {share} would not."
    shown = smallest_shown(standard_error)
    finer = _finer(shown)
    more = questions_for(finer, questions=questions, standard_error=standard_error)
    if seen:
        return (
            f"{_counted(questions)} show differences from {in_unit(shown, unit)} on, "
            f"4 times in 5; {more:,} would from {_value(finer, unit)} on."
        )
    return (
        f"{_counted(questions)} cannot show a difference below {in_unit(shown, unit)}; "
        f"{more:,} would show {_value(finer, unit)}."
    )


def in_unit(value: float, unit: Unit) -> str:
    """Put a difference in words, rounded to two digits: ``2.8 points``, ``0.012 bits/byte``."""
    names = {"share": "points", "score": "points", "1-10": "points", "perplexity": "of perplexity"}
    name = names.get(unit, unit)
    shown = _value(value, unit)
    if shown == "1":
        name = name.removesuffix("s") if name == "points" else name
    return f"{shown} {name}"


def _value(value: float, unit: Unit) -> str:
    if unit == "share":
        value *= 100
    return _number(value)


def _finer(value: float) -> float:
    """Return the largest of ..., 0.1, 0.2, 0.5, 1, 2, 5, ... that is at most half a value."""
    half = value / 2
    decade = 10.0 ** math.floor(math.log10(half))
    return max(step * decade for step in (1, 2, 5) if step * decade <= half * (1 + 1e-9))


def _number(value: float) -> str:
    return f"{float(f'{value:.2g}'):,.10g}"


def _counted(questions: int) -> str:
    if questions == 1:
        return "1 question"
    return f"{questions:,} questions"
