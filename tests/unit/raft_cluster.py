"""A handful of Raft cores on one table: time stands still until a test moves it, and messages flow until all is quiet.

For scenarios that must read as a story. What happens under every order of events is the simulator's business (tests/sim).
"""

from __future__ import annotations

from random import Random
from typing import Any

from coterie.actors.raft.core import RaftCore
from coterie.actors.raft.log import SnapshotMark
from coterie.actors.raft.node import Role
from coterie.actors.raft.ready import DoubtSettled, ReadConfirmed, Ready, Send, SendSnapshot
from coterie.actors.raft.settings import Settings
from coterie.proto.raft_codec import encode_configuration
from coterie.proto.raft_messages import (
    COMMAND,
    NONVOTER,
    OWN_SNAPSHOT,
    VOTER,
    Configuration,
    Entry,
    Header,
    PreVoteRequest,
    Server,
    SnapshotRequest,
)
from tests.sim.disk import SimDisk


def server(name: str, suffrage: int = VOTER) -> Server:
    return Server(name, f"{name}:9520", suffrage)


def header(name: str) -> Header:
    return Header(name, f"{name}:9520")


class Member:
    """One core, its disk, and everything that it ever said."""

    def __init__(self, name: str, settings: Settings, now: float, disk: SimDisk | None = None, applied: int = 0) -> None:
        self.name = name
        self.disk = disk or SimDisk()
        self.core = RaftCore(
            server(name),
            settings,
            self.disk,
            self.disk.hard,
            self.disk.configuration(),
            self.disk.configuration_before,
            applied,
            now,
            Random(name),
            self.disk.doubt,
        )
        self.applied: list[Entry] = []
        self.contexts: list[Any] = []
        self.events: list[Any] = []
        self.abandoned: list[Any] = []
        self.confirmed: list[ReadConfirmed] = []
        self.unconfirmed: list[Any] = []
        self.outgoing: list[Send] = []
        self.wishes: list[SendSnapshot] = []  # of followers that need a snapshot
        self.installed: list[Entry] = []  # what the snapshot was made of that the state machine is made of
        self.stuck = False  # a disk that does not answer: Readys wait
        self.waiting: list[Ready] = []

    def answer(self, message: Any, now: float) -> Any:
        """What this member answers, once that is durable."""
        handle = object()
        self.core.request(handle, message, now)
        return dict(self.drain())[handle]

    def drain(self) -> list[Any]:
        """Do what the core wants done; the answers that leave. Requests gather in `outgoing`."""
        replies: list[Any] = []
        sends = self.outgoing
        while True:
            while (ready := self.core.ready()) is not None:
                sends += ready.before
                self.wishes += ready.snapshots
                self.confirmed += ready.confirmed
                self.unconfirmed += ready.unconfirmed
                self.waiting.append(ready)
            if not self.waiting or self.stuck:
                return replies
            ready = self.waiting.pop(0)
            if ready.mark is not None:
                self.disk.reset(ready.mark, self.installed)
            if ready.must_store:
                self.disk.write(ready.entries, ready.hard_state, ready.truncate_from)
                self.core.stored(self.disk.last_index, self.disk.last_term)
            sends += ready.after
            replies += ready.replies
            for entry, context in ready.committed:
                self.applied.append(entry)
                self.contexts.append(context)
            if ready.committed:
                self.core.applied_to(self.applied[-1].index)
            self.events += ready.events
            if any(isinstance(event, DoubtSettled) for event in ready.events):
                self.disk.doubt = None
            self.abandoned += ready.abandoned

    def take_snapshot(self) -> tuple[SnapshotMark, list[Entry]]:
        """Of what is applied: where it ends, and what it is made of."""
        history = self.disk.log[: self.core.applied]
        return SnapshotMark(self.core.applied, history[-1].term, *self.disk.configuration_before(self.core.applied + 1)), history

    def answer_snapshot(self, request: SnapshotRequest, mark: SnapshotMark, history: list[Entry], now: float) -> Any:
        """What this member answers, having installed it if it wanted it."""
        handle = object()
        if self.core.request(handle, request, now):
            if mark.index > self.core.applied:
                self.installed, self.applied = history, list(history)
            self.core.installed(handle, mark, now)
        return dict(self.drain())[handle]

    def read(self, context: Any, now: float, lease: bool = False) -> int | None:
        """Ask for a read index, and look at once: it, or None while it is not confirmed."""
        self.core.read_index(context, now, lease)
        self.drain()
        return self.answer_to(context)

    def answer_to(self, context: Any) -> int | None:
        """The index from which this read may be answered, if it may."""
        return next((answer.index for answer in self.confirmed if answer.context is context), None)

    def commands(self) -> list[bytes]:
        return [entry.data for entry in self.applied if entry.kind == COMMAND and entry.data is not None]


