"""A gossip member of ours without the rest of the node: the membership actor, and what it told, kept for the test.

Run as a program, `python -m tests.interop.our_gossip NAME META SEEDS`, it is one that a test can kill: it writes the same `started` line as the Go programs and ends
with its standard input.
"""

from __future__ import annotations

import json
import sys
import threading

from coterie.actors.base import Crash, Ref
from coterie.actors.membership.actor import MembershipActor
from coterie.actors.membership.discovery import StaticSeeds
from coterie.actors.room_messages import GetMembership, LeaveGossip, Member, MembershipEvent, MembershipView, SetMeta
from coterie.proto.gossip_security import Security


class GossipPeer:
    """seeds: gossip addresses, `host:port,host:port`. Metadata are JSON texts, as the Go programs show them. `close` is a crash: it says no good-bye."""

    def __init__(self, name: str, meta: str = "{}", seeds: str = "", security: Security | None = None) -> None:
        self.name = name
        self.crashes: list[Crash] = []
        self._news = threading.Condition()
        self._events: list[MembershipEvent] = []
        self.ref: Ref = MembershipActor.start(
            name, "127.0.0.1:0", "", json.loads(meta), StaticSeeds(seeds), self._take, security=security, on_crash=self.crashes.append
        )
        self.address = self.members()[name].addr

    def _take(self, _: MembershipView, event: MembershipEvent | None) -> None:
        if event is not None:
            with self._news:
                self._events.append(event)
                self._news.notify_all()

    def members(self) -> dict[str, Member]:
        view: MembershipView = self.ref.ask(GetMembership(), timeout=5)
        return {member.id: member for member in view.members}

    def set_meta(self, meta: str) -> None:
        self.ref.ask(SetMeta(json.loads(meta)), timeout=5)

    def leave(self) -> None:
        """Says good-bye; returns when it is said."""
        self.ref.ask(LeaveGossip(), timeout=5)

    def mark(self) -> int:
        with self._news:
            return len(self._events)

    def wait_for(self, kind: str, name: str, meta: str | None = None, *, within: float = 10.0, since: int = 0) -> Member:
        """The member of the first event of `kind` (join, update, failed, leave) about `name`, with `meta` if given."""

        def found() -> Member | None:
            wanted = None if meta is None else json.loads(meta)
            for event in self._events[since:]:
                if event.kind == kind and event.member.id == name and wanted in (None, event.member.meta):
                    return event.member
            return None

        with self._news:
            if not self._news.wait_for(lambda: found() is not None, within):
                raise AssertionError(f"{self.name}: no {kind!r} of {name} (meta {meta}) within {within} s, but {self._events}")
            member = found()
            assert member is not None
            return member

    def told(self, kind: str, name: str) -> bool:
        with self._news:
            return any(event.kind == kind and event.member.id == name for event in self._events)

    def close(self) -> None:
        self.ref.stop()
        assert not self.crashes, [repr(crash.error) for crash in self.crashes]


def main() -> None:
    name, meta, seeds = sys.argv[1:]
    peer = GossipPeer(name, meta, seeds)
    print(json.dumps({"event": "started", "addr": peer.address}), flush=True)
    sys.stdin.read()
    peer.close()


if __name__ == "__main__":
    main()
