"""Changes of the simulated quorum: learners, promotions, removals, servers that come back, with their log or without; and disks that are lost.

What Raft does not survive is not done to it. A server that is emptied and comes back under its old name keeps its vote, and its removal was committed before
(a voter that forgets its vote could give it twice) and is in the log of all who are left (who does not know of it may still be elected by that server, which
has forgotten what it helped to commit; scenario 76 is what can be done against that). A disk that is lost with everything on it takes the name with it: the
old server is removed, and an empty one of another name takes its place, as a learner at first. Only one server at a time is replaced, and only while every log
agrees on a quorum that can do without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coterie.actors.raft.membership import AddNonvoter, AddVoter, Change, RemoveServer
from coterie.proto.raft_messages import Server
from tests.sim.disk import SimDisk

if TYPE_CHECKING:
    from tests.sim.node import SimNode
    from tests.sim.raft_world import RaftWorld


class Changes:
    def __init__(self, world: RaftWorld) -> None:
        self._world, self._kernel = world, world.kernel
        self.replacing: str | None = None
        self._removed: set[str] = set()  # names that were in the quorum once, as voters

    def change(self) -> None:
        """Add, promote, remove, and add again; now and then a server leaves, loses its log, and comes back under its name."""
        world, kernel = self._world, self._kernel
        leader = world.leader()
        if leader is None or self.replacing is not None or self.in_doubt():
            return
        name = kernel.random.choice([node.id for node in world.present()])
        server, configuration = world.nodes[name].server, leader.core.configuration
        change: Change
        if configuration.get(name) is None:
            change = kernel.random.choice((AddVoter, AddNonvoter))(server.id, server.address)
        elif not configuration.is_voter(name):
            change = AddVoter(server.id, server.address) if kernel.chance(0.8) else RemoveServer(name)
        elif len(configuration.voters()) > 2:
            change = RemoveServer(name)
        else:
            return
        if kernel.chance(0.3):
            kernel.after(kernel.between(0.0, 0.02), self.change)  # and the next on its heels
        index = self._propose(leader, change)
        if (
            index
            and isinstance(change, RemoveServer)
            and name != leader.id
            and kernel.chance(1.0 if self._world.mood.turnover else 0.6)
            and configuration.is_voter(name)
        ):
            self.replacing = name
            self._when_known(name, index, leader.core.term, kernel.now + 2.0)

    def _propose(self, leader: SimNode, change: Change) -> int:
        """The index of the change's entry, 0 when it was refused."""
        kernel, name = self._kernel, change.id
        present = leader.core.configuration.get(name)
        voter = leader.core.configuration.is_voter(name)
        kernel.note(leader.id, "change", change)
        index = leader.attempt(lambda: leader.core.change(change, None, leader.now()))
        if not index:
            return 0
        if isinstance(change, RemoveServer):
            kernel.seen["leaders removed" if name == leader.id else "voters removed" if voter else "learners removed"] += 1
            self._removed |= {name} if voter else set()
        elif present is not None:
            kernel.seen["learners promoted"] += 1
        else:
            kernel.seen["voters added" if isinstance(change, AddVoter) else "learners added"] += 1
            if name in self._removed:
                kernel.seen["voters added back" if isinstance(change, AddVoter) else "voters demoted"] += 1
        return int(index)

    def _when_known(self, name: str, index: int, term: int, deadline: float) -> None:
        """When the removal at `index` is committed, and in the log of all the others, the server is emptied. It is left alone when that takes too long."""
        world = self._world
        others = [node for node in world.present() if node.id != name]
        if world.healing or self._kernel.now > deadline:
            self.replacing = None
        elif world.oracle.chosen.get(index, (0, 0))[0] == term and all(node.disk.holds(index, term) for node in others):
            self._empty(name)
        else:
            self._kernel.after(0.01, lambda: self._when_known(name, index, term, deadline))

    def _empty(self, name: str) -> None:
        """Its removal is committed: the server loses its log, but for its vote, and is added again at once."""
        self.replacing = None
        leader, node = self._world.leader(), self._world.nodes[name]
        if leader is None or leader.core.configuration.get(name) is not None:
            return
        if node.up:
            node.crash()
        hard = node.disk.hard
        node.disk, node.state, node.installed = SimDisk(), None, None
        self._world.oracle.cuts += 1
        node.disk.hard = hard
        self._kernel.note(name, "wiped")
        self._kernel.seen["servers emptied"] += 1
        node.start()
        if leader.reachable():
            self._propose(leader, self._kernel.random.choice((AddVoter, AddNonvoter))(name, node.server.address))

    # -- a disk is lost ----------------------------------------------------------------------------------------------------------

    def lose_disk(self) -> None:
        world, kernel = self._world, self._kernel
        leader = world.leader()
        if leader is None or self.replacing is not None or self.in_doubt() or not self._settled(leader):
            return
        voters = leader.core.configuration.voters()
        if len(voters) < 3:
            return
        node = world.nodes[kernel.random.choice(voters).id]
        if node.up:
            node.crash()
        node.gone = True  # what it held stays in sight of the oracle: this name never votes again, so what it acknowledged stays acknowledged by a quorum
        self.replacing = node.id
        kernel.note(node.id, "disk lost")
        kernel.seen["disks lost"] += 1
        self._replace(node)

    def in_doubt(self) -> bool:
        """Does a server miss something of its log, so that it may not vote?"""
        return any(node.disk.doubt is not None for node in self._world.present())

    def _settled(self, leader: SimNode) -> bool:
        """Is the leader's configuration the latest in every log, and committed?"""
        latest = leader.core.configuration_index
        known = {node.disk.configuration()[0] for node in self._world.present()}
        return latest <= leader.core.commit and max(known) <= latest

    def _replace(self, node: SimNode) -> None:
        """The operator removes the old server, and starts an empty one of another name in its place. This goes on when all else is healed."""
        world = self._world
        leader = world.leader()
        if leader is not None and leader.core.serving and leader.core.configuration_index <= leader.core.commit:
            if leader.core.configuration.get(node.id) is None:
                number = len(world.nodes) + 1
                fresh = world.add(Server(f"n{number}", f"10.0.0.{number}:9520"))
                self.replacing = None
                self._propose(leader, AddNonvoter(fresh.id, fresh.server.address))
                return
            self._propose(leader, RemoveServer(node.id))
        self._kernel.after(self._kernel.between(0.02, 0.2), lambda: self._replace(node))
