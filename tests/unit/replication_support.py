"""A node's replication room between fakes: a Raft that commits when told to, links that join two rooms in one process, a handler that notes what it gets."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager

from coterie.actors.base import Actor
from coterie.actors.errors import NotLeader
from coterie.actors.handler import HandlerActor
from coterie.actors.handler_messages import SetHandler
from coterie.actors.replication.limits import Limits
from coterie.actors.replication.memory_buffer import MemoryBuffer
from coterie.actors.replication.messages import AcksArrived, ForwardedBatch, SessionClosed
from coterie.actors.replication.room import Replication
from coterie.actors.room_messages import Appended, Applied, Committed, GetReplicationView, ProposalsFailed, Propose, TakeOver, Topology
from coterie.proto.raft_messages import COMMAND, Entry


def eventually(condition, within=5.0):
    """Wait until `condition()` is true; fail when it is not in time."""
    until = time.monotonic() + within
    while not (found := condition()):
        assert time.monotonic() < until, f"not within {within} s"
        time.sleep(0.002)
    return found


class FakeRaft(Actor):
    """Orders proposals into a log that several publishers share. `hold`: nothing commits until `release()`. `refuse`: proposals fail as of a follower."""

    concern = "raft"

    def __init__(self):
        super().__init__("fake")
        self.lock = threading.RLock()
        self.publishers = []
        self.leader = None
        self.log = []
        self.held = []
        self.hold = False
        self.refuse = 0
        self.applied = []
        self.take_overs = []

    def on_receive(self, message):
        if isinstance(message, Propose):
            with self.lock:
                self._propose(message)
        elif isinstance(message, Applied):
            self.applied.append(message.index)
        elif isinstance(message, TakeOver):
            self.take_overs.append(message.leader_id)

    def _propose(self, message):
        if self.refuse:
            self.refuse -= 1
            self.leader.tell(ProposalsFailed([message.context], NotLeader()))
            return
        entry = Entry(len(self.log) + 1, 1, COMMAND, message.data)
        self.log.append(entry)
        if message.want_appended:
            self.leader.tell(Appended([(message.context, entry.index)]))
        self.held.append((entry, message.context))
        if not self.hold:
            self._commit()

    def _commit(self):
        held, self.held = self.held, []
        for publisher in self.publishers:
            mine = publisher is self.leader
            publisher.send(Committed([(entry, context if mine else None) for entry, context in held]))

    def release(self):
        with self.lock:
            self.hold = False
            if self.held:
                self._commit()

    def lose(self, error):
        """What is held never commits: its proposers hear `error`."""
        with self.lock:
            held, self.held = self.held, []
            self.leader.tell(ProposalsFailed([context for _, context in held], error))


class Notes(HandlerActor):
    """Notes what it gets, in order; `behave(topic, data, record)` may raise or block."""

    def __init__(self, behave=None):
        self.seen = []
        self.behave = behave
        super().__init__()

    def handle_sync(self, topic, data, record):
        if self.behave is not None:
            self.behave(topic, data, record)
        self.seen.append((topic, record.seq, data))


class Links:
    """The network between rooms: forwarding links and acknowledgements, by node id. A cut link breaks when it is used."""

    def __init__(self):
        self.rooms = {}
        self.open_links = []
        self.down = set()
        self.sessions = 0
        self.swallow = False  # forwards arrive nowhere, and nobody says so

    def port(self, me):
        outer = self

        class Port:
            def open(self, leader_id, on_reply, on_closed):
                if leader_id in outer.down or leader_id not in outer.rooms:
                    return None
                outer.sessions += 1
                link = Session(outer, f"{me}-{outer.sessions}", leader_id, on_reply, on_closed)
                outer.open_links.append(link)
                return link

        return Port()

    def send_acks(self, me):
        def send(leader_id, acks, announce):
            room = self.rooms.get(leader_id)
            if room is None or leader_id in self.down:
                return False
            room.subscribers.acks_arrived(AcksArrived(me, acks, announce))
            return True

        return send


class Session:
    def __init__(self, links, session, leader_id, on_reply, on_closed):
        self.links, self.session, self.leader_id, self.on_reply, self.on_closed = links, session, leader_id, on_reply, on_closed
        self.sent = []
        self.closed = False
        self.mute = False

    def send(self, forward_id, batch, trace=""):
        if self.closed or self.leader_id in self.links.down:
            return False
        self.sent.append((forward_id, batch))
        if not self.links.swallow:
            self.links.rooms[self.leader_id].publisher.send(ForwardedBatch(self.session, forward_id, batch, self._reply, trace))
        return True

    def _reply(self, forward_id, payload, error):
        if not self.closed and not self.mute:
            self.on_reply(forward_id, payload, error)

    def close(self):
        if not self.closed:
            self.closed = True
            self.links.rooms[self.leader_id].publisher.send(SessionClosed(self.session))

    def cut(self):
        self.close()
        self.on_closed(None)


class Node:
    def __init__(self, name, raft, links, buffer=None, limits=None, retry=0.05, **more):
        self.name, self.raft, self.links = name, raft, links
        self.buffer = buffer or MemoryBuffer()
        self.events = []
        self.crashes = []
        self.room = Replication(
            name, self.buffer, links.port(name), links.send_acks(name), self.events.append, limits=limits or Limits(), retry=retry,
            on_crash=self.crashes.append, **more,
        )  # fmt: skip
        links.rooms[name] = self.room
        self.publisher = self.room.start(raft)
        self.handlers = []

    def topology(self, leader, live=None, term=1, **more):
        live = frozenset(live if live is not None else self.links.rooms)
        self.publisher.tell(Topology(term=term, leader_id=leader, leads=leader == self.name, in_quorum=True, live=live, **more))

    def handle(self, behave=None):
        """Register a handler; -> the list of what it has seen."""
        ref = Notes.start(behave)
        self.handlers.append(ref)
        self.publisher.tell(SetHandler(ref))
        return actor_of(ref).seen

    def view(self):
        return self.publisher.ask(GetReplicationView(), timeout=5)

    def stop(self):
        self.room.stop()
        for ref in self.handlers:
            ref.stop()


@contextmanager
def cluster(*names, leader=None, limits=None, buffers=None, **more):
    """Rooms `names` on one fake log; `leader` (the first by default) leads."""
    raft_ref, links = FakeRaft.start(), Links()
    raft = actor_of(raft_ref)
    nodes = [Node(name, raft_ref, links, limits=limits, buffer=(buffers or {}).get(name), **more) for name in names]
    raft.publishers = [node.publisher for node in nodes]
    leader = names[0] if leader is None else leader
    raft.leader = links.rooms[leader].publisher if leader else None
    for node in nodes:
        node.topology(leader)
    try:
        yield (*nodes, raft)
        assert [crash.error for node in nodes for crash in node.crashes] == []
    finally:
        for node in nodes:
            node.stop()
        raft_ref.stop()


def actor_of(ref):
    """The actor behind a reference; tests look inside, the product never does."""
    return ref._actor_weakref()
