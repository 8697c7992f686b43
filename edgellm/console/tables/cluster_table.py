"""A forecast for several machines: what each holds, reads and computes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgellm.console.rows import show_rows
from edgellm.console.units import percent, plural, rate, short_time, size, speed


def show_cluster(plan: Mapping[str, Any]) -> None:
    """Write what ``ClusterForecast.as_dict`` returns."""
    rows = []
    for kind, forecast in plan["kinds"].items():
        rows.append((f"by {kind}", _cluster_speed(forecast)))
        rows += [(f"  {one['name']}", _machine_part(kind, one)) for one in forecast["machines"]]
        if forecast["output_matrix"]:
            rows.append(("  output matrix", forecast["output_matrix"]))
    rows += [(f"by {kind}", f"not possible: {why}") for kind, why in plan["refused"].items()]
    rows += [
        ("this machine alone", _alone(plan["alone"])),
        ("context", plural(plan["context"], "token")),
        ("chosen", f"{plan['split']}: {plan['reason']}"),
    ]
    if plan["alone"] and plan["alone"]["seconds_per_token"] < plan["seconds_per_token"]:
        rows.append(("for one text", "this machine alone is faster: leave out --machines"))
    show_rows(rows, title=plan["model"])


def _alone(forecast: Mapping[str, Any] | None) -> str:
    """Return in words what this machine would take without the others."""
    if forecast is None:
        return "not possible: its memory is too small"
    (machine,) = forecast["machines"]
    return f"{_cluster_speed(forecast)}; {_machine_part('windows', machine)}"


def _cluster_speed(forecast: Mapping[str, Any]) -> str:
    arithmetic, link, read = (
        short_time(forecast[f"{name}_seconds"]) for name in ("arithmetic", "link", "read")
    )
    text = f"{speed(forecast['tokens_per_second'])} at most: arithmetic {arithmetic}"
    if forecast["link_seconds"]:
        text += f", links {link}"
    if forecast["read_seconds"]:
        text += f"; meanwhile disks read for {read}"
    if forecast["windows"] > 1:
        return f"{text}; {plural(forecast['windows'], 'window')}"
    return text


def _machine_part(kind: str, machine: Mapping[str, Any]) -> str:
    """Return in words what a machine of a cluster holds, reads and computes."""
    layers = plural(len(machine["layers"]), "layer")
    held = layers if kind == "windows" else f"{percent(machine['share'])} of {layers}"
    taken = size(machine["total_bytes"])
    if machine["adapter_bytes"]:
        taken += f" ({size(machine['adapter_bytes'])} for the adapter)"
    text = f"{held}, {taken} of {size(machine['budget'])}; "
    if machine["streamed_bytes"]:
        text += f"{machine['pinned']} in memory, {size(machine['streamed_bytes'])} read per token "
        text += f"at {rate(machine['disk_bytes_per_second'])}; "
    text += f"computes {rate(machine['weights_per_second'])}"
    if machine["trip_seconds"]:
        text += f"; {short_time(machine['trip_seconds'])} there and back"
    return text
