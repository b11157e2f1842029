"""The streams this node dials, on worker threads; what came of each is told to the membership actor.

Two pools: a push/pull with a host that swallows connections takes ten seconds, and must not stand before the ping over TCP that saves a member from
suspicion.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

import attrs

from coterie.actors.membership.discovery import Discovery, Found
from coterie.actors.membership.effects import StreamPing
from coterie.actors.membership.workers import Workers
from coterie.proto.errors import WireError
from coterie.proto.gossip_messages import Ping, PushPull
from coterie.transport.addresses import parse_address, resolve
from coterie.transport.errors import AddressError

STREAM_THREADS: Final = 8
PING_THREADS: Final = 2
WAITING: Final = 32


class Streams(Protocol):
    """The part of `transport.gossip.GossipTransport` that blocks."""

    ip: str
    advertised_port: int

    def push_pull(self, ip: str, port: int, state: PushPull, timeout: float = ...) -> PushPull: ...

    def stream_ping(self, ip: str, port: int, ping: Ping, timeout: float) -> bool: ...


class Mailbox(Protocol):
    def send(self, message: Any) -> bool: ...


@attrs.define(frozen=True)
class Exchanged:
    """A push/pull that the core wanted; `answer` None when it failed."""

    address: tuple[str, int]
    answer: PushPull | None


@attrs.define(frozen=True)
class StreamPinged:
    seq_no: int
    answered: bool


@attrs.define(frozen=True)
class Dialled:
    """A seed was dialled. `answer` None: it failed, and `error` says how; `address` None with an answer: it is this node itself."""

    text: str
    address: tuple[str, int] | None
    answer: PushPull | None
    error: str = ""


@attrs.define(frozen=True)
class SeedsFound:
    """found: None when the source raised, against its port; the log has it."""

    found: Found | None


class Dialler:
    def __init__(self, node: str, streams: Streams, mailbox: Mailbox, timeout: float) -> None:
        self._node, self._streams, self._mailbox, self._timeout = node, streams, mailbox, timeout
        self._dials = Workers(f"{node}/gossip-dial", STREAM_THREADS, WAITING)
        self._pings = Workers(f"{node}/gossip-ping", PING_THREADS, WAITING)

    def discover(self, discovery: Discovery) -> bool:
        def job() -> None:
            found: Found | None = None
            try:
                found = discovery.find()
            finally:
                self._tell(SeedsFound(found))

        return self._dials.submit(job)

    def dial_seed(self, text: str, state: PushPull) -> bool:
        return self._do(self._dials, lambda: self._seed(text, state))

    def push_pull(self, address: tuple[str, int], state: PushPull) -> bool:
        def job() -> Exchanged:
            try:
                return Exchanged(address, self._streams.push_pull(*address, state, self._timeout))
            except (OSError, WireError):
                return Exchanged(address, None)

        return self._do(self._dials, job)

    def ping(self, wanted: StreamPing) -> bool:
        def job() -> StreamPinged:
            return StreamPinged(wanted.ping.seq_no, self._streams.stream_ping(wanted.ip, wanted.port, wanted.ping, wanted.timeout))

        return self._do(self._pings, job)

    def close(self) -> None:
        self._dials.close()
        self._pings.close()

    def _do(self, workers: Workers, job: Callable[[], object]) -> bool:
        return workers.submit(lambda: self._tell(job()))

    def _tell(self, result: object) -> None:
        self._mailbox.send(result)

    def _seed(self, text: str, state: PushPull) -> Dialled:
        address: tuple[str, int] | None = None
        try:
            address = resolve(parse_address(text))
            if address == (self._streams.ip, self._streams.advertised_port):
                return Dialled(text, None, state)
            answer = self._streams.push_pull(*address, state, self._timeout)
        except (AddressError, OSError, WireError) as error:
            return Dialled(text, address, None, str(error) or type(error).__name__)
        # Our own answer, over another of our addresses: this node names itself first.
        if answer.nodes and answer.nodes[0].name == self._node and answer.nodes[0][:3] == state.nodes[0][:3]:
            return Dialled(text, None, answer)
        return Dialled(text, address, answer)
