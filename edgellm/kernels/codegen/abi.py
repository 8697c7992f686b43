"""Numbers that Python and the kernels share: slots of arguments, the pool's state, sizes.

A *step* is one row of int64 slots: slot 0 holds the kernel's address, the others its arguments.
The mappings below name the slots of each kernel's arguments; Python fills them and the emitters
read them by these names. Addresses and sizes are in bytes, results and activations are float32.
"""

# L tokens of a step, E hidden, F inner, H query heads, G key/value heads, D head size

from __future__ import annotations

from collections.abc import Mapping

# --- steps and calls

SLOT_BYTES = 8
STEP_SLOTS = 24
STEP_BYTES = SLOT_BYTES * STEP_SLOTS
"""One step: the kernel's address, then its arguments."""

STEP_TOKENS = STEP_SLOTS - 1
"""The slot of a step's own number of tokens, for steps about one sequence; 0: all of the call's."""


def _arguments(*names: str) -> Mapping[str, int]:
    """Return the slots of a step's arguments, in order; slot 0 is the kernel's address."""
    return {name: slot for slot, name in enumerate(names, 1)}


def slots(step: Mapping[str, int], first: str, last: str) -> slice:
    """Return the slots of a step from one argument to another, both included."""
    return slice(step[first], step[last] + 1)


NORM = _arguments(
    "x",  # (L, E)
    "weight",  # (E,)
    "out",  # (L, E)
    "hidden",  # E
    "row_bytes",  # from one token to the next, of x and of out
    "eps",  # float32
)
"""Arguments of ``norm``."""

NORM_BACKWARD = _arguments(
    "x",  # (L, E), as ``norm`` had it
    "weight",  # (E,)
    "by_out",  # (L, E): derivatives by what it returned
    "by_x",  # (L, E)
    "hidden",  # E
    "eps",  # float32
)
"""Arguments of ``norm_backward``."""

SWIGLU = _arguments(
    "gate_up",  # (L, 2F): gates, then what they gate
    "out",  # (L, F)
    "inner",  # F
)
"""Arguments of ``swiglu``."""

SWIGLU_BACKWARD = _arguments(
    "gate_up",  # (L, 2F), as ``swiglu`` had it
    "out",  # (L, F): derivatives by what it returned
    "by_gate_up",  # (L, 2F)
    "inner",  # F
)
"""Arguments of ``swiglu_backward``."""

_KV_TABLES = ("key_scales", "key_biases", "value_scales", "value_biases")
"""Arguments of quantized keys and values; unused otherwise."""

ROPE = _arguments(
    "qkv",  # (L, (H + 2G) D) float32
    "cos_sin",  # (L, D): cosines, then sines, in the first R places
    "heads",  # H
    "kv_heads",  # G
    "head_dim",  # D
    "rotary_dim",  # R: features of a head that are rotated
    "keys",  # (G, capacity, D), as if its first place were position 0
    "values",
    "head_bytes",  # from one key head to the next
    "position",  # of the first new token
    "query_norm",  # (D,), 0 where there is none
    "key_norm",
    "eps",  # float32
    *_KV_TABLES,
)
"""Arguments of ``rope``."""

ATTENTION = _arguments(
    "queries",  # (L, row of row_bytes)
    "row_bytes",
    "partials",  # (L, H, splits, D + 2) float32
    "heads",  # H
    "kv_heads",  # G
    "head_dim",  # D
    "keys",  # (G, capacity, D), as if its first place were position 0
    "values",
    "head_bytes",
    "length",  # the position after the last new token
    "window",  # tokens that a query sees, itself among them
    "splits",
    "scale",  # float32, of the scores
    "first_split",
    "min_exponent",  # of a split: see split_of
    "max_exponent",
    *_KV_TABLES,
    "item_splits",  # splits that a thread of ``attention`` takes at once
    "item_rows",  # queries that a thread of ``tile_attention`` takes at once
)
"""Arguments of ``attention`` and ``tile_attention``."""

