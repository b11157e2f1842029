"""A simulated Raft cluster under faults: what happens to it, who uses it, and what must be true in the end.

Something that stands on Raft plugs in as an `Application`: it is told when a node starts (and answers what its state machine still has),
what is applied, which proposals were abandoned, and it may act as a client at every client tick.
"""

from __future__ import annotations

from random import Random
from typing import Any

from coterie.actors.raft.log import SnapshotMark
from coterie.actors.raft.membership import AddNonvoter, AddVoter, RemoveServer
from coterie.actors.raft.node import Role
from coterie.actors.raft.refusals import Refusal
from coterie.actors.raft.settings import Settings
from coterie.proto.raft_messages import COMMAND, Configuration, Entry, Server
from tests.sim.disk import SimDisk
from tests.sim.kernel import Kernel
from tests.sim.network import Network
from tests.sim.node import SimNode
from tests.sim.oracle import Oracle

CHAOS = 9.0  # seconds of faults
HEALING = 20.0  # within which everything must be well again
CLIENT_TICK = 0.04


class Application:
    """Commands with unique bytes, and the promise that matters: what was acknowledged stays."""

    def __init__(self, world: RaftWorld) -> None:
        self.world = world
        self.proposed = 0
        self.acknowledged: dict[bytes, int] = {}
        self.acknowledged_at = 0.0

    def start(self, node: SimNode) -> int:
        """The process starts: the index up to which its state machine has applied, durably."""
        if node.state is None:
            node.state = AppliedState(0)
        state = node.state
        state.index = self.world.kernel.random.randint(state.synced, max(state.synced, min(state.index, node.disk.last_index)))
        return int(state.index)

    def sync(self, node: SimNode) -> int:
        """Make what is applied durable; up to where that is."""
        node.state.synced = node.state.index
        return int(node.state.index)

    def snapshot(self, node: SimNode) -> tuple[int, Any]:
        """The index up to which the state machine is, and its content."""
        return self.sync(node), None

    def restore(self, node: SimNode, mark: SnapshotMark, content: Any) -> None:
        """Put the content in the place of the state machine, durably."""
        node.state.index = node.state.synced = mark.index

    def apply(self, node: SimNode, entry: Entry, context: object | None) -> None:
        node.state.index = entry.index
        if context is not None:
            self.world.kernel.require(entry.data == context, f"{node.id}: context {context!r} came back with {entry}")
            self.acknowledged[entry.data] = entry.index
            self.acknowledged_at = self.world.kernel.now

    def abandoned(self, node: SimNode, context: object) -> None:
        """The outcome of this proposal is unknown."""

    def event(self, node: SimNode, event: object) -> None:
        """An event of the core."""

    def read(self, random: Random, lease: bool) -> None:
        """A client asks a node that takes itself for a leader."""
        leaders = [node for node in self.world.nodes.values() if node.reachable() and node.core.role is Role.LEADER]
        if leaders:
            node, committed = random.choice(leaders), max(self.world.oracle.chosen, default=0)
            self.world.kernel.note(node.id, "read", (committed, lease))
            node.core.read_index(committed, self.world.kernel.now, lease)
            node.step()

    def client(self) -> None:
        """A client turns to a node, more often than not to one that leads."""
        kernel, world = self.world.kernel, self.world
        up = [node for node in world.nodes.values() if node.reachable()]
        leaders = [node for node in up if node.core.role is Role.LEADER]
        if not up:
            return
        node = kernel.random.choice(leaders if leaders and kernel.chance(0.9) else up)
        commands = [b"c%d" % (self.proposed + n) for n in range(kernel.random.randint(1, 4))]
        try:
            node.core.propose(commands, commands, kernel.now)
        except Refusal:
            return
        self.proposed += len(commands)
        kernel.note(node.id, "propose", commands)
        node.step()

    def served(self) -> bool:
        """Was something acknowledged since all was healed?"""
        return self.acknowledged_at > CHAOS

    def finish(self, logs: dict[str, list[Entry]]) -> None:
        """All is healed; `logs` are the members' committed logs."""
        for name, log in logs.items():
            places = {entry.data: entry.index for entry in log if entry.kind == COMMAND}
            for data, index in self.acknowledged.items():
                self.world.kernel.require(
                    places.get(data) == index, f"{data!r} was acknowledged at {index}; on {name} it is at {places.get(data)}"
                )


