"""Invitations: one file lets one client in, and is for its owner alone."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from edgellm.errors import ConfigError
from edgellm.files.atomic import write_unhashed
from edgellm.files.bounded import read_private
from edgellm.files.strict_json import parse_json
from edgellm.setting_values import require_text

SUFFIX = ".invitation"

_MAX_BYTES = 1 << 16

_TAKE = "take the one that edgellm federate server has written for this client"


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation:
    """The right to take part in one federation, for one client.

    Attributes:
        client: its name.
        server: the server's address, with its port.
        certificate: of the server, in PEM: no other one is believed.
        key: the client's own private key, in PEM.
    """

    client: str
    server: str
    certificate: str
    key: str


def write_invitation(path: Path, invitation: Invitation) -> None:
    """Write an invitation for its owner alone. Raises ConversionError."""
    text = json.dumps({"edgellm_federation": 1, **asdict(invitation)}, indent=2)
    write_unhashed(path, [f"{text}\n".encode()], private=True)


def read_invitation(path: Path) -> Invitation:
    """Read an invitation. Raises ConfigError, FormatError."""
    data = read_private(path, "invitation", _MAX_BYTES, hint=_TAKE)
    plain = parse_json(data, str(path))
    if plain.get("edgellm_federation") != 1:
        raise ConfigError(f"{path} is no invitation that this edgellm knows", hint=_TAKE)
    try:
        names = ("client", "server", "certificate", "key")
        return Invitation(**{name: require_text(name, plain.get(name)) for name in names})
    except ConfigError as error:
        raise ConfigError(f"{path} is damaged: {error.message}", hint=_TAKE) from error
