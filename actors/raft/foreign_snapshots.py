"""What becomes of a snapshot that a leader of go-cluster sends: it tells the roster, and nothing of topics, records and message ids.

A node that took the roster for all of it, and went on with the counters that it has, would give the records behind the snapshot other numbers than our other nodes
do. So before anything beyond its last entry I is applied, one of these must be so:

- this log has the entry I: then it has all that the snapshot stands for, and nothing is installed;
- another node of ours has the state up to I or further: that state is installed, as if its owner led and had sent it;
- no other node of ours has ever numbered anything: there is nobody to differ from. The roster is installed, topics go on where they are here, and what the entries
  in between held is told as a gap (`ReplicationGap`).

Otherwise the leader is told no, and this server waits: it is behind, says so, and asks again each time the leader sends the snapshot anew, which hashicorp/raft
does with a pause that grows to ten seconds. What was asked for goes on when the leader does not wait for it: its next attempt then finds it done.

Taking the gap at once lost, since our nodes would differ for ever because one of them was down for a minute; a vote of ours on who takes which gap lost, since who
is away could not take part in it. The way out for an operator whose other nodes are gone for good is to take them out of the cluster.

Works in the Raft actor's thread, for `snapshot_desk`. ask_others(snapshot, then): must not block; `then(outcome)` is called once, in any thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import IO, Any, Final

from coterie.actors.future import LightFuture
from coterie.actors.raft.core import RaftCore
from coterie.actors.raft.log import SnapshotMark
from coterie.actors.raft.log_format import pack_mark
from coterie.actors.snapshot_messages import InstallRoster, InstallSnapshot, NobodyNumbers, NoState, RosterSnapshot, StateFound
from coterie.proto.errors import WireError
from coterie.proto.raft_codec import decode_configuration
from coterie.proto.raft_messages import OTHER_FORM
from coterie.transport.limits import Complaints
from coterie.transport.logs import Log
from coterie.transport.raft_conversation import ReplyHandle

MOST_DOCUMENT: Final = 4 << 20  # bytes: some ten thousand members
PUT_OFF: Final = "snapshots of hashicorp/raft put off"
REFUSED: Final = "snapshots of hashicorp/raft refused"  # of a program that is not go-cluster, or in the wrong form

AskOthers = Callable[[RosterSnapshot, Callable[[StateFound | NobodyNumbers | NoState], object]], object]


class ForeignSnapshots:
    """core(): this server's. stored_term(): its term as the disk has it. install(question, handle, mark): ask the state machine, and tell the leader how that
    ended. answered(handle, sender, mark, document, outcome): into the actor's inbox, for `answered` here."""

    def __init__(
        self,
        core: Callable[[], RaftCore],
        stored_term: Callable[[], int],
        ask_others: AskOthers | None,
        install: Callable[[Any, ReplyHandle, SnapshotMark], LightFuture | None],
        answered: Callable[..., object],
        complain: Complaints,
        notes: Log,
    ) -> None:
        self._core, self._stored_term = core, stored_term
        self._ask_others, self._install, self._answered = ask_others, install, answered
        self._complain, self._notes = complain, notes
        self._under_way: LightFuture | bool = False
        self._waits: tuple[int, str] | None = None

    @property
    def waits_for(self) -> str:
        """What keeps this server from going on; "" when nothing does."""
        waits = self._waits
        if waits is None:
            return ""
        if self._core().commit >= waits[0]:
            self._waits = None
            return ""
        return waits[1]

    def arrived(self, handle: ReplyHandle, sender: str, mark: SnapshotMark, content: IO[bytes]) -> None:
        now = time.monotonic()
        with content:
            document = content.read(MOST_DOCUMENT + 1)
        if self._core().has_entry(mark.index, mark.term):
            self._core().installed(handle, mark, now)
        elif self._ask_others is None:
            self._refuse(handle, sender, f"{OTHER_FORM} 1: it tells nothing of topics, and this server has nobody to ask")
        elif len(document) > MOST_DOCUMENT:
            self._refuse(handle, sender, f"it has more than {MOST_DOCUMENT} bytes, and cannot be a roster")
        elif self._busy():
            self._core().not_installed(handle, "what an earlier snapshot does not tell is being asked for", now)
        else:
            self._under_way = True
            if not self.waits_for:
                self._waits = mark.index, f"{_told(sender, mark)}; the other nodes of coterie are asked for the rest"
            servers = tuple(server.id for server in mark.configuration.servers)
            question = RosterSnapshot(sender, mark.index, mark.term, servers, document)
            self._ask_others(question, lambda outcome: self._answered(handle, sender, mark, document, outcome))

    def _busy(self) -> bool:
        return self._under_way if isinstance(self._under_way, bool) else not self._under_way.done

    def answered(
        self, handle: ReplyHandle, sender: str, mark: SnapshotMark, document: bytes, outcome: StateFound | NobodyNumbers | NoState
    ) -> None:
        self._under_way = False
        if isinstance(outcome, StateFound):
            self._found(handle, sender, mark, outcome)
        elif isinstance(outcome, NobodyNumbers):
            self._notes.warning(
                "installs the roster up to entry %d from the Go leader %s: no other node of coterie tells what else was in the entries behind %d",
                mark.index,
                sender,
                self._core().commit,
            )
            self._give(InstallRoster(document, mark.index, mark.term, pack_mark(mark), self._core().commit), handle, mark)
        elif outcome.waits:
            self._put_off(handle, sender, mark, outcome.reason)
        else:
            self._refuse(handle, sender, outcome.reason)

    def _found(self, handle: ReplyHandle, sender: str, mark: SnapshotMark, found: StateFound) -> None:
        try:
            ended = SnapshotMark(found.index, found.term, found.configuration_index, decode_configuration(found.configuration))
            wrong = _wrong(mark, ended, sender, self._stored_term())
        except WireError as problem:
            wrong = f"its configuration does not decode: {problem}"
        if wrong:
            found.content.close()
            self._put_off(handle, sender, mark, f"the state of {found.node} cannot take its place: {wrong}")
            return
        if ended.index <= self._core().applied:
            found.content.close()
            self._core().installed(handle, mark, time.monotonic())
            return
        self._notes.info("installs the state of %s up to entry %d, since %s tells only the roster", found.node, ended.index, sender)
        self._give(InstallSnapshot(found.content, ended.index, ended.term, pack_mark(ended)), handle, ended)

    def _give(self, question: InstallSnapshot | InstallRoster, handle: ReplyHandle, mark: SnapshotMark) -> None:
        asked = self._install(question, handle, mark)
        if asked is not None:
            self._under_way = asked

    def _refuse(self, handle: ReplyHandle, sender: str, reason: str) -> None:
        """For good: nobody could make up for it."""
        self._waits = None
        self._complain(REFUSED, sender, reason)
        self._core().not_installed(handle, reason, time.monotonic())

    def _put_off(self, handle: ReplyHandle, sender: str, mark: SnapshotMark, reason: str) -> None:
        self._waits = mark.index, f"{_told(sender, mark)}; this node waits for the state of another node of coterie: {reason}"
        self._complain(PUT_OFF, sender, reason)
        self._core().not_installed(handle, reason, time.monotonic())


def _told(sender: str, mark: SnapshotMark) -> str:
    return f"a Go leader, {sender}, has compacted its log up to entry {mark.index}, and its snapshot tells only the roster"


def _wrong(mark: SnapshotMark, found: SnapshotMark, sender: str, term: int) -> str:
    """Why `found` cannot stand in for the snapshot that ends at `mark`; "" when it can. term: a state of a later one than the log has been in would not start again
    after a crash (`recovery`)."""
    if found.index < mark.index or found.term < mark.term or (found.index == mark.index and found.term != mark.term):
        return f"it ends at entry {found.index} of term {found.term}, and that of term {mark.term} is wanted"
    if found.term > term:
        return f"it is of term {found.term}, and only term {term} is known here yet"
    if found.configuration_index > found.index:
        return f"its configuration is that of entry {found.configuration_index}, behind its end"
    if not any(server.id == sender for server in found.configuration.servers):
        return f"its quorum does not have {sender}: it is of another cluster"
    return ""
