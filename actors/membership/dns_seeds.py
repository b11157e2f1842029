"""Seeds from DNS: every address that a name has, asked again for the life of the node.

A name `_service._proto.domain` is looked up for SRV records, which bring the port, and the addresses of their targets; any other name for A and AAAA records,
with `dns_port`. An IP address, and `host:port`, need no look-up here.

How often: `find` is called every `disc_refresh`, and looks up what is not held by its TTL any more. So a name is never asked more often than its TTL
allows, nor than every `disc_refresh`; a TTL above an hour counts as one, and that of "no such name" above a minute as a minute.

What goes wrong never takes good seeds away at once: silence, SERVFAIL and a name that vanished (a headless service without a ready pod has none) leave the last
good answer in use for ten minutes, with a problem shown, and the name is asked again at the next refresh. After that the addresses are
more likely somebody else's.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import attrs

from coterie.actors.membership.discovery import Found, seed_problem
from coterie.transport.addresses import format_address
from coterie.transport.name_lookup import Lookup, Records

LONGEST_TTL: Final = 3600.0
LONGEST_ABSENCE: Final = 60.0  # seconds until a name that was not there is asked again
HOLD: Final = 600.0  # seconds the last good answer stays in use when the name gives none


class Resolver(Protocol):
    """The part of `transport.name_lookup.Resolver` that is used here."""

    def ipv4(self, name: str) -> Records: ...

    def ipv6(self, name: str) -> Records: ...

    def services(self, name: str) -> Records: ...


@attrs.define
class _Answer:
    """What is known of one kind of records of one name."""

    due: float = 0.0  # when it may be asked again
    until: float = 0.0  # how long `values` may be used
    values: tuple[Any, ...] = ()
    error: Lookup | None = None
    used: bool = False  # in the present `find`


class DnsSeeds:
    """names: as in `Config.dns_names_csv`. clock: seconds that only grow."""

    def __init__(
        self, names: Sequence[str], port: int, refresh: float, resolver: Resolver, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.refresh: float | None = refresh
        self._names, self._port = tuple(names), port
        self._resolver, self._clock = resolver, clock
        self._answers: dict[tuple[str, str], _Answer] = {}

    def find(self) -> Found:
        seeds: dict[str, None] = {}
        problems: dict[str, None] = {}
        for answer in self._answers.values():
            answer.used = False
        for name in self._names:
            found = self._of(name)
            seeds |= dict.fromkeys(found.seeds)
            problems |= dict.fromkeys(found.problems)
        self._answers = {key: answer for key, answer in self._answers.items() if answer.used}  # targets that SRV records name no more
        return Found(tuple(seeds), tuple(problems))

    def _of(self, name: str) -> Found:
        if is_ip(name):
            return Found((format_address(name, self._port),))
        if not seed_problem(name):  # host:port, looked up whenever it is dialled
            return Found((name,))
        if is_service(name):
            return self._services(name)
        return self._addresses(name, self._port)

    def _services(self, name: str) -> Found:
        answer = self._ask("services", name)
        seeds: list[str] = []
        problems = _problem(name, answer)
        for target in sorted(answer.values, key=lambda t: (t.priority, -t.weight, t.host, t.port)):
            host = target.host.rstrip(".")
            if not host:  # "." says that the service is not there (RFC 2782)
                problems.append(f"{name}: its SRV record says that there is no such service")
            elif not target.port:
                problems.append(f"{name}: its SRV record for {host} has port 0")
            elif is_ip(host):  # against the RFC, and seen
                seeds.append(format_address(host, target.port))
            else:
                found = self._addresses(target.host, target.port)
                seeds += found.seeds
                problems += found.problems
        return Found(tuple(seeds), tuple(problems))

    def _addresses(self, name: str, port: int) -> Found:
        v4 = self._ask("ipv4", name)
        v6 = self._ask("ipv6", name)
        values = (*v4.values, *v6.values)
        # One family is enough, as long as nothing that was there before is missing.
        troubled = [answer for answer in (v4, v6) if answer.error is not None and (answer.values or not values)]
        return Found(
            tuple(format_address(ip, port) for ip in values), tuple(problem for a in troubled[:1] for problem in _problem(name, a))
        )

    def _ask(self, kind: str, name: str) -> _Answer:
        answer = self._answers.setdefault((kind, name), _Answer())
        answer.used = True
        if answer.due <= self._clock():
            self._refresh(answer, kind, name)
        return answer

    def _refresh(self, answer: _Answer, kind: str, name: str) -> None:
        look: Callable[[str], Records] = getattr(self._resolver, kind)
        try:
            records = look(name)
        except Lookup as error:
            now = self._clock()
            answer.error, answer.due = error, now + min(error.ttl, LONGEST_ABSENCE)
            if answer.until <= now:
                answer.values = ()
        else:
            now = self._clock()
            ttl = min(records.ttl, LONGEST_TTL)
            answer.error, answer.values, answer.due, answer.until = None, records.values, now + ttl, now + ttl + HOLD


def _problem(name: str, answer: _Answer) -> list[str]:
    if answer.error is None:
        return []
    return [f"{name.rstrip('.')}: {answer.error}" + ("; its last good answer stays in use for now" if answer.values else "")]


def is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def is_service(name: str) -> bool:
    """`_service._proto.domain` (RFC 2782)."""
    labels = name.split(".")
    return len(labels) >= 3 and labels[0].startswith("_") and labels[1].startswith("_")