MERGE = _arguments(
    "partials",  # (L, H, splits, D + 2)
    "out",  # (L, H, D)
    "heads",  # H
    "head_dim",  # D
    "splits",
)
"""Arguments of ``merge``."""

# O out_features and K in_features of a weight, n = K / group size

QUANTIZE = _arguments(
    "x",  # (L, K)
    "codes",  # (L, K) int8
    "scales",  # (L, n)
    "sums",  # (L, n): of a group's codes, times its scale
    "groups",  # n
)
"""Arguments of ``quantize``."""

PACK = _arguments(
    "source",  # (L, words) of 32 bits; for ``bf16`` (L, 2 words) float32
    "target",  # (ceil(L / lanes), words, lanes) of 32 bits
    "words",
)
"""Arguments of ``pack``."""

TURN = _arguments(
    "weight",  # (R, K) packed codes or plain numbers
    "scales",  # (R, n), 0 for plain numbers
    "biases",
    "rows",  # R
    "columns",  # K
    "target",  # (K, R)
)
"""Arguments of ``turn``."""

CROSS_ENTROPY = _arguments(
    "logits",  # (L, V)
    "targets",  # (L,) int64
    "by_logits",  # (L, V): derivatives of each row's loss
    "parts",  # (L, 2): the sum of powers of logits less the largest; the target's, likewise
    "vocabulary",  # V
)
"""Arguments of ``cross_entropy``."""

ROTATE = _arguments(
    "source",  # (L, N, D): heads of each token
    "target",  # likewise; it may be the source
    "cos_sin",  # (L, R): cosines, then sines
    "heads",  # N
    "rotated",  # heads that are rotated, from the first; the others are copied
    "head_dim",  # D
    "rotary_dim",  # R: features of a head that are rotated
)
"""Arguments of ``rotate``."""

CAUSAL = _arguments(
    "qkv",  # (L, H + 2G, D): rotated queries, rotated keys, values
    "out",  # (L, H, D): results, or derivatives by them
    "by_qkv",  # (L, H + 2G, D); unused forwards
    "sequences",  # (N, 2) int64: the first row of each, and its rows
    "count",  # N
    "heads",  # H
    "kv_heads",  # G
    "scale",  # float32, of the scores
)
"""Arguments of ``causal`` and ``causal_backward``."""

CAUSAL_ROWS = 32
"""Queries whose scores a thread of ``causal`` holds at once."""

STRIDED_MATMUL = _arguments(
    "left",  # (M, K) float32
    "left_row",  # from one of M to the next
    "left_column",  # from one of K to the next
    "right",  # (K, N) float32, whose numbers of a row lie one after the other
    "right_row",
    "out",  # (M, N), likewise
    "out_row",
    "rows",  # M
    "columns",  # N
    "summed",  # K
    "factor",  # float32
    "item_rows",  # that a thread takes at once
    "item_columns",
)
"""Arguments of ``strided_matmul``."""

_PRODUCT = (
    "activations",  # as the kernel takes them: see product_steps.py
    "activation_scales",  # 0 where activations are not quantized
    "activation_sums",
    "weight",  # (O, K) packed codes or plain numbers
    "scales",  # (O, n), 0 for plain numbers
    "biases",
    "out_features",  # O
)
_RESULTS = (
    "out",  # (L, row of out_stride)
    "out_stride",
    "add",  # whether to add to what is there: 0 or 1
)

FLOAT_MATVEC = _arguments(*_PRODUCT, "in_features", *_RESULTS, "item_rows", "stretch_rows")
"""Arguments of ``float_matvec`` and ``float_few``; a thread takes ``item_rows`` of O at once."""

INT8_MATVEC = _arguments(*_PRODUCT, "groups", *_RESULTS, "item_rows", "stretch_rows")
"""Arguments of ``int8_matvec``, ``int8_few``, ``tile_few`` and ``tile_matvec``; ``groups`` is n."""

MATMUL = _arguments(*_PRODUCT, "in_features", *_RESULTS, "block_rows", "panel_row_bytes")
"""Arguments of products of many tokens: ``block_rows`` of O are unpacked at once, to such rows."""

