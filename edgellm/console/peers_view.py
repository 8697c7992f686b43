"""The machines and links of ``edgellm doctor --peers``, as a block that can be sent to others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgellm.console.terminal import out
from edgellm.console.units import rate, seconds, size

if TYPE_CHECKING:
    from edgellm.diagnostics.peers import MeasuredPeer

HEADING = "Machines and links, without names and addresses, for a report. Please add by hand how"
HEADING_GOES_ON = "they are connected: Thunderbolt, Ethernet, Wi-Fi."


def show_peers(peers: Sequence[MeasuredPeer]) -> None:
    """Write the block to standard output."""
    for line in ("", HEADING, HEADING_GOES_ON, "", *peers_lines(peers), ""):
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
