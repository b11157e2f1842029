"""Whether certificates and keys are what a node needs: `tls_files` reads them, and every mistake is a TlsFileError that names setting, path and remedy."""

from __future__ import annotations

import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from coterie.transport.errors import TlsFileError
from coterie.transport.tls_files import Role, TlsSettings


def load(setting: str, path: str, data: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError as error:
        broken = f": {error}" if b"-----BEGIN CERTIFICATE-----" in data else ""  # of a file without one the library's words help nobody
        raise TlsFileError(setting, path, f"holds no certificate in PEM ('-----BEGIN CERTIFICATE-----'){broken}") from None


def judge_ca(path: str, data: bytes, now: datetime.datetime) -> tuple[datetime.datetime, datetime.datetime]:
    """The life of the one that ends last; one that has ended may stand beside others, as in the middle of a rotation."""
    found = load("ca", path, data)
    last = max(found, key=lambda certificate: certificate.not_valid_after_utc)
    judge_time("ca", path, last, now)
    return last.not_valid_before_utc, last.not_valid_after_utc


def judge_time(setting: str, path: str, certificate: x509.Certificate, now: datetime.datetime) -> None:
    if now > certificate.not_valid_after_utc:
        raise TlsFileError(setting, path, f"expired at {_utc(certificate.not_valid_after_utc)}: renew it")
    if now < certificate.not_valid_before_utc:
        raise TlsFileError(
            setting, path, f"is not valid before {_utc(certificate.not_valid_before_utc)}: wait, or set this machine's clock"
        )


def judge_purpose(settings: TlsSettings, leaf: x509.Certificate, role: Role) -> None:
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


def judge_key(settings: TlsSettings, leaf: x509.Certificate, data: bytes) -> None:
    try:
        key = load_pem_private_key(data, None)
    except TypeError:
        raise TlsFileError("key", settings.key, "is encrypted: give a key without a pass phrase, readable by this process only") from None
    except (ValueError, UnsupportedAlgorithm):
        raise TlsFileError("key", settings.key, "holds no private key in PEM ('-----BEGIN PRIVATE KEY-----')") from None
    form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    if key.public_key().public_bytes(*form) != leaf.public_key().public_bytes(*form):
        raise TlsFileError("key", settings.key, f"does not fit the certificate in {settings.cert!r}: give the key that it was issued for")


def vouched(chain: list[x509.Certificate], ca: bytes) -> bool:
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
