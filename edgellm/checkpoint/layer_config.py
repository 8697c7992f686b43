"""A layer's own numbers, where layers of a model differ: windows and rotary positions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgellm.checkpoint.dialects.config_values import read_flag, read_number
from edgellm.checkpoint.dialects.rotary import FULL, SLIDING, RopeScaling
from edgellm.checkpoint.family_configs import Family
from edgellm.errors import FormatError, UnsupportedModelError
from edgellm.settings import is_int


@dataclass(frozen=True, slots=True)
class Rotary:
    """How the heads of queries and keys turn by their position.

    Attributes:
        dim: features of a head that turn, its first ones.
        theta: the base of the frequencies.
        scaling: how they are stretched.
    """

    dim: int
    theta: float
    scaling: RopeScaling | None

    @property
    def attention_factor(self) -> float:
        """The factor of the rotated features of queries and keys."""
        if self.scaling is None:
            return 1.0
        return self.scaling.attention_factor


@dataclass(frozen=True, slots=True)
class LayerConfig:
    """A layer's own numbers; layers that have the same compute alike.

    Attributes:
        window: tokens that it looks back over; None: all.
        rotary: its rotary positions; None: it has none (NoPE).
    """

    window: int | None
    rotary: Rotary | None


def read_layers(
    raw: Mapping[str, Any], family: Family, layers: int
) -> tuple[int | None, frozenset[int], frozenset[int]]:
    """Return the window, the layers that have it, and those without rotary positions.

    Args:
        raw: the config.
        family: its family.
        layers: how many there are.

    Raises:
        FormatError: one of the numbers is none.
        UnsupportedModelError: a layer is of another kind.
    """
    window, sliding = _windows(raw, family, layers)
    nope: frozenset[int] = frozenset()
    if family.nope == "listed":
        nope = _listed_nope_layers(raw, layers)
    elif family.nope == "full" and window is not None:
        nope = frozenset(range(layers)) - sliding
    return window, sliding, nope


def _windows(
    raw: Mapping[str, Any], family: Family, layers: int
) -> tuple[int | None, frozenset[int]]:
    """Return the window and the layers that have it; what is left out is as in transformers."""
    window = raw.get("sliding_window", 4096)
    if window is None or family.sliding_window == "none":
        return None, frozenset()
    switched = family.sliding_window == "switched"
    if switched and not read_flag(raw, "use_sliding_window", default=False):
        return None, frozenset()
    if not is_int(window) or window < 1:
        raise FormatError(
            f"config.json: sliding_window is {str(window)[:40]}; it must be a whole number above 0"
        )
    if family.sliding_window == "all":
        return window, frozenset(range(layers))
    types = raw.get("layer_types")
    if isinstance(types, list) and len(types) == layers:
        other = [kind for kind in types if kind not in (SLIDING, FULL)]
        if other:
            raise UnsupportedModelError(
                f"layer_types names {str(other[0])[:40]!r}",
                hint=f"edgellm runs layers of {SLIDING} and of {FULL}",
            )
        return window, frozenset(index for index in range(layers) if types[index] == SLIDING)
    if not switched:
        return window, _by_pattern(raw, family, layers)
    if family.nope == "listed":
        # SmolLM3: a window instead of positions
        return window, _listed_nope_layers(raw, layers)
    first = raw.get("max_window_layers", 28)
    if not is_int(first) or first < 0:
        first = 0
    return window, frozenset(range(first, layers))


def _listed_nope_layers(raw: Mapping[str, Any], layers: int) -> frozenset[int]:
    """Return the layers that SmolLM3's config gives no rotary positions."""
    listed = raw.get("no_rope_layers")
    if listed is not None:
        # 1 for a layer that has them
        if (
            not isinstance(listed, list)
            or len(listed) < layers
            or any(item not in (0, 1) for item in listed)
        ):
            raise FormatError(
                f"config.json: no_rope_layers is {str(listed)[:40]}; "
                f"it must be a list of {layers} numbers, 0 or 1"
            )
        return frozenset(index for index in range(layers) if listed[index] == 0)
    return _every(read_number(raw, "no_rope_layer_interval", 4), layers)


def _by_pattern(raw: Mapping[str, Any], family: Family, layers: int) -> frozenset[int]:
    """Return the layers that have a window by ``sliding_window_pattern``.

    It is a number or, of EXAONE 4, a text: ``LLLG`` stands for three of a window and a full one,
    again and again, and the last layer is always full.
    """
    pattern = raw.get("sliding_window_pattern")
    if isinstance(pattern, str) and pattern and set(pattern) <= {"L", "G"}:
        last = layers - 1
        return frozenset(index for index in range(last) if pattern[index % len(pattern)] == "L")
    if isinstance(pattern, str):
        raise FormatError(f"config.json: sliding_window_pattern is {pattern[:40]!r}")
    every = read_number(raw, "sliding_window_pattern", family.full_every)
    return frozenset(range(layers)) - _every(every, layers)


def _every(number: int, layers: int) -> frozenset[int]:
    """Return every ``number``-th layer: number - 1, 2 * number - 1, and so on."""
    return frozenset(range(number - 1, layers, number))
