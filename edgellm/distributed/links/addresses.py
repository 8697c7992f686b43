"""Addresses that a cluster may use: of this machine itself, or of a private network."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any, NamedTuple

from edgellm.errors import ConfigError, MachineError
from edgellm.setting_values import shown

DEFAULT_PORT = 47110

VIRTUAL_NETWORKS = ipaddress.ip_network("100.64.0.0/10")
"""Addresses that virtual private networks such as Tailscale give; they lead nowhere outside."""

NO_NETWORK = "this machine has no network of that name"

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
    if address.version == 6 and address.is_link_local and address.scope_id is None:
        raise ConfigError(
            f"{host} is an address in each network that this machine is in",
            hint=f"say in which: {host}%eth0, as ip link shows it, or {host}%en0 on a Mac",
        )
    # link-local and loopback addresses are private, too
    if not address.is_private and address not in VIRTUAL_NETWORKS:
        raise ConfigError(f"{host} is a public address", hint=PRIVATE_HINT)
    return str(address)


def socket_address(address: Address) -> Any:
    """Return an address as the system has it, with the number of its network. Raises OSError."""
    host, _, network = address.host.partition("%")
    if not network:
        return tuple(address)
    try:
        number = int(network) if network.isdecimal() else socket.if_nametoindex(network)
    except OSError as error:
        raise OSError(error.errno, NO_NETWORK) from error
    return host, address.port, 0, number


def listening_socket(address: Address, backlog: int) -> socket.socket:
    """Return a socket that listens at an address.

    Raises MachineError where it is taken, or not this machine's.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        # a port whose last connections are only just closed is free; one that is listened on is not
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(socket_address(address))
        listener.listen(backlog)
    except OSError as error:
        listener.close()
        raise MachineError(
            f"this machine cannot listen at {address}: {error.strerror or error}",
            hint="take another --port, or an --address of this machine",
        ) from error
    return listener


def is_here(address: Address) -> bool:
    """Return whether an address is one of this machine's now."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(socket_address(address._replace(port=0)))
        except OSError:
            return False
    return True


def _without_wrapping(address: _Address) -> _Address:
    """Return the address that an IPv6 one stands for: ``::ffff:0.0.0.0`` listens as 0.0.0.0."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None and not address.scope_id.isprintable():
            raise ValueError("no network interface is called so")
        return address.ipv4_mapped or address
    return address
