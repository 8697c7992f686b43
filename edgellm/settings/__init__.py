"""Settings, checked when they are made: how a model is loaded, how its next token is drawn.

Every default value and every valid range stands here; the command line takes its own from these
classes. ``sampling.py`` and ``load.py`` have the two classes, each with its fields as a TypedDict
for keyword arguments; ``merge.py`` puts keywords on top of an object; ``sizes.py`` reads sizes and
budgets; ``defaults.py`` has what several share.
"""

from __future__ import annotations

from edgellm.setting_values import is_int
from edgellm.settings.defaults import (
    BATCH,
    CHAT_MAX_TOKENS,
    CHAT_TEMPERATURE,
    CHAT_TOP_P,
    DEFAULT_MODEL,
    KV_BITS,
    KV_FLOAT32_BITS,
    KV_PLAIN_BITS,
    MAX_BEAMS,
    MAX_CONTEXT,
    MAX_QUEUE,
    MAX_SEED,
    MAX_SEQUENCES,
    MAX_VOCABULARY,
    PREFILL_CHUNK,
    PROMPT_CACHE_BYTES,
    PROMPT_CACHE_SHARE,
)
from edgellm.settings.load import LoadFields, LoadSettings
from edgellm.settings.merge import merged
from edgellm.settings.sampling import Sampling, SamplingFields
from edgellm.settings.sizes import MAX_SIZE, parse_budget, parse_memory, parse_size

__all__ = [
    "BATCH",
    "CHAT_MAX_TOKENS",
    "CHAT_TEMPERATURE",
    "CHAT_TOP_P",
    "DEFAULT_MODEL",
    "KV_BITS",
    "KV_FLOAT32_BITS",
    "KV_PLAIN_BITS",
    "MAX_BEAMS",
    "MAX_CONTEXT",
    "MAX_QUEUE",
    "MAX_SEED",
    "MAX_SEQUENCES",
    "MAX_SIZE",
    "MAX_VOCABULARY",
    "PREFILL_CHUNK",
    "PROMPT_CACHE_BYTES",
    "PROMPT_CACHE_SHARE",
    "LoadFields",
    "LoadSettings",
    "Sampling",
    "SamplingFields",
    "is_int",
    "merged",
    "parse_budget",
    "parse_memory",
    "parse_size",
]
