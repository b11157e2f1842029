"""The state of one Raft server and its changes of role; the handlers of `election`, `following` and `replication` work on it.

It is one mutable object on purpose: Raft's figure 2 is one table of state, and each handler is one of its boxes. What a handler wants done
it puts into the outbox fields; `RaftCore.ready` drains them. A change of role goes through `become_follower` or `replication.become_leader`
alone, so that nothing of the old role is left behind.
"""

from __future__ import annotations

import enum
from collections import Counter, deque
from collections.abc import Callable
from random import Random
from typing import NamedTuple

import attrs

from coterie.actors.raft.cache import LogCache
from coterie.actors.raft.log import Doubt, HardState, LogReader, SnapshotMark
from coterie.actors.raft.membership import Configurations
from coterie.actors.raft.progress import Progress
from coterie.actors.raft.ready import (
    ConfigurationChanged,
    ElectionEnded,
    Event,
    LeaderChanged,
    LostLeadership,
    ReadConfirmed,
    Send,
    SendSnapshot,
)
from coterie.actors.raft.settings import Settings
from coterie.proto.raft_messages import Configuration, Header, Response, RpcError, Server


class Role(enum.Enum):
    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


@attrs.define
class Transfer:
    """Leadership on its way to `target` (Raft thesis, 3.10)."""

    target: str
    deadline: float
    sent: bool = False


class Reads:
    """Who waits for a read index; what is done about it is in `reads`. round: the number of the latest round, which `asked` wait for, each of them answered with
    `index`; `waiting` are those of the next one. lease_void: leadership was offered to another, so no lease of this leadership is to be trusted any more."""

    __slots__ = ("asked", "confirmed", "index", "lease_void", "round", "unconfirmed", "waiting")

    def __init__(self) -> None:
        self.round = self.index = 0
        self.asked: list[object] = []
        self.waiting: list[object] = []
        self.confirmed: list[ReadConfirmed] = []
        self.unconfirmed: list[object] = []
        self.lease_void = False

    def lose(self) -> None:
        """This server leads no more: it can answer for nothing that is not confirmed yet."""
        self.unconfirmed += self.asked
        self.unconfirmed += self.waiting
        self.asked, self.waiting, self.lease_void = [], [], False


class Handed(NamedTuple):
    """A Ready that must be stored and was handed out: what its report will make true."""

    last_index: int
    last_term: int
    generation: int
    hard_state: HardState | None
    at: float


