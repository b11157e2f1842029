"""A simulated Raft cluster under faults: what it is made of, and what must be true in the end. What happens to it is in `faults` and `changes`, who uses it
in its `Application`.

Each run draws what it is for (`Mood`): a fault that is always there hides what happens without it.
"""

from __future__ import annotations

import attrs

from coterie.actors.raft.log import HardState
from coterie.actors.raft.node import Role
from coterie.actors.raft.settings import Settings
from coterie.proto.raft_messages import Configuration, Server
from tests.sim.application import Application
from tests.sim.faults import Chaos
from tests.sim.kernel import Kernel
from tests.sim.network import Network
from tests.sim.node import SimNode
from tests.sim.oracle import Oracle
from tests.sim.registers import Registers

CHAOS = 9.0  # seconds of faults at the slowest pace of elections
HEALING = 20.0  # within which everything must be well again
CLIENT_TICK = 0.04
LEASE_DRIFT = 0.05  # clocks that are so much too fast and too slow are within what a lease allows


def size_of(seed: int) -> int:
    """How many nodes a run has when nobody says: mostly 3, at times 5 or 7."""
    return 7 if seed % 10 == 7 else 5 if seed % 3 == 0 else 3


@attrs.frozen
class Mood:
    """regicide: new leaders die young (figure 8 of the Raft paper is such a story). turnover: servers are often exchanged for empty ones, so that late answers meet
    new memberships of old names. compacts: logs are compacted all the time, down to nothing, so that who was away needs a snapshot. drift: by so much clocks are
    too fast or too slow. leases: some reads trust the leader's lease; then nobody takes over from a leader that lives, which ends no lease (only leaders of
    another make are succeeded so, which serve no reads of ours). reading: the part of reads in what clients ask for; sessions: the part of writers that have one.
    grown: the cluster begins as one server, the others are added."""

    regicide: bool
    turnover: bool
    compacts: bool
    leases: bool
    drift: float
    reading: float
    sessions: float
    grown: bool

    @classmethod
    def drawn(cls, kernel: Kernel) -> Mood:
        chance = kernel.chance
        leases = chance(0.5)
        drift = kernel.random.choice((0.0, LEASE_DRIFT) if leases else (0.0, LEASE_DRIFT, 0.3))
        return cls(
            chance(0.4),
            chance(0.35),
            chance(0.6),
            leases,
            drift,
            kernel.random.choice((0.0, 0.3, 0.7)),
            kernel.random.choice((0.0, 0.5)),
            chance(0.3),
        )


class RaftWorld:
    def __init__(self, seed: int, nodes: int = 3, application: type[Application] = Registers) -> None:
        self.kernel = kernel = Kernel(seed)
        self.network = Network(kernel)
        self.oracle = Oracle(self)
        self.mood = Mood.drawn(kernel)
        pace = kernel.random.choice((1.0, 0.4, 0.2))  # of elections: against the network's delays, the shorter the wilder
        self.scale = pace**0.5  # of what happens: where elections are soon over, the next fault comes sooner
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
        self.size = nodes
        self.nodes: dict[str, SimNode] = {}
        servers = [Server(f"n{n}", f"10.0.0.{n}:9520") for n in range(1, nodes + 1)]
        self.application = application(self)
        self.healing = False
        self.healed_at = float("inf")
        self.chaos = Chaos(self)
        for server in servers:
            self.add(server)
        self.founds(self.nodes["n1"])

    def founds(self, node: SimNode) -> None:
        """The first server forms the cluster, also after a crash at which nothing of that was on its disk yet: so does whoever starts it."""
        if node.id == "n1" and not node.disk.last_index and node.disk.hard == HardState():
            servers = [self.nodes[f"n{number}"].server for number in range(1, self.size + 1)]
            node.core.bootstrap(Configuration(tuple(servers[:1] if self.mood.grown else servers)), node.now())
            node.step()

    def add(self, server: Server) -> SimNode:
        """Another process, with an empty disk."""
        node = self.nodes[server.id] = SimNode(self, server, 1.0 + self.kernel.between(-self.mood.drift, self.mood.drift))
        node.start()
        return node

    # -- a run -------------------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        kernel = self.kernel
        faults = self.network.faults
        if kernel.chance(0.5):
            faults.reset, faults.spike, faults.duplicate = kernel.between(0, 0.03), kernel.between(0, 0.03), kernel.between(0, 0.03)
        self.network.call_timeout = kernel.between(1.0, 4.0)
        kernel.after(CLIENT_TICK, self._client)
        self.chaos.begin()
        kernel.run(CHAOS * self.scale)
        self._heal()
        end = kernel.now + HEALING
        while problem := self._unwell():
            kernel.require(kernel.now < end, f"liveness: {HEALING} s after all was healed: {problem}")
            kernel.run(kernel.now + 0.25)
        self.application.finish(self._members())
        for node in self.nodes.values():
            kernel.seen["clocks at a pace of their own"] += node.clock.rate != 1.0

    def present(self) -> list[SimNode]:
        """All that are there, or will come back."""
        return [node for node in self.nodes.values() if not node.gone]

    def leader(self) -> SimNode | None:
        leaders = [node for node in self.nodes.values() if node.reachable() and node.core.role is Role.LEADER]
        return max(leaders, key=lambda node: node.core.term, default=None)

    def _client(self) -> None:
        """Clients go on into the healing, to see that a write gets through, and then fall silent so that all can be compared."""
        if self.kernel.now > self.healed_at + 1.0 and self.application.served():
            return
        self.application.client()
        self.kernel.after(self.kernel.between(0.0, 2 * CLIENT_TICK * self.scale), self._client)

    # -- the end -----------------------------------------------------------------------------------------------------------------

    def _heal(self) -> None:
        self.healing, self.healed_at = True, self.kernel.now
        self.kernel.note("net", "healed")
        faults = self.network.faults
        faults.blocked.clear()
        faults.reset = faults.spike = faults.duplicate = 0.0
        for node in self.present():
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
        others = [node.id for node in self.present() if node is not leader and node.core.role is Role.LEADER]
        if others:
            return f"{leader.id} and {others} lead"
        if self.chaos.changes.replacing is not None:
            return f"{self.chaos.changes.replacing} is not replaced yet"
        for node in self._members():
            if node.core.leader is None or node.core.leader.id != leader.id:
                return f"{node.id} follows {node.core.leader}, not {leader.id}"
            if not self.application.served() or node.applied < leader.core.last_index:
                return f"{node.id} has applied {node.applied} of {leader.core.last_index}; served: {self.application.served()}"
            if node.disk.last_index < leader.core.last_index:  # a snapshot that was restored, and the log not put behind it yet
                return f"{node.id} has {node.disk.last_index} of {leader.core.last_index} on its disk"
        return ""


def run(seed: int, nodes: int = 0, application: type[Application] = Registers) -> RaftWorld:
    """One run; InvariantViolated when a promise was broken."""
    world = RaftWorld(seed, nodes or size_of(seed), application)
    world.run()
    return world
