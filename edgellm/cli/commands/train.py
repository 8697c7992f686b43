"""``edgellm train``: learn an adapter from data, on a model that may be larger than memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument

from edgellm.cli import headings
from edgellm.cli.common import options
from edgellm.cli.common.settings_options import expand_settings
from edgellm.cli.common.train_options import TRAIN_OPTIONS, TrainOptions
from edgellm.cli.signals.stop_signals import STOP
from edgellm.console.progress import show_doing, show_sending
from edgellm.console.terminal import note, say, write_json
from edgellm.console.training.end_view import show_answers, show_epochs
from edgellm.console.training.steps_view import ShownStep, StepsView, show_training
from edgellm.console.units import plural, size
from edgellm.device.require_mlx import require_backend
from edgellm.errors import ConversionError, NotFiniteError
from edgellm.setting_values import choice
from edgellm.settings import LoadSettings

if TYPE_CHECKING:
    from edgellm.training.answers.kept_answers import Ask
    from edgellm.training.run.train import EpochReport, TrainingRun

STEPS = 10.0
"""Steps whose loss and speed are shown as one."""

LOAD = options.LOAD_OPTIONS.only("memory", "threads", "activations", "machines")


@expand_settings
def train(
    model: options.Model,
    data: Annotated[
        Path,
        Argument(
            metavar="DATA",
            help="A json or jsonl file of chats, instructions, completions, texts or preferences; "
            "or a text file.",
            rich_help_panel=headings.MODEL,
        ),
    ],
    out: Annotated[
        Path,
        Argument(
            metavar="OUT",
            help="The folder of the adapter, or of the model with --full.",
            rich_help_panel=headings.MODEL,
        ),
    ],
    *,
    load: Annotated[LoadSettings, LOAD],
    training: Annotated[TrainOptions, TRAIN_OPTIONS],
    json: options.Json = False,
) -> None:
    """Learn an adapter (LoRA) from data, on a model that may be larger than memory.

    With --full every number of a small model is learned, and OUT is a model.

    A run that was stopped goes on with --resume, bit for bit.
    """
    require_backend()
    from edgellm.training.run.page_facts import PAGE
    from edgellm.training.run.train import TrainRequest, open_run

    settings = training.settings()
    request = TrainRequest(
        model=model,
        data=data,
        folder=out,
        settings=settings,
        load=load,
        valid=training.valid,
        template=training.template_named(),
        max_tokens=training.max_tokens,
        resume=training.resume,
        form=choice("format", training.form, ("peft", "mlx-lm")),
        dtype=training.written_dtype(),
        start=training.start(),
        answers=training.answers,
        shares=training.given_shares(),
    )
    # questions are answered here alone
    asker = _asker(replace(load, machines=None), training)
    with show_sending() as sending, open_run(request, asker, show_doing, sending) as run:
        _say_plan(run, settings.batch)
        with show_training() as shown:
            _follow(run, shown)
        try:
            run.answer()
        except KeyboardInterrupt:
            note("what was learned is saved; the same command with --resume asks for the answers")
            raise
        history, answers = run.trainer.history, run.answers.as_plain()
    page = out / PAGE
    if json:
        write_json({"folder": str(out), "page": str(page), "epochs": history, "answers": answers})
        return
    show_epochs(history)
    show_answers(answers)
    say(f"page: {page}")
    command = "chat"
    if run.template != "chat" or settings.stage == "text":
        command = "generate"
    named = f"{model} --adapter {out}"
    if settings.method == "full":
        named = str(out)
    if command == "generate":
        named += " --prompt TEXT"
    say(f"next: edgellm {command} {named}")


def _asker(load: LoadSettings, training: TrainOptions) -> Ask | None:
    """Return what asks models before and after; None where nobody wants it."""
    if not training.answers:
        return None
    from edgellm.training.answers.ask import Asker

    return Asker(load, training.answer_tokens, note, show_doing)


def _say_plan(run: TrainingRun, batch: int) -> None:
    """Say what will be learned, and what it takes."""
    data, memory, trainer = run.data, run.memory, run.trainer
    for sentence in run.notes:
        note(sentence)
    note(
        f"{data.counted} of {plural(data.tokens, 'token')}, of which "
        f"{data.learned:,} are learned; {plural(trainer.steps, 'step')} of {batch}"
    )
    note(memory.in_words())
    largest = sorted(memory.parts.items(), key=lambda part: -part[1])
    shown = [part for part in largest if part[1] > 0.01 * memory.total]
    note("; ".join(f"{name}: {size(nbytes)}" for name, nbytes in shown))


def _follow(run: TrainingRun, shown: StepsView) -> None:
    """Take the steps behind a bar, and say each epoch; Ctrl-C keeps what was learned."""
    from edgellm.device.machine import process_memory
    from edgellm.training.data.rendering import listed_lines
    from edgellm.training.page.curves import Smoothing
    from edgellm.training.run.trainer import StepReport

    loss, times, tokens = Smoothing(STEPS), Smoothing(STEPS), Smoothing(STEPS)
    smooth: float | None = None
    try:
        for report in run.run():
            if not isinstance(report, StepReport):
                shown.note(_sentence(report))
                continue
            if report.applied:
                smooth = loss.add(report.loss)
            else:
                records = listed_lines(report.lines, "record") if report.lines else "its records"
                shown.note(
                    f"step {report.step} was not applied: loss or derivatives of {records} are "
                    "not finite"
                )
            a_step = times.add(report.seconds)
            shown.step(
                ShownStep(
                    done=report.step,
                    total=report.steps,
                    loss=smooth,
                    tokens_per_second=tokens.add(report.tokens) / a_step,
                    seconds_left=a_step * (report.steps - report.step),
                    memory=process_memory(),
                    planned=run.memory.total,
                    figures=report.figures,
                    shares=report.shares,
                )
            )
    except ConversionError:  # the disk has refused already
        if run.saved is not None:
            shown.note(f"step {run.saved} is saved: with --resume the command goes on from there")
        raise
    except NotFiniteError:
        shown.note("the last save stays: numbers that came later are of no use")
        raise
    except BaseException:
        shown.doing("saving")
        with STOP.unhurried():  # a large adapter on a slow disk may take minutes
            run.save()
        shown.note("saved as it is: the same command with --resume goes on from here")
        raise


def _sentence(epoch: EpochReport) -> str:
    """Return an epoch's losses in words."""
    parts = []
    if epoch.train is not None:
        parts.append(_losses(epoch.train, epoch.figures))
    if epoch.valid is not None:
        parts.append(f"on other records {_losses(epoch.valid, epoch.valid_figures)}")
    if not parts:
        parts.append("no step was applied")
    name = f"epoch {epoch.epoch}"
    if epoch.epoch == 0:
        name = "before"
    said = f"{name}: {'; '.join(parts)}"
    if epoch.bits_per_byte is not None:
        said += f", {epoch.bits_per_byte:.3f} bits a byte"
    return said


def _losses(loss: float, figures: Mapping[str, float]) -> str:
    """Return a loss and what else is to be known in words."""
    others = [f"{name} {value:.3f}" for name, value in figures.items()]
    return ", ".join([f"loss {loss:.4f} nats", *others])