BIAS = _arguments(
    "out",  # (L, row of out_stride)
    "out_stride",
    "bias",  # (O,)
    "out_features",  # O
)
"""Arguments of ``bias``."""

STRETCH = _arguments(
    "source",  # (L, row of source_stride)
    "source_stride",
    "factors",  # (O,) float32
    "out",  # (L, row of out_stride)
    "out_stride",
    "out_features",  # O
)
"""Arguments of ``stretch``."""

APART = _arguments(
    "steps",  # (groups, group_steps, STEP_SLOTS) int64
    "groups",
    "group_steps",
    "states",  # (groups, GROUP_BYTES): a group's stand-in for the pool
)
"""Arguments of ``apart``."""

CALL: Mapping[str, int] = {"tokens": 0, "scratch": 1, "scratch_bytes": 2}
"""Slots that all steps of a call share: tokens, and the memory that each thread has for itself."""

CALL_SLOTS = 4

# --- the thread pool

POOL: Mapping[str, int] = {
    "generation": 0,
    "arrived": 64,
    "phase": 128,
    "next_item": 192,
    "job": 256,
    "stop": 320,
    "sleepers": 384,
    "workers": 392,
    "mutex": 448,
    "work_condition": 512,
    "waiters": 576,
    "barrier_condition": 640,
}
"""Byte offsets of the pool's state. What each thread writes alone has a cache line of its own.

``job`` is the address of the steps, their count, the address of the call, and the threads.
"""

POOL_BYTES = 704

GROUP_BYTES = 256
"""Stands in for the pool where one thread does a group of steps alone: its ``next_item``."""

# --- products

TOKEN_VECTORS = 2
"""Vectors of tokens that a matrix product sums side by side."""

FEW_TOKENS = (4, 8)
"""Tokens of a product whose tiles have tokens as rows: its time is that of its rows."""

MAX_VECTOR_ROWS: Mapping[int, int] = {4: 4, 8: 2}
"""By the bits of a code, up to this many tokens, but more than one, skip the tiles.

A vector product is as fast there.
"""

MAX_EXACT_ROWS = 16
"""Up to this many tokens, each gets bit for bit the product that it would get alone."""

STRETCH_EIGHTHS = 6
"""Eighths of a weight's rows that are shared out to threads beforehand."""

MAX_ROWS = 512
"""Tokens that go through a layer at once, which bounds working memory."""

TILE = 16
"""Rows of an AMX tile, and 32-bit numbers in each."""

TILE_NUMBERS = 32
"""bfloat16 numbers in a row of a tile; a product sums over them."""

TILE_GROUPS = 4
"""Quantization groups that are under way at once in a product of few tokens in tiles."""

TILE_PARTS: Mapping[str, int] = {
    "codes": 2048 * TILE_GROUPS,
    "ints": 1024 * TILE_GROUPS,
    "sums": 8192,
    "results": 1024,
}
"""Bytes of a thread's scratch for such a product: the groups' codes and integers, sums, results."""

FEW_PARTS: Mapping[str, int] = {"codes": 4096, "ints": 1024, "sums": 4096, "results": 512}
"""The same where the rows of a tile are tokens."""

PAIR_ROWS = 256
"""Rows of a weight that a product of its columns in pairs takes at once."""

PAIR_STEP = 16
"""Their number is a multiple of this."""

_BLOCK_ROWS = 96
_PANEL_BYTES = 1 << 20
"""Rows of a weight, and bytes, unpacked at once at most: half a second-level cache or less."""

# --- attention

KEY_BLOCK = 128
"""Keys whose scores attention holds at once."""

QUERY_ROWS = 32
"""Queries that attention has in its scratch at once."""

SPLIT_KEYS = 128
"""Keys of the smallest split; a multiple of KEY_BLOCK.

Splits of the keys are computed apart and merged (flash decoding), where heads alone would not keep
all threads busy.
"""

MAX_SPLIT_QUERIES = 16
"""Queries of one sequence whose keys are split; more of them keep all threads busy without."""

ONE_SPLIT = 40
"""The exponent of a split that holds every key."""

