"""DNS look-ups with the time an answer may be kept, which `socket.getaddrinfo` does not tell.

The servers are those of `/etc/resolv.conf`, read anew at each look-up, since a machine may move to another network; or those given. A short name goes through the
search list, as everywhere else on the machine. An answer that does not fit a UDP packet is fetched over TCP.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import dns.exception
import dns.nameserver
import dns.resolver
from dns.rdatatype import SOA

from coterie.transport.addresses import Address

__all__ = ["Lookup", "NameNotFound", "NameUnanswered", "Records", "Resolver", "Target"]

TRY: Final = 1.0  # seconds one server is waited for
LIFETIME: Final = 3.0  # seconds a look-up may take altogether


class Lookup(OSError):
    """A look-up that gave no records; the text says why, without the name. ttl: seconds for which that holds."""

    def __init__(self, text: str, ttl: float = 0.0) -> None:
        super().__init__(text)
        self.ttl = ttl


class NameNotFound(Lookup):
    """The name, or records of that kind, do not exist."""


class NameUnanswered(Lookup):
    """No server gave a usable answer: silence, SERVFAIL, no server configured."""


class Target(NamedTuple):
    """An SRV record (RFC 2782). Lower priorities come first; among equals the higher weight."""

    priority: int
    weight: int
    host: str
    port: int


class Records(NamedTuple):
    """ttl: seconds for which the answer holds, the shortest on the way to it."""

    values: tuple[Any, ...]
    ttl: float


class Resolver:
    """servers: whom to ask, by IP address and port; none: `/etc/resolv.conf`. Every method blocks, for `LIFETIME` at most, and raises Lookup."""

    def __init__(self, servers: Sequence[Address] = ()) -> None:
        self._servers = tuple(servers)

    def ipv4(self, name: str) -> Records:
        return self._ask(name, "A", lambda record: str(record.address))

    def ipv6(self, name: str) -> Records:
        return self._ask(name, "AAAA", lambda record: str(ipaddress.IPv6Address(record.address)))

    def services(self, name: str) -> Records:
        """-> Targets."""
        return self._ask(name, "SRV", lambda record: Target(record.priority, record.weight, record.target.to_text(), record.port))

    def _ask(self, name: str, kind: str, read: Any) -> Records:
        try:
            answer = self._resolver().resolve(name, kind, search=not self._servers)
        except dns.resolver.NXDOMAIN as error:
            raise NameNotFound("there is no such name (NXDOMAIN)", _negative_ttl(error)) from None
        except dns.resolver.NoAnswer as error:
            raise NameNotFound(f"the name has no {kind} records", _negative_ttl(error)) from None
        except dns.resolver.LifetimeTimeout:
            raise NameUnanswered(f"no DNS server answered within {LIFETIME:g} s") from None
        except dns.resolver.NoNameservers as error:
            raise NameUnanswered(_refusals(error)) from None
        except dns.resolver.NoResolverConfiguration:
            raise NameUnanswered("/etc/resolv.conf names no DNS server") from None
        except (dns.exception.DNSException, OSError) as error:
            raise NameUnanswered(f"{type(error).__name__}: {error}") from error
        return Records(tuple(read(record) for record in answer.rrset or ()), float(answer.chaining_result.minimum_ttl))

    def _resolver(self) -> dns.resolver.Resolver:
        resolver = dns.resolver.Resolver(configure=not self._servers)
        if self._servers:
            resolver.nameservers = [dns.nameserver.Do53Nameserver(server.host, server.port) for server in self._servers]
        resolver.timeout, resolver.lifetime = TRY, LIFETIME
        return resolver


def _negative_ttl(error: dns.resolver.NXDOMAIN | dns.resolver.NoAnswer) -> float:
    """How long it holds that there is nothing: the shortest of what the zones' SOA records say (RFC 2308), 0 without one."""
    answers = error.kwargs["responses"].values() if "responses" in error.kwargs else [error.kwargs["response"]]
    times = [
        float(min(rrset.ttl, record.minimum)) for answer in answers for rrset in answer.authority if rrset.rdtype == SOA for record in rrset
    ]
    return min(times, default=0.0)


def _refusals(error: dns.resolver.NoNameservers) -> str:
    """What each server said instead of an answer; SERVFAIL and the like."""
    said = dict.fromkeys(f"{server} said {reason}" for server, _, _, reason, _ in error.kwargs["errors"])
    return f"no DNS server gave an answer ({'; '.join(said)})"
