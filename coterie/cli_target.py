"""Whom a command asks: addresses, in the order in which they are tried, and how to speak to them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from coterie.cli_connect import tls_of
from coterie.cli_errors import CommandError, NoAnswer

if TYPE_CHECKING:
    from coterie.transport.tls import Tls

T = TypeVar("T")


class Target(NamedTuple):
    """addrs: (host, port) each, at least one. timeout: seconds for each answer. grpc: they speak gRPC. tls: None for plain TCP."""

    addrs: tuple[tuple[str, int], ...]
    timeout: float
    grpc: bool
    tls: Tls | None = None

    @classmethod
    def of(cls, addrs: str, timeout: str, proto: str, tls: Mapping[str, Any]) -> Target:
        """From the flags as they were given; tls: those of TLS by their names. Raises CommandError."""
        several = [part.strip() for part in addrs.split(",") if part.strip()]
        if not several:
            raise CommandError("--addr '': give the management address of a node, host:port")
        return cls(tuple(host_port(addr) for addr in several), duration("--timeout", timeout), proto == "grpc", tls_of(tls))

    def at(self, addr: str) -> Target:
        """The same at another address, which a node named."""
        return self._replace(addrs=(host_port(addr),))

    def in_turn(self, ask: Callable[[tuple[str, int]], T], repeatable: bool) -> T:
        """The first answer. An address that cannot be reached is passed over, and so is one whose answer does not come, if the request is
        repeatable; it is said on standard error. Raises NoAnswer when there is no answer anywhere."""
        silent: list[str] = []
        for addr in self.addrs:
            try:
                answer = ask(addr)
            except NoAnswer as error:
                if error.sent and not repeatable:
                    raise
                silent.append(str(error))
            else:
                if silent:
                    sys.stderr.write(f"clusterctl: {'; '.join(silent)}; asked {shown(addr)} instead\n")
                return answer
        raise NoAnswer("; ".join(silent), sent=False)


def shown(addr: tuple[str, int]) -> str:
    host, port = addr
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def host_port(addr: str) -> tuple[str, int]:
    host, _, port = addr.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") or "127.0.0.1"
    if not (port.isascii() and port.isdigit() and 0 < int(port) <= 65535) or any(c.isspace() or c in "/@" for c in host):
        raise CommandError(f"--addr {addr!r}: give a management address, host:port (no http://; for TLS give --tls-enable)")
    return host, int(port)


def duration(flag: str, text: str) -> float:
    """Seconds above zero. Raises CommandError, which names the flag."""
    from coterie.actors.durations import seconds

    try:
        number = float(text) if text.replace(".", "", 1).isdigit() else seconds(text)
    except ValueError as error:
        raise CommandError(f"{flag} {text!r}: {error}") from None
    if number <= 0:
        raise CommandError(f"{flag} {text!r}: give a duration above zero")
    return number
