"""Addresses that a cluster may use: of this machine itself, or of a private network."""

from __future__ import annotations

import ipaddress
from typing import NamedTuple

from edgellm.errors import ConfigError
from edgellm.setting_values import shown

DEFAULT_PORT = 47110

VIRTUAL_NETWORKS = ipaddress.ip_network("100.64.0.0/10")
"""Addresses that virtual private networks such as Tailscale give; they lead nowhere outside."""

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

PRIVATE_HINT = "name a private address, such as 192.168.1.10, or 127.0.0.1 with a tunnel of ssh"


class Address(NamedTuple):
    """Where a machine listens.

    Attributes:
        host: an IP address.
        port: of TCP.
    """

    host: str
    port: int

    def __str__(self) -> str:
        """Return it as it is written."""
        if ":" in self.host:
            return f"[{self.host}]:{self.port}"
        return f"{self.host}:{self.port}"


def parse_address(text: str, port: int = DEFAULT_PORT) -> Address:
    """Return an address from ``HOST``, ``HOST:PORT`` or ``[HOST]:PORT``. Raises ConfigError."""
    host, separator, number = text.strip().rpartition(":")
    if text.startswith("[") and text.endswith("]"):
        host, separator = text, ""
    elif not separator or (":" in host and not host.endswith("]")):
        host, separator = text.strip(), ""
    if separator:
        if not number.isascii() or not number.isdecimal() or not 0 < int(number) < 1 << 16:
            raise ConfigError(f"{shown(text)} has no port that exists", hint="a port is 1 to 65535")
        port = int(number)
    return Address(require_private(host.removeprefix("[").removesuffix("]")), port)


def require_private(host: str) -> str:
    """Return an address if it is private or this machine's own. Raises ConfigError."""
    try:
        address = _without_wrapping(ipaddress.ip_address(host))
    except ValueError:
        raise ConfigError(
            f"{shown(host)} is no IP address",
            hint="write it in numbers, as ping shows it: names may lead elsewhere tomorrow",
        ) from None
    if address.is_unspecified:
        raise ConfigError(
            f"{host} stands for all networks that this machine is in", hint=PRIVATE_HINT
        )
    if address.is_multicast or (address.version == 4 and address.is_reserved):
        raise ConfigError(f"{host} is the address of no machine", hint=PRIVATE_HINT)
    # link-local and loopback addresses are private, too
    if not address.is_private and address not in VIRTUAL_NETWORKS:
        raise ConfigError(f"{host} is a public address", hint=PRIVATE_HINT)
    return str(address)


def _without_wrapping(address: _Address) -> _Address:
    """Return the address that an IPv6 one stands for: ``::ffff:0.0.0.0`` listens as 0.0.0.0."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None and not address.scope_id.isprintable():
            raise ValueError("no network interface is called so")
        return address.ipv4_mapped or address
    return address
