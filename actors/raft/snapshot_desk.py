"""Where the Raft actor has its snapshots and its compaction done: an object that works in the actor's thread, between the core, the log and the state machine.

- A snapshot that comes in is kept (`shipping.Incoming`), given to the state machine, and only then told to the core: `snapshots` says why in this order. One of a Go
  leader tells too little for that: `foreign_snapshots`.
- A follower that needs one gets it (`shipping.Outgoing`).
- The log is compacted (`compaction`) when the state machine has said how much of it is sure to survive. Each step is one transaction, with a pause after it, so that
  appends are not held up. While a snapshot is on its way nothing goes: what follows it must still be there when it is installed (consul 9609).

`ask` asks the state machine, None while there is none; `post` puts a tuple into the actor's inbox, from any thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Final

from coterie.actors.errors import CoterieError
from coterie.actors.future import LightFuture
from coterie.actors.raft.compaction import MARKS_OF_AGE, Compaction
from coterie.actors.raft.core import RaftCore
from coterie.actors.raft.foreign_snapshots import AskOthers, ForeignSnapshots
from coterie.actors.raft.log import RaftLog, SnapshotMark
from coterie.actors.raft.log_format import pack_mark
from coterie.actors.raft.ready import Ready, SnapshotToken
from coterie.actors.raft.settings import Settings
from coterie.actors.raft.shipping import Incoming, Outgoing
from coterie.actors.raft.snapshots import mark_of
from coterie.actors.snapshot_messages import InstallRoster, InstallSnapshot, MakeDurable
from coterie.proto.raft_messages import GO_SNAPSHOT, Header, Request, Response, RpcError, SnapshotRequest
from coterie.proto.raft_stream import SnapshotData
from coterie.transport.limits import Complaints, Counters
from coterie.transport.logs import Log
from coterie.transport.raft_conversation import ReplyHandle
from coterie.transport.tls import Tls

STEP_PAUSE: Final = 0.05  # seconds
LOOK_ENTRIES: Final = 64  # between two looks at how long the log is
LOOK_BYTES: Final = 1 << 20

ARRIVED: Final = "snapshot arrived"
INSTALLED: Final = "snapshot installed"
SENT: Final = "snapshot sent"
DURABLE: Final = "durable"
OTHERS_ASKED: Final = "others asked"


class SnapshotDesk:
    def __init__(
        self,
        name: str,
        log: RaftLog,
        settings: Settings,
        directory: Path | None,
        ask: Callable[[Any], LightFuture | None],
        post: Callable[[tuple[Any, ...]], object],
        notes: Log,
        tls: Tls | None,
        ask_others: AskOthers | None = None,
    ) -> None:
        self._log, self._ask, self._post, self._notes = log, ask, post, notes
        self._counts = Counters()
        complain = Complaints(f"{name}/raft", self._counts)
        self._foreign = ForeignSnapshots(
            lambda: self.core,
            lambda: log.hard_state().term,
            ask_others,
            self._install,
            lambda *what: post((OTHERS_ASKED, *what)),
            complain,
            notes,
        )
        self._compaction = Compaction(
            settings.trailing_entries, settings.trailing_bytes, log.first_index, log.last_index, settings.trailing_age
        )
        self._age_pause, self._look_at = settings.trailing_age / MARKS_OF_AGE, 0.0
        self._asking = False
        self._looked_at = (0, 0)
        self._step_at: float | None = None
        self._incoming = Incoming(directory, lambda *what: post((ARRIVED, *what)), self._counts.add, notes)
        self._outgoing = Outgoing(name, log, ask, lambda *what: post((SENT, *what)), notes, tls)
        self._handlers: dict[str, Callable[..., None]] = {
            ARRIVED: self._arrived,
            INSTALLED: self._installed,
            SENT: self._sent,
            DURABLE: self._durable,
            OTHERS_ASKED: self._foreign.answered,
        }
        self.core: RaftCore

    @property
    def waits_for(self) -> str:
        """As in `RaftView`."""
        return self._foreign.waits_for

    # -- in the transport's threads -------------------------------------------------------------------------------------------

    def begins(self, handle: ReplyHandle, request: Request) -> LightFuture | None:
        """Before the request is told to the actor; what it gives goes with it, to `decided`."""
        if not isinstance(request, SnapshotRequest) or not request.size:
            return None
        return self._incoming.begins(handle, request)

    def decided(self, wanted: LightFuture, answer: bool) -> None:
        """In the actor's thread: is the content wanted?"""
        self._incoming.decided(wanted, answer)

    def close(self) -> None:
        """Nothing comes in any more, and what goes out is broken off."""
        self._incoming.close()
        self._outgoing.close()

    def data(self, handle: ReplyHandle, data: SnapshotData | None) -> None:
        self._incoming.data(handle, data)

    # -- in the actor's thread ------------------------------------------------------------------------------------------------

    def takes(self, what: str) -> bool:
        """Is it one of the tuples that this desk posts?"""
        return what in self._handlers

    def handle(self, what: str, *details: Any) -> None:
        self._handlers[what](*details)

    def _arrived(self, handle: ReplyHandle, request: SnapshotRequest, content: IO[bytes] | None, problem: str) -> None:
        now = time.monotonic()
        if content is None:
            self.core.not_installed(handle, problem, now)
            return
        mark = mark_of(request)
        if mark.index <= self.core.applied:
            content.close()
            self.core.installed(handle, mark, now)
            return
        if request.snapshot_version == GO_SNAPSHOT:
            self._foreign.arrived(handle, request.header.id, mark, content)
            return
        self._notes.info("installs a snapshot up to entry %d of %s", mark.index, request.header.id)
        self._install(InstallSnapshot(content, mark.index, mark.term, pack_mark(mark)), handle, mark)

    def _install(self, question: InstallSnapshot | InstallRoster, handle: ReplyHandle, mark: SnapshotMark) -> LightFuture | None:
        """Ask the state machine; the leader hears how it ended. None while there is no state machine, and the leader was told so."""
        asked = self._ask(question)
        if asked is None:
            if isinstance(question, InstallSnapshot):
                question.content.close()
            self.core.not_installed(handle, "this server has no state machine yet; try again in a moment", time.monotonic())
            return None
        asked.on_done(lambda: self._post((INSTALLED, handle, mark, asked.error)))
        return asked

    def _installed(self, handle: ReplyHandle, mark: SnapshotMark, error: BaseException | None) -> None:
        now = time.monotonic()
        if error is None:
            self.core.installed(handle, mark, now)
            return
        self._notes.error("a snapshot up to entry %d was not installed: %s", mark.index, error)
        self.core.not_installed(handle, str(error) if isinstance(error, CoterieError) else "the state machine did not take it", now)

    def _sent(self, peer: str, token: SnapshotToken, index: int, answer: Response | RpcError | None) -> None:
        self.core.snapshot_sent(peer, token, index, answer, time.monotonic())

    def send(self, ready: Ready, header: Header, where: Callable[[str], str]) -> None:
        """where: the address at which a peer is reached, which may have moved."""
        for wish in ready.snapshots:
            self._outgoing.send(wish._replace(address=where(wish.peer) or wish.address), header)

    def replace_log(self, mark: SnapshotMark) -> None:
        """The state machine is what the snapshot made it: the log is empty, and goes on behind it."""
        self._log.reset(mark)
        self._compaction.replaced(self._log.first_index, self.core.log_bytes)

    # -- compaction -----------------------------------------------------------------------------------------------------------

    def look(self) -> None:
        """The log may have grown: is there a good deal that need not be kept? What is committed is as good as applied here: what is durable is asked."""
        last, size = self.core.last_index, self.core.log_bytes
        now = time.monotonic() if self._age_pause else 0.0
        grown = last - self._looked_at[0] >= LOOK_ENTRIES or size - self._looked_at[1] >= LOOK_BYTES
        if not grown and (not self._age_pause or now < self._look_at):
            return
        self._looked_at, self._look_at = (last, size), now + self._age_pause
        self._compaction.appended(last, size, now)
        if self._asking or not self._compaction.wanted(self.core.commit):
            return
        asked = self._ask(MakeDurable())
        if asked is not None:
            self._asking = True
            asked.on_done(lambda: self._post((DURABLE, 0 if asked.error is not None else asked.get())))

    def _durable(self, index: int) -> None:
        self._asking = False
        # A state machine that a snapshot has just replaced may be ahead of what was handed out; the log is still read from there.
        self._compaction.allowed(min(index, self.core.handed), self.core.commit)
        self._step_at = time.monotonic()

    def compact(self, now: float) -> float | None:
        """A step of the compaction, if one is due; when the next is."""
        if self._step_at is None or now < self._step_at:
            return self._step_at
        index = self._compaction.step()
        if index is None:
            self._step_at = None
        elif self._outgoing.under_way:
            self._step_at = now + 1.0
        else:
            self._counts.add("entries compacted", index + 1 - self._log.first_index)
            self._log.compact(index)
            self._compaction.compacted(self._log.first_index)
            self._step_at = now + STEP_PAUSE
        return self._step_at

    def counters(self) -> dict[str, int]:
        return self._counts.snapshot()
