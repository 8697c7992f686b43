"""The plan of a training run, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgellm.console.rows import Row, show_rows
from edgellm.console.units import count, plural, rate, seconds, size


def show_training_plan(plan: Mapping[str, Any], *, name: str) -> None:
    """Write what ``TrainingForecast.as_dict`` returns; ``busy`` says what else the machine did."""
    rows = [
        ("learned", f"{count(plan['learned'])} numbers"),
        *((part, size(nbytes)) for part, nbytes in plan["parts"].items()),
        ("total", f"{size(plan['total'])} of a budget of {size(plan['budget'])}"),
        ("least memory", f"--memory {plan['least'] // 1_000_000}MB"),
        ("layers in memory", f"{plan['pinned']} of {plan['layers']}"),
        ("a step", _step(plan)),
        ("read a step", _moved(plan)),
        *_disk(plan),
        ("arithmetic", _arithmetic(plan)),
        ("time a step", f"{seconds(plan['seconds_a_step'])}, limited by {_limit(plan)}"),
    ]
    show_rows(rows, title=name)


def show_together_plan(plan: Mapping[str, Any], *, name: str) -> None:
    """Write what ``TogetherForecast.as_dict`` returns; ``busy`` says what else the machine did."""
    rows: list[Row] = [("learned", f"{count(plan['learned'])} numbers")]
    for machine in plan["machines"]:
        text = f"{machine['tokens']:,} tokens in {seconds(machine['seconds'])}; "
        text += f"{size(machine['total_bytes'])} of {size(machine['budget'])}, "
        if machine["pinned"] is not None:
            text += f"{machine['pinned']} of {plan['layers']} layers in memory; "
        text += f"{machine['arithmetic'] / 1e9:.3g} GFLOP/s"
        if machine["bytes_moved"]:
            text += f"; {size(machine['bytes_moved'])} from and to a disk of "
            text += rate(machine["disk_bytes_per_second"])
        if machine["trip_seconds"]:
            text += f"; numbers there and back in {seconds(machine['trip_seconds'])}"
        rows.append((machine["name"], text))
    message = size(plan["message_bytes"])
    rows.append(("a step", f"{plan['step_tokens']:,} tokens; {message} to each machine and back"))
    measured = f", measured while {plan['busy']}" if plan["busy"] else ""
    rows.append(("time a step", f"{seconds(plan['seconds_a_step'])}{measured}"))
    rows += [("note", sentence) for sentence in plan["notes"]]
    show_rows(rows, title=name)


def _moved(plan: Mapping[str, Any]) -> str:
    if not plan["bytes_read"]:
        return "nothing"
    if not plan["bytes_written"]:
        return size(plan["bytes_read"])
    written = size(plan["bytes_written"])
    return f"{size(plan['bytes_read'])}, and {written} of kept inputs written"


def _step(plan: Mapping[str, Any]) -> str:
    text = f"{plan['step_tokens']:,} tokens at most"
    if plan["micro_tokens"] < plan["step_tokens"]:
        text += f", {plan['micro_tokens']:,} in a layer at a time"
    return text


def _disk(plan: Mapping[str, Any]) -> list[Row]:
    if not plan["disk"]:
        return []
    hidden = "never hidden behind the arithmetic"
    if plan["hidden_from_tokens"] is not None:
        tokens = plural(plan["hidden_from_tokens"], "token")
        hidden = f"hidden behind the arithmetic from {tokens} a step on"
    return [("disk", f"{rate(plan['disk'])}: {hidden}")]


def _arithmetic(plan: Mapping[str, Any]) -> str:
    text = f"{plan['arithmetic'] / 1e9:.3g} GFLOP/s"
    if not plan["is_measured"]:
        return f"{text}, assumed: it was not measured"
    if plan["busy"]:
        return f"{text}, measured here while {plan['busy']}"
    return f"{text}, measured here with one layer"


def _limit(plan: Mapping[str, Any]) -> str:
    hidden = plan["hidden_from_tokens"]
    if plan["disk"] and (hidden is None or hidden > plan["step_tokens"]):
        return "the disk"
    return "arithmetic"
