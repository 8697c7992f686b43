"""A run: a loaded model and a way to ask a task, with digests that tell both again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from edgellm.adapters.unmerged import open_unmerged
from edgellm.bench.evaluation.runs.settings import Ask, EvaluationSettings
from edgellm.bench.evaluation.tasks.prompts import Prompt, PromptSet
from edgellm.bench.evaluation.tasks.rows.question import Question
from edgellm.bench.metrics.table import METRICS
from edgellm.bench.records.backend_names import OWN
from edgellm.checkpoint.checkpoint import Checkpoint
from edgellm.checkpoint.fingerprint import fingerprint
from edgellm.files.bounded import read_errors
from edgellm.models.through_mlx_lm.checkpoint import AnyCheckpoint

TEXT_FILES = {".json", ".jinja", ".model", ".tiktoken", ".txt"}
"""Files beside the weights that say how texts become tokens."""


@dataclass(frozen=True, eq=False)
class EvaluatedModel:
    """A model with the settings that it is loaded with.

    Attributes:
        name: as it was given.
        checkpoint: what lies in its folder.
        load: fields of ``LoadSettings``.
    """

    name: str
    checkpoint: AnyCheckpoint
    load: Mapping[str, Any]

    @cached_property
    def fingerprint(self) -> str:
        """A digest of weights, adapter, tokenizer and chat template, wherever they lie."""
        digest = hashlib.sha256(fingerprint(self.checkpoint).encode())
        folder = self.checkpoint.folder.path
        files: list[Path] = []
        if folder.is_dir():  # a GGUF file holds its tokenizer
            files = sorted(file for file in folder.iterdir() if file.suffix in TEXT_FILES)
        for file in files:
            with read_errors(file):
                digest.update(file.name.encode() + file.read_bytes())
        adapter = self.load.get("adapter")
        if adapter is not None and isinstance(self.checkpoint, Checkpoint):
            digest.update(open_unmerged(adapter, self.checkpoint).fingerprint().encode())
        return digest.hexdigest()

    @property
    def key(self) -> str:
        """A digest of the model and its settings."""
        # an adapter is in the fingerprint, wherever its folder lies
        settings = {name: value for name, value in self.load.items() if name != "adapter"}
        return digest_of(self.fingerprint, sorted(settings.items()))

    @property
    def title(self) -> str:
        """The model's name, and its adapter's."""
        return with_adapter(self.name, self.load)

    @property
    def fields(self) -> dict[str, Any]:
        """Fields of a record: the model, and how it was loaded."""
        return load_fields(self.name, self.load) | checkpoint_fields(self.checkpoint)


def load_fields(name: str, load: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields of a record: a model's name, and how it is loaded."""
    return {
        "model": with_adapter(name, load),
        "threads": load.get("threads"),
        "memory_bytes": load.get("memory"),
        "kv_bits": load.get("kv_bits"),
    }


def checkpoint_fields(checkpoint: AnyCheckpoint) -> dict[str, Any]:
    """Return fields of a record: a model's bits and size, and its shape whatever its bits."""
    config = checkpoint.config
    if isinstance(checkpoint, Checkpoint):
        width: int | None = checkpoint.config.hidden_size
    else:
        width = checkpoint.hidden_size
    layers = f"{config.num_hidden_layers} layers of {width or 'unknown width'}"
    return {
        "bits": checkpoint.usual_bits,
        "model_bytes": checkpoint.nbytes,
        "shape": f"{layers}, {config.vocab_size:,} words",
    }