class AppliedState:
    """`index` is applied, `synced` of it is sure to survive a crash."""

    def __init__(self, index: int) -> None:
        self.index = self.synced = index


class RaftWorld:
    def __init__(self, seed: int, nodes: int = 3, application: type[Application] = Application) -> None:
        self.kernel = kernel = Kernel(seed)
        self.network = Network(kernel)
        self.oracle = Oracle(self)
        pace = kernel.random.choice((1.0, 0.4, 0.2))  # of elections: against the network's delays, the shorter the wilder
        self.settings = Settings(
            heartbeat_timeout=1.0 * pace,
            election_timeout=1.0 * pace,
            lease_timeout=0.5 * pace,
            disconnect_grace=0.15 * pace,
            commit_pause=kernel.random.choice((1e-6, 0.001, 0.02)),
            cache_bytes=kernel.random.choice((2000, 32 << 20)),
            max_append_bytes=kernel.random.choice((300, 1 << 20)),
            max_inflight=kernel.random.choice((1, 4, 64)),
            apply_chunk_entries=kernel.random.choice((3, 2048)),
            apply_window_entries=kernel.random.choice((5, 16384)),
        )
        servers = [Server(f"n{n}", f"10.0.0.{n}:9520") for n in range(1, nodes + 1)]
        self.nodes = {server.id: SimNode(self, server) for server in servers}
        self.application = application(self)
        self.healing = False
        self.regicide = kernel.chance(0.4)  # new leaders die young: figure 8 of the Raft paper is such a story
        self.turnover = kernel.chance(0.35)  # servers are often exchanged for empty ones: late answers meet new memberships of old names
        self.replacing: str | None = None
        self.compacts = kernel.chance(0.6)  # logs are compacted all the time, down to nothing: who was away needs a snapshot
        self.reading = Random(f"reads {seed}")  # a stream of its own: who reads changes nothing else
        self.leases = self.reading.random() < 0.5  # reads by lease, and nobody then takes the leadership from a leader that lives
        for node in self.nodes.values():
            node.start()
        first = self.nodes["n1"]
        grown = kernel.chance(0.3)  # some clusters grow from one server, the rest begin whole
        first.core.bootstrap(Configuration(tuple(servers[:1] if grown else servers)), 0.0)
        first.step()

    # -- a run -------------------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        kernel = self.kernel
        faults = self.network.faults
        if kernel.chance(0.5):
            faults.reset, faults.spike, faults.duplicate = kernel.between(0, 0.03), kernel.between(0, 0.03), kernel.between(0, 0.03)
        self.network.call_timeout = kernel.between(1.0, 4.0)
        kernel.after(CLIENT_TICK, self._client)
        kernel.after(kernel.between(0.0, 1.0), self._fault)
        kernel.run(CHAOS)
        self._heal()
        end = kernel.now + HEALING
        while problem := self._unwell():
            kernel.require(kernel.now < end, f"liveness: {HEALING} s after all was healed: {problem}")
            kernel.run(kernel.now + 0.25)
        self.application.finish({node.id: node.disk.log[: node.core.commit] for node in self._members()})

    def leader(self) -> SimNode | None:
        leaders = [node for node in self.nodes.values() if node.reachable() and node.core.role is Role.LEADER]
        return max(leaders, key=lambda node: node.core.term, default=None)

    def _client(self) -> None:
        """Clients go on into the healing, to see that a write gets through, and then fall silent so that all can be compared."""
        if self.healing and self.kernel.now > CHAOS + 3.0 and self.application.served():
            return
        self.application.client()
        while self.reading.random() < 0.6:
            self.application.read(self.reading, lease=self.leases and self.reading.random() < 0.5)
        self.kernel.after(self.kernel.between(0.0, 2 * CLIENT_TICK), self._client)

    # -- faults ------------------------------------------------------------------------------------------------------------------

    def _fault(self) -> None:
        if self.healing:
            return
        kernel = self.kernel
        actions = (
            self._crash,
            self._crash,
            self._partition,
            self._partition,
            self._unblock,
            self._pause,
            self._break,
            self._slow_disk,
            self._damage,
        )
        if self.compacts and kernel.chance(0.6):
            self._compact()
        kernel.random.choice((*actions, *[self._change] * (8 if self.turnover else 3), self._transfer, self._take_over))()
        kernel.after(kernel.between(0.02, 0.7), self._fault)

    def _any(self) -> SimNode | None:
        """Leaders are hit more often than their number says."""
        leader = self.leader()
        if leader is not None and self.kernel.chance(0.4):
            return leader
        up = [node for node in self.nodes.values() if node.reachable()]
        return self.kernel.random.choice(up) if up else None

    def _crash(self) -> None:
        victims = list(self.nodes.values()) if self.kernel.chance(0.1) else [self._any()]
        for node in victims:
            if node is not None and node.up:
                self._down(node, 2.0)

    def _partition(self) -> None:
        kernel, blocked = self.kernel, self.network.faults.blocked
        names = list(self.nodes)
        side = set(kernel.random.sample(names, kernel.random.randint(1, len(names) - 1)))
        one_way = kernel.chance(0.3)
        for a in names:
            for b in names:
                if a in side and b not in side:
                    blocked.add((a, b))
                    if not one_way:
                        blocked.add((b, a))
        kernel.note("net", "blocked", sorted(blocked))
        if kernel.chance(0.7):
            kernel.after(kernel.between(0.1, 2.5), self._unblock)

    def _unblock(self) -> None:
        self.kernel.note("net", "unblocked")
        self.network.faults.blocked.clear()

    def leader_rises(self, node: SimNode) -> None:
        """A leader that has just won gets work at once, and may not live to finish it."""
        if not self.regicide or self.healing:
            return
        kernel, life = self.kernel, node.life
        self.application.client()
        if kernel.chance(0.6):
            kernel.after(kernel.between(0.0, 0.02), lambda: node.life == life and node.up and not self.healing and self._down(node, 0.3))

    def dies_between(self, node: SimNode) -> bool:
        """A state machine was just made of a snapshot, and the log does not know: the moment that a restart must find out about."""
        if self.healing or not self.kernel.chance(0.15):
            return False
        self._down(node, 0.5)
        return True

    def _down(self, node: SimNode, longest: float) -> None:
        node.crash()
        self.kernel.after(self.kernel.between(0.01, longest), lambda: node.up or node.start())

    def _damage(self) -> None:
        """A server dies, and finds at its return that the end of its log is damaged; one at a time, and not where its vote is needed for every leader."""
        node = self._any()
        known = [other.disk.configuration()[1] for other in self.nodes.values()]
        known += [other.core.configuration for other in self.nodes.values() if other.up]
        agreed = all(
            configuration == known[0] for configuration in known
        )  # a change under way may leave two voters, each of whom is needed
        if node is None or not agreed or not known[0].is_voter(node.id) or len(known[0].voters()) < 3:
            return
        if self.in_doubt() or node.disk.last_index <= node.applied:
            return
        self._down(node, 2.0)
        first = self.kernel.random.randint(max(node.applied, node.disk.start) + 1, node.disk.last_index)
        node.disk.damage(first)
        self.kernel.note(node.id, "damaged", (first, node.disk.doubt))
        self.kernel.seen["damaged logs"] += 1

    def in_doubt(self) -> bool:
        return any(node.disk.doubt is not None for node in self.nodes.values())

    def _pause(self) -> None:
        node = self._any()
        if node is not None:
            node.pause(self.kernel.between(0.05, 2.5))

    def _break(self) -> None:
        kernel = self.kernel
        for connection in sorted(self.network.connections, key=lambda c: (c.client.id, c.server.id)):
            if kernel.chance(0.5):
                connection.close("reset")

    def _slow_disk(self) -> None:
        node = self._any()
        if node is not None:
            node.slow_disk = self.kernel.random.choice((0.01, 0.1, 0.4, 3.0))
            self.kernel.note(node.id, "slow disk", node.slow_disk)
            self.kernel.after(self.kernel.between(0.2, 2.0), lambda: setattr(node, "slow_disk", 0.0))

    def _compact(self) -> None:
        kernel = self.kernel
        for node in self.nodes.values():
            if node.up and kernel.chance(0.7):
                index = min(self.application.sync(node), node.disk.last_index)
                before = node.disk.start
                node.disk.compact(index if kernel.chance(0.5) else kernel.random.randint(min(node.disk.start, index), index))
                kernel.note(node.id, "compact", node.disk.start)
                kernel.seen["logs compacted"] += node.disk.start > before

    def _transfer(self) -> None:
        leader = self.leader()
        if leader is not None:
            others = [name for name in self.nodes if name != leader.id]
            self._try(leader, lambda: leader.core.transfer(self.kernel.random.choice([None, *others]), self.kernel.now))

    def _take_over(self) -> None:
        """A follower does not wait to be handed the leadership."""
        kernel = self.kernel
        node = kernel.random.choice(list(self.nodes.values()))
        leader = node.core.leader if node.reachable() else None
        if leader is not None and not self.leases and node.core.take_over(leader.id, kernel.now):
            kernel.note(node.id, "takes over from", leader.id)
            kernel.seen["take-overs"] += 1
            node.step()

    def _change(self) -> None:
        """Add, promote, demote by removal, remove; now and then a server leaves, loses its log, and comes back under its name."""
        leader = self.leader()
        if leader is None or self.replacing is not None or self.in_doubt():
            return
        name = self.kernel.random.choice(list(self.nodes))
        server, voters = self.nodes[name].server, leader.core.configuration.voters()
        if leader.core.configuration.get(name) is None:
            change: Any = self.kernel.random.choice((AddVoter, AddNonvoter))(server.id, server.address)
        elif not leader.core.configuration.is_voter(name):
            change = AddVoter(server.id, server.address)
        elif len(voters) > 2:
            change = RemoveServer(name)
        else:
            return
        if self.kernel.chance(0.3):
            self.kernel.after(self.kernel.between(0.0, 0.02), self._change)  # and the next on its heels
        self.kernel.note(leader.id, "change", change)
        index = self._try(leader, lambda: leader.core.change(change, None, self.kernel.now))
        if (
            index is not None
            and isinstance(change, RemoveServer)
            and name != leader.id
            and self.kernel.chance(1.0 if self.turnover else 0.6)
        ):
            self.replacing = name
            self._replace(name, index, leader.core.term, self.kernel.now + 2.0)

    def _replace(self, name: str, index: int, term: int, deadline: float) -> None:
        """Its removal being committed, the server loses its log (not its vote: Raft does not survive that) and is added again at once."""
        kernel, node = self.kernel, self.nodes[name]
        if self.healing or kernel.now > deadline:
            self.replacing = None
        elif self.oracle.chosen.get(index, (0, 0))[0] == term and index in self.oracle.chosen:
            leader = self.leader()
            if leader is None or leader.core.configuration.get(name) is not None:
                self.replacing = None
                return
            if node.up:
                node.crash()
            hard = node.disk.hard
            node.disk, node.state, node.installed = SimDisk(), None, None
            node.disk.hard = hard
            kernel.note(name, "wiped")
            node.start()
            self.replacing = None
            self._try(leader, lambda: leader.core.change(AddVoter(name, node.server.address), None, kernel.now))
        else:
            kernel.after(0.01, lambda: self._replace(name, index, term, deadline))

    def _try(self, node: SimNode, action: Any) -> Any:
        try:
            result = action()
        except Refusal as refusal:
            self.kernel.note(node.id, "refused", refusal)
            return None
        node.step()
        return result

    # -- the end -----------------------------------------------------------------------------------------------------------------

    def _heal(self) -> None:
        self.healing = True
        self.kernel.note("net", "healed")
        faults = self.network.faults
        faults.blocked.clear()
        faults.reset = faults.spike = faults.duplicate = 0.0
        for node in self.nodes.values():
            node.slow_disk = 0.0
            node.paused = False
            if not node.up:
                node.start()
            node.step()

    def _members(self) -> list[SimNode]:
        leader = self.leader()
        return [self.nodes[server.id] for server in leader.core.configuration.servers] if leader else []

    def _unwell(self) -> str:
        """What is not well yet; "" when the cluster converged."""
        leader = self.leader()
        if leader is None:
            return "no leader"
        others = [node.id for node in self.nodes.values() if node is not leader and node.core.role is Role.LEADER]
        if others:
            return f"{leader.id} and {others} lead"
        for node in self._members():
            if node.core.leader is None or node.core.leader.id != leader.id:
                return f"{node.id} follows {node.core.leader}, not {leader.id}"
            if not self.application.served() or node.applied < leader.core.last_index:
                return f"{node.id} has applied {node.applied} of {leader.core.last_index}; served: {self.application.served()}"
        return ""


def run(seed: int, nodes: int = 3, application: type[Application] = Application) -> RaftWorld:
    """One run; InvariantViolated when a promise was broken."""
    world = RaftWorld(seed, nodes, application)
    world.run()
    return world
