"""One simulated server: the real core, a simulated disk, a shell that keeps the order of `Ready`, and a state machine on top.

The shell is the worst that the contract allows: while a write is under way the core goes on taking inputs, so several Readys
wait for the disk, and what a leader may send before its own write is durable leaves at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any

from coterie.actors.raft.core import RaftCore
from coterie.actors.raft.log import SnapshotMark
from coterie.actors.raft.node import Role
from coterie.actors.raft.ready import BecameLeader, ConfigurationChanged, DoubtSettled, Event, Ready
from coterie.actors.raft.refusals import Refusal
from coterie.proto.raft_messages import AppendResponse, Entry, PreVoteResponse, Server, TimeoutNowRequest, VoteResponse
from tests.sim.clocks import Clock
from tests.sim.coverage import of_event
from tests.sim.disk import SimDisk
from tests.sim.network import Connection
from tests.sim.reads import ReadDesk
from tests.sim.snapshots import Sending, installed_before_a_crash

if TYPE_CHECKING:
    from tests.sim.raft_world import RaftWorld

SYNC = (0.0001, 0.002)


class SimNode:
    def __init__(self, world: RaftWorld, server: Server, pace: float) -> None:
        self.world, self.server, self.id = world, server, server.id
        self.disk = SimDisk()
        self.life = 0
        self.up = False
        self.paused = False
        self.gone = False  # its disk was lost: nobody of this name comes back
        self.reads = ReadDesk(self)
        self.slow_disk = 0.0  # seconds added to each write
        self.clock = Clock(pace, world.kernel.between(0.0, 1000.0))
        self.ended = float("-inf")  # when the life before ended, by that clock
        self.core: Any = None
        self.state: Any = None  # of the application: what a restart keeps is the application's business
        self.applied = 0
        self.installed: tuple[SnapshotMark, list[Entry]] | None = (
            None  # with the state machine, durably: the last snapshot, and what it was made of
        )
        self._inbox: list[Any] = []
        self._queue: deque[Ready] = deque()
        self._writing = False
        self._connections: dict[str, Connection] = {}
        self._dialling: set[str] = set()
        self._tick_at = self._deadline = float("inf")
        self._matched: dict[str, tuple[int, int]] = {}
        self._dialled_for: object = None
        self._term = self._commit = self._generation = self._configuration_index = 0

    # -- life --------------------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        kernel = self.world.kernel
        self.life += 1
        self.up, self.paused = True, False
        self._inbox, self._queue, self._writing = [], deque(), False
        self._connections, self._dialling, self._tick_at = {}, set(), float("inf")
        self._matched, self._dialled_for = {}, None
        self.reads = ReadDesk(self)
        self.applied = self.world.application.start(self)
        installed_before_a_crash(self)
        random = Random(kernel.random.random())
        self.core = RaftCore(
            self.server,
            self.world.settings,
            self.disk,
            self.disk.hard,
            self.disk.configuration(),
            self.disk.configuration_before,
            self.applied,
            self.now(),
            random,
            self.disk.doubt,
            self.ended,
        )
        self._term, self._commit, self._generation = self.core.term, self.core.commit, 0
        self._configuration_index = self.core.configuration_index
        kernel.note(self.id, "start", f"term {self.core.term} last {self.core.last_index} applied {self.applied}")
        self.step()
        if self.life > 1:
            self.world.founds(self)

    def crash(self) -> None:
        """What was not synced is lost; a write under way may have been completed, unreported."""
        kernel = self.world.kernel
        kernel.note(self.id, "crash")
        kernel.seen["crashes"] += 1
        if self._writing and kernel.chance(0.3):
            self._write(self._queue[0])
            kernel.seen["writes that nobody heard of"] += 1
        elif self._writing:
            kernel.seen["unsynced writes lost"] += 1
        self.up = False
        self.ended = self.now()
        self.core = None
        self.world.network.close_all_of(self)

    def pause(self, seconds: float) -> None:
        self.paused = True
        life = self.life
        self.world.kernel.note(self.id, "pause", seconds)

        def resume() -> None:
            if self.up and self.life == life:
                self.paused = False
                self.world.kernel.note(self.id, "resume")
                self.step()

        self.world.kernel.after(seconds, resume)

    def reachable(self) -> bool:
        return self.up and not self.paused

    def attempt(self, action: Callable[[], Any]) -> Any:
        """Ask the core for something that it may refuse: its answer (True when it gives none), or None."""
        try:
            result = action()
        except Refusal as refusal:
            self.world.kernel.note(self.id, "refused", refusal)
            return None
        self.step()
        return True if result is None else result

    def now(self) -> float:
        """By its own monotonic clock."""
        return self.clock.local(self.world.kernel.now)

    # -- inputs ------------------------------------------------------------------------------------------------------------------

    def on_request(self, handle: Any, message: Any) -> None:
        self.world.kernel.note(self.id, "request", message)
        if message.__class__ is TimeoutNowRequest:
            self.world.kernel.seen["leaderships handed over"] += 1
        self.core.request(handle, message, self.now())
        self.step()

    def on_response(self, peer: str, token: object, message: Any) -> None:
        self.world.kernel.note(self.id, "answer", (peer, token, message))
        if message.__class__ is PreVoteResponse or message.__class__ is VoteResponse:
            kind = "pre-votes" if message.__class__ is PreVoteResponse else "votes"
            self.world.kernel.seen[f"{kind} {'given' if message.granted else 'refused'}"] += 1
        self.core.response(peer, token, message, self.now())
        self.step()

    def on_connected(self, peer: str, connection: Connection) -> None:
        self.world.kernel.note(self.id, "connected", peer)
        self._connections[peer] = connection
        self.core.connected(peer, self.now())
        self.step()

    def on_disconnected(self, peer: str, connection: Connection) -> None:
        if connection.client_life != self.life or self._connections.get(peer) is not connection:
            return
        self.world.kernel.note(self.id, "disconnected", peer)
        del self._connections[peer]
        self._dialled_for = None
        self.core.disconnected(peer, self.now())
        self.step()

    def on_snapshot(self, sending: Sending) -> None:
        """InstallSnapshot: the request, and then its content, which takes its time."""
        kernel, life = self.world.kernel, self.life
        kernel.note(self.id, "snapshot", sending.mark)
        wanted = self.core.request((sending, None), sending.request, self.now())
        self.step()
        if wanted:
            kernel.after(kernel.between(0.001, 0.3), lambda: self._install(sending, life))

    def _install(self, sending: Sending, life: int) -> None:
        if not self.up or life != self.life:
            return
        if self.paused:
            self.world.kernel.after(0.02, lambda: self._install(sending, life))
            return
        if sending.mark.index > self.applied:
            self.world.application.restore(self, sending.mark, sending.content)
            self.installed = (sending.mark, sending.history)
            self.applied = (
                sending.mark.index
            )  # also where the log has got further meanwhile: what was handed out of it is in there, and is skipped
            self.world.kernel.seen["snapshots installed"] += 1
            if self.world.chaos.dies_between(self):
                return
            self.reads.applied()
        self.world.kernel.note(self.id, "restored", sending.mark.index)
        self.core.installed((sending, None), sending.mark, self.now())
        self.world.oracle.truncated(self)
        self.step()

    def _plan_tick(self) -> None:
        """One alarm is set, not after the deadline: that mostly moves on before it comes, and a later one need not be set each time."""
        deadline = max(self.clock.when(self.core.deadline()), self.world.kernel.now + 0.0005)
        self._deadline = deadline
        if deadline < self._tick_at - 1e-9:
            self._tick_at = deadline
            life = self.life
            self.world.kernel.at(deadline, lambda: self._tick(life, deadline))

    def _tick(self, life: int, planned: float) -> None:
        if not self.up or life != self.life or self._tick_at != planned:
            return
        if self.paused:
            self.world.kernel.after(0.05, lambda: self._tick(life, planned))
            return
        self._tick_at = float("inf")
        if self.world.kernel.now < self._deadline:
            self._plan_tick()
            return
        self.core.tick(self.now())
        self.step()

    # -- the shell ---------------------------------------------------------------------------------------------------------------

    def step(self) -> None:
        """Drain the core, check what must always hold, and plan the next tick."""
        if not self.reachable():
            return
        silent = True
        while (ready := self.core.ready()) is not None:
            silent = False
            for send in ready.before:
                self._send(send)
            for wish in ready.snapshots:
                Sending(self, wish)
            if ready.confirmed or ready.unconfirmed:
                self.reads.drained(ready)
            self._queue.append(ready)
            self._check()
            self._work()
        if silent:
            self._check()
        self._dial()
        self._plan_tick()

    def _work(self) -> None:
        """Take the Readys in their order; the first that must be stored holds up all after it."""
        life = self.life
        while self._queue and not self._writing:
            ready = self._queue[0]
            if ready.must_store:
                self._writing = True
                delay = self.world.kernel.between(*SYNC) + self.slow_disk
                self.world.kernel.after(delay, lambda: self._stored(life))
                return
            self._queue.popleft()
            self._effects(ready)

    def _stored(self, life: int) -> None:
        if not self.up or life != self.life:
            return
        if self.paused:
            self.world.kernel.after(0.02, lambda: self._stored(life))
            return
        ready = self._queue.popleft()
        self._write(ready)
        self._writing = False
        self.core.stored(self.disk.last_index, self.disk.last_term)
        self._effects(ready)
        self._work()
        self.step()

    def _write(self, ready: Ready) -> None:
        if ready.mark is not None:
            assert (
                self.installed is not None
            )  # perhaps a later one already: on a slow disk the log is put behind one snapshot when the next is installed
            self.disk.reset(ready.mark, self.installed[1][: ready.mark.index])
        self.world.oracle.written(self, ready)
        self.disk.write(ready.entries, ready.hard_state, ready.truncate_from)

    def _effects(self, ready: Ready) -> None:
        world = self.world
        for send in ready.after:
            world.oracle.request_leaves(self, send)
            self._send(send)
        for (connection, token), response in ready.replies:
            if connection is None:
                continue
            if isinstance(response, (AppendResponse, VoteResponse)):
                world.oracle.answer_leaves(self, connection.client.id, token, response)
            connection.answer(token, response)
        for entry, context in ready.committed:
            if self.installed is not None and entry.index <= self.installed[0].index:  # handed out before the snapshot came that holds it
                if context is not None:
                    world.application.abandoned(self, context)
                continue
            world.oracle.applied(self, entry)
            self.applied = entry.index
            world.application.apply(self, entry, context)
        if ready.committed:
            self.core.applied_to(self.applied)
            if self.reads.waits():
                self.reads.applied()
        for context in ready.abandoned:
            world.kernel.seen["proposals abandoned"] += 1
            world.application.abandoned(self, context)
        for event in ready.events:
            world.kernel.note(self.id, "event", event)
            world.kernel.seen[of_event(event)] += 1
            self._heard(event)

    def _heard(self, event: Event) -> None:
        world = self.world
        if isinstance(event, DoubtSettled):
            self.disk.doubt = None
        elif isinstance(event, BecameLeader):
            world.chaos.leader_rises(self)
        elif isinstance(event, ConfigurationChanged):
            world.kernel.seen["configurations cut off"] += event.index < self._configuration_index
            self._configuration_index = event.index

    def _send(self, send: Any) -> None:
        connection = self._connections.get(send.peer)
        if connection is not None and connection.open:
            connection.send(send.token, send.request)
        else:
            life = self.life
            token = send.token

            def refused() -> None:
                if self.reachable() and self.life == life:
                    self.on_response(send.peer, token, None)

            self.world.kernel.after(0.0005, refused)

    def _dial(self) -> None:
        """Begin to dial whom the core wants to reach, and let go of the others; when that may have changed."""
        node = self.core._node
        state = (node.configuration, node.role is Role.LEADER, len(node.progress))
        if state == self._dialled_for:
            return
        self._dialled_for = state
        wanted = {server.id for server in self.core.peers()}
        for peer in sorted(wanted):
            if peer not in self._connections and peer not in self._dialling:
                self._dialling.add(peer)
                life = self.life
                self.world.kernel.after(self.world.network.latency(), lambda peer=peer, life=life: self._dialled(peer, life))
        for peer in sorted(set(self._connections) - wanted):
            if peer in self._connections:  # closing one steps this node, which may have closed the next
                self._connections[peer].close("no longer a peer")

    def _dialled(self, peer: str, life: int) -> None:
        if not self.up or life != self.life:
            return
        self._dialling.discard(peer)
        self._dialled_for = None
        if self.paused or peer in self._connections or peer not in {server.id for server in self.core.peers()}:
            return
        world, host = self.world, self.world.nodes[peer]
        if host.up and world.network.open_path(self.id, peer):
            connection = Connection(world.network, self, host)
            world.network.connections.add(connection)
            self.on_connected(peer, connection)
        else:
            self._dialling.add(peer)
            world.kernel.after(world.kernel.between(0.05, 0.25), lambda: self._dialled(peer, life))

    # -- what must always hold ---------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        node, oracle = self.core._node, self.world.oracle
        term, commit = node.term, node.commit
        if term < self._term or commit < self._commit:
            self.world.kernel.fail(f"{self.id}: term or commit index went back: {self._term}, {self._commit} to {term}, {commit}")
        if commit > self._commit:
            oracle.committed(self, self._commit + 1, commit)
        if node.log.generation != self._generation:
            self._generation = node.log.generation
            oracle.truncated(self)
        if node.role is Role.LEADER:
            if oracle.leaders.get(term) != self.id:
                oracle.leads(self)
            oracle.matches(self, self._matched)
        self._term, self._commit = term, commit
