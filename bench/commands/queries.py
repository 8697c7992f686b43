"""The commands of the founding experiment: ``queries`` asks models, ``rate`` has their answers scored."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgellm.bench.commands.disk import Json
from edgellm.bench.queries.questions import MAX_TOKENS, THREADS, TIMEOUT
from edgellm.bench.queries.rating import HIGHEST, LOWEST
from edgellm.bench.records.collect import INTERRUPTED, collect, exit_code
from edgellm.bench.records.differences import counted
from edgellm.errors import ConfigError
from edgellm.settings import parse_size

if TYPE_CHECKING:
    from edgellm.bench.queries.rating import Rater
    from edgellm.bench.records.amdahl import Scaling

Outputs = Annotated[
    list[Path] | None,
    typer.Option(
        "--output",
        metavar="FILE",
        help="Write json, jsonl, csv, md or html, by the suffix; may be given several times.",
    ),
]


def queries(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL ...]", help="Folders, Hub ids; left out: the bundled model."
        ),
    ] = None,
    *,
    questions: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Questions of your own, one a line; left out: the five."),
    ] = None,
    threads: Annotated[
        str, typer.Option(metavar="N,N,...", help="Processor threads for arithmetic.")
    ] = ",".join(map(str, THREADS)),
    max_tokens: Annotated[
        int, typer.Option(metavar="N", min=1, help="Tokens of an answer at the most.")
    ] = MAX_TOKENS,
    repetitions: Annotated[
        int, typer.Option(metavar="N", min=1, help="Times that each is asked.")
    ] = 1,
    temperature: Annotated[
        float, typer.Option(metavar="X", help="0: always the likeliest, the same with any threads.")
    ] = 0.0,
    seed: Annotated[
        int, typer.Option(metavar="N", help="Of the first repetition, where tokens are drawn.")
    ] = 0,
    memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Budget of memory for each model.")
    ] = None,
    timeout: Annotated[
        float,
        typer.Option(metavar="SECONDS", min=1, help="An answer that takes longer has failed."),
    ] = TIMEOUT,
    output: Outputs = None,
    json: Json = False,
) -> int:
    """Ask models the same questions on several numbers of threads; every time and answer is kept."""
    from edgellm.bench.queries.queries import measure_queries
    from edgellm.bench.queries.questions import QUESTIONS, QuerySettings, read_questions
    from edgellm.bench.records.amdahl import scalings
    from edgellm.bench.records.text_tables import QUERY_COLUMNS, as_json, as_table
    from edgellm.bench.report.result_files import ResultFile
    from edgellm.bench.worker.status_line import StatusLine
    from edgellm.settings import DEFAULT_MODEL, Sampling

    Sampling(temperature=temperature, max_tokens=max_tokens, seed=seed)
    settings = QuerySettings(
        threads=_numbers(threads),
        max_tokens=max_tokens,
        repetitions=repetitions,
        temperature=temperature,
        seed=seed,
        memory=parse_size(memory) if memory else None,
        timeout=timeout,
    )
    asked = read_questions(questions) if questions else QUESTIONS
    names = models or [DEFAULT_MODEL]
    outputs = [ResultFile(path) for path in output or ()]
    with StatusLine() as status:
        found, stopped = collect(
            measure_queries(names, asked, settings, progress=status.show), outputs, status.note
        )
    if json:
        typer.echo(as_json(found))
    elif found:
        typer.echo(as_table(found, QUERY_COLUMNS))
        scaled = scalings(found)
        if scaled:
            typer.echo(
                "\n"
                + "\n".join(scaling_sentence(model, scaling) for model, scaling in scaled.items())
            )
    return exit_code(found, stopped=stopped)


def rate(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="A json or jsonl file that `bench queries --output` wrote."
        ),
    ],
    *,
    judge: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Let a model behind an OpenAI-compatible URL score; left out: you do.",
        ),
    ] = None,
    judge_model: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="What the server calls the judge; left out: its first model."
        ),
    ] = "",
    key_variable: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The environment variable that holds the server's key."),
    ] = None,
    seed: Annotated[
        int, typer.Option(metavar="N", help="Of the order, which does not tell the models apart.")
    ] = 0,
) -> int:
    """Score answers from 1 to 10; each score is in the file at once, so that one may stop and go on."""
    from edgellm.bench.queries.rating import RatedFile, rate_all
    from edgellm.bench.queries.rating import judge as judging

    rated = RatedFile(file)
    waiting = rated.unrated(seed=seed)
    if not waiting:
        typer.echo(f"{file} holds no answer without a score", err=True)
        return 0
    rater: Rater = _Person(len(waiting))
    name = "person"
    if judge is not None:
        from edgellm.bench.backends.openai_endpoint import Endpoint

        if key_variable is not None and key_variable not in os.environ:
            raise ConfigError(
                f"there is no variable {key_variable} in the environment",
                hint=f"export {key_variable}=...",
            )
        server = Endpoint(
            judge, judge_model, key=os.environ[key_variable] if key_variable else None
        )
        rater, name = judging(server.reply), server.model
    elif not sys.stdin.isatty():
        raise ConfigError(
            "there is nobody to ask: standard input is no terminal", hint="use --judge URL"
        )
    scores = []
    try:
        for number, (answer, score) in enumerate(rate_all(rated, rater, name, seed=seed), 1):
            scores += [score] if score is not None else []
            if judge is not None:
                typer.echo(
                    f"{number} of {len(waiting)}: {score:g}  {answer.question[:60]}", err=True
                )
    except EOFError:  # q, or the end of what is typed: a way out like any other
        typer.echo("\nstopped; the scores so far are kept", err=True)
    except KeyboardInterrupt:
        typer.echo("\nthe scores so far are kept", err=True)
        return INTERRUPTED
    finally:
        if scores:
            typer.echo(
                f"{counted(len(scores), 'answer')} scored, {sum(scores) / len(scores):.1f} in the middle",
                err=True,
            )
    return 0


class _Person:
    """Shows an answer and asks whoever sits there for its score."""

    def __init__(self, total: int) -> None:
        self._number, self._total = 0, total

    def __call__(self, question: str, answer: str) -> float | None:
        self._number += 1
        typer.echo(
            f"\n{self._number} of {self._total}\n\n{typer.style(question, bold=True)}\n\n{answer or '(nothing)'}\n",
            err=True,
        )
        while True:
            typer.echo(f"{LOWEST} to {HIGHEST}, s to skip, q to stop: ", err=True, nl=False)
            said = sys.stdin.readline()
            if not said or said.strip() == "q":
                raise EOFError
            if said.strip() == "s":
                return None
            if said.strip().isdecimal() and LOWEST <= int(said) <= HIGHEST:
                return float(said)


def scaling_sentence(model: str, scaling: Scaling) -> str:
    """What more threads bring, in one line."""
    parts = [
        f"{threads} threads {scaling.speed_up(threads):.2f} times ({100 * scaling.efficiency(threads):.0f}% each)"
        for threads in scaling.seconds
        if threads != scaling.fewest_threads
    ]
    share = scaling.parallel_fraction
    fitted = ""
    if share is not None:
        fitted = (
            f"; Amdahl: threads divide {100 * share:.0f}% of the work"
            if share >= 0
            else "; more threads hinder here"
        )
    return f"{model}: {', '.join(parts) or 'one number of threads'}{fitted}"


def _numbers(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and 0 < int(part) <= 1024 for part in parts):
        raise ConfigError(f"--threads {text} is no list of numbers", hint="write it as 1,2,4,8")
    return tuple(dict.fromkeys(map(int, parts)))
