"""Numbers and sizes of ggml's types: the gguf library's, and those that it does not know."""

from __future__ import annotations

from collections.abc import Mapping

NEWER: Mapping[int, tuple[str, int, int]] = {42: ("Q2_0", 64, 18)}
"""Types that gguf 0.19 does not know: by ggml's number, name, weights and bytes of a block."""


def type_of(number: int) -> tuple[str, int, int]:
    """Return name, weights and bytes of a block by ggml's number; ``("", 0, 0)``: none."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    if number in NEWER:
        return NEWER[number]
    try:
        kind = GGMLQuantizationType(number)
        block, nbytes = GGML_QUANT_SIZES[kind]
    except (ValueError, KeyError):
        return "", 0, 0
    return kind.name, int(block), int(nbytes)


def number_of(name: str) -> int:
    """Return ggml's number of a type by its name."""
    from gguf.constants import GGMLQuantizationType

    for number, (newer, _, _) in NEWER.items():
        if newer == name:
            return number
    return int(GGMLQuantizationType[name].value)
