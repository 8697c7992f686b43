"""How a model is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Literal, TypedDict

from edgellm.errors import ConfigError
from edgellm.setting_values import (
    choice,
    is_truth,
    number,
    path_text,
    set_checked,
    shown,
    whole_number,
)
from edgellm.settings.argument_names import check_names
from edgellm.settings.defaults import (
    KV_BITS,
    MACHINE_WAIT,
    MAX_BEAMS,
    MAX_CONTEXT,
    MAX_MACHINE_WAIT,
    PREFILL_CHUNK,
)
from edgellm.settings.sizes import MAX_SIZE, parse_memory


@check_names
@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSettings:
    """How a model is loaded. Raises ConfigError where a value is out of range.

    Attributes:
        memory: the budget (``4GB``, ``60%``, bytes, or ``auto``): weights, KV cache and working
            memory together.
        context: tokens that the KV cache has room for; None lets the plan decide.
        context_window: tokens that attention looks back over; older ones are forgotten and their
            memory reused.
        threads: processor threads for arithmetic on a CPU; None follows the machine.
        activations: the CPU kernels' arithmetic, ``auto``, ``int8`` or ``float``.
        backend: ``auto``, or ``mlx`` for MLX's own kernels also on a CPU, which has faster ones.
        prefill_chunk: prompt tokens that go through a layer at once.
        beams: maximum number of beams of a beam search; the KV cache then has room for them.
        kv_bits: bits per number in the KV cache, 32, 16, 8 or 4; None: 16 where the CPU kernels
            compute, elsewhere numbers as they are computed.
        prompt_cache: keep the KV caches of prompts on disk, for the next process: true, or a folder
            (``~`` is expanded), in which only the sub-folder ``edgellm-prompt-cache`` is used.
        speculate: speculative decoding, which verifies several draft tokens per pass: ``auto`` (by
            the draft model if there is one; else, of a paged model on a CPU, also by what the model
            itself held likely before; else as ``ngram``), ``ngram`` (by what the text has said
            before) or ``off``. Completions stay the same.
        draft: a smaller model with the same tokenizer that drafts tokens; None for none.
        adapter: the folder of a LoRA adapter, PEFT's or mlx-lm's, that runs beside the weights,
            which stay as they are; None for none.
        machines: a file that names several machines, this one first, among which the layers are
            divided; memory and threads are then this machine's. None: this machine alone.
        split: what each of several machines has: ``windows`` of layers, ``rows`` of every matrix,
            so that all compute at once, or ``auto``, whichever is forecast to be faster.
        machine_wait: seconds since a machine was last heard, up to which a text waits for one that
            was lost in it, and then goes on; 0: it ends at once. It is known to be lost at once
            where its connection ends, else after 8 s.
    """

    memory: str | int | None = None
    context: int | None = None
    context_window: int | None = None
    threads: int | None = None
    activations: Literal["auto", "int8", "float"] = "auto"
    backend: Literal["auto", "mlx"] = "auto"
    prefill_chunk: int = PREFILL_CHUNK
    beams: int = 1
    kv_bits: int | None = None
    prompt_cache: bool | str | Path = False
    speculate: Literal["auto", "ngram", "off"] = "auto"
    draft: str | Path | None = None
    adapter: str | Path | None = None
    machines: str | Path | None = None
    split: Literal["auto", "windows", "rows"] = "auto"
    machine_wait: float = MACHINE_WAIT

    def __post_init__(self) -> None:
        """Check every range."""
        checked: dict[str, object] = {
            "activations": choice("activations", self.activations, ("auto", "int8", "float")),
            "backend": choice("backend", self.backend, ("auto", "mlx")),
            "beams": whole_number("beams", self.beams, 1, MAX_BEAMS),
            "machine_wait": number("machine_wait", self.machine_wait, 0, MAX_MACHINE_WAIT),
            "prefill_chunk": whole_number("prefill_chunk", self.prefill_chunk, 1, 1 << 16),
            "split": choice("split", self.split, ("auto", "windows", "rows")),
            "speculate": choice("speculate", self.speculate, ("auto", "ngram", "off")),
        }
        if isinstance(self.memory, Integral) and not isinstance(self.memory, bool):
            checked["memory"] = whole_number("memory", self.memory, 1, MAX_SIZE)
        else:
            try:
                parse_memory(self.memory, MAX_SIZE)
            except ConfigError as error:
                raise ConfigError(f"memory: {error.message}", hint=error.hint) from None
        for name in ("context", "context_window"):
            value = getattr(self, name)
            if value is not None:
                checked[name] = whole_number(name, value, 1, MAX_CONTEXT)
        if self.threads is not None:
            checked["threads"] = whole_number("threads", self.threads, 1, 1024)
        if self.kv_bits is not None:
            checked["kv_bits"] = choice("kv_bits", self.kv_bits, KV_BITS)
        if is_truth(self.prompt_cache):
            checked["prompt_cache"] = bool(self.prompt_cache)
        else:
            path_text("prompt_cache", self.prompt_cache, "true, false or a folder")
        if self.draft is not None:
            path_text("draft", self.draft, "a folder, a Hub id or a bundled name")
        if self.adapter is not None:
            path_text("adapter", self.adapter, "the folder of an adapter")
        if self.machines is not None:
            path_text("machines", self.machines, "a file that names machines")
        set_checked(self, checked)
        if self.split == "rows" and self.machines is None:
            raise ConfigError(
                "rows are split among several machines, and there is one",
                hint="name the machines with --machines, or leave out --split",
            )
        if self.draft is not None and self.speculate != "auto":
            raise ConfigError(
                f"a draft model cannot be combined with speculate {shown(self.speculate)}",
                hint="leave out one of them",
            )


class LoadFields(TypedDict, total=False):
    """The fields of ``LoadSettings`` as keyword arguments: ``**settings: Unpack[LoadFields]``."""

    memory: str | int | None
    context: int | None
    context_window: int | None
    threads: int | None
    activations: Literal["auto", "int8", "float"]
    backend: Literal["auto", "mlx"]
    prefill_chunk: int
    beams: int
    kv_bits: int | None
    prompt_cache: bool | str | Path
    speculate: Literal["auto", "ngram", "off"]
    draft: str | Path | None
    adapter: str | Path | None
    machines: str | Path | None
    split: Literal["auto", "windows", "rows"]
    machine_wait: float
