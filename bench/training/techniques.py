"""The techniques of a run: a few that differ in one thing each, or those that are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product

from edgellm.bench.records.backend_names import OWN
from edgellm.bench.training.technique import (
    CUDA,
    FULL,
    LORA,
    METHODS,
    MLX_LM,
    PEFT,
    QLORA,
    Technique,
)
from edgellm.errors import ConfigError

PARTS = 4
"""Parts of a step where accumulation is measured without being asked for."""

METHODS_OF: Mapping[str, tuple[str, ...]] = {
    OWN: (FULL, LORA, QLORA),
    MLX_LM: (FULL, LORA, QLORA),
    PEFT: (FULL, LORA),
    CUDA: (FULL, LORA),
}
"""What each backend learns here. PEFT's QLoRA needs bitsandbytes, and is not measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The options of a run; an empty tuple leaves a choice to the usual set.

    Attributes:
        backends: the libraries, in their order.
        methods: ``full``, ``lora``, ``qlora``.
        bits: of the model for QLoRA.
        dtypes: of activations.
        checkpointing: with it, without it, or both.
        accumulation: parts of a step.
        memory: budgets of edgellm, in bytes.
    """

    backends: tuple[str, ...]
    methods: tuple[str, ...] = ()
    bits: tuple[int, ...] = (4,)
    dtypes: tuple[str, ...] = ()
    checkpointing: tuple[bool, ...] = ()
    accumulation: tuple[int, ...] = ()
    memory: tuple[int, ...] = ()


def techniques_of(choice: Choice) -> list[Technique]:
    """Return what is measured, the methods one after the other in each backend.

    Raises:
        ConfigError: a backend does not train by any of the methods.
    """
    found: list[Technique] = []
    for backend in choice.backends:
        own = METHODS_OF[backend]
        methods = [method for method in choice.methods or own if method in own]
        if not methods:
            names = ", ".join(METHODS[method] for method in choice.methods)
            raise ConfigError(
                f"{backend} does not train by {names} here",
                hint=f"it does by {', '.join(own)}: --technique {own[-1]}",
            )
        for method in methods:
            found += _of_method(choice, backend, method)
    return list(dict.fromkeys(found))


def _of_method(choice: Choice, backend: str, method: str) -> list[Technique]:
    bits = choice.bits if method == QLORA else (16,)
    found = []
    for plain in (Technique(backend=backend, method=method, bits=number) for number in bits):
        if choice.dtypes or choice.checkpointing or choice.accumulation:
            ways = _asked_for(choice, plain)
        else:
            ways = _usual(plain)
        if backend == OWN and method == FULL:  # which knows no other way
            ways = [replace(way, checkpointing=True) for way in ways]
        elif backend == OWN:
            ways += _paged(choice, replace(plain, checkpointing=True))
        found += ways
    return found


def _asked_for(choice: Choice, plain: Technique) -> list[Technique]:
    """Return every combination of what was asked for."""
    return [
        replace(plain, dtype=dtype, checkpointing=checkpointing, accumulation=parts)
        for dtype, checkpointing, parts in product(
            choice.dtypes or (None,), choice.checkpointing or (False,), choice.accumulation or (1,)
        )
    ]


def _usual(plain: Technique) -> list[Technique]:
    """Return a technique as it is, and, once for each backend, with one thing changed at a time."""
    varied = {OWN: QLORA, MLX_LM: QLORA, PEFT: LORA, CUDA: LORA}
    if plain.method != varied[plain.backend]:
        return [plain]
    changed = [replace(plain, checkpointing=True), replace(plain, accumulation=PARTS)]
    if plain.backend == PEFT:  # on a GPU 16 bits are the usual type
        changed.append(replace(plain, dtype="bfloat16"))
    return [plain, *changed]


def _paged(choice: Choice, plain: Technique) -> list[Technique]:
    """Return edgellm's techniques within budgets."""
    if choice.memory:
        return [replace(plain, paged=True, memory=budget) for budget in choice.memory]
    if plain.method == QLORA:
        return [replace(plain, paged=True)]
    return []
