"""Defaults and limits that several settings share."""

from __future__ import annotations

DEFAULT_MODEL = "stories"
CHAT_TEMPERATURE = 0.7
CHAT_TOP_P = 0.95
CHAT_MAX_TOKENS = 1024
PREFILL_CHUNK = 512
"""Prompt tokens that go through a layer at once."""

PROMPT_CACHE_BYTES = 4_000_000_000
"""Bytes that prompts kept on disk may take."""

PROMPT_CACHE_SHARE = 0.1
"""Share that they may take of what they take and the free disk together."""

KV_BITS = (4, 8, 16, 32)
KV_PLAIN_BITS = 16
"""Bits from which on keys and values are stored as plain numbers; with fewer they are quantized."""

KV_FLOAT32_BITS = 32

BATCH = 8
"""Prompts of a file that are continued side by side."""

MACHINE_WAIT = 9.0
"""Seconds since a machine was last heard, up to which a text waits for it."""

MAX_MACHINE_WAIT = 86_400

MAX_BEAMS = 64
MAX_SEQUENCES = 1 << 16
"""Sequences that may be asked to run side by side; memory allows fewer."""

MAX_QUEUE = 1 << 24

MAX_CONTEXT = 1 << 27
MAX_SEED = (1 << 64) - 1
MAX_VOCABULARY = 1 << 22
