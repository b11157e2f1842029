"""What an operator looks at closely: the supervisor's desk for `GetRaftReport`.

A report is of the node that is asked, and never travels on: whoever wants to know how far the others are asks the leader, whose address stands in it.
Runs in the supervisor's thread; the Raft actor's answer comes back to it by `post`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import attrs

from coterie.actors.assembly import Rooms
from coterie.actors.errors import StorageError
from coterie.actors.future import LightFuture
from coterie.actors.raft_report import GetRaftReport, RaftReport
from coterie.actors.topology import META_HTTP, META_MGMT, Picture


class OperatorDesk:
    def __init__(self, rooms: Rooms, picture: Picture, post: Callable[[Callable[[], None]], object]) -> None:
        self._rooms, self._picture, self._post = rooms, picture, post

    def report(self, reply: LightFuture) -> None:
        """`reply` gets a RaftReport."""
        asked = self._rooms.raft.ask(GetRaftReport(), block=False)

        def answered() -> None:
            if asked.error is not None:
                reply.fail(asked.error)
            else:
                reply.set(self._completed(asked.get(timeout=0)))

        asked.on_done(lambda: self._post(answered))

    def _completed(self, report: RaftReport) -> RaftReport:
        store = self._rooms.stores.get("raft")
        size = None
        if store is not None:
            with contextlib.suppress(StorageError):  # it is closed: the node stops
                size = store.usage().used_bytes
        return attrs.evolve(report, log_bytes=size, fsync=self._rooms.metrics.disk_times(), leader_http=self._http_of(report.leader_id))

    def _http_of(self, leader: str) -> str:
        member = next((member for member in self._picture.membership.members if member.id == leader), None)
        return "" if member is None else member.meta.get(META_HTTP) or member.meta.get(META_MGMT, "")
