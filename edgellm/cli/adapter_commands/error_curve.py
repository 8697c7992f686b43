"""Relative error over rank, drawn with letters."""

from __future__ import annotations

import math
from collections.abc import Sequence

WIDTH, HEIGHT = 60, 12
"""Of the area between the axes, in letters."""

LEVELS = (1.0, 0.75, 0.5, 0.25, 0.0)


def error_curve(errors: Sequence[float]) -> str:
    """Return a plot of ``errors[rank]`` from rank 1 to the last, in equal ratios of the rank.

    Args:
        errors: from 1 down to 0, at rank 0, 1, 2, ...; two at least.
    """
    last = len(errors) - 1
    area = [[" "] * WIDTH for _ in range(HEIGHT)]
    for column in range(WIDTH):
        rank = last ** (column / (WIDTH - 1))
        before = min(int(rank), last - 1)
        error = errors[before] + (rank - before) * (errors[before + 1] - errors[before])
        line = round((1.0 - min(max(error, 0.0), 1.0)) * (HEIGHT - 1))
        area[line][column] = "*"
    names = {round((1.0 - level) * (HEIGHT - 1)): f"{level:.2f}" for level in LEVELS}
    lines = ["relative error"]
    lines += [f"{names.get(number, ''):>5} |{''.join(row)}" for number, row in enumerate(area)]
    ticks = [" "] * (WIDTH + 8)
    rank = 1
    while rank <= last:
        place = 0
        if last > 1:
            place = round(math.log(rank) / math.log(last) * (WIDTH - 1))
        text = str(rank)
        if all(letter == " " for letter in ticks[max(0, place - 1) : place + len(text) + 1]):
            ticks[place : place + len(text)] = text
        rank *= 2
    lines += [f"      +{'-' * WIDTH}", f"       {''.join(ticks).rstrip()}", "       rank"]
    return "\n".join(line.rstrip() for line in lines)
