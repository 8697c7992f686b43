"""Hidden states, and whose tokens they are, as they go from machine to machine."""

# L new tokens, E hidden

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import mlx.core as mx
import numpy as np

from edgellm import errors
from edgellm.distributed.links.lane import LaneError
from edgellm.errors import EdgeLLMError, MachineError

_BITS_OF = {mx.bfloat16: mx.uint16, mx.float16: mx.uint16, mx.float32: mx.uint32}
"""Types of hidden states, and those of whole numbers under which their bits are sent."""

_TYPES = {str(dtype).removeprefix("mlx.core."): dtype for dtype in _BITS_OF}


def packed(states: Sequence[mx.array]) -> tuple[list[Any], list[memoryview]]:
    """Return type and shape of each hidden state (1, L, E), and its bytes."""
    shapes, parts = [], []
    for hidden in states:
        name = str(hidden.dtype).removeprefix("mlx.core.")
        shapes.append([name, *hidden.shape])
        bits = np.array(hidden.view(_BITS_OF[hidden.dtype]), copy=False)
        parts.append(memoryview(np.ascontiguousarray(bits)).cast("B"))
    return shapes, parts


def unpacked(shapes: Sequence[Sequence[Any]], body: memoryview) -> list[mx.array]:
    """Return hidden states from their types and shapes, and the bytes of all of them."""
    states = []
    place = 0
    for name, *shape in shapes:
        dtype = _TYPES[name]
        bits = np.dtype(str(_BITS_OF[dtype]).removeprefix("mlx.core."))
        count = int(np.prod(shape)) * bits.itemsize
        numbers = np.frombuffer(body[place : place + count], bits).reshape(shape)
        states.append(mx.array(numbers).view(dtype))
        place += count
    return states


def error_document(error: BaseException) -> Mapping[str, Any]:
    """Return an error as it is sent."""
    if isinstance(error, EdgeLLMError):
        kind, message, hint = type(error).__name__, error.message, error.hint
    else:
        kind, message, hint = "MachineError", f"{type(error).__name__}: {error}", None
    return {"error": {"kind": kind, "message": message, "hint": hint}}


def raise_error(document: Mapping[str, Any], name: str) -> None:
    """Raise what a machine answered where that is an error, with the machine's name."""
    if "error" not in document:
        return
    error = document["error"]
    kind = getattr(errors, str(error.get("kind")), MachineError)
    if document.get("is_sequel"):
        kind = LaneError
    if not isinstance(kind, type) or not issubclass(kind, EdgeLLMError):
        kind = MachineError
    hint = error.get("hint")
    if kind is errors.MemoryBudgetError and hint:  # options of that machine's command
        hint = f"on machine {name}: {hint}"
    raise kind(f"machine {name}: {error.get('message')}", hint=hint)
