"""``edgellm bench queries``: the same questions to models on several numbers of threads."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from edgellm.bench import command_options as common
from edgellm.bench.queries.questions import MAX_TOKENS, THREADS, TIMEOUT
from edgellm.bench.records.collect import exit_code
from edgellm.bench.tables.columns import QUERY_COLUMNS
from edgellm.errors import ConfigError
from edgellm.settings import DEFAULT_MODEL, Sampling

if TYPE_CHECKING:
    from edgellm.bench.statistics.amdahl import Scaling


def queries(
    models: Annotated[
        list[str] | None,
        Argument(metavar="[MODEL ...]", help="Folders, Hub ids; default: the bundled model."),
    ] = None,
    *,
    questions: Annotated[
        Path | None,
        Option(metavar="FILE", help="Questions of your own, one per line; default: five of ours."),
    ] = None,
    threads: Annotated[str, Option(metavar=common.NUMBERS, help="CPU threads.")] = ",".join(
        map(str, THREADS)
    ),
    max_tokens: Annotated[
        int, Option(metavar="N", min=1, help="Maximum tokens per answer.")
    ] = MAX_TOKENS,
    repetitions: Annotated[
        int, Option(metavar="N", min=1, help="Times each question is asked.")
    ] = 1,
    temperature: Annotated[
        float, Option(metavar="X", help="0 always takes the most likely token, with any threads.")
    ] = 0.0,
    seed: Annotated[int, Option(metavar="N", help="Seed of the first repetition.")] = 0,
    memory: Annotated[
        str | None, Option(metavar="SIZE", help="Memory budget for each model.")
    ] = None,
    timeout: Annotated[
        float, Option(metavar="SECONDS", min=1, help="An answer that takes longer has failed.")
    ] = TIMEOUT,
    output: common.Outputs = None,
    json: common.Json = False,
    wide: common.Wide = False,
) -> int:
    """Ask models the same questions with several numbers of threads; every time and answer is
    kept.
    """
    from edgellm.bench.queries.queries import measure_queries
    from edgellm.bench.queries.questions import QUESTIONS, QuerySettings, read_questions
    from edgellm.bench.statistics.amdahl import scalings

    # Checked here, since each worker would fail with it.
    Sampling(temperature=temperature, max_tokens=max_tokens, seed=seed)
    settings = QuerySettings(
        threads=_thread_counts(threads),
        max_tokens=max_tokens,
        repetitions=repetitions,
        temperature=temperature,
        seed=seed,
        memory=common.optional_size(memory),
        timeout=timeout,
    )
    asked: Sequence[str] = QUESTIONS
    if questions:
        asked = read_questions(questions)
    measure = partial(measure_queries, models or [DEFAULT_MODEL], asked, settings)
    records, stopped = common.collect_records(measure, output)
    sentences = [scaling_sentence(*item) for item in scalings(records).items()]
    common.print_records(records, QUERY_COLUMNS, json=json, wide=wide, sentences=sentences)
    return exit_code(records, stopped=stopped)


def scaling_sentence(model: str, scaling: Scaling) -> str:
    """Return in one line what more threads bring to a model."""
    speed_ups = [
        f"{threads} threads {scaling.speed_up(threads):.2f} times "
        f"({100 * scaling.efficiency(threads):.0f}% each)"
        for threads in scaling.seconds
        if threads != scaling.fewest_threads
    ]
    sentence = f"{model}: {', '.join(speed_ups) or 'one number of threads'}"
    share = scaling.parallel_fraction
    if share is None:
        return sentence
    if share < 0:
        return f"{sentence}; more threads hinder here"
    return f"{sentence}; Amdahl: threads divide {100 * share:.0f}% of the work"


def _thread_counts(text: str) -> tuple[int, ...]:
    """Return the numbers of a list, each once. Raises ConfigError."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and 0 < int(part) <= 1024 for part in parts):
        raise ConfigError(f"--threads {text} is not a list of numbers", hint="write it as 1,2,4,8")
    return tuple(dict.fromkeys(map(int, parts)))
