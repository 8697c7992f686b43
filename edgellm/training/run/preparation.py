"""Makes a run ready: items of its stage, and a learner of its method."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any, Generic, TypeVar

from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.checkpoint.dialects.names import has_fused_layers
from edgellm.checkpoint.fingerprint import fingerprint
from edgellm.checkpoint.folder import open_folder
from edgellm.errors import ConfigError, FormatError
from edgellm.hub.resolve import locate
from edgellm.runtime.loader import SendProgress
from edgellm.tokenizer import Tokenizer
from edgellm.training.data.conversations import Template
from edgellm.training.data.pair_rendering import pairs_in, render_pairs
from edgellm.training.data.pairs import read_pairs
from edgellm.training.data.records import read_records
from edgellm.training.data.rendering import Rendered, render
from edgellm.training.data.windows import windows
from edgellm.training.learners.learner import Learner, TrainingItem
from edgellm.training.micro_batch import TrainingSequence
from edgellm.training.run.going_on import facts_of, state_of
from edgellm.training.run.planned import plan_of_adapter, plan_of_all
from edgellm.training.run.request import TrainRequest
from edgellm.training.run.saved_state import SavedState, saved_day
from edgellm.training.start_adapter import open_start
from edgellm.training.together.tasks import Memory

Item = TypeVar("Item", bound=TrainingItem)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation(Generic[Item]):
    """A run that can begin, whose model is not open yet.

    Attributes:
        request: what is asked for, with the settings that follow from a start.
        tokenizer: of the model.
        template: that the records are written in.
        data: what became of the records.
        held_out: what became of those that are not learned.
        items: that are learned.
        valid: that are not, whose loss is said after each epoch.
        memory: what it takes.
        facts: what a run must have in common with one that goes on from it.
        state: where to go on; None begins.
        open: opens the model, and returns its learner.
        is_fused: whether the model's files hold several of a layer's matrices in one.
    """

    request: TrainRequest
    tokenizer: Tokenizer
    template: Template
    data: Rendered
    held_out: Rendered
    items: Sequence[Item]
    valid: Sequence[Item]
    memory: Memory
    facts: Mapping[str, Any]
    state: SavedState | None
    open: Callable[[], Learner[Item]]
    is_fused: bool

    @property
    def asked_of(self) -> Sequence[TrainingSequence]:
        """Sequences that questions are taken of: those that are not learned, if there are such."""
        sequences = self.held_out.sequences or self.data.sequences
        # of a pair the chosen one comes first
        return sequences[::2] if self.request.settings.stage == "dpo" else sequences

    def said_of_records(self) -> list[str]:
        """Return what a person should know of the records, in sentences."""
        of_valid = self.held_out.notes(verb="counted")
        both = self.held_out.in_common(self.data)
        if both:
            of_valid.append(
                f"{both:,} of {self.held_out.counted} are learned, too: a loss of records that "
                "are not says more"
            )
        return [*self.data.notes(), *(f"of --valid: {note}" for note in of_valid)]


def prepare(request: TrainRequest, sending: SendProgress | None = None) -> Preparation[Any]:
    """Return a run that can begin: data are read, and memory is planned.

    Args:
        request: what is asked for.
        sending: told of what is sent to machines that have not got the model.

    Raises:
        ConfigError, FormatError, MemoryBudgetError, ModelNotFoundError, ReadError: something does
            not fit, before anything is learned.
        UnsupportedModelError: the model runs through mlx-lm alone, and cannot be trained here.
    """
    if request.shares is not None and request.load.machines is None:
        raise ConfigError(
            "--shares are those of several machines, and there is one",
            hint="name the machines with --machines, or leave out --shares",
        )
    checkpoint = read_checkpoint(locate(request.model))
    tokenizer = Tokenizer.from_folder(
        checkpoint.folder.path, vocab_size=checkpoint.config.vocab_size
    )
    day = saved_day(request.folder) if request.resume else date.today().isoformat()
    tokenizer.today = day  # templates that write it would make other data of the same file tomorrow
    start = None
    if request.start is not None:
        if request.settings.method == "full":
            raise ConfigError(
                "--full learns the model's own numbers, and begins with no adapter",
                hint="merge it first: edgellm convert MODEL DEST --adapter FOLDER --bits 16",
            )
        start = open_start(request.start, checkpoint, request.settings.lora)
        settings = replace(request.settings, lora=start.lora)
        request = replace(request, settings=settings)
    template = request.template or _template_of(tokenizer)
    data, held_out = _rendered(request, request.data, tokenizer, template), Rendered()
    if request.valid is not None:
        held_out = _rendered(request, request.valid, tokenizer, template)
    items, valid = _items(request, data), _items(request, held_out)
    method = plan_of_all if request.settings.method == "full" else plan_of_adapter
    sequences = [*data.sequences, *held_out.sequences]
    planned = method(request, checkpoint, start, [*items, *valid], sequences, sending=sending)
    facts = facts_of(
        request,
        fingerprint(checkpoint),
        data,
        day=day,
        start=None if start is None else start.opened.fingerprint(),
    )
    return Preparation(
        request=request,
        tokenizer=tokenizer,
        template=template,
        data=data,
        held_out=held_out,
        items=items,
        valid=valid,
        memory=planned.memory,
        facts=facts,
        state=state_of(request, facts, planned.parts, items),
        open=planned.open,
        is_fused=has_fused_layers(open_folder(checkpoint.folder.path).config),
    )


def _rendered(
    request: TrainRequest, path: Path, tokenizer: Tokenizer, template: Template
) -> Rendered:
    """Return the sequences that a stage makes of a file."""
    most = request.max_tokens
    prefers = request.settings.stage == "dpo"
    pairs, records = (read_pairs(path), []) if prefers else ([], read_records(path))
    try:
        if prefers:
            return render_pairs(pairs, tokenizer, template=template, max_tokens=most)
        if request.settings.stage == "text":
            return windows(records, tokenizer, max_tokens=most)
        return render(records, tokenizer, template=template, max_tokens=most)
    except (ConfigError, FormatError) as error:
        # it says the lines of records alone, and there may be two files of them
        raise type(error)(f"{path}, {error.message}", hint=error.hint) from error


def _items(request: TrainRequest, rendered: Rendered) -> Sequence[TrainingItem]:
    """Return the items that steps learn: pairs of preferences, or sequences."""
    return pairs_in(rendered) if request.settings.stage == "dpo" else rendered.sequences


def _template_of(tokenizer: Tokenizer) -> Template:
    if tokenizer.chat_template is None:
        return "alpaca"
    return "chat"
