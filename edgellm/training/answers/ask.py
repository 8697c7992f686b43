"""Asks a model several questions at once, greedily, in the memory that training has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import mlx.core as mx

from edgellm.console.units import plural
from edgellm.device.machine import process_memory, release_free_memory
from edgellm.errors import MemoryBudgetError
from edgellm.hub.resolve import locate
from edgellm.memory_plan.plan_checkpoint import budget_for, plan_for
from edgellm.models.through_mlx_lm.checkpoint import read_any_checkpoint
from edgellm.open_llm import open_llm
from edgellm.settings import LoadSettings, Sampling
from edgellm.tokenizer import Tokenizer
from edgellm.training.trained_model import PROCESS_BYTES

TOKENS, TOKENS_FROM_DISK = 64, 16
"""Of an answer, if nobody says how many; fewer where each one costs a pass over the disk."""


class Asker:
    """Asks models, one after the other.

    Args:
        load: which memory and arithmetic.
        tokens: of an answer, at most; None: as many as are usual.
        say: called with sentences that a person should read.
        show: shows what is being done while it lasts; yields a callback of its name.
        held: returns the bytes that the process has before a model is there.
    """

    def __init__(
        self,
        load: LoadSettings,
        tokens: int | None,
        say: Callable[[str], None],
        show: Callable[[], AbstractContextManager[Callable[[str], None]]],
        held: Callable[[], int] = process_memory,
    ) -> None:
        self._load, self._tokens = load, tokens
        self._say, self._show, self._held = say, show, held

    def __call__(
        self, prompts: Sequence[Sequence[int]], *, model: str, adapter: Path | None
    ) -> list[str] | None:
        """Return the answers; None where there is no memory for them, which is said.

        Raises:
            ReadError, FormatError: the model or the adapter cannot be read.
        """
        checkpoint = read_any_checkpoint(locate(model))
        settings = replace(
            self._load,
            adapter=adapter,
            # the budget of a run is that of the whole process, which may have more by now
            memory=max(1, budget_for(self._load) - max(PROCESS_BYTES, self._held())),
            # codes of fewer bits would need a look at what they cost first
            kv_bits=16,
            context=min(
                sum(map(len, prompts)) + len(prompts) * (self._tokens or TOKENS),
                checkpoint.config.max_position_embeddings,
            ),
        )
        try:
            plan = plan_for(checkpoint, settings)
        except MemoryBudgetError as error:
            self._say(f"no answers: {error.message}")
            return None
        tokens = self._tokens or (TOKENS if plan.resident else TOKENS_FROM_DISK)
        if not plan.resident and adapter is None:
            self._say(
                f"answers before and after read {plan.streamed_bytes / 1e9:.2f} GB for each of "
                f"{tokens} tokens; --answers 0 leaves them out"
            )
        tokenizer = Tokenizer.from_folder(
            checkpoint.folder.path, vocab_size=checkpoint.config.vocab_size
        )
        sampling = Sampling(temperature=0.0, max_tokens=tokens)
        name = f"{Path(model).name} answers {plural(len(prompts), 'question')}"
        with self._show() as doing:
            doing(name)
            with open_llm(checkpoint, tokenizer, settings, plan=plan) as llm:
                completions = llm.generate_batch(prompts, sampling)
        # what learns next has planned its memory without it
        mx.clear_cache()
        release_free_memory()
        for completion in completions:
            if completion.error is not None:
                self._say(f"no answers: {completion.error.message}")
                return None
        return [completion.text.strip() for completion in completions]
