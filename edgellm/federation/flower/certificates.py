"""The keys of a federation: made for one, in a folder for its owner alone."""

from __future__ import annotations

import datetime
import ipaddress
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgellm.distributed.links.addresses import Address
from edgellm.errors import FormatError
from edgellm.federation.flower.library import require_flower
from edgellm.federation.invitations import SUFFIX, Invitation, write_invitation
from edgellm.files.atomic import write_unhashed
from edgellm.files.locations import make_private_folder
from edgellm.files.strict_json import read_json

CERTIFICATE, KEY, CLIENTS = "server.crt", "server.key", "clients.json"

DAYS = 90
"""That a certificate is good for."""

_DAY = datetime.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys by which a server and its clients know each other.

    Attributes:
        folder: with the server's certificate and key, and the invitations.
        clients: public keys in PEM, by the names of clients.
    """

    folder: Path
    clients: Mapping[str, str]

    @property
    def invitations(self) -> Sequence[Path]:
        """The files that clients get, one for each."""
        return [self.folder / f"{name}{SUFFIX}" for name in self.clients]

    def remove(self) -> None:
        """Remove all of them: nobody gets in with them any more."""
        shutil.rmtree(self.folder, ignore_errors=True)


def keys_in(folder: Path, address: Address, clients: int) -> Keys | None:
    """Return the keys of a federation that goes on; None where there are none for it.

    Raises:
        FormatError: they are damaged.
        ReadError: they cannot be read.
    """
    if not (folder / CLIENTS).exists():
        return None
    plain = read_json(folder / CLIENTS)
    names = plain.get("clients")
    if not isinstance(names, dict) or not all(isinstance(one, str) for one in names.values()):
        raise FormatError(f"{folder / CLIENTS} is damaged", hint=f"remove {folder}")
    if plain.get("address") != str(address) or len(names) != clients:
        return None
    return Keys(folder, names)


def make_keys(folder: Path, address: Address, clients: int) -> Keys:
    """Make the keys of a federation, and an invitation for each client.

    The certificate is good for the address and for this machine itself, which is what a client
    calls through a tunnel of ssh. Raises ConversionError.
    """
    require_flower()
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    make_private_folder(folder)
    for left in folder.glob(f"*{SUFFIX}"):  # of an earlier federation with more clients
        left.unlink()
    own = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "edgellm federation")])
    now = datetime.datetime.now(datetime.UTC)
    hosts = dict.fromkeys([address.host, "127.0.0.1", "::1"])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(own.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _DAY)
        .not_valid_after(now + DAYS * _DAY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.IPAddress(ipaddress.ip_address(host)) for host in hosts]
            ),
            critical=False,
        )
        .sign(own, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    public: dict[str, str] = {}
    for number in range(1, clients + 1):
        # the curve that Flower makes keys of
        key = ec.generate_private_key(ec.SECP384R1())
        client = f"client-{number}"
        public[client] = (
            key.public_key()
            .public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
            .decode()
        )
        write_invitation(
            folder / f"{client}{SUFFIX}",
            Invitation(
                client=client,
                server=str(address),
                certificate=pem.decode(),
                key=_private(key).decode(),
            ),
        )
    write_unhashed(folder / CERTIFICATE, [pem], private=True)
    write_unhashed(folder / KEY, [_private(own)], private=True)
    plain = {"address": str(address), "clients": public}
    write_unhashed(folder / CLIENTS, [json.dumps(plain, indent=2).encode()], private=True)
    return Keys(folder, public)


def _private(key: object) -> bytes:
    """Return a private key in PEM."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    assert isinstance(key, ec.EllipticCurvePrivateKey), "it was made here"
    pem: bytes = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return pem
