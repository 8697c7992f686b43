"""edgellm as a model of lm-evaluation-harness, without the harness' own class around it."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgellm.bench.evaluation.harness.generation_settings import sampling_of
from edgellm.bench.evaluation.harness.token_rules import EncodedPair, TokenRules
from edgellm.bench.evaluation.loaded_model import completions
from edgellm.errors import TemplateError
from edgellm.llm import LLM

PROGRESS_EVERY = 64
"""Pairs after which progress is told."""

Question = tuple[str, int]
"""A task's name and the number of a question in it."""


@dataclass(slots=True)
class Counts:
    """Facts about questions besides their scores.

    Attributes:
        cut_tokens: tokens of prompts that were left out, for want of room.
        answer_tokens: tokens of generated answers.
        text_tokens: tokens of texts that were read and scored.
        layer_tokens: tokens that went through the layers to be scored, of all questions.
        head_rows: hidden states that went through the head to be scored.
    """

    cut_tokens: dict[Question, int] = field(default_factory=lambda: defaultdict(int))
    answer_tokens: dict[Question, int] = field(default_factory=lambda: defaultdict(int))
    text_tokens: dict[Question, int] = field(default_factory=lambda: defaultdict(int))
    layer_tokens: int = 0
    head_rows: int = 0


class Adapter:
    """Answers requests of lm-evaluation-harness with a model.

    Args:
        llm: the model.
        max_length: tokens that prompts and answers may have together; None: the model's context.
        like_harness: compute perplexities as the harness does for transformers, which scores the
            token that begins a text, too.
        seed: of tasks that sample; each request gets another one.
        progress: called with how many requests are done, and how many there are.

    Attributes:
        rules: how texts become tokens.
        counts: what is known of questions besides their scores.
        seconds: time that answering has taken, tokenizing included.
    """

    def __init__(
        self,
        llm: LLM,
        *,
        max_length: int | None = None,
        like_harness: bool = False,
        seed: int = 0,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        self._llm = llm
        self._like_harness = like_harness
        self._seed = seed
        self._progress = progress
        self.rules: TokenRules = TokenRules(
            llm.tokenizer, min(max_length or llm.context, llm.context)
        )
        self.counts: Counts = Counts()
        self.seconds: float = 0.0

    def loglikelihoods(
        self, requests: Sequence[tuple[str, str]], questions: Sequence[Question]
    ) -> list[tuple[float, bool]]:
        """Return how likely continuations are, and whether greedy decoding would give them.

        Args:
            requests: contexts and continuations.
            questions: which question each belongs to.
        """
        began = time.perf_counter()
        pairs = []
        for (context, continuation), question in zip(requests, questions, strict=True):
            pairs.append(self.rules.encode_pair(context, continuation))
            self.counts.cut_tokens[question] += pairs[-1].cut
        scores = self.score(pairs)
        self.seconds += time.perf_counter() - began
        return scores

    def score(self, pairs: Sequence[EncodedPair]) -> list[tuple[float, bool]]:
        """Return the same of tokens."""
        scores: dict[int, tuple[float, bool]] = {}
        with self._llm.stream_scores(
            [(pair.context, pair.continuation) for pair in pairs]
        ) as stream:
            for place, score in stream:
                scores[place] = (score.logprob, score.is_greedy)
                if len(scores) % PROGRESS_EVERY == 0:
                    self._progress(len(scores), len(pairs))
            self.counts.layer_tokens += stream.stats.layer_tokens
            self.counts.head_rows += stream.stats.head_rows
        return [scores[place] for place in range(len(pairs))]

    def rolling_loglikelihoods(
        self, texts: Sequence[str], questions: Sequence[Question]
    ) -> list[float]:
        """Return the log-likelihood of each whole text."""
        began = time.perf_counter()
        windows, owners = [], []
        for number, (text, question) in enumerate(zip(texts, questions, strict=True)):
            for window in self.rules.windows(text, like_harness=self._like_harness):
                windows.append(window)
                owners.append(number)
                self.counts.text_tokens[question] += len(window.continuation)
        sums = [0.0] * len(texts)
        for number, (logprob, _) in zip(owners, self.score(windows), strict=True):
            sums[number] += logprob
        self.seconds += time.perf_counter() - began
        return sums

    def generate(
        self, requests: Sequence[tuple[str, Mapping[str, Any]]], questions: Sequence[Question]
    ) -> list[str]:
        """Return texts that continue prompts.

        Args:
            requests: prompts, each with the task's ``generation_kwargs``.
            questions: which question each belongs to.
        """
        began = time.perf_counter()
        prompts, samplings = [], []
        for number, (prompt, settings) in enumerate(requests):
            sampling = sampling_of(settings, seed=self._seed + number)
            assert sampling.max_tokens is not None, "each task has a number"
            ids, cut = self.rules.encode_prompt(prompt, sampling.max_tokens)
            self.counts.cut_tokens[questions[number]] += cut
            prompts.append(ids)
            samplings.append(sampling)
        texts: dict[int, str] = {}
        for place, answer in completions(self._llm, prompts, samplings):
            texts[place] = answer.text
            self.counts.answer_tokens[questions[place]] += len(answer.ids)
            self._progress(len(texts), len(prompts))
        self.seconds += time.perf_counter() - began
        return [texts[place] for place in range(len(prompts))]

    def render(
        self, messages: Iterable[Mapping[str, Any]], *, add_generation_prompt: bool = True
    ) -> str:
        """Return the text of a conversation; without its system message if the template has none.

        Args:
            messages: mappings with "role" and "content".
            add_generation_prompt: whether the text ends where an answer begins; else it ends in
                the last message, which the model continues.

        Raises:
            TemplateError: the model has no template, or it refuses the conversation.
        """
        messages = list(messages)
        try:
            return self._render(messages, add_generation_prompt)
        except TemplateError:
            others = [message for message in messages if message["role"] != "system"]
            if len(others) == len(messages):
                raise
            return self._render(others, add_generation_prompt)

    def _render(self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool) -> str:
        text = self._llm.tokenizer.render(messages, add_generation_prompt=add_generation_prompt)
        if add_generation_prompt:
            return text
        last = str(messages[-1]["content"]).strip()
        return text[: text.rindex(last) + len(last)]
