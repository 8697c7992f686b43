"""``edgellm train``: learn an adapter from data, on a model that may be larger than memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from edgellm.cli import headings
from edgellm.cli.common import options
from edgellm.cli.common.settings_options import expand_settings
from edgellm.cli.common.values import one_of
from edgellm.console.terminal import note, say, write_json
from edgellm.device.require_mlx import require_backend
from edgellm.errors import ConversionError
from edgellm.setting_values import choice
from edgellm.settings import LoadSettings

if TYPE_CHECKING:
    from edgellm.training.run.settings import TrainSettings
    from edgellm.training.run.train import EpochReport, TrainingRun

LOAD = options.LOAD_OPTIONS.only("memory", "threads", "activations")


@expand_settings
def train(
    model: options.Model,
    data: Annotated[
        Path,
        Argument(
            metavar="DATA",
            help="A jsonl or json file of chats, instructions, completions or texts.",
            rich_help_panel=headings.MODEL,
        ),
    ],
    out: Annotated[
        Path,
        Argument(metavar="OUT", help="The folder of the adapter.", rich_help_panel=headings.MODEL),
    ],
    *,
    load: Annotated[LoadSettings, LOAD],
    rank: Annotated[int, Option(metavar="N", min=1, max=1024, help="Rank of each change.")] = 16,
    alpha: Annotated[
        float, Option(metavar="X", min=0, help="A change is scaled by alpha / rank.")
    ] = 32.0,
    dropout: Annotated[
        float,
        Option(metavar="X", min=0, max=0.99, help="Share of a change's inputs left out at a step."),
    ] = 0.05,
    on: Annotated[
        str,
        Option(
            metavar="NAME,...",
            help="The matrices that are changed: q, k, v, o, gate, up, down, attention, mlp, all.",
        ),
    ] = "q,v",
    layers: Annotated[
        int | None, Option(metavar="N", min=1, help="Change the last N layers; default: all.")
    ] = None,
    rslora: Annotated[
        bool, Option("--rslora", help="Scale changes by alpha / root of rank.")
    ] = False,
    epochs: Annotated[
        int, Option(metavar="N", min=1, help="Times that each record is learned.")
    ] = 3,
    steps: Annotated[
        int | None, Option(metavar="N", min=1, help="Steps in all, instead of epochs.")
    ] = None,
    batch: Annotated[int, Option(metavar="N", min=1, help="Records of a step.")] = 8,
    rate: Annotated[float, Option(metavar="X", min=0, help="The highest learning rate.")] = 2e-4,
    schedule: Annotated[
        str,
        Option(
            metavar="cosine|linear|constant",
            help="How the rate falls.",
            autocompletion=one_of("cosine|linear|constant"),
        ),
    ] = "cosine",
    warmup: Annotated[
        float, Option(metavar="X", min=0, max=1, help="Share of the steps in which the rate rises.")
    ] = 0.03,
    decay: Annotated[float, Option(metavar="X", min=0, help="Weight decay of AdamW.")] = 0.01,
    clip: Annotated[
        float, Option(metavar="X", min=0, help="Largest norm of a step's derivatives; 0: any.")
    ] = 1.0,
    max_tokens: Annotated[
        int, Option(metavar="N", min=2, help="Tokens of a record; longer ones are cut.")
    ] = 1024,
    template: Annotated[
        str | None,
        Option(
            metavar="chat|alpaca",
            help="How records are written; default: the model's chat template, or Alpaca's.",
            autocompletion=one_of("chat|alpaca"),
            rich_help_panel=headings.PROMPT,
        ),
    ] = None,
    valid: Annotated[
        Path | None,
        Option(metavar="FILE", help="Records whose loss is said after each epoch."),
    ] = None,
    resume: Annotated[
        bool,
        Option("--resume", help="Go on with the run in OUT.", rich_help_panel=headings.OUTPUT),
    ] = False,
    save_every: Annotated[
        int,
        Option(
            metavar="N",
            min=0,
            help="Steps between saves; default: at the end of each epoch.",
            rich_help_panel=headings.OUTPUT,
        ),
    ] = 0,
    form: Annotated[
        str,
        Option(
            "--format",
            metavar="peft|mlx-lm",
            help="Who opens the adapter.",
            autocompletion=one_of("peft|mlx-lm"),
            rich_help_panel=headings.OUTPUT,
        ),
    ] = "peft",
    seed: Annotated[
        int, Option(metavar="N", min=0, max=(1 << 31) - 1, help="Seed of all that is drawn.")
    ] = 0,
    json: options.Json = False,
) -> None:
    """Learn an adapter (LoRA) from data, on a model that may be larger than memory.

    A run that was stopped goes on with --resume, bit for bit.
    """
    require_backend()
    from edgellm.training.low_rank import LoraSettings, targets_named
    from edgellm.training.optimizer import RateSettings
    from edgellm.training.run.settings import TrainSettings
    from edgellm.training.run.train import TrainRequest, open_run

    settings = TrainSettings(
        lora=LoraSettings(
            rank=rank,
            alpha=alpha,
            dropout=dropout,
            targets=targets_named(on),
            layers=layers,
            rslora=rslora,
        ),
        rates=RateSettings(
            rate=rate,
            schedule=choice("schedule", schedule, ("cosine", "linear", "constant")),
            warmup=warmup,
            decay=decay,
            clip=clip,
        ),
        epochs=epochs,
        steps=steps,
        batch=batch,
        seed=seed,
        save_every=save_every,
    )
    request = TrainRequest(
        model=model,
        data=data,
        folder=out,
        settings=settings,
        load=load,
        valid=valid,
        template=None if template is None else choice("template", template, ("chat", "alpaca")),
        max_tokens=max_tokens,
        resume=resume,
        form=choice("format", form, ("peft", "mlx-lm")),
    )
    with open_run(request) as run:
        _say_plan(run, settings)
        _follow(run)
        history = run.trainer.history
    if json:
        write_json({"folder": str(out), "epochs": history})
    else:
        command = "chat"
        if run.template == "alpaca":
            command = "generate"
        say(f"next: edgellm {command} {model} --adapter {out}")


def _say_plan(run: TrainingRun, settings: TrainSettings) -> None:
    """Say what will be learned, and what it takes."""
    data, memory, trainer = run.data, run.memory, run.trainer
    for sentence in data.notes():
        note(sentence)
    note(
        f"{len(data.sequences)} sequences of {data.tokens} tokens, of which {data.learned} are "
        f"learned; {trainer.steps} steps of {settings.batch}"
    )
    pinned = f"{memory.pinned} of {memory.count} layers in memory"
    if memory.pinned < memory.count and settings.lora.layers is None:
        pinned += f", {memory.reads} read a step"
    note(f"{memory.total / 1e9:.2f} GB: {pinned}")


def _follow(run: TrainingRun) -> None:
    """Take the steps behind a bar, and say each epoch; Ctrl-C keeps what was learned."""
    from edgellm.console.progress import show_steps
    from edgellm.training.run.trainer import StepReport

    with show_steps() as shown:
        shown.show(run.trainer.step, run.trainer.steps, "the first step")
        try:
            for report in run.run():
                if isinstance(report, StepReport):
                    pace = report.tokens / report.seconds
                    text = f"epoch {report.epoch}, loss {report.loss:.3f}, {pace:.0f} tokens/s"
                    shown.show(report.step, report.steps, text)
                    if not report.applied:
                        shown.note(f"step {report.step} was not applied: its loss is not finite")
                else:
                    shown.note(_sentence(report))
        except ConversionError:  # the disk has refused already
            raise
        except BaseException:
            run.save()
            shown.note("saved as it is: the same command with --resume goes on from here")
            raise


def _sentence(epoch: EpochReport) -> str:
    """Return an epoch's losses in words."""
    parts = []
    if epoch.train is not None:
        parts.append(f"loss {epoch.train:.4f}")
    if epoch.valid is not None:
        parts.append(f"on other records {epoch.valid:.4f}")
    name = f"epoch {epoch.epoch}"
    if epoch.epoch == 0:
        name = "before"
    return f"{name}: {', '.join(parts)} nats a token"
