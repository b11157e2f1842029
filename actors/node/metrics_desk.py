"""What the supervisor tells the metrics: who leads and who is there at each change, the rooms' views every `REFRESH` seconds, a sample of every inbox each second.

So a scrape never has to ask an actor. What a scrape shows of Raft's progress, gossip and the rooms' counters is therefore up to `REFRESH` seconds old; leadership,
quorum and members are told when they change.

Runs in the supervisor's thread; answers of the rooms come back to it by `post`.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from coterie.actors.base import Ref
from coterie.actors.errors import StorageError
from coterie.actors.future import LightFuture
from coterie.actors.node.assembly import Rooms
from coterie.actors.node.status import living_voters
from coterie.actors.node.topology import Picture
from coterie.actors.observability.metrics import SAMPLE_EVERY
from coterie.actors.room_messages import GetMembership, GetRaftView, GetReplicationView, MembershipView, RaftView, Topology
from coterie.transport import logs

REFRESH: Final = 5.0  # seconds between looks at what the rooms show


class MetricsDesk:
    """See the module's text. `metrics` of the rooms gets everything."""

    def __init__(self, rooms: Rooms, picture: Picture, ref: Ref, post: Callable[[Callable[[], None]], object]) -> None:
        self._rooms, self._picture, self._ref, self._post = rooms, picture, ref, post
        self.metrics = rooms.metrics
        self._raft = picture.raft  # the latest view, of a change or of a look: its contact with the voters ages
        self._refresh_at = self.next_time = time.monotonic()

    # -- at each change -------------------------------------------------------------------------------------------------------

    def topology(self, now: Topology) -> None:
        """Who leads, who lives; also what the quorum looks like from here, since gossip or Raft has said something new."""
        self.metrics.term(now.term)
        self.metrics.members(len(now.live))
        self.metrics.leader(now.leads, bool(now.leader_id))
        self._show_quorum(now.in_quorum)

    def raft(self, view: RaftView) -> None:
        self._raft = view
        self.metrics.raft(view)

    def membership(self, view: MembershipView) -> None:
        self.metrics.membership(view)

    # -- by the clock ---------------------------------------------------------------------------------------------------------

    def on_wake(self, now: float) -> bool:
        """-> whether the rooms were asked for their views."""
        if now < self.next_time:
            return False
        self.next_time = now + SAMPLE_EVERY
        self.metrics.inboxes.look(self._actors())
        if now < self._refresh_at:
            return False
        self._refresh_at = now + REFRESH
        self._refresh()
        return True

    def _actors(self) -> Iterator[tuple[str, Any]]:
        yield "supervisor", self._ref
        for concern, ref in self._rooms.actors():
            if ref.is_alive():
                yield concern, ref

    def _refresh(self) -> None:
        rooms, metrics = self._rooms, self.metrics
        metrics.room_counters("management", rooms.management_counters())
        metrics.room_counters("reads", rooms.read_counters())
        metrics.log_records_dropped(logs.backlog.dropped)
        self._show_storage()
        for which, end in rooms.tls.expiries().items() if rooms.tls is not None else ():
            metrics.certificate(which, end)
        self._show(rooms.raft.ask(GetRaftView(), block=False), self.refreshed)
        self._show(rooms.membership.ask(GetMembership(), block=False), metrics.membership)
        self._show(rooms.publisher.ask(GetReplicationView(most=0), block=False), metrics.replication)
        self._show(rooms.events.ask("missed", block=False), metrics.events_missed)

    def _show(self, asked: LightFuture, show: Callable[[Any], None]) -> None:
        """A room that is stopped shows nothing new."""

        def answered() -> None:
            if asked.error is None:
                self._post(lambda: show(asked.get(timeout=0)))

        asked.on_done(answered)

    def refreshed(self, view: RaftView) -> None:
        """The answer to a look, unless it was overtaken by what Raft has told since."""
        if (view.term, view.commit_index) >= (self._raft.term, self._raft.commit_index):
            self.raft(view)
            self._show_quorum(self._picture.topology.in_quorum)

    def _show_quorum(self, in_it: bool) -> None:
        voters, living = living_voters(self._picture.me, self._raft, self._picture.membership)
        self.metrics.quorum(in_it, len(voters), len(living))

    def _show_storage(self) -> None:
        """How large the node's files are, and what is left beside them; nothing of a store that is closed already."""
        for name, store in self._rooms.stores.items():
            with contextlib.suppress(StorageError):
                usage = store.usage()
                self.metrics.storage(name, usage.map_bytes, usage.used_bytes)
            with contextlib.suppress(OSError):  # the directory was taken away: the store itself will say so
                system = os.statvfs(store.path)
                self.metrics.disk(name, system.f_frsize * system.f_blocks, system.f_frsize * system.f_bavail)
