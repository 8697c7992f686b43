"""``edgellm bench rate``: scores for the answers of ``bench queries``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from edgellm.bench import judge_options
from edgellm.bench.queries.rating import HIGHEST, LOWEST, RatedFile, judge, rate_all
from edgellm.bench.records.collect import INTERRUPTED
from edgellm.bench.records.differences import counted
from edgellm.console.terminal import print_error_stream, say
from edgellm.errors import ConfigError
from edgellm.files.file_lock import file_lock
from edgellm.files.given_path import given_path

if TYPE_CHECKING:
    from edgellm.bench.queries.rating import Rater


def rate(
    context: typer.Context,
    file: Annotated[
        Path,
        Argument(metavar="FILE", help="A json or jsonl file that `bench queries --output` wrote."),
    ],
    *,
    judge_url: judge_options.URL = None,
    judge_model: judge_options.Model = "",
    key_variable: judge_options.KeyVariable = None,
    seed: Annotated[
        int,
        Option(
            metavar="N", help="Seed of the order of answers, which does not give the models away."
        ),
    ] = 0,
) -> int:
    """Score answers from 1 to 10, or let a judge; each score is in the file at once, so that one
    may stop and go on.
    """
    file = given_path(file)
    if file.is_file():
        context.with_resource(file_lock(file, "edgellm bench rate"))
    rated = RatedFile(file)
    total = len(rated.unrated(seed=seed))
    if total == 0:
        say(f"{file} holds no answer without a score")
        return 0
    rater: Rater = _Person(total)
    rated_by = "person"
    if judge_url is not None:
        server = judge_options.judge_endpoint(judge_url, judge_model, key_variable)
        rater, rated_by = judge(server.reply), server.model
    elif not sys.stdin.isatty():
        raise ConfigError(
            "there is nobody to ask: standard input is not a terminal", hint="use --judge URL"
        )
    scores: list[float] = []
    try:
        for number, (answer, score) in enumerate(rate_all(rated, rater, rated_by, seed=seed), 1):
            if score is not None:
                scores.append(score)
            if judge_url is not None:
                line = f"{number} of {total}: {score:g}  {answer.question[:60]}"
                say(line)
    except EOFError:  # q, or the end of what is typed: a way out like any other
        say("\nstopped; the scores so far are kept")
    except KeyboardInterrupt:
        say("\nthe scores so far are kept")
        return INTERRUPTED
    finally:
        if scores:
            mean = sum(scores) / len(scores)
            line = f"{counted(len(scores), 'answer')} scored, {mean:.1f} in the middle"
            say(line)
    return 0


class _Person:
    """A rater: shows an answer and asks the user for its score."""

    def __init__(self, total: int) -> None:
        self._number = 0
        self._total = total

    def __call__(self, question: str, answer: str) -> float | None:
        """Return the score, or None for an answer that is skipped. Raises EOFError to stop."""
        self._number += 1
        say(f"\n{self._number} of {self._total}\n")
        print_error_stream(question, "bold")
        say(f"\n{answer or '(nothing)'}\n")
        while True:
            say(f"{LOWEST} to {HIGHEST}, s to skip, q to stop: ", end="")
            line = sys.stdin.readline()
            typed = line.strip()
            if not line or typed == "q":
                raise EOFError
            if typed == "s":
                return None
            if typed.isdecimal() and LOWEST <= int(typed) <= HIGHEST:
                return float(typed)
