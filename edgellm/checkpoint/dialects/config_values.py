"""Single values of a ``config.json``, read and checked; null counts as left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgellm.errors import FormatError
from edgellm.settings import MAX_CONTEXT, MAX_VOCABULARY, is_int

LIMITS: Mapping[str, tuple[int, int]] = {
    "hidden_size": (1, 1 << 17),
    "intermediate_size": (1, 1 << 19),
    "num_hidden_layers": (1, 1024),
    "num_attention_heads": (1, 4096),
    "num_key_value_heads": (1, 4096),
    "head_dim": (2, 4096),
    "vocab_size": (1, MAX_VOCABULARY),
    "max_position_embeddings": (1, MAX_CONTEXT),
    "no_rope_layer_interval": (1, 1024),
    "sliding_window_pattern": (1, 1024),
}
"""The range of a model's numbers; anything outside is a damaged config, not a model."""


def read_number(
    raw: Mapping[str, Any],
    name: str,
    default: int | None = None,
    *,
    limit: str | None = None,
    file: str = "config.json",
) -> int:
    """Return the whole number ``name``, in the range that LIMITS has for it. Raises FormatError.

    Args:
        raw: the config.
        name: a key of LIMITS, or another file's word for one.
        default: taken where it is left out; None: it must be there.
        limit: the key of LIMITS, where ``name`` is another file's word.
        file: the file's name, for messages.
    """
    value = raw.get(name)
    if value is None:
        value = default
    low, high = LIMITS[limit or name]
    if not is_int(value) or not low <= value <= high:
        given = "missing" if value is None else str(value)[:40]
        raise FormatError(
            f"{file}: {name} is {given}; it must be a whole number between {low} and {high}"
        )
    return value


def read_real(
    raw: Mapping[str, Any], name: str, default: float, *, low: float, high: float
) -> float:
    """Return the number ``name``, above ``low`` and up to ``high``. Raises FormatError."""
    value = raw.get(name)
    if value is None:
        value = default
    # the comparison refuses NaN, too, which is the default where there is none
    if isinstance(value, bool) or not isinstance(value, int | float) or not low < value <= high:
        raise FormatError(
            f"config.json: {name} is {str(value)[:40]}; "
            f"it must be a number above {low} and up to {high}"
        )
    return float(value)


def read_flag(raw: Mapping[str, Any], name: str, *, default: bool) -> bool:
    """Return the truth value ``name``. Raises FormatError."""
    value = raw.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise FormatError(f"config.json: {name} is {str(value)[:40]}; it must be true or false")
    return value


def head_dim_of(config: Mapping[str, Any]) -> int:
    """Return the size of a head."""
    heads = read_number(config, "num_attention_heads")
    return read_number(config, "head_dim", max(1, read_number(config, "hidden_size") // heads))


def listed_ids(value: object) -> list[int]:
    """Return the numbers of a config's ``eos_token_id``: one, a list of them, or nothing."""
    values: Sequence[object] = value if isinstance(value, list | tuple) else [value]
    return [item for item in values if is_int(item)]


def token_ids(value: object, vocab_size: int) -> frozenset[int]:
    """Return the ids of a config's ``eos_token_id`` that are tokens of the vocabulary."""
    return frozenset(item for item in listed_ids(value) if 0 <= item < vocab_size)