class Node:
    """All that a Raft server knows. `now` is the latest time that any input brought."""

    def __init__(
        self,
        me: Server,
        settings: Settings,
        log: LogReader,
        hard_state: HardState,
        configuration: tuple[int, Configuration],
        previous_configuration: Callable[[int], tuple[int, Configuration]],
        now: float,
        random: Random,
        doubt: Doubt | None = None,
        lived_until: float = float("-inf"),
    ) -> None:
        self.doubt = doubt
        self.me, self.settings, self.now, self.random = me, settings, now, random
        self.header = Header(me.id, me.address)
        self.log = LogCache(log, settings.cache_bytes)
        self.configurations = Configurations(configuration, previous_configuration)
        self.counters: Counter[str] = Counter()

        self.role = Role.FOLLOWER
        self.term, self.voted_for = hard_state.term, hard_state.voted_for
        self.hard_state_changed = False
        self.leader: Server | None = None
        self.leader_term = 0
        self.commit = 0
        self.leader_reaches = 0  # how far the leader's log goes at least, by its latest request
        self.leader_reached = 0  # the same, when a leader was first heard in this life: what is not above that was before the start
        self.told_committed = 0  # how much is committed, as a leader has told it; the log here may not have it yet
        self.committed_at = now  # when the commit index last moved
        self.last_contact = now  # of a leader, or of a vote given
        self.leader_seen = now  # when a leader last spoke, or this server led
        self.leader_disconnected_at: float | None = None
        self.bound_until = lived_until + settings.voters_hold  # see `is_bound`; an earlier life has forgotten whom it had answered
        self.election_deadline = now

        self.links: dict[str, int] = {}  # peers with a connection, each connection with its number
        self.last_number = 0  # for links and sessions
        self.votes: dict[str, bool] = {}
        self.transferring_to_me = False
        self.pre_vote_asked: dict[str, float] = {}  # when each voter was last asked
        self.pre_vote_hang_ups: dict[str, int] = {}  # how often in a row it hung up instead of an answer

        self.stood_still = (float("-inf"), float("-inf"))  # from when to when its shell last waited for the disk and heard nobody
        self.progress: dict[str, Progress] = {}  # of a leader; also of servers that were removed, till they know it
        self.first_of_leadership = 0  # index of this leadership's no-op
        self.pump_wanted = False
        self.transfer: Transfer | None = None
        self.reads = Reads()
        self.contexts: list[object | None] = []  # of entries contexts_from, contexts_from + 1, …
        self.contexts_from = 0

        self.before: list[Send] = []
        self.after: list[Send] = []
        self.replies: list[tuple[object, Response | RpcError]] = []
        self.abandoned: list[object] = []
        self.events: list[Event] = []
        self.mark: SnapshotMark | None = None
        self.snapshots: list[SendSnapshot] = []
        self.handed: deque[Handed] = deque()
        self.reset_election_timer()

    def has_news(self) -> bool:
        """Is there anything in the outbox, or for the disk?"""
        return bool(
            self.before
            or self.replies
            or self.log.has_unsaved
            or self.hard_state_changed
            or self.after
            or self.events
            or self.abandoned
            or self.mark is not None
            or self.snapshots
            or self.reads.confirmed
            or self.reads.unconfirmed
        )

    # -- what it is --------------------------------------------------------------------------------------------------------------

    @property
    def configuration(self) -> Configuration:
        return self.configurations.latest

    @property
    def is_voter(self) -> bool:
        return self.configuration.is_voter(self.me.id)

    @property
    def quorum(self) -> int:
        return self.configurations.quorum

    @property
    def decides_alone(self) -> bool:
        """Is this server the whole quorum, and sure of it?

        A server that lost its log and is added again under its old name gets the log's beginning first, and there it may find itself the only voter of
        a configuration that is long past: were it to elect itself then, it would commit a second history. What tells the two apart is the term: who
        truly decides alone voted for itself in its term, or its log reaches into it; who catches up has its leader's later term and an older
        log. (A vote for itself is withdrawn when it follows another leader of that term: see `following`.)
        """
        if not self.is_voter or self.quorum > 1 or self.doubt is not None:
            return False
        return self.voted_for == self.me.id or self.log.last_term == self.term

    def other_voters(self) -> list[Server]:
        return [server for server in self.configuration.voters() if server.id != self.me.id]

    def server_of(self, header: Header) -> Server:
        """Who speaks. A server that fills no id (before hashicorp/raft 1.5) is known by its address."""
        known = self.configuration.get(header.id)
        if known is None and not header.id:
            known = next((server for server in self.configuration.servers if server.address == header.address), None)
        return Server(known.id, header.address or known.address, known.suffrage) if known else Server(header.id, header.address)

    def leader_is_alive(self) -> bool:
        """Did a leader speak within the *shortest* election time-out (Raft thesis, 4.2.3)? Then nobody else gets a vote."""
        if self.role is Role.LEADER:
            return True
        if self.leader is None:
            return False
        if self.leader_disconnected_at is not None and self.last_contact <= self.leader_disconnected_at:
            return self.now - self.leader_disconnected_at < self.settings.disconnect_grace
        return self.now - self.last_contact < self.settings.heartbeat_timeout

    def is_bound(self) -> bool:
        """Was a leader, whichever, answered so lately that its lease may still rest on this server? Then nobody gets a vote, unless leadership is handed over;
        also when the leader is not believed in any more (a later term was heard of), and after a restart that was quicker than that."""
        return self.now < self.bound_until

    def disk_is_stuck(self) -> bool:
        return bool(self.handed) and self.now - self.handed[0].at >= self.settings.store_timeout

    def answer_of_another(self) -> None:
        """At a peer's address another server answers: addresses were exchanged. Its vote and its copies are counted where they are its own, not for the peer, or one
        server would count as two: the request has failed."""
        self.counters["answers_of_others"] += 1

    def next_number(self) -> int:
        self.last_number += 1
        return self.last_number

    # -- what changes ------------------------------------------------------------------------------------------------------------

    def spread(self, timeout: float) -> float:
        """A random time in [timeout, 2 timeout): split votes are resolved by chance (Raft paper, 5.2)."""
        return timeout * (1.0 + self.random.random())

    def reset_election_timer(self) -> None:
        self.last_contact = self.now
        self.leader_disconnected_at = None
        self.election_deadline = self.now + self.spread(self.settings.heartbeat_timeout)

    def set_term(self, term: int) -> None:
        if term > self.term:
            self.term, self.voted_for = term, ""
            self.hard_state_changed = True

    def vote_for(self, server_id: str) -> None:
        self.voted_for = server_id
        self.hard_state_changed = True

    def set_leader(self, leader: Server | None) -> None:
        """Who leads is news when the server or its term is."""
        if leader != self.leader or (leader is not None and self.leader_term != self.term):
            self.leader, self.leader_term = leader, self.term
            self.events.append(LeaderChanged(self.term, leader))

    def become_follower(self, term: int, leader: Server | None, reason: str) -> None:
        """Enter `term` (not below the present one) without leading it (Raft paper, figure 2, all servers)."""
        alone = self.decides_alone and leader is None
        if self.role is Role.LEADER:
            self._lose_leadership(reason)
        elif self.role is not Role.FOLLOWER:
            self.events.append(ElectionEnded(term, leader))
        self.set_term(term)
        if alone and self.voted_for != self.me.id:
            self.vote_for(
                self.me.id
            )  # nobody else's vote counts, so it may as well be given at once; and it goes on knowing that it decides alone
        self.role = Role.FOLLOWER
        self.votes.clear()
        self.transferring_to_me = False
        self.set_leader(leader)
        self.reset_election_timer()

    def _lose_leadership(self, reason: str) -> None:
        self.events.append(LostLeadership(self.term, reason))
        self.leader_seen = self.now
        self.progress.clear()
        self.snapshots.clear()
        self.transfer = None
        self.reads.lose()
        keep = max(0, self.commit - self.contexts_from + 1)
        self.abandoned += [context for context in self.contexts[keep:] if context is not None]
        del self.contexts[keep:]

    def set_commit(self, index: int) -> None:
        self.commit, self.committed_at = index, self.now
        self.configurations.committed(index)

    def configuration_changed(self) -> None:
        self.events.append(ConfigurationChanged(self.configurations.index, self.configuration))
