"""Calls that are not whole yet, and places for streams: what strangers could otherwise take from everybody.

**A request that does not come.** A method begins when a call's headers are there; its request may follow never. The thread that waits for it is one of few, so
forty calls on one connection, each without its request, would shut every method of a node. `Reception` therefore counts the calls whose request has not come:
for one more than it has room for, the one that has waited for longest is cancelled (`crowd`). The pools have `HALF_CALLS` threads beyond those that work.

**Streams** stay open for as long as their client wants, so `StreamPlaces` counts them. There are places for guests, of which one address may take a part only;
and beyond them places for the nodes of the cluster, so many for each member that gossip knows at an address. So guests, many as they are, keep no member out, and
who sits on a member's machine can take the places of those members alone. What remains: whoever can gossip can make an address a member's.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import grpc

from coterie.transport.addresses import host_of
from coterie.transport.crowd import Crowd, Member

__all__ = ["GUESTS", "HALF_CALLS", "MEMBERS", "Reception", "StreamPlaces"]

HALF_CALLS: Final = 32  # of each pool
GUESTS: Final = 256  # streams
MEMBERS: Final = 128
A_MEMBER: Final = 16  # of the nodes' own streams, in both directions of a quarrel about who leads, and those of a connection that is lost and not missed yet

Complain = Callable[[str, object, object], object]


class _Half:
    """A call without its request, as a member of the crowd."""

    __slots__ = ("_context",)

    def __init__(self, context: grpc.ServicerContext) -> None:
        self._context = context

    def put_out(self) -> None:
        self._context.cancel()  # type: ignore[no-untyped-call]


class Reception:
    """complain: as `limits.Complaints`."""

    def __init__(self, complain: Complain, most: int = HALF_CALLS) -> None:
        # Without a grace, so that nobody is refused: an honest request comes with its headers, long before as many others have come as have room.
        self._crowd, self._complain = Crowd(most, grace=0.0), complain

    def request(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        """The one request of a call; ends the call where none comes. Raises grpc.RpcError when the call ended while it waited."""
        half: Member = _Half(context)
        _, put_out = self._crowd.enter(half)
        if put_out is not None:
            self._complain("calls without a request put out", context.peer(), f"{self._crowd.most} wait, and another came")
        try:
            return next(requests)
        except StopIteration:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the call has ended without a request")
        finally:
            self._crowd.leave(half)


class StreamPlaces:
    """guests, members: places. a_host: how many of the guests' one address may take; None: all (where certificates say who is a guest)."""

    def __init__(self, guests: int = GUESTS, members: int = MEMBERS, a_host: int | None = None) -> None:
        self.guests, self.members = guests, members
        self._a_host = guests if a_host is None else a_host
        self.known: Mapping[str, int] = {}  # host -> members that gossip knows there; swapped as a whole, from any thread
        self._lock = threading.Lock()
        self._hosts: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}  # of members, of guests

    def take(self, peer: str, of_members: bool) -> tuple[Callable[[], None] | None, str]:
        """A place for a stream from `peer`, as gRPC writes it. of_members: it is one that nodes open. -> how to give it back, or None and why there is none."""
        host = host_of(peer)
        known = self.known.get(host, 0) if of_members else 0
        with self._lock:
            inside = self._hosts[True]
            if inside[host] < known * A_MEMBER and inside.total() < self.members:
                return self._enter(True, host), ""
            inside = self._hosts[False]
            if inside.total() >= self.guests:
                return None, f"{self.guests} streams are open, and no more are served"
            if inside[host] >= self._a_host:
                return None, f"{self._a_host} streams are open from {host}, and no more are served to one address"
            return self._enter(False, host), ""

    def _enter(self, member: bool, host: str) -> Callable[[], None]:
        self._hosts[member][host] += 1

        def leave() -> None:
            with self._lock:
                inside = self._hosts[member]
                inside[host] -= 1
                if not inside[host]:
                    del inside[host]

        return leave
