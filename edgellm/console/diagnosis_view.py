"""What ``edgellm doctor`` has found, as text to be pasted into a report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgellm.console.tables import Row, show_rows
from edgellm.console.terminal import out
from edgellm.console.units import plural, rate, seconds, size, speed

if TYPE_CHECKING:
    from edgellm.diagnostics.doctor import Diagnosis
    from edgellm.diagnostics.verify import Verification


def show_diagnosis(found: Diagnosis) -> None:
    """Write everything to standard output, the checks last."""
    machine = found.machine
    cores = plural(machine["cores"], "core")
    if machine["usable_cores"] != machine["cores"]:
        cores += f", {machine['usable_cores']} of them for this process"
    rows: list[Row] = [
        ("system", f"{machine['system']}, {machine['architecture']}, {machine['python']}"),
        ("processor", f"{machine['cpu']}, {cores}"),
        *_memory(found),
        *_mlx(found),
        *_kernels(found),
        *_disk(found),
        *_model(found),
        (
            "packages",
            ", ".join(f"{name} {version}" for name, version in found.packages.items() if version),
        ),
    ]
    show_rows(rows)
    console = out()
    console.print()
    for check in found.checks:
        style = "green" if check.passed else "bold red"
        console.print(f"{'ok' if check.passed else 'FAILED':6}", style=style, end="  ")
        console.print(f"{check.name}: {check.detail}", soft_wrap=True)


def show_verification(found: Verification) -> None:
    """Write a line a check to standard output, and the next step under what failed."""
    console = out()
    for verdict in found.verdicts:
        word, style = {True: ("ok", "green"), False: ("FAILED", "bold red"), None: ("-", "dim")}[
            verdict.passed
        ]
        console.print(f"{word:6}", style=style, end="  ")
        console.print(
            f"{verdict.name}: {verdict.detail}", soft_wrap=True, markup=False, highlight=False
        )
        if verdict.hint and verdict.passed is False:
            console.print(
                f"        hint: {verdict.hint}", soft_wrap=True, markup=False, highlight=False
            )


def _memory(found: Diagnosis) -> list[Row]:
    memory = found.memory
    if not memory:
        return []
    gpu = f", the GPU may use {size(memory['gpu_limit'])}" if memory["gpu_limit"] else ""
    return [("memory", f"{size(memory['total'])}, {size(memory['available'])} available{gpu}")]


def _mlx(found: Diagnosis) -> list[Row]:
    mlx = found.mlx
    if not mlx:
        return []
    details = ", ".join(
        f"{key} {value}"
        for key, value in sorted(mlx["device_info"].items())
        if key != "device_name"
    )
    return [
        ("mlx", f"{mlx['backend']} on {mlx['device']}, arithmetic in {mlx['arithmetic']}"),
        ("mlx device", details),
    ]


def _kernels(found: Diagnosis) -> list[Row]:
    kernels = found.kernels
    if not kernels:
        return []
    if not kernels["isa"]:
        return [("CPU kernels", f"none: {kernels['reason']}")]
    others = f"; it could also run {', '.join(kernels['others'])}" if kernels["others"] else ""
    rounding = "int8 activations" if kernels["int8"] else "float activations"
    kept = f"{plural(kernels['kept'], 'file')} ({size(kernels['kept_bytes'])}) kept in {kernels['folder']}"
    return [("CPU kernels", f"{kernels['isa']}, {rounding}{others}; {kept}")]


def _disk(found: Diagnosis) -> list[Row]:
    disk = found.disk
    if not disk:
        return []
    read = "the model's own files" if disk["read"] == "model" else "a file written for it"
    return [("disk", f"{rate(disk['bytes_per_second'])}, reading {read} in {disk['folder']}")]


def _model(found: Diagnosis) -> list[Row]:
    model = found.model
    if not model or not model["tokens_per_second"]:
        return []
    prompt = (
        f"prompt {speed(model['prompt_tokens_per_second'])}"
        if model["prompt_tokens_per_second"]
        else "prompt not timed"
    )
    cost = f"loaded in {seconds(model['load_seconds'])}, peak memory {size(model['peak_memory_bytes'])}"
    return [("bundled model", f"{speed(model['tokens_per_second'])}, {prompt}, {cost}")]
