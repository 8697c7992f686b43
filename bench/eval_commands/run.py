"""``edgellm eval [MODEL ...]``: the same questions for all, paired with the first model."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from edgellm.bench import command_options as common
from edgellm.bench import judge_options
from edgellm.bench.eval_commands import harness_options, setting_options
from edgellm.bench.eval_commands.shown import show_evaluations
from edgellm.bench.evaluation.passages import PASSAGES
from edgellm.bench.evaluation.runs.decoding import parse_decodings
from edgellm.bench.evaluation.runs.settings import TIMEOUT, EvaluationSettings
from edgellm.bench.evaluation.tasks.kinds.table import KINDS
from edgellm.bench.records.collect import exit_code
from edgellm.cli import headings
from edgellm.console.terminal import note
from edgellm.errors import ConfigError
from edgellm.settings import DEFAULT_MODEL

if TYPE_CHECKING:
    from edgellm.bench.evaluation.runs.measures import Rater
    from edgellm.bench.evaluation.tasks.task import Task


def run(
    models: Annotated[
        list[str] | None,
        Argument(
            metavar="[MODEL ...]",
            help="Folders or Hub ids; the first is the reference that others are compared with; "
            "default: the bundled model.",
            rich_help_panel=headings.MODEL,
        ),
    ] = None,
    *,
    task: Annotated[
        list[Path] | None,
        Option(
            "--task",
            "-t",
            metavar="FILE",
            help="A jsonl file of labelled rows, or a txt file; may be given several times; "
            "default: a few bundled texts.",
            rich_help_panel=headings.TESTS,
        ),
    ] = None,
    kind: Annotated[
        str | None,
        Option(
            metavar="|".join(KINDS),
            help="The kind of the tasks; default: recognised by the fields of rows.",
            rich_help_panel=headings.TESTS,
        ),
    ] = None,
    labels: Annotated[
        str | None,
        Option(
            metavar="NAME,NAME,...",
            help="The labels that answers may have; default: those of the rows.",
            rich_help_panel=headings.TESTS,
        ),
    ] = None,
    limit: Annotated[
        int | None,
        Option(metavar="N", min=1, help="Questions of each task.", rich_help_panel=headings.TESTS),
    ] = None,
    prompt: Annotated[
        str | None,
        Option(
            metavar="FILE|TEMPLATE",
            help="A prompt of your own, in Jinja, with the fields of a row; default: the kind's.",
            rich_help_panel=headings.PROMPT,
        ),
    ] = None,
    chat: Annotated[
        bool,
        Option(
            "--chat/--no-chat",
            help="Ask in a conversation, through the model's chat template.",
            rich_help_panel=headings.PROMPT,
        ),
    ] = False,
    shots: setting_options.Shots = None,
    shots_from: Annotated[
        Path | None,
        Option(
            metavar="FILE",
            help="Rows that examples come from; default: the last rows of the task's file, "
            "which are not asked then.",
            rich_help_panel=headings.PROMPT,
        ),
    ] = None,
    shot_seeds: Annotated[
        int,
        Option(
            metavar="N",
            min=1,
            max=100,
            help="Repeat with this many other choices of examples, to see what they matter.",
            rich_help_panel=headings.PROMPT,
        ),
    ] = 1,
    decoding: Annotated[
        str,
        Option(
            metavar="NAME,...",
            help="How the tokens of answers are drawn: greedy, beam:4, sample, top-k:40, "
            "top-p:0.9, min-p:0.1.",
            rich_help_panel=headings.SAMPLING,
        ),
    ] = "greedy",
    max_tokens: Annotated[
        int | None,
        Option(
            metavar="N",
            min=1,
            help="Tokens of an answer; default: as the kind of task has it.",
            rich_help_panel=headings.SAMPLING,
        ),
    ] = None,
    seed: Annotated[
        int,
        Option(
            metavar="N",
            min=0,
            max=1 << 31,
            help="Seed of all that is drawn.",
            rich_help_panel=headings.SAMPLING,
        ),
    ] = 0,
    adapter: setting_options.Adapters = None,
    memory: setting_options.Memory = None,
    context: setting_options.Context = None,
    kv_bits: setting_options.KVBits = "",
    threads: setting_options.Threads = "",
    activations: common.Activations = "auto",
    machines: common.Machines = None,
    split: common.SplitOption = "auto",
    stride: Annotated[
        int | None,
        Option(
            metavar="N",
            min=1,
            help="Tokens of a text that each further window scores; default: half of the context.",
            rich_help_panel=headings.TESTS,
        ),
    ] = None,
    harness: harness_options.Tasks = "",
    harness_path: harness_options.Folder = None,
    harness_download: harness_options.Download = False,
    harness_run_code: harness_options.RunCode = False,
    like_harness: harness_options.LikeHarness = False,
    judge_url: judge_options.URL = None,
    judge_model: judge_options.Model = "",
    key_variable: judge_options.KeyVariable = None,
    samples: Annotated[
        Path | None,
        Option(
            metavar="FILE.jsonl",
            help="Keep each question's outcome in a file.",
            rich_help_panel=headings.OUTPUT,
        ),
    ] = None,
    resume: Annotated[
        bool,
        Option(
            "--resume",
            help="Ask only what the file of --samples does not hold yet.",
            rich_help_panel=headings.OUTPUT,
        ),
    ] = False,
    timeout: common.Timeout = TIMEOUT,
    output: common.Outputs = None,
    json: common.Json = False,
    wide: common.Wide = False,
) -> int:
    """Ask models the same questions; say how well each does, and how sure a difference is.

    Each row of a task is a question. Several models are paired with the first, question by
    question.
    """
    from edgellm.bench.evaluation.harness.run import run_harness
    from edgellm.bench.evaluation.runs.evaluate import evaluate
    from edgellm.bench.evaluation.runs.samples import Samples
    from edgellm.bench.evaluation.tasks.read_task import read_task

    decodings = parse_decodings(decoding)
    settings = EvaluationSettings(
        shots=setting_options.numbers_of_shots(shots or "0"),
        shot_seeds=shot_seeds,
        decodings=decodings,
        threads=setting_options.distinct_numbers("threads", threads) or (None,),
        kv_bits=setting_options.distinct_numbers("kv-bits", kv_bits) or (None,),
        adapters=setting_options.adapter_folders(adapter),
        load=setting_options.load_fields(
            memory, context, activations, decodings, machines=machines, split=split
        ),
        chat=chat,
        limit=limit,
        seed=seed,
        max_tokens=max_tokens,
        stride=stride,
        timeout=timeout,
    )
    setting_options.require_loadable(settings)
    harness_settings = harness_options.harness_settings(
        harness,
        settings,
        folder=harness_path,
        download=harness_download,
        run_code=harness_run_code,
        like_harness=like_harness,
        shots=settings.shots if shots else None,
    )
    given = None
    if labels is not None:
        given = common.split_names(labels)
    paths = task or []
    if not paths and harness_settings is None:
        paths = [PASSAGES]
    if not paths:
        harness_options.require_own_tasks(
            {
                "kind": kind is not None,
                "labels": labels is not None,
                "prompt": prompt is not None,
                "shots-from": shots_from is not None,
                "decoding": decoding != "greedy",
                "max-tokens": max_tokens is not None,
                "stride": stride is not None,
                "judge": judge_url is not None,
                "samples": samples is not None,
            }
        )
    tasks: list[Task] = [
        read_task(path, kind=kind, labels=given, prompt=prompt, shots_from=shots_from)
        for path in paths
    ]
    _check_names(tasks)
    for each in tasks:
        for words in each.notes:
            note(f"{each.path}: {words}")
    names = models or [DEFAULT_MODEL]
    if machines is not None and len(names) > 1:
        raise ConfigError(
            f"--machines have layers of one model, and there are {len(names)}",
            hint="ask each by itself with --output, then: edgellm eval compare",
        )
    measures: list[harness_options.Measure] = []
    if tasks:
        kept = Samples(samples, resume=resume)
        rater = _rater(judge_url, judge_model, key_variable)
        measures.append(partial(evaluate, names, tasks, settings, kept, rater=rater))
    if harness_settings is not None:
        measures.append(partial(run_harness, names, harness_settings))
    records, stopped = common.collect_records(harness_options.one_after_another(measures), output)
    show_evaluations(records, json=json, wide=wide)
    if stopped and samples is not None:
        note(f"{samples} has what was answered: the same command with --resume asks the rest")
    return exit_code(records, stopped=stopped)


def _check_names(tasks: Sequence[Task]) -> None:
    """Raise ConfigError where two tasks could not be told apart."""
    names = [task.name for task in tasks]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(
                f"two tasks are called {name}", hint="rename one of the files: it names the task"
            )


def _rater(url: str | None, model: str, key_variable: str | None) -> Rater | None:
    """Return what scores texts; None without a judge."""
    if url is None:
        return None
    from edgellm.bench.evaluation.runs.measures import Rater
    from edgellm.bench.queries.rating import judge

    rate = judge(judge_options.judge_endpoint(url, model, key_variable).reply)
    return Rater(f"{model} at {url}", rate)
