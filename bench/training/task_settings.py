"""The settings that all techniques of a run learn with, and their defaults."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSettings:
    """The steps that a technique takes, and how far numbers move in them.

    Attributes:
        steps: how many.
        tokens: of a sequence, at most.
        batch: sequences of a step.
        rank: of each low-rank change.
        alpha: a change is scaled by ``alpha / rank``.
        targets: matrices that are changed.
        rate: of learning, the same at every step.
        decay: weight decay of AdamW.
        seed: of the first numbers and of the order.
        threads: for arithmetic; None: as the machine has.
        activations: of edgellm's CPU kernels, ``auto``, ``int8`` or ``float``.
    """

    steps: int = 5
    tokens: int = 128
    batch: int = 4
    rank: int = 16
    alpha: float = 32.0
    targets: tuple[str, ...] = ("self_attn.q_proj", "self_attn.v_proj")
    rate: float = 2e-4
    decay: float = 0.01
    seed: int = 0
    threads: int | None = None
    activations: str = "auto"
