"""The supervisor's desk for what concerns the quorum as a whole: where its servers are, how it grows and shrinks by itself, and how it begins.

It keeps three pure things up to date with the views of Raft and gossip, and does what they say: `Identities` (who stands behind which id, and where), `Caretaker`
(what a leader changes, one thing at a time), `Founding` (how empty nodes begin together). It keeps the file they remember in, and adds to this node's
metadata what the others need to know of it.

**The cluster's id** is drawn by its first leader, told in the gossip, and kept by every server: a server with another cluster's log is not taken in. A follower
takes the id that its leader tells, whatever it had: the log it follows is what counts.

Runs in the supervisor's thread; answers come back by `post`.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any, Final

from coterie.actors.errors import AlreadyMember, StorageError
from coterie.actors.node.assembly import Rooms
from coterie.actors.node.caretaker import Caretaker, Rules, Step
from coterie.actors.node.founding import Decision, Founding
from coterie.actors.node.identities import Identities, strangers
from coterie.actors.node.quorum_file import QuorumFile
from coterie.actors.node.topology import (
    LIVE,
    META_CLUSTER,
    META_DIRECTORY,
    META_EXPECT,
    META_FOUNDER,
    META_WANTS,
    NO_CLUSTER,
    SOME_CLUSTER,
    Picture,
)
from coterie.actors.room_messages import Bootstrap, ChangeQuorum, GetRaftView, PeersElsewhere, RaftView

__all__ = ["QuorumDesk"]

LOOK_EVERY: Final = 0.5  # seconds between a leader's looks, and those of a node that waits for a cluster
CHANGE_PATIENCE: Final = 10.0  # seconds for one change
REACHED: Final = ("reached", "this node")


class QuorumDesk:
    """See the module's text. notes: warnings for the status, by whom they are about."""

    def __init__(
        self, rooms: Rooms, picture: Picture, notes: dict[str, str], post: Callable[[Callable[[], None]], object], log: Any
    ) -> None:
        """Raises StorageError."""
        self._rooms, self._picture, self._notes, self._post, self._log = rooms, picture, notes, post, log
        config, directory = rooms.config, rooms.directory
        self._file = QuorumFile(directory.path / "quorum.json" if directory is not None else None, config.node_id, self._not_written)
        self._directory = (directory.identity.incarnation_id if directory is not None else secrets.token_hex(16))[:16]
        self._identities = Identities(config.node_id, self._file.now.directories)
        self._rules = Rules(config.auto_join, config.max_voters, config.min_voters, config.remove_dead_after)
        self._caretaker = Caretaker(config.node_id, self._rules)
        self._founding = self._founder_of(config.bootstrap_expect)
        self._wants = secrets.token_hex(4) if config.auto_join else ""
        self._elsewhere: dict[str, str] = {}
        self._was_in = self._taken_out = False
        self._leads_in: int | None = None
        self._busy = False  # a question to Raft, or a change, is under way
        self._next: float | None = None
        rooms.cluster = self._file.now.cluster

    def _founder_of(self, expect: int) -> Founding | None:
        if not expect:
            return None
        return Founding(self._rooms.config.node_id, self._rooms.addresses["raft"], expect, self._file.now.founder)

    # -- what this node tells of itself ------------------------------------------------------------------------------------------

    def meta(self) -> dict[str, str]:
        """What goes into the metadata beside the addresses."""
        told = {META_DIRECTORY: self._directory, META_CLUSTER: self._cluster()}
        if self._wants and not self._taken_out:
            told[META_WANTS] = self._wants
        if self._founding is not None:
            told[META_EXPECT] = str(self._rooms.config.bootstrap_expect)
            if self._file.now.founder:
                told[META_FOUNDER] = self._file.now.founder
        return told

    def _cluster(self) -> str:
        raft = self._picture.raft
        if not raft.term and not raft.servers and not raft.last_index:
            return NO_CLUSTER
        return self._file.now.cluster or SOME_CLUSTER

    # -- at each change of the views ----------------------------------------------------------------------------------------------

    def look(self, now: float) -> None:
        """Raft or gossip showed something new."""
        raft, members = self._picture.raft, self._picture.membership.members
        if self._identities.look(raft.servers, members):
            self._file.keep(directories=self._identities.known)
        elsewhere = self._identities.elsewhere(raft.servers, members)
        if elsewhere != self._elsewhere:
            self._elsewhere = elsewhere
            self._rooms.raft.send(PeersElsewhere(elsewhere))
        self._note("identities", "; ".join(self._identities.warnings(raft.servers, members)))
        self._learn_cluster()
        is_in = any(server.id == self._picture.me for server in raft.servers)
        self._note("strangers", "; ".join(strangers(self._file.now.cluster if is_in else "", raft.servers, members)))
        if is_in:
            self._taken_out = False
        elif self._was_in and raft.configuration_is_news:
            self._taken_out = True  # while it ran: it does not come back by itself before its next start
        self._was_in = is_in
        self._consider_leading(now)
        if self._founding is not None and self._next is None:
            self._next = now

    def _learn_cluster(self) -> None:
        picture, known = self._picture, self._file.now.cluster
        raft, told = picture.raft, {m.id: m.meta.get(META_CLUSTER, "") for m in picture.membership.members if m.state in LIVE}
        servers = sorted(server.id for server in raft.servers)
        if picture.me not in servers or not raft.leader_id:
            return
        if raft.leader_id != picture.me:
            heard = told.get(raft.leader_id, "")
        elif picture.topology.leads and not known:
            heard = next((told[s] for s in servers if told.get(s, "") not in ("", NO_CLUSTER, SOME_CLUSTER)), "") or secrets.token_hex(8)
        else:
            return
        if heard not in ("", known, NO_CLUSTER, SOME_CLUSTER):
            self._file.keep(cluster=heard)
            self._rooms.cluster = heard

    def _consider_leading(self, now: float) -> None:
        raft, topology = self._picture.raft, self._picture.topology
        leads_in = raft.term if topology.leads else None
        if leads_in != self._leads_in:
            self._leads_in = leads_in
            self._caretaker.begin()
        own = next((server.address for server in raft.servers if server.id == self._picture.me), "")
        moved = bool(self._elsewhere) or own not in ("", self._rooms.addresses["raft"])
        if leads_in is None or not (moved or self._rules.auto_join or self._rules.remove_dead_after):
            self._next = None
        elif self._next is None:
            self._next = now

    def left(self, server: str) -> None:
        """Somebody asked this leader to take that server out."""
        self._caretaker.left(server, self._picture.membership.members)

    # -- from time to time --------------------------------------------------------------------------------------------------------

    def next_time(self) -> float | None:
        return None if self._busy else self._next

    def on_wake(self, now: float) -> None:
        if self._busy or self._next is None or now < self._next:
            return
        self._next = now + LOOK_EVERY
        self._busy = True
        asked = self._rooms.raft.ask(GetRaftView(), block=False)

        def shown() -> None:
            self._busy = False
            if asked.error is None:
                self._decide(asked.get(timeout=0), now)

        asked.on_done(lambda: self._post(shown))

    def _decide(self, raft: RaftView, now: float) -> None:
        if self._founding is not None:
            self._begin_together(self._founding, raft)
        if raft.role != "leader" or not raft.ready or self._leads_in != raft.term:
            return
        members = self._picture.membership.members
        step = self._caretaker.look(raft, members, self._elsewhere, self._rooms.addresses["raft"], self._file.now.cluster, now)
        if step is not None:
            self._take(step, now)

    def _take(self, step: Step, now: float) -> None:
        self._busy = True
        self._log.info("%s of %s: %s", step.kind, step.id, step.why)
        asked = self._rooms.raft.ask(ChangeQuorum(step.kind, step.id, step.address, now + CHANGE_PATIENCE), block=False)

        def done() -> None:
            self._busy = False
            if asked.error is not None and not isinstance(asked.error, AlreadyMember):
                self._log.warning("%s of %s was not done: %s", step.kind, step.id, asked.error)
            self._caretaker.done(step, asked.error is not None, now)

        asked.on_done(lambda: self._post(done))

    # -- a cluster begins -----------------------------------------------------------------------------------------------------------

    def _begin_together(self, founding: Founding, raft: RaftView) -> None:
        """This node expects others, and has no log yet."""
        if raft.term or raft.last_index or raft.servers:
            self._founding = None
            self._next = None
            self._note("founding", "")
            self._consider_leading(0.0)
            return
        membership = self._picture.membership
        here = {
            member.addr for member in membership.members if member.state in LIVE
        }  # a seed that came later counts before it is dialled again
        missing = [f"{seed}: {state}" for seed, state in membership.seeds.items() if state not in REACHED and seed not in here]
        seeds = f"a seed does not answer ({missing[0]})" if missing else next(iter(membership.discovery), "")
        decision: Decision = founding.look(membership.members, seeds, secrets.token_hex(4))
        self._note("founding", decision.note)
        self._file.promise(decision.founder)
        if decision.servers:
            self._log.info("forms the cluster with %s", ", ".join(name for name, _ in decision.servers))
            self._rooms.raft.send(Bootstrap(decision.servers))

    def close(self) -> None:
        self._file.close()

    def _not_written(self, error: StorageError) -> None:
        """In the thread of the file. What is not on the disk is learned again after a start; the Raft log, on the same disk, decides whether the node goes on."""
        self._post(lambda: self._note("quorum file", str(error)))

    def _note(self, about: str, text: str) -> None:
        if text:
            if self._notes.get(about) != text:
                self._log.info("%s", text)
            self._notes[about] = text
        else:
            self._notes.pop(about, None)
