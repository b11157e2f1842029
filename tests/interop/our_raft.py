"""Our own peers, one room at a time: a Raft server without the rest of the node."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from coterie.actors.base import Actor, Crash, Ref
from coterie.actors.future import LightFuture
from coterie.actors.messages import TransferLeadership
from coterie.actors.raft.actor import RaftActor
from coterie.actors.raft.log import RaftLog
from coterie.actors.raft.memory_log import MemoryLog
from coterie.actors.raft.settings import Settings
from coterie.actors.raft.sink import SetSink
from coterie.actors.room_messages import Applied, ChangeQuorum, Committed, GetRaftView, Propose, RaftView
from coterie.proto.raft_messages import COMMAND, Entry
from coterie.transport.tls import Tls


class Recorder(Actor):
    """A state machine that gives every committed entry to `take`."""

    concern = "recorder"

    def __init__(self, node: str, raft: Ref, take: Callable[[list[Entry]], None]) -> None:
        super().__init__(node)
        self._raft, self._take = raft, take

    def on_receive(self, message: Any) -> None:
        if isinstance(message, Committed):
            entries = [entry for entry, _ in message.entries]
            self._take(entries)
            self._raft.send(Applied(entries[-1].index))


class RaftPeer:
    """One Raft server of ours with a recording state machine. `close` and a new one with the same `log` and `bind=peer.address` is a restart."""

    def __init__(
        self, name: str, *, bind: str = "127.0.0.1:0", log: RaftLog | None = None, bootstrap: bool = False, tls: Tls | None = None
    ) -> None:
        self.name = name
        self.log: RaftLog = log if log is not None else MemoryLog()
        self.crashes: list[Crash] = []
        self._news = threading.Condition()
        self._entries: list[Entry] = []
        self._view = RaftView()
        self.ref: Ref = RaftActor.start(
            name,
            bind,
            self.log,
            Settings(),
            bootstrap=bootstrap,
            wait_for_sink=True,
            tls=tls,
            observe=self._observe,
            on_crash=self.crashes.append,
        )
        started: LightFuture = self.ref._actor_weakref().started
        self.address: str = started.get(timeout=5)
        self._recorder = Recorder.start(name, self.ref, self._take)
        self.ref.tell(SetSink(self._recorder))

    def _take(self, entries: list[Entry]) -> None:
        with self._news:
            self._entries += entries
            self._news.notify_all()

    def _observe(self, view: RaftView, _: object) -> None:
        with self._news:
            self._view = view
            self._news.notify_all()

    def wait_view(self, matches: Callable[[RaftView], bool], within: float = 10.0) -> RaftView:
        """Waits until what this server shows is as wanted. Changes of role, term, leader and servers are told; indexes are not."""
        with self._news:
            if not self._news.wait_for(lambda: matches(self._view), within):
                raise AssertionError(f"{self.name}: not as wanted within {within} s: {self._view}")
            return self._view

    def leads(self, within: float = 10.0) -> RaftView:
        return self.wait_view(lambda view: view.role == "leader", within)

    def view(self) -> RaftView:
        view: RaftView = self.ref.ask(GetRaftView(), timeout=5)
        return view

    def commands(self) -> list[Entry]:
        """The commands applied here, in order."""
        with self._news:
            return [entry for entry in self._entries if entry.kind == COMMAND]

    def wait_command(self, data: bytes, within: float = 10.0) -> Entry:
        """Waits until the command `data` is applied here."""

        def found() -> Entry | None:
            return next((entry for entry in reversed(self._entries) if entry.kind == COMMAND and entry.data == data), None)

        with self._news:
            if not self._news.wait_for(lambda: found() is not None, within):
                raise AssertionError(f"{self.name}: {data!r} was not applied within {within} s: {self._view}")
            entry = found()
            assert entry is not None
            return entry

    def propose(self, commands: list[bytes], within: float = 10.0) -> list[int]:
        """Proposes all of them at once; their indexes when all are committed."""
        deadline = time.monotonic() + within
        futures: list[LightFuture] = [self.ref.ask(Propose(data), block=False) for data in commands]
        return [future.get(timeout=max(0.0, deadline - time.monotonic())) for future in futures]

    def add(self, name: str, address: str, within: float = 10.0) -> None:
        self.ref.ask(ChangeQuorum("join", name, address, time.monotonic() + within), timeout=within + 1)

    def remove(self, name: str, within: float = 10.0) -> None:
        self.ref.ask(ChangeQuorum("leave", name, "", time.monotonic() + within), timeout=within + 1)

    def transfer(self, name: str, within: float = 10.0) -> None:
        self.ref.ask(TransferLeadership(name), timeout=within)

    def stored(self, last: int) -> list[Entry]:
        """The log from its beginning to `last`."""
        found: list[Entry] = []
        while len(found) < last:
            found += self.log.entries(len(found) + 1, last, 1 << 20)
        return found

    def stop(self) -> None:
        """As a crash looks to the others: no word to anybody, its connections end."""
        self.ref.stop()

    def close(self) -> None:
        self.ref.stop()
        self._recorder.stop()
        assert not self.crashes, [repr(crash.error) for crash in self.crashes]