KV_GROUP = 32
"""Features of a quantized key or value that share scale and bias."""


def item_rows(out_features: int, threads: int) -> int:
    """Return the rows of a weight that a thread takes at once, for few tokens.

    Long runs of memory, but enough of them that every thread gets eight.
    """
    return max(32, min(512, out_features // (8 * threads) // 32 * 32))


def stretch_rows(out_features: int, threads: int) -> int:
    """Return the rows of a weight that are a thread's own; others go by ``item_rows``.

    Most of them: a stretch is one run of memory, and the others even out the threads' speeds.
    """
    return STRETCH_EIGHTHS * out_features // (8 * threads) // 32 * 32


def turned_square(lanes: int) -> int:
    """Return the rows, and columns, of a weight that ``turn`` takes at once, and needs at least."""
    return max(8, lanes)


def pair_strip(group: int) -> int:
    """Return the columns, all of one group, that a thread of ``pair_matmul`` takes at once."""
    return min(group, 64)


def pair_scratch(tokens: int, strip: int) -> int:
    """Return the scratch bytes that a thread of ``pair_matmul`` needs."""
    vectors = -(-tokens // TILE)
    pairs = -(-vectors // TOKEN_VECTORS)
    results = 4 * TILE * strip * (1 + TOKEN_VECTORS * pairs)
    inputs = vectors * (4 * TILE + 2 * TILE * PAIR_ROWS)
    return results + inputs + 8 * PAIR_ROWS + 2 * PAIR_ROWS * strip


def causal_scratch(longest: int, head_dim: int, lanes: int, *, backward: bool) -> int:
    """Return the scratch bytes that a thread of ``causal`` or ``causal_backward`` needs.

    Keys turned and scores of some queries; backwards also values turned and derivatives by scores.
    """
    padded = -(-longest // (2 * lanes)) * 2 * lanes
    return 4 * padded * (head_dim + CAUSAL_ROWS) * (2 if backward else 1)


def block_rows(row_bytes: int) -> int:
    """Return the rows of a weight that are unpacked at once, a multiple of 32."""
    return max(32, min(_BLOCK_ROWS, _PANEL_BYTES // row_bytes // 32 * 32))


def matmul_scratch(lanes: int, rows: int, row_bytes: int, groups: int) -> int:
    """Return the scratch bytes that a thread of a matrix product needs for a block of rows."""
    results = 4 * rows * TOKEN_VECTORS * lanes
    turned = 4 * rows * lanes  # results of a vector of tokens, a token each
    panel = rows * row_bytes
    scales_and_biases = 8 * rows * groups  # float32
    return results + turned + panel + scales_and_biases


def tile_scratch(groups: int) -> int:
    """Return the scratch bytes that a thread of a product in tiles needs.

    The parts, then float32 scales and biases of 16 rows, whole blocks of 8 groups.
    """
    blocks = -(-groups // 8)
    return sum(TILE_PARTS.values()) + 2 * 4 * TILE * blocks * 8


def few_scratch(groups: int) -> int:
    """Return the scratch bytes of such a product whose tiles have tokens as rows.

    The parts, float32 scales and biases of 16 rows, and the order of the groups.
    """
    return sum(FEW_PARTS.values()) + 2 * 4 * TILE * groups + 8 * (groups + 2)


def padded_features(head_dim: int) -> int:
    """Return the features of a quantized key or value: whole groups."""
    return -(-head_dim // KV_GROUP) * KV_GROUP


def split_of(position: int, max_exponent: int) -> int:
    """Return the number of the split that holds a key's position.

    The first sixteen splits have SPLIT_KEYS keys; then come eight of each doubling, up to
    ``SPLIT_KEYS << max_exponent`` keys. The borders depend on nothing but positions, so that a
    query's sums do not depend on how many rows its call has.
    """
    # 0-15 splits of the smallest size: none; 16-31: one; 32-63: two
    doublings = (position // SPLIT_KEYS).bit_length() - 4
    exponent = min(max(doublings, 0), max_exponent)
    return 8 * exponent + position // (SPLIT_KEYS << exponent)
