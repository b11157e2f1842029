"""Certificates and keys as files: read whole, checked before anything relies on them.

What OpenSSL would say of a mistake ("PEM lib") helps nobody, and half of the mistakes it does not see before the first handshake fails: a key of another
certificate, a certificate that is expired or only for servers, a CA file without a certificate. So every file is read and judged here first, with an
error that names the setting, the path and the remedy. All bytes are read once and belong together; who needs them gets these bytes.
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Final, Literal

import attrs
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from coterie.transport.errors import TlsFileError

__all__ = ["TlsFiles", "TlsSettings", "read_files", "signature"]

MOST_BYTES: Final = 4 << 20

Role = Literal["node", "client"]
Signature = tuple[tuple[int, int, int] | None, ...]


@attrs.define(frozen=True)
class TlsSettings:
    """ca: certificates of the authorities that peers are verified by ("": servers by the system's, clients not at all). cert, key: this side's own (a
    client may have none). server_name: what a server's certificate must name instead of the address dialled. skip_verify: take any server's certificate."""

    ca: str = ""
    cert: str = ""
    key: str = ""
    server_name: str = ""
    skip_verify: bool = False

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.ca, self.cert, self.key)))


@attrs.define(frozen=True)
class TlsFiles:
    """What the files hold, as bytes of PEM; empty where none is configured. not_before, not_after: of our own certificate; ca_not_before,
    ca_not_after: of the authority that ends last. vouched: whether an authority of ours issued our own, so that who believes the same ones takes it."""

    ca: bytes = attrs.field(repr=False)
    chain: bytes = attrs.field(repr=False)
    key: bytes = attrs.field(repr=False)
    subject: str = ""
    not_before: datetime.datetime | None = None
    not_after: datetime.datetime | None = None
    ca_not_before: datetime.datetime | None = None
    ca_not_after: datetime.datetime | None = None
    vouched: bool = True


def signature(settings: TlsSettings) -> Signature:
    """What tells a changed file from the one before, without reading it; follows links, since a secret is often replaced by turning one."""
    return tuple(_stat(path) for path in settings.paths)


def _stat(path: str) -> tuple[int, int, int] | None:
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def read_files(settings: TlsSettings, now: datetime.datetime, role: Role = "node") -> TlsFiles:
    """Read and judge all files. now: aware of its time zone. role: a node's certificate is shown as server and, with a CA, as client, too.

    Raises TlsFileError.
    """
    ca, begins, ends = b"", None, None
    if settings.ca:
        ca = _read("ca", settings.ca)
        begins, ends = _judge_ca(settings.ca, ca, now)
    if not settings.cert:
        return TlsFiles(ca, b"", b"", ca_not_before=begins, ca_not_after=ends)
    chain, key = _read("cert", settings.cert), _read("key", settings.key)
    ours = _certificates("cert", settings.cert, chain)
    leaf = ours[0]
    _judge_time("cert", settings.cert, leaf, now)
    _judge_purpose(settings, leaf, role)
    _judge_key(settings, leaf, key)
    return TlsFiles(
        ca, chain, key, leaf.subject.rfc4514_string(), leaf.not_valid_before_utc, leaf.not_valid_after_utc, begins, ends, _vouched(ours, ca)
    )


def _read(setting: str, path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise TlsFileError(setting, path, f"cannot be read: {error.strerror or error}; give a file that this process may read") from None
    if len(data) > MOST_BYTES:
        raise TlsFileError(setting, path, f"has more than {MOST_BYTES} bytes: is it a file of certificates?")
    return data


def _certificates(setting: str, path: str, data: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError as error:
        raise TlsFileError(setting, path, f"holds no certificate in PEM ('-----BEGIN CERTIFICATE-----'): {error}") from None


def _judge_ca(path: str, data: bytes, now: datetime.datetime) -> tuple[datetime.datetime, datetime.datetime]:
    """The life of the one that ends last; one that has ended may stand beside others, as in the middle of a rotation."""
    found = _certificates("ca", path, data)
    last = max(found, key=lambda certificate: certificate.not_valid_after_utc)
    _judge_time("ca", path, last, now)
    return last.not_valid_before_utc, last.not_valid_after_utc


def _judge_time(setting: str, path: str, certificate: x509.Certificate, now: datetime.datetime) -> None:
    if now > certificate.not_valid_after_utc:
        raise TlsFileError(setting, path, f"expired at {_utc(certificate.not_valid_after_utc)}: renew it")
    if now < certificate.not_valid_before_utc:
        raise TlsFileError(
            setting, path, f"is not valid before {_utc(certificate.not_valid_before_utc)}: wait, or set this machine's clock"
        )


def _judge_purpose(settings: TlsSettings, leaf: x509.Certificate, role: Role) -> None:
    try:
        uses = set(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        return
    wanted: list[tuple[ObjectIdentifier, str]] = []
    if role == "node":
        wanted.append((ExtendedKeyUsageOID.SERVER_AUTH, "serverAuth"))
    if role == "client" or settings.ca:
        wanted.append((ExtendedKeyUsageOID.CLIENT_AUTH, "clientAuth"))
    missing = [name for use, name in wanted if use not in uses]
    if missing and ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE not in uses:
        raise TlsFileError(
            "cert",
            settings.cert,
            f"its extended key usage lacks {' and '.join(missing)}: issue one for it (a node is server and client to the others)",
        )


def _judge_key(settings: TlsSettings, leaf: x509.Certificate, data: bytes) -> None:
    try:
        key = load_pem_private_key(data, None)
    except TypeError:
        raise TlsFileError("key", settings.key, "is encrypted: give a key without a pass phrase, readable by this process only") from None
    except (ValueError, UnsupportedAlgorithm):
        raise TlsFileError("key", settings.key, "holds no private key in PEM ('-----BEGIN PRIVATE KEY-----')") from None
    form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    if key.public_key().public_bytes(*form) != leaf.public_key().public_bytes(*form):
        raise TlsFileError("key", settings.key, f"does not fit the certificate in {settings.cert!r}: give the key that it was issued for")


def _vouched(chain: list[x509.Certificate], ca: bytes) -> bool:
    """Whether an authority issued the last of the chain, or stands in it."""
    return not ca or any(_issued(chain[-1], authority) or authority in chain for authority in x509.load_pem_x509_certificates(ca))


def _issued(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):  # another's name, or another's key
        return False
    return True


def _utc(moment: datetime.datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")
