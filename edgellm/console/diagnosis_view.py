"""Results of ``edgellm doctor`` and ``edgellm verify``, as text for a person's report."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgellm.console.rows import Row, show_rows
from edgellm.console.terminal import out
from edgellm.console.units import plural, rate, seconds, size, speed

if TYPE_CHECKING:
    from edgellm.diagnostics.doctor import Diagnosis
    from edgellm.diagnostics.peers import MeasuredPeer
    from edgellm.diagnostics.verify import Verification

MARKS = {True: ("ok", "green"), False: ("FAILED", "bold red"), None: ("-", "dim")}
"""The word and the style of what has passed, has failed, and was not tried."""


INDENT = " " * 8
"""Below the mark, where a check takes several lines."""

NARROWEST = 20
"""Columns that a check takes at least."""

PEERS_HEADING = (
    "Machines and links, without names and addresses, for a report. Please add by hand how",
    "they are connected: Thunderbolt, Ethernet, Wi-Fi.",
)


def show_diagnosis(diagnosis: Diagnosis) -> None:
    """Write everything to standard output, the checks last."""
    machine = diagnosis.machine
    versions = diagnosis.packages.items()
    rows: list[Row] = [
        ("system", f"{machine['system']}, {machine['architecture']}, {machine['python']}"),
        ("processor", _processor(diagnosis)),
        *_memory(diagnosis),
        *_mlx(diagnosis),
        *_kernels(diagnosis),
        *_disk(diagnosis),
        *_model(diagnosis),
        ("packages", ", ".join(f"{name} {version}" for name, version in versions if version)),
    ]
    show_rows(rows)
    out().print()
    for check in diagnosis.checks:
        _show_check(check.passed, check.name, check.detail)
    out().print()
    out().print(verdict(diagnosis), style="bold", soft_wrap=not out().is_terminal)


def verdict(diagnosis: Diagnosis) -> str:
    """Return what to make of it all, and what to do next."""
    failed = [check.name for check in diagnosis.checks if not check.passed]
    if not failed:
        return f"All is well: {len(diagnosis.checks)} of {len(diagnosis.checks)} checks passed."
    return (
        f"Not all is well: {', '.join(failed)} failed. Each of these lines has the next step; "
        "if that does not help, report a bug where you got edgellm, "
        "with everything that `edgellm doctor --json` prints."
    )


def show_verification(verification: Verification) -> None:
    """Write a line a check to standard output, and the next step under what has failed."""
    for verdict in verification.verdicts:
        _show_check(verdict.passed, verdict.name, verdict.detail)
        if verdict.hint and verdict.passed is False:
            out().print(f"{INDENT}hint: {verdict.hint}", soft_wrap=True)


def _show_check(passed: bool | None, name: str, detail: str) -> None:
    word, style = MARKS[passed]
    console = out()
    console.print(f"{word:6}", style=style, end="  ")
    text = f"{name}: {detail}"
    if console.is_terminal:
        room = max(console.width - len(INDENT), NARROWEST)
        text = f"\n{INDENT}".join(textwrap.wrap(text, room, break_on_hyphens=False))
    console.print(text, soft_wrap=True)


def _processor(diagnosis: Diagnosis) -> str:
    machine = diagnosis.machine
    text = f"{machine['cpu']}, {plural(machine['cores'], 'core')}"
    if machine["usable_cores"] != machine["cores"]:
        text += f", {machine['usable_cores']} of them for this process"
    return text


def _memory(diagnosis: Diagnosis) -> list[Row]:
    memory = diagnosis.memory
    if not memory:
        return []
    text = f"{size(memory['total'])}, {size(memory['available'])} available"
    if memory["gpu_limit"]:
        text += f", the GPU may use {size(memory['gpu_limit'])}"
    return [("memory", text)]


def _mlx(diagnosis: Diagnosis) -> list[Row]:
    mlx = diagnosis.mlx
    if not mlx:
        return []
    device_info = sorted(mlx["device_info"].items())
    details = [f"{key} {value}" for key, value in device_info if key != "device_name"]
    return [
        ("mlx", f"{mlx['backend']} on {mlx['device']}, arithmetic in {mlx['arithmetic']}"),
        ("mlx device", ", ".join(details)),
    ]


def _kernels(diagnosis: Diagnosis) -> list[Row]:
    kernels = diagnosis.kernels
    if not kernels:
        return []
    if not kernels["isa"]:
        return [("CPU kernels", f"none: {kernels['reason']}")]
    text = f"{kernels['isa']}, float activations"
    if kernels["int8"]:
        text = f"{kernels['isa']}, int8 activations"
    if kernels["others"]:
        text += f"; it could also run {', '.join(kernels['others'])}"
    files = f"{plural(kernels['kept'], 'file')} ({size(kernels['kept_bytes'])})"
    return [("CPU kernels", f"{text}; {files} kept in {kernels['folder']}")]


def _disk(diagnosis: Diagnosis) -> list[Row]:
    disk = diagnosis.disk
    if not disk:
        return []
    source = "a file written for it"
    if disk["read"] == "model":
        source = "the model's own files"
    return [("disk", f"{rate(disk['bytes_per_second'])}, reading {source} in {disk['folder']}")]


def _model(diagnosis: Diagnosis) -> list[Row]:
    model = diagnosis.model
    if not model or not model["tokens_per_second"]:
        return []
    prompt = "prompt not timed"
    if model["prompt_tokens_per_second"]:
        prompt = f"prompt {speed(model['prompt_tokens_per_second'])}"
    load = f"loaded in {seconds(model['load_seconds'])}"
    peak = f"peak memory {size(model['peak_memory_bytes'])}"
    text = f"{speed(model['tokens_per_second'])}, {prompt}, {load}, {peak}"
    return [("bundled model", text)]


def show_peers(peers: Sequence[MeasuredPeer]) -> None:
    """Write machines and links to standard output, as a block that can be sent to others."""
    for line in ("", *PEERS_HEADING, "", *peers_lines(peers), ""):
        out().print(line, soft_wrap=True, highlight=False, markup=False)


def peers_lines(peers: Sequence[MeasuredPeer]) -> list[str]:
    """Return the lines of the block: a machine or a link in each."""
    lines = []
    for peer in peers:
        if peer.error and not peer.chip:
            lines.append(f"machine {peer.number}: {peer.error}")
            continue
        found = [peer.chip, size(peer.memory), peer.system]
        found += [f"{name} {version}" for name, version in peer.versions.items()]
        found.append(f"disk {rate(peer.disk)}" if peer.disk else "disk not measured")
        if peer.weights:
            found.append(f"weights {rate(peer.weights)}")
        if peer.error:
            found.append(peer.error)
        lines.append(f"machine {peer.number}: {', '.join(found)}")
    for peer in peers:
        if not peer.trips or not peer.there or not peer.back:
            continue
        trips = ", ".join(
            f"{_short(time)} for {size(nbytes)}" for nbytes, time in peer.trips.items()
        )
        lines.append(
            f"link 1-{peer.number}: there and back {trips}; {rate(peer.there)} there, "
            f"{rate(peer.back)} back"
        )
    return lines


def _short(time: float) -> str:
    return f"{time * 1e6:.0f} us" if time < 1e-3 else seconds(time)