class RaftCluster:
    def __init__(self, *names: str, settings: Settings | None = None, nonvoters: tuple[str, ...] = ()) -> None:
        self.settings = settings or Settings()
        self.now = 100.0
        self.members = {name: Member(name, self.settings, self.now) for name in (*names, *nonvoters)}
        self.gone: set[str] = set()
        self.links: set[tuple[str, str]] = set()
        self.cut_off: set[str] = set()
        self.without_pre_vote: set[str] = set()  # they hang up on the question
        self.allowed: dict[tuple[str, str], int] = {}  # (from, to): how many more messages pass in this direction; the rest is lost
        self.delayed: dict[
            tuple[str, str], list[tuple[Send, Any]]
        ] = {}  # (who answers, whom): answers on their way, for as long as that is
        self.sent: list[tuple[str, Send]] = []
        self.configuration = Configuration(tuple(server(n) for n in names) + tuple(server(n, NONVOTER) for n in nonvoters))

    def __getitem__(self, name: str) -> Member:
        return self.members[name]

    def bootstrap(self, leader: str) -> Member:
        """A cluster that `leader` leads, everybody being up to date."""
        self[leader].core.bootstrap(self.configuration, self.now)
        self.settle()
        self.pass_time(0.01)
        assert self[leader].core.role is Role.LEADER, self[leader].core.role
        self.pass_time(0.3)
        return self[leader]

    def alive(self) -> list[Member]:
        return [member for name, member in self.members.items() if name not in self.gone]

    def reaches(self, a: str, b: str) -> bool:
        return not ({a, b} & self.gone) and (a in self.cut_off) == (b in self.cut_off)

    def settle(self) -> None:
        """Connect who wants to be connected, and deliver until nobody has anything to say."""
        for _ in range(1000):
            self._connect()
            if not self._deliver():
                return
        raise AssertionError("these servers never fall silent")

    def _connect(self) -> None:
        for member in self.alive():
            wanted = {peer.id for peer in member.core.peers() if peer.id in self.members}
            for peer in sorted(self.members):
                link = (member.name, peer)
                possible = peer in wanted and self.reaches(*link)
                if possible and link not in self.links:
                    self.links.add(link)
                    member.core.connected(peer, self.now)
                elif not possible and link in self.links:
                    self.links.discard(link)
                    if member.name in self.cut_off or peer in self.cut_off:
                        continue  # a partition is silent: no connection ends
                    member.core.disconnected(peer, self.now)

    def _deliver(self) -> bool:
        busy = False
        for member in self.alive():
            member.drain()
            sends, member.outgoing = member.outgoing, []
            wishes, member.wishes = member.wishes, []
            for wish in wishes:
                busy = True
                self._send_snapshot(member, wish)
            for send in sends:
                self.sent.append((member.name, send))
                busy = True
                if send.peer in self.without_pre_vote and isinstance(send.request, PreVoteRequest):
                    self._hang_up(member, send)
                elif self.reaches(member.name, send.peer) and self._passes(member.name, send.peer):
                    answer = self[send.peer].answer(send.request, self.now) if not self[send.peer].stuck else None
                    if answer is not None and (send.peer, member.name) in self.delayed:
                        self.delayed[send.peer, member.name].append((send, answer))
                    elif answer is not None and self._passes(send.peer, member.name):
                        member.core.response(send.peer, send.token, answer, self.now)
        return busy

    def _hang_up(self, member: Member, send: Send) -> None:
        if (member.name, send.peer) in self.links and self.reaches(member.name, send.peer):
            self.links.discard((member.name, send.peer))
            member.core.response(send.peer, send.token, None, self.now)
            member.core.disconnected(send.peer, self.now)

    def arrive(self, sender: str, receiver: str) -> None:
        """The answers that were delayed come in now."""
        for send, answer in self.delayed.pop((sender, receiver)):
            self[receiver].core.response(sender, send.token, answer, self.now)
        self.settle()

    def _send_snapshot(self, member: Member, wish: SendSnapshot) -> None:
        mark, history = member.take_snapshot()
        answer = None
        if self.reaches(member.name, wish.peer) and self._passes(member.name, wish.peer):
            request = SnapshotRequest(
                header(member.name),
                wish.token.term,
                mark.index,
                mark.term,
                encode_configuration(mark.configuration),
                mark.configuration_index,
                100,
                snapshot_version=OWN_SNAPSHOT,
            )
            answer = self[wish.peer].answer_snapshot(request, mark, history, self.now)
        member.core.snapshot_sent(wish.peer, wish.token, mark.index, answer, self.now)

    def _passes(self, sender: str, receiver: str) -> bool:
        left = self.allowed.get((sender, receiver))
        if left:
            self.allowed[sender, receiver] = left - 1
        return left is None or left > 0

    def reconnect(self, *links: tuple[str, str]) -> None:
        """These connections, in which something was lost, are replaced by new ones: a connection delivers everything or ends."""
        self.links -= set(links)
        self.settle()

    def pass_time(self, seconds: float, step: float = 0.02) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += step
            for member in self.alive():
                if self.now >= member.core.deadline():
                    member.core.tick(self.now)
            self.settle()

    def leaders(self) -> list[str]:
        return [member.name for member in self.alive() if member.core.role is Role.LEADER]

    def leader(self) -> Member:
        (name,) = self.leaders()
        return self[name]

    def stop(self, name: str) -> None:
        """The process dies: its connections end at once."""
        self.gone.add(name)
        self.settle()

    def restart(self, name: str) -> None:
        self.gone.discard(name)
        self.links = {link for link in self.links if name not in link}
        disk = self[name].disk
        self.members[name] = member = Member(name, self.settings, self.now, disk, disk.start)
        member.applied = disk.log[: disk.start]  # what was compacted the state machine has kept; the rest it gets again
        self.settle()

    def propose(self, *commands: bytes) -> None:
        self.leader().core.propose(commands, commands, self.now)
        self.settle()
