"""Makes a run ready: items of its stage, and a learner of its method."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from edgellm.checkpoint.checkpoint import Checkpoint, read_checkpoint
from edgellm.checkpoint.dialects.names import has_fused_layers
from edgellm.checkpoint.fingerprint import fingerprint
from edgellm.checkpoint.folder import open_folder
from edgellm.errors import ConfigError, FormatError
from edgellm.hub.resolve import locate
from edgellm.memory_plan.plan_checkpoint import budget_for
from edgellm.settings import LoadSettings
from edgellm.tokenizer import Tokenizer
from edgellm.training.data.conversations import Template
from edgellm.training.data.pair_rendering import pairs_in, render_pairs
from edgellm.training.data.pairs import read_pairs
from edgellm.training.data.records import read_records
from edgellm.training.data.rendering import Rendered, render
from edgellm.training.data.windows import windows
from edgellm.training.full.memory import FullMemory, plan_full
from edgellm.training.full.model_folder import LearnedFolder
from edgellm.training.full.weights import number_shapes, require_plain
from edgellm.training.learners.adapter_memory import plan_training
from edgellm.training.learners.adapter_task import AdapterTask, open_learner
from edgellm.training.learners.full import FullLearner, FullTask, open_full
from edgellm.training.learners.learner import Learner, TrainingItem
from edgellm.training.micro_batch import TrainingSequence
from edgellm.training.run.going_on import facts_of, state_of
from edgellm.training.run.request import TrainRequest
from edgellm.training.run.saved_state import SavedState, saved_day
from edgellm.training.start_adapter import StartAdapter, open_start
from edgellm.training.together.tasks import Memory, Task
from edgellm.training.together.together import Together

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
        return [*self.data.notes(), *(f"of --valid: {note}" for note in of_valid)]


def prepare(request: TrainRequest) -> Preparation[Any]:
    """Return a run that can begin: data are read, and memory is planned.

    Args:
        request: what is asked for.

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
    method = _of_all if request.settings.method == "full" else _of_adapter
    sequences = [*data.sequences, *held_out.sequences]
    planned = method(request, checkpoint, start, [*items, *valid], sequences)
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


@dataclass(frozen=True, slots=True)
class _Planned:
    """The memory of a method, and how it begins.

    Attributes:
        memory: of a step.
        parts: of the numbers that are learned: layers, for example.
        open: opens the model, and returns its learner.
    """

    memory: Memory
    parts: int
    open: Callable[[], Learner[Any]]


def _of_all(
    request: TrainRequest,
    checkpoint: Checkpoint,
    _start: StartAdapter | None,
    _items: Sequence[TrainingItem],
    sequences: Sequence[TrainingSequence],
) -> _Planned:
    """Plan to learn every number of a model, of sequences."""
    require_plain(checkpoint)
    lengths = sorted((one.length for one in sequences), reverse=True)
    data = sum(one.nbytes for one in sequences)
    task = FullTask(
        micro_tokens=request.settings.micro_tokens,
        longest=lengths[0],
        step_tokens=sum(lengths[: request.settings.batch]),
    )
    folder = LearnedFolder(checkpoint, request.dtype)
    memory: Memory
    opened: Callable[[], Learner[Any]]
    if request.load.machines is not None:

        def open_own(
            _: FullTask,
            checkpoint: Checkpoint,
            memory: FullMemory,
            load: LoadSettings,
            *,
            look_up: Callable[[], None],
        ) -> FullLearner:
            return open_full(checkpoint, memory, load, folder=folder, look_up=look_up)

        together = _together(request, checkpoint, task, data)
        memory, opened = together.memory, partial(together.open, open_own)
    else:
        memory = whole = plan_full(
            checkpoint.config,
            budget_for(request.load),
            micro_tokens=task.micro_tokens,
            longest=task.longest,
            data=data,
        )
        opened = partial(open_full, checkpoint, whole, request.load, folder=folder)
    return _Planned(memory, len(number_shapes(checkpoint.config)), opened)


def _together(request: TrainRequest, checkpoint: Checkpoint, task: Task, data: int) -> Together:
    """Plan a task on several machines, beside bytes of data. Raises errors as Together does."""
    together = Together(
        task,
        checkpoint,
        request.load,
        shares=request.shares,
        asks=request.answers > 0,
        data=data,
    )
    if request.answers:  # which take minutes: whoever is missing is missed before
        together.check()
    return together


def _of_adapter(
    request: TrainRequest,
    checkpoint: Checkpoint,
    start: StartAdapter | None,
    items: Sequence[TrainingItem],
    sequences: Sequence[TrainingSequence],
) -> _Planned:
    """Plan to learn an adapter, of items and their sequences."""
    settings = request.settings
    prefers = settings.stage == "dpo"
    lengths = sorted((item.length for item in items), reverse=True)
    data = sum(one.nbytes for one in sequences)
    task = AdapterTask(
        lora=settings.lora,
        beta=settings.beta if prefers else None,
        seed=settings.seed,
        micro_tokens=settings.micro_tokens,
        longest=max(one.length for one in sequences),
        step_tokens=sum(lengths[: settings.batch]),
    )
    opened_as = partial(
        open_learner,
        place=request.folder.absolute().parent,
        base=request.model,
        form=request.form,
        start=start,
    )
    memory: Memory
    opened: Callable[[], Learner[Any]]
    if request.load.machines is not None:
        together = _together(request, checkpoint, task, data)
        memory, opened = together.memory, partial(together.open, opened_as, start)
    else:
        memory = own = plan_training(
            checkpoint,
            task.lora,
            budget_for(request.load),
            step_tokens=task.step_tokens,
            micro_tokens=task.micro_tokens,
            longest=task.longest,
            reference=prefers,
            asks=request.answers > 0,
            data=data,
        )
        opened = partial(opened_as, task, checkpoint, own, request.load)
    return _Planned(memory, checkpoint.config.num_hidden_layers, opened)


def _template_of(tokenizer: Tokenizer) -> Template:
    if tokenizer.chat_template is None:
        return "alpaca"
    return "chat"
