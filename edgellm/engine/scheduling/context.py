"""The model that an engine runs, with all that its sequences need of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgellm.device.model_lock import ModelLock
from edgellm.generation.prompt import check_prompt
from edgellm.generation.stats import CostMeter
from edgellm.kv_cache.cache import Cache
from edgellm.memory_plan.plan import Plan
from edgellm.models.model import Model
from edgellm.prompt_cache.prefix_cache import PrefixCache
from edgellm.reading.disk_reader import Reader
from edgellm.runtime.caches import CacheMaker
from edgellm.speculation.controller import Speculation
from edgellm.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineContext:
    """A loaded model, as an engine needs it.

    Attributes:
        model: the model.
        caches: makes those of a sequence.
        tokenizer: its tokenizer.
        plan: the plan that it was loaded with.
        reader: reads its streamed weights.
        model_lock: held while the engine has sequences.
        prefix_cache: KV caches of ended sequences.
        end_tokens: tokens that end a completion.
        speculation: chooses draft tokens for a sequence that runs alone; None for plain decoding.
        context: tokens that prompt and completion of a sequence may have together.
    """

    model: Model
    caches: CacheMaker
    tokenizer: Tokenizer
    plan: Plan
    reader: Reader
    model_lock: ModelLock
    prefix_cache: PrefixCache
    end_tokens: frozenset[int]
    context: int
    speculation: Speculation | None = None

    def check_prompt(self, tokens: Sequence[int]) -> None:
        """Raise what is wrong with a prompt, or ClosedError where the model was closed."""
        self.model_lock.require_open()
        check_prompt(tokens, self.model.config, context=self.context)

    def make_caches(self, tokens: int) -> list[Cache]:
        """Return the caches of a sequence, with memory for this many tokens."""
        return self.caches.make(capacity=tokens, reserve=tokens, context=self.context)

    def kv_bytes(self, tokens: int) -> int:
        """Return the bytes that ``make_caches`` takes."""
        return self.caches.nbytes(capacity=tokens, context=self.context)

    def start_meter(self) -> CostMeter:
        """Return what counts the cost from now on."""
        return CostMeter(self.model, self.reader, self.plan)
