"""One simulated server: the real core, a simulated disk, a shell that keeps the order of `Ready`, and a state machine on top.

The shell is the worst that the contract allows: while a write is under way the core goes on taking inputs, so several Readys
wait for the disk, and what a leader may send before its own write is durable leaves at once.
"""

from __future__ import annotations

from collections import deque
from random import Random
from typing import TYPE_CHECKING, Any

from coterie.actors.raft.core import RaftCore
from coterie.actors.raft.log import SnapshotMark
from coterie.actors.raft.node import Role
from coterie.actors.raft.ready import BecameLeader, DoubtSettled, Ready
from coterie.proto.raft_messages import AppendResponse, Entry, Server, TimeoutNowRequest, VoteResponse
from tests.sim.disk import SimDisk
from tests.sim.network import Connection
from tests.sim.snapshots import Sending, installed_before_a_crash

if TYPE_CHECKING:
    from tests.sim.raft_world import RaftWorld

SYNC = (0.0001, 0.002)


class SimNode:
    def __init__(self, world: RaftWorld, server: Server) -> None:
        self.world, self.server, self.id = world, server, server.id
        self.disk = SimDisk()
        self.life = 0
        self.ended = float("-inf")  # when the life before ended
        self.up = False
        self.paused = False
        self.slow_disk = 0.0  # seconds added to each write
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
        self._tick_at = float("inf")
        self._term = self._commit = self._generation = 0

    # -- life --------------------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        kernel = self.world.kernel
        self.life += 1
        self.up, self.paused = True, False
        self._inbox, self._queue, self._writing = [], deque(), False
        self._connections, self._dialling, self._tick_at = {}, set(), float("inf")
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
            kernel.now,
            random,
            self.disk.doubt,
            self.ended,
        )
        self._term, self._commit, self._generation = self.core.term, self.core.commit, 0
        kernel.note(self.id, "start", f"term {self.core.term} last {self.core.last_index} applied {self.applied}")
        self.step()

    def crash(self) -> None:
        """What was not synced is lost; a write under way may have been completed, unreported."""
        kernel = self.world.kernel
        kernel.note(self.id, "crash")
        if self._writing and kernel.chance(0.3):
            self._write(self._queue[0])
        self.up = False
        self.core = None
        self.ended = kernel.now
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

    # -- inputs ------------------------------------------------------------------------------------------------------------------

    def on_request(self, handle: Any, message: Any) -> None:
        self.world.kernel.note(self.id, "request", message)
        self.world.kernel.seen["leaderships handed over"] += message.__class__ is TimeoutNowRequest
        self.core.request(handle, message, self.world.kernel.now)
        self.step()

    def on_response(self, peer: str, token: object, message: Any) -> None:
        self.world.kernel.note(self.id, "answer", (peer, token, message))
        self.core.response(peer, token, message, self.world.kernel.now)
        self.step()

    def on_connected(self, peer: str, connection: Connection) -> None:
        self.world.kernel.note(self.id, "connected", peer)
        self._connections[peer] = connection
        self.core.connected(peer, self.world.kernel.now)
        self.step()

    def on_disconnected(self, peer: str, connection: Connection) -> None:
        if connection.client_life != self.life or self._connections.get(peer) is not connection:
            return
        self.world.kernel.note(self.id, "disconnected", peer)
        del self._connections[peer]
        self.core.disconnected(peer, self.world.kernel.now)
        self.step()

    def on_snapshot(self, sending: Sending) -> None:
        """InstallSnapshot: the request, and then its content, which takes its time."""
        kernel, life = self.world.kernel, self.life
        kernel.note(self.id, "snapshot", sending.mark)
        wanted = self.core.request((sending, None), sending.request, kernel.now)
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
            if self.world.dies_between(self):
                return
        self.world.kernel.note(self.id, "restored", sending.mark.index)
        self.core.installed((sending, None), sending.mark, self.world.kernel.now)
        self.world.oracle.truncated(self)
        self.step()

    def _tick(self, life: int, planned: float) -> None:
        if not self.up or life != self.life or self._tick_at != planned:
            return
        if self.paused:
            self.world.kernel.after(0.05, lambda: self._tick(life, planned))
            return
        self._tick_at = float("inf")
        self.core.tick(self.world.kernel.now)
        self.step()

    # -- the shell ---------------------------------------------------------------------------------------------------------------

    def step(self) -> None:
        """Drain the core, check what must always hold, and plan the next tick."""
        if not self.reachable():
            return
        while (ready := self.core.ready()) is not None:
            for send in ready.before:
                self._send(send)
            for wish in ready.snapshots:
                Sending(self, wish)
            for read in ready.confirmed:
                self.world.oracle.read(self, read)
            self._queue.append(ready)
            self._check()
            self._work()
        self._check()
        self._dial()
        deadline = max(self.core.deadline(), self.world.kernel.now + 0.0005)
        if abs(deadline - self._tick_at) > 1e-9:
            self._tick_at = deadline
            life = self.life
            self.world.kernel.at(deadline, lambda: self._tick(life, deadline))

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
        for context in ready.abandoned:
            world.application.abandoned(self, context)
        for event in ready.events:
            world.kernel.note(self.id, "event", event)
            world.application.event(self, event)
            if isinstance(event, DoubtSettled):
                self.disk.doubt = None
            if isinstance(event, BecameLeader):
                world.leader_rises(self)

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
        core, world = self.core, self.world
        if core.term < self._term or core.commit < self._commit:
            world.kernel.require(
                False, f"{self.id}: term or commit index went back: {self._term}, {self._commit} to {core.term}, {core.commit}"
            )
        if core.commit > self._commit:
            world.oracle.committed(self, self._commit + 1, core.commit)
        if core.role is Role.LEADER and world.oracle.leaders.get(core.term) != self.id:
            world.oracle.leads(self)
        if core._node.log.generation != self._generation:
            self._generation = core._node.log.generation
            world.oracle.truncated(self)
        if core.role is Role.LEADER:
            world.oracle.matches(self)
        self._term, self._commit = core.term, core.commit
