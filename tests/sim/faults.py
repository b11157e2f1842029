"""What happens to a simulated Raft cluster: crashes, cuts, pauses, slow disks, clocks that jump, logs that are compacted, leaderships that are handed over or
taken. Changes of the quorum, and servers that lose their disks, are in `changes`.

A run has some of these and not others, drawn at its begin.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.sim.changes import Changes

if TYPE_CHECKING:
    from tests.sim.node import SimNode
    from tests.sim.raft_world import RaftWorld


class Chaos:
    def __init__(self, world: RaftWorld) -> None:
        self._world, self._kernel = world, world.kernel
        self.count = 0  # faults so far
        self.without: set[int] = set()  # these are left away
        self.injected: list[str] = []
        self.changes = Changes(world)
        changes = self.changes
        actions = [self._crash, self._crash, self._partition, self._partition, self._pause, self._break, self._slow_disk, self._set_clock]
        actions += [changes.change] * (8 if world.mood.turnover else 3)
        actions += [self._transfer, changes.lose_disk, self._damage]
        if not world.mood.leases:
            actions.append(self._take_over)
        missing = set(world.kernel.random.sample(range(len(actions)), world.kernel.random.choice((0, 0, 2, 4, 6))))
        self._actions: list[Callable[[], None]] = [self._unblock, *(action for n, action in enumerate(actions) if n not in missing)]

    def begin(self) -> None:
        self._kernel.after(self._while(0.0, 1.0), self._next)

    def _next(self) -> None:
        if self._world.healing:
            return
        kernel = self._kernel
        if self._world.mood.compacts and kernel.chance(0.6):
            self._inject(self._compact)
        self._inject(kernel.random.choice(self._actions))
        kernel.after(self._while(0.02, 0.7), self._next)

    def _while(self, shortest: float, longest: float) -> float:
        """A time between faults, or the length of one, at the pace of the run."""
        return self._kernel.between(shortest, longest) * self._world.scale

    def _inject(self, action: Callable[[], None]) -> None:
        number, self.count = self.count, self.count + 1
        if number not in self.without:
            self.injected.append(f"{self._kernel.now:.3f} {action.__name__.strip('_').replace('_', ' ')}")
            action()

    def _any(self) -> SimNode | None:
        """Leaders are hit more often than their number says."""
        leader = self._world.leader()
        if leader is not None and self._kernel.chance(0.4):
            return leader
        up = [node for node in self._world.nodes.values() if node.reachable()]
        return self._kernel.random.choice(up) if up else None

    # -- processes and machines --------------------------------------------------------------------------------------------------

    def _crash(self) -> None:
        victims = list(self._world.nodes.values()) if self._kernel.chance(0.1) else [self._any()]
        for node in victims:
            if node is not None and node.up:
                self._down(node, 2.0)

    def _down(self, node: SimNode, longest: float) -> None:
        node.crash()
        self._kernel.after(self._while(0.01, longest), lambda: node.up or node.gone or node.start())

    def leader_rises(self, node: SimNode) -> None:
        """A leader that has just won gets work at once, and may not live to finish it."""
        world, kernel, life = self._world, self._kernel, node.life
        if not world.mood.regicide or world.healing:
            return
        world.application.client()
        if kernel.chance(0.6):
            kernel.after(kernel.between(0.0, 0.02), lambda: node.life == life and node.up and not world.healing and self._down(node, 0.3))

    def dies_between(self, node: SimNode) -> bool:
        """A state machine was just made of a snapshot, and the log does not know: the moment that a restart must find out about."""
        if self._world.healing or not self._kernel.chance(0.15):
            return False
        self._kernel.seen["crashes between the halves of an installation"] += 1
        self._down(node, 0.5)
        return True

    def _damage(self) -> None:
        """A server dies, and finds at its return that the end of its log is damaged. One at a time, and only where all agree on three voters: a change under way may
        leave two, each of whom is needed."""
        world, kernel = self._world, self._kernel
        node = self._any()
        known = [other.disk.configuration()[1] for other in world.present()]
        known += [other.core.configuration for other in world.present() if other.up]
        agreed = all(configuration == known[0] for configuration in known) and len(known[0].voters()) > 2
        if node is None or not agreed or not known[0].is_voter(node.id):
            return
        if self.changes.replacing is not None or self.changes.in_doubt() or node.disk.last_index <= node.applied:
            return
        self._down(node, 2.0)
        first = kernel.random.randint(max(node.applied, node.disk.start) + 1, node.disk.last_index)
        node.disk.damage(first)
        world.oracle.cuts += 1
        kernel.note(node.id, "damaged", (first, node.disk.doubt))
        kernel.seen["logs damaged"] += 1

    def _pause(self) -> None:
        node = self._any()
        if node is not None:
            self._kernel.seen["pauses"] += 1
            node.pause(self._while(0.05, 2.5))

    def _slow_disk(self) -> None:
        node = self._any()
        if node is not None:
            node.slow_disk = self._kernel.random.choice((0.01, 0.1, 0.4, 3.0))
            self._kernel.seen["disks stalled" if node.slow_disk > 1 else "disks slow"] += 1
            self._kernel.note(node.id, "slow disk", node.slow_disk)
            self._kernel.after(self._while(0.2, 2.0), lambda: setattr(node, "slow_disk", 0.0))

    def _set_clock(self) -> None:
        """The wall clock, which nothing that is right hangs on."""
        node = self._any()
        if node is not None:
            node.clock.wall_offset += self._kernel.between(-4000.0, 4000.0)
            self._kernel.seen["wall clocks set"] += 1
            self._kernel.note(node.id, "clock set", node.clock.wall_offset)

    # -- the network -------------------------------------------------------------------------------------------------------------

    def _partition(self) -> None:
        kernel, blocked = self._kernel, self._world.network.faults.blocked
        names = [node.id for node in self._world.present()]
        side = set(kernel.random.sample(names, kernel.random.randint(1, len(names) - 1)))
        one_way = kernel.chance(0.3)
        for a in names:
            for b in names:
                if a in side and b not in side:
                    blocked.add((a, b))
                    if not one_way:
                        blocked.add((b, a))
        kernel.seen["one-way cuts" if one_way else "partitions"] += 1
        kernel.note("net", "blocked", sorted(blocked))
        if kernel.chance(0.7):
            kernel.after(self._while(0.1, 2.5), self._unblock)

    def _unblock(self) -> None:
        self._kernel.note("net", "unblocked")
        self._world.network.faults.blocked.clear()

    def _break(self) -> None:
        kernel = self._kernel
        for connection in sorted(self._world.network.connections, key=lambda c: (c.client.id, c.server.id)):
            if kernel.chance(0.5):
                kernel.seen["connections reset"] += 1
                connection.close("reset")

    # -- the log, and who leads --------------------------------------------------------------------------------------------------

    def _compact(self) -> None:
        kernel = self._kernel
        for node in self._world.nodes.values():
            if node.up and kernel.chance(0.7):
                index = min(self._world.application.sync(node), node.disk.last_index)
                before = node.disk.start
                node.disk.compact(index if kernel.chance(0.5) else kernel.random.randint(min(node.disk.start, index), index))
                kernel.note(node.id, "compact", node.disk.start)
                kernel.seen["logs compacted"] += node.disk.start > before

    def _transfer(self) -> None:
        leader = self._world.leader()
        if leader is not None:
            others = [node.id for node in self._world.nodes.values() if node is not leader]
            target = self._kernel.random.choice([None, *others])
            if leader.attempt(lambda: leader.core.transfer(target, leader.now())):
                self._kernel.seen["transfers begun"] += 1

    def _take_over(self) -> None:
        """A follower does not wait to be handed the leadership."""
        kernel = self._kernel
        node = kernel.random.choice(list(self._world.nodes.values()))
        leader = node.core.leader if node.reachable() else None
        if leader is not None and node.core.take_over(leader.id, node.now()):
            kernel.note(node.id, "takes over from", leader.id)
            kernel.seen["take-overs"] += 1
            node.step()
