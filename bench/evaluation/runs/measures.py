"""Measures of outcomes by others: the reference's logits and likelihoods, a judge's scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgellm.bench.evaluation.runs.run import EvaluatedModel, Run, digest_of
from edgellm.bench.evaluation.runs.samples import Samples
from edgellm.bench.evaluation.runs.session import Session
from edgellm.bench.evaluation.runs.settings import KL_TOKENS

Tell = Callable[[str], None]
"""Called with the step that is taken."""


@dataclass(frozen=True, slots=True)
class Rater:
    """A judge of texts.

    Attributes:
        name: tells it from other judges.
        rate: returns a score from 1 to 10 of a prompt and its answer, or None.
    """

    name: str
    rate: Callable[[str, str], float | None]


class Measures:
    """Has the reference and the judge measure runs; another of them measures all of it anew.

    Args:
        reference: the model.
        samples: where it is kept.
        folder: for the reference's logits.
        rater: the judge, if there is one.

    Attributes:
        reference: the model.
    """

    def __init__(
        self, reference: EvaluatedModel, samples: Samples, folder: Path, rater: Rater | None
    ) -> None:
        self.reference = reference
        self._samples, self._folder, self._rater = samples, folder, rater

    def write_logits(self, run: Run, session: Session) -> None:
        """Write the reference's logits of a run's first texts. Raises BackendError."""
        folder = self._logits_of(run)
        folder.mkdir()
        prompts = run.messages(run.prompts.prompts)
        list(session.ask("write_logits", prompts, folder=str(folder), tokens=KL_TOKENS))

    def has_compared(self, run: Run, model: EvaluatedModel) -> bool:
        """Return whether a model's logits have been compared with the reference's."""
        return self._samples.end_of(self._compared_key(run, model)) is not None

    def compare_logits(self, run: Run, session: Session) -> None:
        """Compare a model's logits with those that are written, if any. Raises BackendError."""
        folder, key = self._logits_of(run), self._compared_key(run, session.model)
        if not folder.is_dir():
            return
        prompts = run.prompts.prompts
        for message in session.ask("compare_logits", run.messages(prompts), folder=str(folder)):
            question = prompts[message.pop("place")].question
            self._samples.add(key, question.id, {"asked": run.asked[question.id], **message})
        self._samples.end(key, {})

    def score_texts(self, run: Run, model: EvaluatedModel, session: Session) -> None:
        """Have the reference say how likely the texts are that a model wrote."""
        key = self._key("scored", run, model, self.reference.key)
        wanted = self._unmeasured(run, model, key)
        messages = []
        for message in run.messages(run.prompts.prompts):
            text = wanted.get(message["name"], "")
            if text.strip():  # an empty one has no likelihood
                messages.append({**message, "continuations": [text]})
        if not messages:
            return
        for found in session.ask("options", messages):
            name = messages[found["place"]]["name"]
            [score] = found["scores"]
            sample = {"reference_logprob": score["logprob"], "reference_tokens": score["tokens"]}
            self._add(key, run, name, wanted[name], sample)

    def rate_texts(self, run: Run, model: EvaluatedModel, tell: Tell) -> None:
        """Have the judge score the texts that a model wrote."""
        if self._rater is None:
            return
        key = self._key("rated", run, model, self._rater.name)
        wanted = self._unmeasured(run, model, key)
        prompts = [prompt for prompt in run.prompts.prompts if prompt.question.id in wanted]
        for number, prompt in enumerate(prompts, 1):
            name = prompt.question.id
            tell(f"rating text {number} of {len(prompts)}")
            asked = prompt.context or prompt.messages[-1]["content"]
            score = self._rater.rate(asked, wanted[name])
            if score is not None:
                self._add(key, run, name, wanted[name], {"judge": score})

    def of(self, run: Run, model: EvaluatedModel) -> dict[str, dict[str, Any]]:
        """Return what is known, by the question's id."""
        found: dict[str, dict[str, Any]] = {name: {} for name in run.asked}
        for name, sample in self._samples.known(self._compared_key(run, model)).items():
            if model is not self.reference:
                found[name] |= sample
        keys = [self._key("scored", run, model, self.reference.key)]
        if self._rater is not None:
            keys.append(self._key("rated", run, model, self._rater.name))
        texts = self._texts(run, model)
        for key in keys:
            for name, sample in self._samples.known(key).items():
                if name in texts and sample["asked"] == digest_of(run.asked[name], texts[name]):
                    found[name] |= sample
        return found

    def _unmeasured(self, run: Run, model: EvaluatedModel, key: str) -> dict[str, str]:
        """Return the texts of a run that are not known under a key, by the question's id."""
        known = self._samples.known(key)
        return {
            name: text
            for name, text in self._texts(run, model).items()
            if known.get(name, {}).get("asked") != digest_of(run.asked[name], text)
        }

    def _texts(self, run: Run, model: EvaluatedModel) -> dict[str, str]:
        known = run.outcomes(self._samples.known(run.key(model)))
        return {name: sample["text"] for name, sample in known.items() if "text" in sample}

    def _add(self, key: str, run: Run, name: str, text: str, sample: Mapping[str, Any]) -> None:
        self._samples.add(key, name, {"asked": digest_of(run.asked[name], text), **sample})

    def _compared_key(self, run: Run, model: EvaluatedModel) -> str:
        return digest_of(run.whole_key(model), "compared", self.reference.key)

    def _key(self, work: str, run: Run, model: EvaluatedModel, by: str) -> str:
        return digest_of(run.key(model), work, by)

    def _logits_of(self, run: Run) -> Path:
        return self._folder / digest_of(run.ask.task.name, sorted(run.asked.items()))
