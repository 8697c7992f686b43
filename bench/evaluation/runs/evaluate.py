"""Every model, asked every question in every way: a record for each run, as it ends."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from edgellm.bench.evaluation.runs.measures import Measures, Rater
from edgellm.bench.evaluation.runs.outcomes import columns_of, outcome_of, sample_of
from edgellm.bench.evaluation.runs.run import EvaluatedModel, Run, question_hash
from edgellm.bench.evaluation.runs.samples import Samples
from edgellm.bench.evaluation.runs.session import Session
from edgellm.bench.evaluation.runs.settings import (
    LATENCY_QUESTIONS,
    Ask,
    EvaluationSettings,
)
from edgellm.bench.evaluation.tasks.prompts import Prompt, PromptSet
from edgellm.bench.evaluation.tasks.task import Task
from edgellm.bench.machine.environment import environment
from edgellm.bench.metrics.table import METRICS
from edgellm.bench.records.evaluation import EvaluationRecord
from edgellm.bench.worker.protocol import error_sentence
from edgellm.bench.worker.status import Status, StatusCallback
from edgellm.device import machine
from edgellm.errors import ConversionError, EdgeLLMError
from edgellm.files.locations import temporary_folder
from edgellm.hub.resolve import locate
from edgellm.models.through_mlx_lm.checkpoint import read_any_checkpoint


def evaluate(
    models: Sequence[str],
    tasks: Sequence[Task],
    settings: EvaluationSettings,
    samples: Samples,
    *,
    rater: Rater | None = None,
    progress: StatusCallback = lambda _: None,
) -> Generator[EvaluationRecord]:
    """Yield a record for each model, its threads and KV bits, and each way to ask each task.

    A run that fails is a record with its error, and the others go on. The first model with its
    first settings is the reference: texts that models go on with are scored by it, and its logits
    are what those of others are compared with.

    Args:
        models: names or paths.
        tasks: what is asked.
        settings: how.
        samples: what is known already, and where outcomes are kept.
        rater: scores texts that go on with a prompt.
        progress: told about each question.
    """
    evaluation = _Evaluation(
        models, tasks, settings, samples=samples, rater=rater, progress=progress
    )
    try:
        yield from evaluation.records()
    finally:
        samples.close()


class _Evaluation:
    def __init__(
        self,
        models: Sequence[str],
        tasks: Sequence[Task],
        settings: EvaluationSettings,
        *,
        samples: Samples,
        rater: Rater | None,
        progress: StatusCallback,
    ) -> None:
        self._names = list(dict.fromkeys(models))
        self._settings, self._samples = settings, samples
        self._rater, self._progress = rater, progress
        self._runs = [
            Run(ask, _prompts(ask, settings), settings)
            for task in tasks
            for ask in settings.asks(task)
        ]
        self._loads = settings.loads()
        questions = sum(len(run.prompts.prompts) for run in self._runs)
        self._total = questions * len(self._names) * len(self._loads)
        self._asked = 0
        self._environment = environment()
        self._alone: dict[Any, Mapping[str, Any]] = {}

    def records(self) -> Generator[EvaluationRecord]:
        """Yield the records, those of texts that the reference scores last."""
        models, errors = self._opened()
        with temporary_folder() as folder:
            held: list[tuple[Run, EvaluatedModel]] = []
            measures = None
            if models:
                measures = Measures(models[0], self._samples, folder, self._rater)
            for name in self._names:
                if name in errors:
                    self._asked += self._total // len(self._names)
                    for run in self._runs:
                        yield self._failed(run, {"model": name}, errors[name])
                for model in models:
                    if model.name != name:
                        continue
                    assert measures is not None, "there is a model"
                    with Session(model, timeout=self._settings.timeout) as session:
                        for run in self._runs:
                            record = self._record(run, session, measures, models)
                            if record.error is None and self._is_looked_at(run):
                                held.append((run, model))
                            else:
                                yield record
            if held:
                assert measures is not None, "a run has ended"
                yield from self._scored_by_reference(held, measures)

    def _opened(self) -> tuple[list[EvaluatedModel], dict[str, EdgeLLMError]]:
        """Return the models with their settings, and the errors of those that cannot be read."""
        models: list[EvaluatedModel] = []
        errors: dict[str, EdgeLLMError] = {}
        for name in self._names:
            try:
                checkpoint = read_any_checkpoint(locate(name))
            except EdgeLLMError as error:
                errors[name] = error
                continue
            models += [EvaluatedModel(name, checkpoint, load) for load in self._loads]
        return models, errors

    def _record(
        self, run: Run, session: Session, measures: Measures, models: Sequence[EvaluatedModel]
    ) -> EvaluationRecord:
        """Return the record of a run, with an error where it failed."""
        model = session.model
        before = self._asked
        try:
            ended = self._samples.end_of(run.whole_key(model))
            missing = self._missing(run, model)
            if ended is None or missing:
                ended = self._ask(run, session, missing)
            if run.ask.task.kind.way == "read" and len(models) > 1:
                self._compare(run, session, measures, models)
        except ConversionError:  # the disk takes no more samples, of other runs neither
            raise
        except EdgeLLMError as error:
            return self._failed(run, model.fields, error)
        finally:
            self._asked = before + len(run.prompts.prompts)
        return self._of_samples(run, model, measures, ended)

    def _missing(self, run: Run, model: EvaluatedModel) -> list[Prompt]:
        known = run.outcomes(self._samples.known(run.key(model)))
        return [prompt for prompt in run.prompts.prompts if prompt.question.id not in known]

    def _ask(self, run: Run, session: Session, missing: Sequence[Prompt]) -> Mapping[str, Any]:
        """Ask what is not known yet, and how long a question takes alone; return the costs."""
        key = run.key(session.model)
        self._asked += len(run.prompts.prompts) - len(missing)
        self._tell(session.model, run, "loading")
        loaded = session.loaded
        others: dict[str, Any] = {"stride": self._settings.stride}
        if run.ask.decoding is not None:
            others = {"sampling": run.sampling}
        latest = time.perf_counter()
        self._tell(session.model, run, "asking")
        way = run.ask.task.kind.way
        for message in session.ask_many(way, run.messages(missing), **others):
            now = time.perf_counter()
            question = missing[message["place"]].question
            sample = sample_of(message, question, now - latest)
            self._samples.add(key, question.id, {"asked": run.asked[question.id], **sample})
            latest = now
            self._asked += 1
            self._tell(session.model, run, "asking")
        costs = session.ended
        alone = self._latency(run, session)
        ended = {
            "device": loaded.device,
            "arithmetic": loaded.arithmetic,
            "kv_bits": loaded.kv_bits,
            "machines": loaded.machines,
            "links": loaded.links,
            "split": loaded.split,
            "load_seconds": loaded.load_seconds,
            "first_token_seconds": alone["first_token_seconds"],
            "step_seconds": alone["step_seconds"],
            "peak_memory_bytes": alone["peak_memory_bytes"],
        }
        if len(missing) == len(run.prompts.prompts):  # of a part these would say too little
            ended |= costs
        self._samples.end(run.whole_key(session.model), ended)
        return ended

    def _latency(self, run: Run, session: Session) -> Mapping[str, Any]:
        """Return how long a few questions take that are asked alone; decodings share them."""
        asked = session.model, run.ask.task.name, run.ask.shots
        if asked not in self._alone:
            self._tell(session.model, run, "measuring latency")
            few = run.messages(run.prompts.prompts[:LATENCY_QUESTIONS])
            list(session.ask("latency", few))
            self._alone[asked] = session.ended
        return self._alone[asked]

    def _compare(
        self, run: Run, session: Session, measures: Measures, models: Sequence[EvaluatedModel]
    ) -> None:
        """Write the reference's logits for some texts, or compare others' with them."""
        if session.model is measures.reference:
            if not all(measures.has_compared(run, other) for other in models[1:]):
                self._tell(session.model, run, "writing logits")
                measures.write_logits(run, session)
        elif not measures.has_compared(run, session.model):
            self._tell(session.model, run, "comparing logits")
            measures.compare_logits(run, session)

    def _scored_by_reference(
        self, held: Sequence[tuple[Run, EvaluatedModel]], measures: Measures
    ) -> Iterator[EvaluationRecord]:
        """Yield records with the likelihood of their texts by the reference, and their ratings."""
        with Session(measures.reference, timeout=self._settings.timeout) as session:
            for run, model in held:
                failure = None
                try:
                    if run.needs_reference:
                        self._tell(model, run, "scoring texts")
                        measures.score_texts(run, model, session)
                    measures.rate_texts(run, model, partial(self._tell, model, run))
                except ConversionError:
                    raise
                except EdgeLLMError as error:
                    failure = error_sentence(error)
                ended = self._samples.end_of(run.whole_key(model))
                assert ended is not None, "it has ended before"
                record = self._of_samples(run, model, measures, ended)
                yield replace(record, error=record.error or failure)

    def _is_looked_at(self, run: Run) -> bool:
        """Return whether the reference or the judge has to read a run's texts."""
        is_text = run.ask.task.kind.way == "generated"
        return run.needs_reference or (self._rater is not None and is_text)

    def _of_samples(
        self, run: Run, model: EvaluatedModel, measures: Measures, ended: Mapping[str, Any]
    ) -> EvaluationRecord:
        """Return the record of a run whose outcomes are all known."""
        outcomes = run.outcomes(self._samples.known(run.key(model)))
        measured = measures.of(run, model)
        kind, questions = run.ask.task.kind, run.questions
        try:
            columns = columns_of(
                [
                    (
                        kind.columns(question, outcome_of(outcomes[question.id])),
                        {**outcomes[question.id], **measured[question.id]},
                    )
                    for question in questions
                ]
            )
            names = [*kind.metrics, "rating"]
            defined = [name for name in names if METRICS[name].is_defined(columns)]
            metrics = {name: METRICS[name].of(columns) for name in defined}
            signatures = kind.signatures(questions)
        except EdgeLLMError as error:
            return self._failed(run, model.fields, error)
        common = {"environment": self._environment, **run.fields, **model.fields, **ended}
        return EvaluationRecord(
            **common,
            metrics=metrics,
            signatures=signatures,
            question_ids=tuple(question.id for question in questions),
            question_hashes=tuple(map(question_hash, questions)),
            documents=tuple(question.document for question in questions),
            columns=columns,
            seconds=(sum(outcomes[question.id]["seconds"] for question in questions),),
        )

    def _failed(self, run: Run, fields: Mapping[str, Any], error: EdgeLLMError) -> EvaluationRecord:
        common = {"environment": self._environment, **run.fields, **fields}
        common.setdefault("device", machine.chip_name())
        return EvaluationRecord(**common, error=error_sentence(error))

    def _tell(self, model: EvaluatedModel, run: Run, doing: str) -> None:
        self._progress(
            Status(self._asked + 1, self._total, f"{model.title}, {run.ask.title}", doing)
        )


def _prompts(ask: Ask, settings: EvaluationSettings) -> PromptSet:
    questions = settings.questions(ask.task)
    return ask.task.prompts(questions, ask.shots, ask.shot_seed, settings.chat)
