"""Every model, asked every question in every way: a record for each run, as it ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from edgellm.bench.evaluation.runs.outcomes import columns_of, outcome_of, sample_of
from edgellm.bench.evaluation.runs.run import EvaluatedModel, Run, question_hash
from edgellm.bench.evaluation.runs.samples import Samples
from edgellm.bench.evaluation.runs.session import Session
from edgellm.bench.evaluation.runs.settings import (
    KL_TOKENS,
    LATENCY_QUESTIONS,
    Ask,
    EvaluationSettings,
)
from edgellm.bench.evaluation.tasks.prompts import PromptSet
from edgellm.bench.evaluation.tasks.task import Task
from edgellm.bench.machine.environment import environment
from edgellm.bench.metrics.table import METRICS
from edgellm.bench.records.evaluation import EvaluationRecord
from edgellm.bench.worker.protocol import error_sentence
from edgellm.bench.worker.status import Status, StatusCallback
from edgellm.device import machine
from edgellm.errors import EdgeLLMError
from edgellm.files.locations import temporary_folder
from edgellm.hub.resolve import locate
from edgellm.models.through_mlx_lm.checkpoint import read_any_checkpoint

Rater = Callable[[str, str], float | None]
"""Of a prompt and its answer: a score from 1 to 10, or None."""


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
        samples.flush()


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
        self._names, self._settings, self._samples = models, settings, samples
        self._rater, self._progress = rater, progress
        self._runs = [
            Run(ask, _prompts(ask, settings), settings)
            for task in tasks
            for ask in settings.asks(task)
        ]
        self._loads = [
            {**settings.load, "threads": threads, "kv_bits": bits}
            for threads, bits in product(settings.threads, settings.kv_bits)
        ]
        questions = sum(len(run.prompts.prompts) for run in self._runs)
        self._total = questions * len(models) * len(self._loads)
        self._asked = 0
        self._reference: EvaluatedModel | None = None
        self._environment = environment()
        self._alone: dict[Any, Mapping[str, Any]] = {}

    def records(self) -> Generator[EvaluationRecord]:
        """Yield the records, those of texts that the reference scores last."""
        with temporary_folder() as folder, ExitStack() as closing:
            held: list[tuple[Run, EvaluatedModel, EvaluationRecord]] = []
            for name in self._names:
                try:
                    checkpoint = read_any_checkpoint(locate(name))
                except EdgeLLMError as error:
                    self._asked += self._total // len(self._names)
                    for run in self._runs:
                        yield self._failed(run, {"model": name}, error)
                    continue
                for load in self._loads:
                    model = EvaluatedModel(name, checkpoint, load)
                    if self._reference is None:
                        self._reference = model
                    with Session(model, timeout=self._settings.timeout) as session:
                        for number, run in enumerate(self._runs):
                            record = self._record(run, session, folder / str(number))
                            if record.error is None and run.needs_reference:
                                held.append((run, model, record))
                            else:
                                yield record
            yield from self._scored_by_reference(held, closing)

    def _record(self, run: Run, session: Session, folder: Path) -> EvaluationRecord:
        """Return the record of a run, with an error where it failed."""
        model = session.model
        key = run.key(model)
        before = self._asked
        try:
            ended = self._samples.end_of(key)
            if ended is None:
                ended = self._ask_all(run, session, key)
            if run.ask.task.kind.way == "read":
                self._compare(run, session, key, folder)
        except EdgeLLMError as error:
            return self._failed(run, model.fields, error)
        finally:
            self._asked = before + len(run.prompts.prompts)
        return self._of_samples(run, model.fields, key, ended)

    def _ask_all(self, run: Run, session: Session, key: str) -> Mapping[str, Any]:
        """Ask what is not known yet, and how long a question takes alone; return the costs."""
        known = self._samples.known(key)
        missing = [prompt for prompt in run.prompts.prompts if prompt.question.id not in known]
        self._asked += len(run.prompts.prompts) - len(missing)
        self._tell(session.model, run, "loading")
        loaded = session.loaded
        others: dict[str, Any] = {"stride": self._settings.stride}
        if run.ask.decoding is not None:
            others = {"sampling": run.sampling}
        way = run.ask.task.kind.way
        latest = time.perf_counter()
        self._tell(session.model, run, "asking")
        for message in session.ask(way, run.messages(missing), **others):
            now = time.perf_counter()
            question = missing[message["place"]].question
            self._samples.add(key, question.id, sample_of(message, question, now - latest))
            latest = now
            self._asked += 1
            self._tell(session.model, run, "asking")
        costs = dict(session.ended)
        alone = self._latency(run, session)
        ended = {
            "device": loaded.device,
            "arithmetic": loaded.arithmetic,
            "kv_bits": loaded.kv_bits,
            "load_seconds": loaded.load_seconds,
            "first_token_seconds": alone["first_token_seconds"],
            "step_seconds": alone["step_seconds"],
            "peak_memory_bytes": alone["peak_memory_bytes"],
        }
        if len(missing) == len(run.prompts.prompts):  # of a part these would say too little
            names = ("tokens", "bytes_read", "layer_tokens", "head_rows")
            ended |= {name: costs[name] for name in names if name in costs}
        self._samples.end(key, ended)
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

    def _compare(self, run: Run, session: Session, key: str, folder: Path) -> None:
        """Write the reference's logits for some texts, or compare others' with them."""
        if self._total == sum(len(each.prompts.prompts) for each in self._runs):
            return  # there is one model alone
        prompts = run.prompts.prompts
        messages = run.messages(prompts)
        if session.model is self._reference:
            folder.mkdir()
            self._tell(session.model, run, "writing logits")
            list(session.ask("write_logits", messages, folder=str(folder), tokens=KL_TOKENS))
            return
        known = self._samples.known(key)
        if not folder.is_dir() or any("kl_sum" in sample for sample in known.values()):
            return
        self._tell(session.model, run, "comparing logits")
        for message in session.ask("compare_logits", messages, folder=str(folder)):
            question = prompts[message.pop("place")].question
            self._samples.add(key, question.id, {**known[question.id], **message})

    def _scored_by_reference(
        self, held: Sequence[tuple[Run, EvaluatedModel, EvaluationRecord]], closing: ExitStack
    ) -> Iterator[EvaluationRecord]:
        """Yield records with the likelihood of their texts by the reference, and their ratings."""
        if not held:
            return
        assert self._reference is not None, "a run has ended"
        session = closing.enter_context(Session(self._reference, timeout=self._settings.timeout))
        for run, model, record in held:
            key = run.key(model)
            try:
                self._score_texts(run, key, session)
                self._rate_texts(run, key)
            except EdgeLLMError as error:
                yield replace(record, error=error_sentence(error))
                continue
            ended = self._samples.end_of(key)
            assert ended is not None, "it has ended before"
            yield self._of_samples(run, model.fields, key, ended)

    def _score_texts(self, run: Run, key: str, session: Session) -> None:
        known = self._samples.known(key)
        wanted = [
            prompt
            for prompt in run.prompts.prompts
            if known[prompt.question.id]["text"].strip()
            and "reference_logprob" not in known[prompt.question.id]
        ]
        if not wanted:
            return
        self._tell(session.model, run, "scoring texts")
        messages = run.messages(wanted)
        for message, prompt in zip(messages, wanted, strict=True):
            message["continuations"] = [known[prompt.question.id]["text"]]
        for found in session.ask("options", messages):
            question = wanted[found["place"]].question
            [score] = found["scores"]
            sample = {
                **known[question.id],
                "reference_logprob": score["logprob"],
                "reference_tokens": score["tokens"],
            }
            self._samples.add(key, question.id, sample)

    def _rate_texts(self, run: Run, key: str) -> None:
        if self._rater is None:
            return
        known = self._samples.known(key)
        for prompt in run.prompts.prompts:
            sample = known[prompt.question.id]
            if "judge" in sample:
                continue
            asked = prompt.context or prompt.messages[-1]["content"]
            score = self._rater(asked, sample["text"])
            if score is not None:
                self._samples.add(key, prompt.question.id, {**sample, "judge": score})

    def _of_samples(
        self, run: Run, fields: Mapping[str, Any], key: str, ended: Mapping[str, Any]
    ) -> EvaluationRecord:
        """Return the record of a run whose outcomes are all known. Raises NotFiniteError."""
        known = self._samples.known(key)
        kind, questions = run.ask.task.kind, run.questions
        try:
            columns = columns_of(
                [
                    (kind.columns(question, outcome_of(known[question.id])), known[question.id])
                    for question in questions
                ]
            )
            defined = [name for name in kind.metrics if METRICS[name].is_defined(columns)]
            metrics = {name: METRICS[name].of(columns) for name in defined}
            signatures = kind.signatures(questions)
        except EdgeLLMError as error:
            return self._failed(run, fields, error)
        common = {"environment": self._environment, **run.fields, **fields, **ended}
        return EvaluationRecord(
            **common,
            metrics=metrics,
            signatures=signatures,
            question_ids=tuple(question.id for question in questions),
            question_hashes=tuple(map(question_hash, questions)),
            documents=tuple(question.document for question in questions),
            columns=columns,
            seconds=(sum(known[question.id]["seconds"] for question in questions),),
        )

    def _failed(self, run: Run, fields: Mapping[str, Any], error: EdgeLLMError) -> EvaluationRecord:
        common = {"environment": self._environment, **run.fields, **fields}
        common.setdefault("device", machine.chip_name())
        return EvaluationRecord(**common, error=error_sentence(error))

    def _tell(self, model: EvaluatedModel, run: Run, doing: str) -> None:
        self._progress(
            Status(self._asked + 1, self._total, f"{model.name}, {run.ask.title}", doing)
        )


def _prompts(ask: Ask, settings: EvaluationSettings) -> PromptSet:
    questions = settings.questions(ask.task)
    return ask.task.prompts(questions, ask.shots, ask.shot_seed, settings.chat)
