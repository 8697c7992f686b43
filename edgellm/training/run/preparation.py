"""Makes a run ready: items of its stage, and a learner of its method."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any, Generic, TypeVar

from edgellm.checkpoint.checkpoint import Checkpoint, read_checkpoint
from edgellm.checkpoint.dialects.names import has_fused_layers
from edgellm.checkpoint.fingerprint import fingerprint
from edgellm.checkpoint.folder import open_folder
from edgellm.errors import ConfigError
from edgellm.hub.resolve import locate
from edgellm.memory_plan.plan_checkpoint import budget_for
from edgellm.models.arithmetic import engine_for
from edgellm.tokenizer import Tokenizer
from edgellm.training.data.conversations import Template
from edgellm.training.data.pair_rendering import pairs_in, render_pairs
from edgellm.training.data.pairs import read_pairs
from edgellm.training.data.records import read_records
from edgellm.training.data.rendering import Rendered, render
from edgellm.training.data.windows import windows
from edgellm.training.full.memory import FullMemory, plan_full
from edgellm.training.full.weights import number_shapes, require_plain
from edgellm.training.kept_inputs import InputsOnDisk
from edgellm.training.learners.adapter import AdapterLearner
from edgellm.training.learners.full import FullLearner
from edgellm.training.learners.learner import Learner, TrainingItem
from edgellm.training.learners.preference import PreferenceLearner
from edgellm.training.micro_batch import PreferencePair, TrainingSequence
from edgellm.training.run.going_on import facts_of, state_of
from edgellm.training.run.memory import TrainingMemory, plan_training
from edgellm.training.run.request import TrainRequest
from edgellm.training.run.saved_state import SavedState, saved_day
from edgellm.training.start_adapter import StartAdapter, open_start
from edgellm.training.trained_model import OpenModel

Item = TypeVar("Item", bound=TrainingItem)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation(Generic[Item]):
    """A run that can begin.

    Attributes:
        request: what is asked for, with the settings that follow from a start.
        template: that the records are written in.
        data: what became of the records.
        items: that are learned.
        valid: that are not, whose loss is said after each epoch.
        valid_bytes: of the texts of these; 0 where not all of a record is learned.
        memory: what it takes.
        facts: what a run must have in common with one that goes on from it.
        state: where to go on; None begins.
        learner: of the open model.
        is_fused: whether the model's files hold several of a layer's matrices in one.
    """

    request: TrainRequest
    template: Template
    data: Rendered
    items: Sequence[Item]
    valid: Sequence[Item]
    valid_bytes: int = 0
    memory: TrainingMemory | FullMemory
    facts: Mapping[str, Any]
    state: SavedState | None
    learner: Learner[Item]
    is_fused: bool


Meanwhile = Callable[[Sequence[TrainingSequence], Tokenizer, TrainRequest], None]
"""Is called with sequences (those that are not learned, if there are such) before a model opens."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request with the model that it names, and all else that a run is prepared from.

    Attributes:
        request: what is asked for, with the settings that follow from a start.
        checkpoint: the model.
        tokenizer: its own.
        start: the adapter that the run begins with, if any.
        meanwhile: as ``prepare`` has it.
    """

    request: TrainRequest
    checkpoint: Checkpoint
    tokenizer: Tokenizer
    start: StartAdapter | None
    meanwhile: Meanwhile

    def facts(self, data: Rendered) -> Mapping[str, Any]:
        """Return what a run must have in common with one that goes on from it."""
        start = None if self.start is None else self.start.opened.fingerprint()
        model = fingerprint(self.checkpoint)
        return facts_of(self.request, model, data, day=self.tokenizer.today, start=start)

    @property
    def is_fused(self) -> bool:
        """Whether the model's files hold several of a layer's matrices in one."""
        return has_fused_layers(open_folder(self.checkpoint.folder.path).config)


def prepare(request: TrainRequest, meanwhile: Meanwhile = lambda *_: None) -> Preparation[Any]:
    """Return a run that can begin: data are read, memory is planned, and the model is open.

    A stage has items of its own, and a method a learner: each is a function here.

    Args:
        request: what is asked for.
        meanwhile: called when all has been checked, and no model is in memory yet.

    Raises:
        ConfigError, FormatError, MemoryBudgetError, ModelNotFoundError, ReadError: something does
            not fit, before anything is learned.
        UnsupportedModelError: the model runs through mlx-lm alone, and cannot be trained here.
    """
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
    asked = _Asked(request, checkpoint, tokenizer, start, meanwhile)
    if request.settings.stage == "dpo":
        return _of_pairs(asked)
    return _of_sequences(asked)


def _of_sequences(asked: _Asked) -> Preparation[TrainingSequence]:
    """Return a run over sequences, whose next tokens are learned."""
    request, checkpoint, tokenizer = asked.request, asked.checkpoint, asked.tokenizer
    template = request.template or _template_of(tokenizer)
    data = _rendered(request, request.data, tokenizer, template)
    held_out = Rendered()
    if request.valid is not None:
        held_out = _rendered(request, request.valid, tokenizer, template)
    facts = asked.facts(data)
    items = [*data.sequences, *held_out.sequences]
    if request.settings.method == "full":
        full = _planned_whole(request, checkpoint, items)
        memory: FullMemory | TrainingMemory = full
        state = state_of(request, facts, len(number_shapes(checkpoint.config)), data.sequences)
        asked.meanwhile(held_out.sequences or data.sequences, tokenizer, request)
        learner: Learner[TrainingSequence] = FullLearner(
            checkpoint,
            micro_tokens=full.micro_tokens,
            keeps_results=full.results > 0,
            kernels=engine_for(request.load),
            dtype=request.dtype,
        )
    else:
        adapted = _planned(request, checkpoint, items)
        memory = adapted
        state = state_of(request, facts, checkpoint.config.num_hidden_layers, data.sequences)
        asked.meanwhile(held_out.sequences or data.sequences, tokenizer, request)
        learner = AdapterLearner(**_of_adapter(asked, adapted))
    return Preparation(
        request=request,
        template=template,
        data=data,
        items=data.sequences,
        valid=held_out.sequences,
        valid_bytes=held_out.text_bytes,
        memory=memory,
        facts=facts,
        state=state,
        learner=learner,
        is_fused=asked.is_fused,
    )


def _of_pairs(asked: _Asked) -> Preparation[PreferencePair]:
    """Return a run over pairs: that one answer is better than another is learned."""
    request, checkpoint, tokenizer = asked.request, asked.checkpoint, asked.tokenizer
    template = request.template or _template_of(tokenizer)
    data = _rendered_pairs(request, request.data, tokenizer, template)
    held_out = Rendered()
    if request.valid is not None:
        held_out = _rendered_pairs(request, request.valid, tokenizer, template)
    pairs, valid = pairs_in(data), pairs_in(held_out)
    memory = _planned(
        request,
        checkpoint,
        [*pairs, *valid],
        longest=max(one.length for one in [*data.sequences, *held_out.sequences]),
        reference=True,
    )
    facts = asked.facts(data)
    state = state_of(request, facts, checkpoint.config.num_hidden_layers, pairs)
    asked.meanwhile([pair.chosen for pair in valid or pairs], tokenizer, request)
    return Preparation(
        request=request,
        template=template,
        data=data,
        items=pairs,
        valid=valid,
        memory=memory,
        facts=facts,
        state=state,
        learner=PreferenceLearner(**_of_adapter(asked, memory), beta=request.settings.beta),
        is_fused=asked.is_fused,
    )


def _planned(
    request: TrainRequest,
    checkpoint: Checkpoint,
    items: Sequence[TrainingItem],
    *,
    longest: int | None = None,
    reference: bool = False,
) -> TrainingMemory:
    """Return the memory of learning an adapter.

    Args:
        request: of the run.
        checkpoint: the model.
        items: of which a step has the largest at worst.
        longest: tokens of the longest sequence; None: of the longest item.
        reference: whether the model as it was computes, too.
    """
    lengths = sorted((item.length for item in items), reverse=True)
    return plan_training(
        checkpoint,
        request.settings.lora,
        budget_for(request.load),
        step_tokens=sum(lengths[: request.settings.batch]),
        micro_tokens=request.settings.micro_tokens,
        longest=longest or lengths[0],
        reference=reference,
        asks=request.answers > 0,
    )


def _planned_whole(
    request: TrainRequest, checkpoint: Checkpoint, items: Sequence[TrainingItem]
) -> FullMemory:
    require_plain(checkpoint)
    return plan_full(
        checkpoint.config,
        budget_for(request.load),
        micro_tokens=request.settings.micro_tokens,
        longest=max(item.length for item in items),
        data_tokens=sum(item.length for item in items),
    )


def _of_adapter(asked: _Asked, memory: TrainingMemory) -> dict[str, Any]:
    """Return what a learner of an adapter is made of, by name; the model is opened."""
    request, checkpoint = asked.request, asked.checkpoint
    lora = request.settings.lora
    inputs = None
    if memory.inputs_on_disk:
        place = request.folder.absolute().parent
        inputs = InputsOnDisk(place, memory.inputs_on_disk, memory.disk_bytes)
    return {
        "opened": OpenModel(checkpoint, lora, memory.in_memory, request.load, inputs=inputs),
        "config": checkpoint.config,
        "lora": lora,
        "micro_tokens": memory.micro_tokens,
        "seed": request.settings.seed,
        "base": request.model,
        "form": request.form,
        "start": asked.start,
    }


def _rendered(
    request: TrainRequest, path: Path, tokenizer: Tokenizer, template: Template
) -> Rendered:
    records = read_records(path)
    if request.settings.stage == "text":
        return windows(records, tokenizer, max_tokens=request.max_tokens)
    return render(records, tokenizer, template=template, max_tokens=request.max_tokens)


def _rendered_pairs(
    request: TrainRequest, path: Path, tokenizer: Tokenizer, template: Template
) -> Rendered:
    return render_pairs(
        read_pairs(path), tokenizer, template=template, max_tokens=request.max_tokens
    )


def _template_of(tokenizer: Tokenizer) -> Template:
    if tokenizer.chat_template is None:
        return "alpaca"
    return "chat"
