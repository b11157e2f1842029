"""What an operator's tools ask a running node: the supervisor's desk for `GetRaftReport` and `TakeBackup`.

A report is of the node that is asked, and never travels on: whoever wants to know how far the others are asks the leader, whose address stands in it.

A backup is taken in steps, each asked of the room that has it: what is applied goes into the buffer and is synced, so that nothing that this node has
acknowledged is missing; how far the handler is,
which may only be too little by the time of the snapshot, so that a restored node delivers again and skips nothing; who is in the quorum; the snapshot.

Runs in the supervisor's thread; answers come back to it by `post`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Final

import attrs

from coterie import __version__
from coterie.actors.backup_messages import TakenBackup
from coterie.actors.errors import InvalidRequest, StorageError
from coterie.actors.future import LightFuture, gather
from coterie.actors.node.assembly import Rooms
from coterie.actors.node.topology import META_HTTP, META_MGMT, Picture
from coterie.actors.raft_report import GetRaftReport, RaftReport
from coterie.actors.room_messages import GetReplicationView, ReplicationView
from coterie.actors.snapshot_messages import MakeDurable, Snapshot, TakeSnapshot
from coterie.actors.stores.backups import now
from coterie.proto.backup import Header
from coterie.proto.raft_messages import NONVOTER, STAGING, VOTER, Configuration, Server

_SUFFRAGE: Final = {"voter": VOTER, "learner": NONVOTER, "staging": STAGING}


class OperatorDesk:
    def __init__(self, rooms: Rooms, picture: Picture, post: Callable[[Callable[[], None]], object]) -> None:
        self._rooms, self._picture, self._post = rooms, picture, post

    def report(self, reply: LightFuture) -> None:
        """`reply` gets a RaftReport."""
        rooms = self._rooms
        asks = [rooms.raft.ask(GetRaftReport(), block=False), rooms.publisher.ask(GetReplicationView(most=0), block=False)]

        def all_there() -> None:
            failed = next((asked.error for asked in asks if asked.error is not None), None)
            if failed is not None:
                reply.fail(failed)
            else:
                report, replication = (asked.get(timeout=0) for asked in asks)
                reply.set(self._completed(attrs.evolve(report, applied_index=replication.applied_index)))

        gather(asks, lambda: self._post(all_there))

    def back_up(self, reply: LightFuture) -> None:
        """`reply` gets a TakenBackup. Raises InvalidRequest."""
        rooms, me = self._rooms, self._picture.me
        if not self._picture.topology.in_quorum:
            raise InvalidRequest(
                f"{me} is in no quorum: what it holds came over a stream, and no log vouches for it; ask a server of the quorum"
            )
        steps = [
            lambda: rooms.publisher.ask(MakeDurable(), block=False),
            lambda: rooms.publisher.ask(GetReplicationView(), block=False),
            lambda: rooms.raft.ask(GetRaftReport(), block=False),
            lambda: rooms.publisher.ask(TakeSnapshot(me), block=False),
        ]
        answers: list[Any] = []

        def take_step() -> None:
            asked = steps[len(answers)]()
            asked.on_done(lambda: self._post(lambda: answered(asked)))

        def answered(asked: LightFuture) -> None:
            if asked.error is not None:
                reply.fail(asked.error)
                return
            answers.append(asked.get(timeout=0))
            if len(answers) < len(steps):
                take_step()
            else:
                reply.set(_taken(me, *answers[1:]))

        take_step()

    def _completed(self, report: RaftReport) -> RaftReport:
        if not self._picture.topology.in_quorum:  # such a member knows its leader from gossip
            report = attrs.evolve(report, leader_id=self._picture.topology.leader_id)
        store = self._rooms.stores.get("raft")
        size = None
        if store is not None:
            with contextlib.suppress(StorageError):  # it is closed: the node stops
                size = store.usage().used_bytes
        return attrs.evolve(report, log_bytes=size, fsync=self._rooms.metrics.disk_times(), leader_http=self._http_of(report.leader_id))

    def _http_of(self, leader: str) -> str:
        member = next((member for member in self._picture.membership.members if member.id == leader), None)
        return "" if member is None else member.meta.get(META_HTTP) or member.meta.get(META_MGMT, "")


def _taken(me: str, replication: ReplicationView, raft: RaftReport, snapshot: Snapshot) -> TakenBackup:
    servers = tuple(Server(s.id, s.address, _SUFFRAGE[s.suffrage]) for s in raft.servers if s.suffrage in _SUFFRAGE)
    end = (snapshot.index, snapshot.term)
    cursors = {topic.topic: max(1, topic.delivered + 1) for topic in replication.topics}
    header = Header(me, now(), __version__, True, raft.term, end, end, raft.configuration_index, Configuration(servers), cursors)
    return TakenBackup(header, snapshot.content)
