"""Options of ``edgellm eval`` for the tasks of lm-evaluation-harness."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from edgellm.bench import command_options as common
from edgellm.bench.evaluation.harness.tasks import CATEGORIES
from edgellm.cli import headings
from edgellm.errors import ConfigError

if TYPE_CHECKING:
    from edgellm.bench.evaluation.harness.run import HarnessSettings
    from edgellm.bench.evaluation.runs.settings import EvaluationSettings
    from edgellm.bench.records.evaluation import EvaluationRecord
    from edgellm.bench.worker.status import StatusCallback

Tasks = Annotated[
    str,
    Option(
        "--harness",
        metavar="NAME,...",
        help="Tasks of lm-evaluation-harness, or a category of them: "
        f"{', '.join(CATEGORIES)}; needs the extra harness.",
        rich_help_panel=headings.TESTS,
    ),
]
Folder = Annotated[
    Path | None,
    Option(
        "--harness-path",
        metavar="FOLDER",
        help="Tasks of your own for --harness, as YAML files.",
        rich_help_panel=headings.TESTS,
    ),
]
Download = Annotated[
    bool,
    Option(
        "--harness-download",
        help="Let --harness fetch data sets that are not on this machine.",
        rich_help_panel=headings.TESTS,
    ),
]
RunCode = Annotated[
    bool,
    Option(
        "--harness-run-code",
        help="Let --harness run code that the model has written, as tasks of programming do.",
        rich_help_panel=headings.TESTS,
    ),
]
LikeHarness = Annotated[
    bool,
    Option(
        "--like-harness",
        help="Compute the perplexities of --harness as it does, with the token that begins a text.",
        rich_help_panel=headings.TESTS,
    ),
]


def harness_settings(
    tasks: str,
    settings: EvaluationSettings,
    *,
    folder: Path | None,
    download: bool,
    run_code: bool,
    like_harness: bool,
    shots: Sequence[int] | None,
) -> HarnessSettings | None:
    """Return how the harness' tasks are asked; None where there are none to ask.

    Args:
        tasks: their names, with commas.
        settings: how tasks of one's own would be asked.
        folder, download, run_code, like_harness: as ``HarnessSettings`` has them.
        shots: numbers of examples; None: as each task says.

    Raises:
        ConfigError: an option is for tasks of the harness, and there are none.
    """
    from edgellm.bench.evaluation.harness.run import HarnessSettings

    names = common.split_names(tasks)
    if not names:
        if folder or download or run_code or like_harness:
            raise ConfigError(
                "no task of lm-evaluation-harness is named",
                hint=f"name some with --harness: {', '.join(CATEGORIES)}, arc_easy",
            )
        return None
    return HarnessSettings(
        tasks=names,
        folder=folder,
        shots=shots or (None,),
        shot_seeds=settings.shot_seeds,
        limit=settings.limit,
        chat=settings.chat,
        seed=settings.seed,
        like_harness=like_harness,
        run_code=run_code,
        download=download,
        timeout=settings.timeout,
        loads=settings.loads(),
    )


def require_own_tasks(options: Mapping[str, bool]) -> None:
    """Raise ConfigError where an option is given that only tasks of one's own have.

    Args:
        options: whether each is given, by name.
    """
    given = [name for name, is_given in options.items() if is_given]
    if given:
        raise ConfigError(
            f"--{given[0]} is for tasks of your own, and none is named",
            hint="name one with --task; the harness' tasks say in their files how they are asked",
        )


Measure = Callable[..., "Generator[EvaluationRecord]"]


def one_after_another(measures: Sequence[Measure]) -> Measure:
    """Return what yields the records of several measurements."""

    def measure(*, progress: StatusCallback) -> Generator[EvaluationRecord]:
        for one in measures:
            yield from one(progress=progress)

    return measure
