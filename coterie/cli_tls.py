"""`clusterctl tls init`: a certificate authority for development, and certificates that it issued for nodes and for clients.

Meant for trying and testing: the authority's key lies beside the certificates, where nobody would keep a real one. What it makes is what a real authority would
have to make: node certificates for servers and clients alike, since a node is both to the others, with every name and address that it is dialled by.

Nothing is ever overwritten. An authority that is there already issues the new certificates, so a node can be added later; all else that exists is refused
before a file is written. Keys are readable by their owner only, from their first byte on.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from coterie.cli_errors import CommandError

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

__all__ = ["Made", "init", "make_files"]

LOCAL: Final = ("localhost", "127.0.0.1", "::1")
RESERVED: Final = ("ca", "client")
MOST_DAYS: Final = 3650
CA_DAYS: Final = 3650
_NODE: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}\Z")
_HOST: Final = re.compile(r"(\*\.)?[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\Z")


def init(directory: str, nodes: str, hosts: str, days: int, output: str | None) -> None:
    """The command. Raises CommandError."""
    from coterie.cli_ask import as_table, say

    made = make_files(Path(directory), _list(nodes), _list(hosts), days)
    if as_table(output):
        sys.stdout.write(_explained(made))
    else:
        say(_document(made))


def _list(text: str) -> list[str]:
    return [part for part in (part.strip() for part in text.split(",")) if part]


class Made(NamedTuple):
    """The files; new_ca: whether the authority is new, too."""

    ca: Path
    nodes: dict[str, tuple[Path, Path]]
    client: tuple[Path, Path]
    new_ca: bool


def make_files(directory: Path, nodes: list[str], hosts: list[str], days: int = 365) -> Made:
    """Raises CommandError."""
    _check(nodes, hosts, days)
    ca, ca_key = directory / "ca.pem", directory / "ca-key.pem"
    pairs = {name: (directory / f"{name}.pem", directory / f"{name}-key.pem") for name in nodes}
    client = directory / "client.pem", directory / "client-key.pem"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        new_ca = not (ca.exists() and ca_key.exists())
        wanted = [path for pair in pairs.values() for path in pair]
        if new_ca:
            wanted += [ca, ca_key, *client]
        there = [str(path) for path in wanted if path.exists()]
        if there:
            raise CommandError(f"{', '.join(there)}: there already, and nothing is overwritten; give another --dir, or move them away")
        issuer = _Issuer.new(ca, ca_key) if new_ca else _Issuer.read(ca, ca_key)
        for name, (certificate, key) in pairs.items():
            issuer.issue(name, [name, *LOCAL, *hosts], days, certificate, key)
        if not client[0].exists():
            issuer.issue("client", [], days, *client)
    except OSError as error:
        raise CommandError(f"--dir {str(directory)!r}: {error}; give a directory that this user may write to") from None
    return Made(ca, pairs, client, new_ca)


def _check(nodes: list[str], hosts: list[str], days: int) -> None:
    if not nodes:
        raise CommandError("--nodes: give at least one id: n1,n2,n3")
    for name in nodes:
        if (
            not _NODE.match(name)
            or name in RESERVED
            or nodes.count(name) > 1
            or f"{name.removesuffix('-key')}" in (*RESERVED, *(set(nodes) - {name}))
        ):
            raise CommandError(
                f"--nodes {name!r}: an id here is a file's name: letters, digits, '.', '_' and '-', each once, not {' or '.join(RESERVED)}"
            )
    for host in hosts:
        if not _is_ip(host) and not _HOST.match(host):
            raise CommandError(f"--hosts {host!r}: give names and IP addresses without ports: node1.example,10.0.0.1")
    if not 1 <= days <= MOST_DAYS:
        raise CommandError(f"--days {days}: give 1 to {MOST_DAYS}")


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


class _Issuer:
    """An authority that can sign."""

    def __init__(self, certificate: x509.Certificate, key: Any) -> None:
        self._certificate, self._key = certificate, key

    @classmethod
    def new(cls, path: Path, key_path: Path) -> _Issuer:
        from cryptography import x509

        key = _new_key()
        name = _name("coterie development CA")
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        builder = _builder(name, name, key, CA_DAYS).add_extension(x509.BasicConstraints(True, 0), True).add_extension(usage, True)
        certificate = _signed(builder, key, key)
        _write_key(key_path, key)
        _write_new(path, _pem(certificate), 0o644)
        return cls(certificate, key)

    @classmethod
    def read(cls, path: Path, key_path: Path) -> _Issuer:
        from cryptography import x509
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            certificate, key = x509.load_pem_x509_certificate(path.read_bytes()), load_pem_private_key(key_path.read_bytes(), None)
        except (ValueError, TypeError) as error:
            raise CommandError(f"{path} and {key_path}: no certificate and key in PEM: {error}; give another --dir") from None
        if key.public_key() != certificate.public_key():
            raise CommandError(f"{key_path}: is not the key of {path}; give another --dir")
        return cls(certificate, key)

    def issue(self, name: str, names: list[str], days: int, path: Path, key_path: Path) -> None:
        from cryptography import x509
        from cryptography.x509.oid import ExtendedKeyUsageOID

        key = _new_key()
        builder = _builder(_name(name), self._certificate.subject, key, days)
        builder = builder.add_extension(x509.BasicConstraints(False, None), True)
        uses = [ExtendedKeyUsageOID.CLIENT_AUTH] if not names else [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(uses), False)
        if names:
            alternatives = [x509.IPAddress(ipaddress.ip_address(n)) if _is_ip(n) else x509.DNSName(n) for n in dict.fromkeys(names)]
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), False)
        _write_key(key_path, key)
        _write_new(path, _pem(_signed(builder, key, self._key, self._certificate)), 0o644)


def _new_key() -> EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


def _name(common: str) -> x509.Name:
    from cryptography import x509

    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common)])


def _builder(subject: x509.Name, issuer: x509.Name, key: Any, days: int) -> x509.CertificateBuilder:
    from cryptography import x509

    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
    )
    # An hour of grace for clocks that go after this one.
    return builder.not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + datetime.timedelta(days=days))


def _signed(builder: x509.CertificateBuilder, key: Any, issuer_key: Any, issuer: x509.Certificate | None = None) -> x509.Certificate:
    from cryptography import x509
    from cryptography.hazmat.primitives.hashes import SHA256

    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
    if issuer is not None:
        builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), False)
    return builder.sign(issuer_key, SHA256())


def _pem(certificate: x509.Certificate) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM)


def _write_key(path: Path, key: Any) -> None:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    _write_new(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)


def _write_new(path: Path, data: bytes, mode: int) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)


# -- what is said of it ---------------------------------------------------------------------------------------------------------------


def _document(made: Made) -> dict[str, Any]:
    return {
        "ca": str(made.ca),
        "newCA": made.new_ca,
        "nodes": {name: {"cert": str(certificate), "key": str(key)} for name, (certificate, key) in made.nodes.items()},
        "client": {"cert": str(made.client[0]), "key": str(made.client[1])},
    }


def _explained(made: Made) -> str:
    lines = [f"{'made' if made.new_ca else 'used'} the development CA {made.ca}; its key lies beside it: not for production"]
    lines += [f"made {certificate} and {key}" for certificate, key in made.nodes.values()]
    name, (certificate, key) = next(iter(made.nodes.items()))
    lines += [
        f"a client's certificate is {made.client[0]}, its key {made.client[1]}",
        "",
        f"a node:   clusterctl run --id {name} … --tls-enable --tls-ca {made.ca} --tls-cert {certificate} --tls-key {key}",
        f"a client: clusterctl status --tls-enable --tls-ca {made.ca} --tls-cert {made.client[0]} --tls-key {made.client[1]}",
        f"curl:     curl --cacert {made.ca} --cert {made.client[0]} --key {made.client[1]} https://127.0.0.1:17946/status",
    ]
    return "\n".join(lines) + "\n"
