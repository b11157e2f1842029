"""How a command reaches a node: over plain TCP, or over TLS as its `--tls-*` flags say. Every command that asks a node makes its connection of this.

With `--tls-enable` the node is verified by `--tls-ca` (without it, by the system's authorities), must be named by the address in `--addr` or by
`--tls-server-name`, and is shown `--tls-cert` when it asks for a certificate. Nothing of TLS is imported without that flag.
"""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from coterie.cli_errors import CommandError

if TYPE_CHECKING:
    from coterie.transport.tls import Tls

__all__ = ["describe", "http_connection", "tls_of"]


def tls_of(flags: Mapping[str, Any]) -> Tls | None:
    """The TLS of a command's flags (by their names, with underscores); None when it is off. Raises CommandError."""
    given = {name: value for name, value in flags.items() if value}
    if not given:
        return None
    if "tls_enable" not in given:
        raise CommandError(f"--{next(iter(given)).replace('_', '-')} is given and TLS is off: give --tls-enable too, or leave it out")
    if ("tls_cert" in given) != ("tls_key" in given):
        raise CommandError("--tls-cert and --tls-key belong together: give both, or neither")
    from coterie.transport.errors import TlsFileError
    from coterie.transport.tls import Tls, TlsSettings

    settings = TlsSettings(**{name.removeprefix("tls_"): value for name, value in given.items() if name != "tls_enable"})
    try:
        return Tls(settings, role="client", watch=False)
    except TlsFileError as error:
        raise CommandError(f"--tls-{error.setting} {error.path!r}: {error.remedy}") from None


def http_connection(host: str, port: int, timeout: float, tls: Tls | None) -> http.client.HTTPConnection:
    """Not connected yet. Its failures are OSErrors; `describe` says what they mean."""
    return http.client.HTTPConnection(host, port, timeout=timeout) if tls is None else _Https(host, port, timeout, tls)


def describe(error: BaseException, tls: Tls | None) -> str:
    """What went wrong with a connection, for an operator."""
    text = str(error) or type(error).__name__
    if isinstance(error, http.client.RemoteDisconnected | ConnectionResetError):
        if tls is None:
            return f"{text}; does it speak HTTP, and not HTTPS (--tls-enable)?"
        return f"{text}; does it demand a client certificate (--tls-cert, --tls-key), and does it speak HTTPS?"
    if isinstance(error, http.client.HTTPException):
        return "what came back is no HTTP; is it the port of gRPC (--mgmt-proto grpc)?"
    if tls is not None and not isinstance(error, ConnectionRefusedError):
        from coterie.transport.tls import explain

        return str(explain(error))
    return f"{text}; is a node up there?"


class _Https(http.client.HTTPConnection):
    """The name verified is the one that the flags say, which need not be the one dialled."""

    default_port = 443

    def __init__(self, host: str, port: int, timeout: float, tls: Tls) -> None:
        super().__init__(host, port, timeout=timeout)
        self._tls = tls

    def connect(self) -> None:
        super().connect()
        self.sock = self._tls.client().wrap_socket(self.sock, server_hostname=self._tls.name_of(self.host))
