"""Certificates and keys as files: read whole, checked before anything relies on them.

What OpenSSL would say of a mistake ("PEM lib") helps nobody, and half of the mistakes it does not see before the first handshake fails: a key of another
certificate, a certificate that is expired or only for servers, a CA file without a certificate. So every file is read and judged here first, with an
error that names the setting, the path and the remedy. All bytes are read once and belong together; who needs them gets these bytes. What they hold is judged in
`certificates`, which is imported with the first file: a node without TLS starts without what it needs for that.
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Final, Literal

import attrs

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
    from coterie.transport import certificates

    ca, begins, ends = b"", None, None
    if settings.ca:
        ca = _read("ca", settings.ca)
        begins, ends = certificates.judge_ca(settings.ca, ca, now)
    if not settings.cert:
        return TlsFiles(ca, b"", b"", ca_not_before=begins, ca_not_after=ends)
    chain, key = _read("cert", settings.cert), _read("key", settings.key)
    ours = certificates.load("cert", settings.cert, chain)
    leaf = ours[0]
    certificates.judge_time("cert", settings.cert, leaf, now)
    certificates.judge_purpose(settings, leaf, role)
    certificates.judge_key(settings, leaf, key)
    return TlsFiles(
        ca,
        chain,
        key,
        leaf.subject.rfc4514_string(),
        leaf.not_valid_before_utc,
        leaf.not_valid_after_utc,
        begins,
        ends,
        certificates.vouched(ours, ca),
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
