"""Certificates made on the fly: an authority that issues what a test asks for, good or bad."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from coterie.transport.tls import TlsSettings

SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
HOUR = datetime.timedelta(hours=1)
NAMES = ("localhost", "127.0.0.1", "node.test")


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


class Pair(NamedTuple):
    """A certificate and its key, as PEM."""

    cert: bytes
    key: bytes

    def write(self, cert: Path, key: Path) -> None:
        """In this order, so that for a moment they do not fit."""
        cert.write_bytes(self.cert)
        key.write_bytes(self.key)


def key_pem(key: Any, password: bytes = b"") -> bytes:
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    pem: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    return pem


class Authority:
    def __init__(self, name: str = "test CA", begins: datetime.timedelta = -HOUR, ends: datetime.timedelta = 24 * HOUR) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        builder = self._builder(self.name, self.key, begins, ends).add_extension(x509.BasicConstraints(True, None), True)
        self.pem = builder.sign(self.key, SHA256()).public_bytes(Encoding.PEM)

    def _builder(self, subject: x509.Name, key: Any, begins: datetime.timedelta, ends: datetime.timedelta) -> x509.CertificateBuilder:
        builder = x509.CertificateBuilder(self.name, subject, key.public_key(), x509.random_serial_number())
        return builder.not_valid_before(now() + begins).not_valid_after(now() + ends)

    def issue(
        self,
        name: str = "node",
        names: tuple[str, ...] = NAMES,
        begins: datetime.timedelta = -HOUR,
        ends: datetime.timedelta = 24 * HOUR,
        uses: tuple[Any, ...] = (SERVER, CLIENT),
    ) -> Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]), key, begins, ends)
        alternatives = [x509.IPAddress(ipaddress.ip_address(n)) if n[0].isdigit() else x509.DNSName(n) for n in names]
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), False)
        if uses:
            builder = builder.add_extension(x509.ExtendedKeyUsage(uses), False)
        return Pair(builder.sign(self.key, SHA256()).public_bytes(Encoding.PEM), key_pem(key))


class Files:
    """The three files of one side, and the settings that name them."""

    def __init__(self, directory: Path, ca: bytes | None, pair: Pair | None, server_name: str = "", skip_verify: bool = False) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.ca, self.cert, self.key = directory / "ca.pem", directory / "cert.pem", directory / "key.pem"
        if ca is not None:
            self.ca.write_bytes(ca)
        if pair is not None:
            pair.write(self.cert, self.key)
        self.settings = TlsSettings(
            str(self.ca) if ca is not None else "",
            str(self.cert) if pair is not None else "",
            str(self.key) if pair is not None else "",
            server_name,
            skip_verify,
        )

    def config(self) -> dict[str, Any]:
        """The fields of `Config`."""
        return {"tls_enable": True, "tls_ca": self.settings.ca, "tls_cert": self.settings.cert, "tls_key": self.settings.key}