@dataclass(frozen=True)
class Run:
    """A way to ask a task, with its prompts.

    Attributes:
        ask: the way.
        prompts: the prompts.
        settings: those of the evaluation.
    """

    ask: Ask
    prompts: PromptSet
    settings: EvaluationSettings

    @property
    def questions(self) -> list[Question]:
        """The questions, in their order."""
        return [prompt.question for prompt in self.prompts.prompts]

    @cached_property
    def prompt_hash(self) -> str:
        """A digest of what its prompts have in common."""
        kind, prompts = self.ask.task.kind, self.prompts
        return digest_of(
            kind.name, prompts.template, prompts.block, prompts.chat, prompts.stops, self.max_tokens
        )

    @property
    def max_tokens(self) -> int:
        """Tokens that an answer may have."""
        return self.settings.max_tokens or self.prompts.max_tokens

    @property
    def sampling(self) -> dict[str, Any]:
        """Fields of ``Sampling``."""
        assert self.ask.decoding is not None, "an answer is generated"
        stops = list(self.prompts.stops)
        return {"max_tokens": self.max_tokens, "stop": stops, **self.ask.decoding.fields}

    @cached_property
    def asked(self) -> dict[str, str]:
        """A digest of each question as it is asked, by its id: rows may be edited."""
        return {
            prompt.question.id: digest_of(prompt.context, prompt.continuations, prompt.messages)
            for prompt in self.prompts.prompts
        }

    def outcomes(self, known: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
        """Return those of the known outcomes that are of its questions as they are asked now."""
        return {
            name: known[name]
            for name, asked in self.asked.items()
            if name in known and known[name].get("asked") == asked
        }

    def key(self, model: EvaluatedModel) -> str:
        """Return the digest under which its outcomes with a model are kept."""
        settings = self.settings
        decoding = self.ask.decoding and self.ask.decoding.name
        return digest_of(
            model.key,
            self.ask.task.name,
            self.prompt_hash,
            [decoding, settings.seed, settings.stride],
        )

    def whole_key(self, model: EvaluatedModel) -> str:
        """Return the digest under which is kept what all of its questions took together."""
        return digest_of(self.key(model), sorted(self.asked.items()))

    def messages(self, prompts: Sequence[Prompt]) -> list[dict[str, Any]]:
        """Return prompts as the worker takes them."""
        return [
            {
                "name": prompt.question.id,
                "context": prompt.context,
                "messages": [dict(message) for message in prompt.messages],
                "continuations": list(prompt.continuations),
                # equal questions of different runs draw the same
                "seed": int(digest_of(self.settings.seed, prompt.question.id)[:8], 16),
            }
            for prompt in prompts
        ]

    @property
    def needs_reference(self) -> bool:
        """Whether the reference has to score its texts."""
        metrics = self.ask.task.kind.metrics
        return any("reference_logprob" in METRICS[name].columns for name in metrics)

    @property
    def fields(self) -> dict[str, Any]:
        """Fields of a record that are known before anything comes out."""
        ask, kind = self.ask, self.ask.task.kind
        return {
            "backend": OWN,
            "test": "eval",
            "task": ask.task.name,
            "task_kind": kind.name,
            "headline": kind.metrics[0],
            "prompt_hash": self.prompt_hash,
            "shots": ask.shots,
            "shot_seed": ask.shot_seed,
            "shot_text": self.prompts.block or None,
            **_first_asked(self.prompts),
            "decoding": ask.decoding and ask.decoding.name,
            "chat": self.prompts.chat,
            "skipped": ask.task.skipped,
            "seed": self.settings.seed,
        }


def _first_asked(prompts: PromptSet) -> dict[str, Any]:
    """Return fields that show the first question as it was asked; none of texts that are read."""
    for prompt in prompts.prompts[:1]:
        text = prompt.context.removeprefix(prompts.block)
        if prompt.messages:
            text = prompt.messages[-1]["content"]
        if text:
            return {"first_prompt": text, "first_options": prompt.continuations}
    return {}


def with_adapter(name: str, load: Mapping[str, Any]) -> str:
    """Return a model's name, with that of the adapter that ``load`` has."""
    adapter = load.get("adapter")
    if adapter is None:
        return name
    return f"{name} + {Path(adapter).resolve().name}"


def question_hash(question: Question) -> str:
    """Return a digest of what a question asks, and of its right answers."""
    return digest_of(question.same, question.options, question.target, question.answers)[:8]


def digest_of(*parts: Any) -> str:
    """Return a digest of parts that JSON can hold."""
    text = json.dumps(parts, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
