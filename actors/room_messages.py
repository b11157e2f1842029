"""What the rooms tell each other, through the supervisor's wiring: between Raft, publishing, membership, delivery and management.

Data alone, no words of any wire: at this seam another engine could stand in for one of ours. What a user sends and gets is in `messages`, what a handler is
asked in `handler_messages`, what concerns snapshots in `snapshot_messages`. The views are immutable, handed out by an actor
instead of letting anybody look into it. What is made for every record or entry is a slotted class or a tuple; the rest is frozen.
"""

from __future__ import annotations

from typing import Any, Final, Literal, NamedTuple

import attrs

from coterie.actors.messages import Event, Failing, RosterMember, TopicStatus

COMMANDS_TOPIC: Final = "coterie.commands"  # whose records are commands, for `handle_apply`; nobody else may publish on it

# -- between rooms: Raft and replication ------------------------------------------------------------------------------------------


class Propose:
    """Tell the Raft actor: append `data` as one command.

    context: any object; it comes back in `Committed` beside its entry, in `Appended` if `want_appended`, or in `ProposalsFailed`.
    With context None and an ask, the reply is the entry's index when it is committed. term: the leadership it is meant for; in another one it is refused
    with NotLeader, since an earlier proposal of the same proposer may have been refused in between (0: any). extensions: go with the entry (a trace's context).
    """

    __slots__ = ("context", "data", "extensions", "term", "want_appended")

    def __init__(
        self, data: bytes, context: Any = None, want_appended: bool = False, term: int = 0, extensions: bytes | None = None
    ) -> None:
        self.data, self.context, self.want_appended, self.term, self.extensions = data, context, want_appended, term, extensions


class Committed:
    """The Raft actor tells the publisher: these entries are committed, in log order, without a gap.

    entries: (index, term, kind, data) with the proposer's context, or None when it was not proposed here (in this leadership).
    The publisher answers with `Applied(index)` as it goes on: that is what opens the way for more.
    """

    __slots__ = ("entries",)

    def __init__(self, entries: list[tuple[Any, Any]]) -> None:
        self.entries = entries  # [(proto.raft_messages.Entry, context | None)]


class Applied:
    """Tell the Raft actor how far the state machine is."""

    __slots__ = ("index",)

    def __init__(self, index: int) -> None:
        self.index = index


class Appended:
    """The leader's own disk has these proposals: (context, index)."""

    __slots__ = ("items",)

    def __init__(self, items: list[tuple[Any, int]]) -> None:
        self.items = items


class ProposalsFailed:
    """These proposals got no outcome here. error: NotLeader (certainly not in the log), Indeterminate (in the log of a leader that was deposed)."""

    __slots__ = ("contexts", "error")

    def __init__(self, contexts: list[Any], error: Exception) -> None:
        self.contexts, self.error = contexts, error


@attrs.define(frozen=True)
class ChangeQuorum:
    """Ask the Raft actor. kind: "join" (learner, then voter when caught up), "learn" (learner), "promote" (a learner that has caught up), "leave", "move" (another
    address). -> True, or a typed error."""

    kind: Literal["join", "learn", "promote", "leave", "move"]
    id: str
    address: str = ""
    deadline: float = 0.0  # monotonic


@attrs.define(frozen=True)
class TakeOver:
    """Tell the Raft actor: campaign against `leader_id`, a node of go-cluster that leads while publishes wait here. Nothing happens where that would be in vain."""

    leader_id: str


@attrs.define(frozen=True)
class Bootstrap:
    """Tell the Raft actor: form a new cluster with these voters, (id, Raft address) of each, this server among them. Nothing happens where there is Raft state."""

    servers: tuple[tuple[str, str], ...]


@attrs.define(frozen=True)
class PeersElsewhere:
    """Tell the Raft actor: by what gossip knows these servers are at other addresses than the configuration says, by id. They are dialled there too."""

    addresses: dict[str, str]


@attrs.define(frozen=True)
class PeerSeen:
    """Tell the Raft actor: gossip has news of this server, which lives. What is not connected to it is dialled at once."""

    id: str


@attrs.define(frozen=True)
class PeerView:
    id: str
    address: str
    suffrage: str
    match_index: int | None = None
    last_contact: float | None = None  # seconds ago
    state: str = ""
    reached_at: str = ""  # where this server has a connection to it; "" when it has none


@attrs.define(frozen=True)
class RaftView:
    """What the Raft actor shows: told to the supervisor whenever role, term, leader or configuration change, and the answer to `GetRaftView`."""

    role: str = "follower"
    term: int = 0
    leader_id: str = ""
    leader_addr: str = ""
    commit_index: int = 0
    applied_index: int = 0
    last_index: int = 0
    ready: bool = False
    silent: frozenset[str] = frozenset()  # of a leader: peers that have not answered for a lease, or are not connected
    servers: tuple[PeerView, ...] = ()
    in_doubt: bool = False  # its log has lost entries: it does not vote until it has caught up
    configuration_is_news: bool = True  # `servers` became so while this node ran, which it may also hear of from before its start
    waits_for: str = ""  # a state that a Go leader's snapshot does not tell, and who has it; "" where it waits for none
    counters: dict[str, int] = attrs.field(factory=dict)


@attrs.define(frozen=True)
class ReadIndex:
    """Ask the Raft actor. -> ReadPoint once a quorum has confirmed, after this was asked, that this node leads, or (lease) while its lease vouches for that;
    NotLeader when it does not lead. So a leader that was deposed without knowing it (it stood still, or is cut off) answers nothing from its old state."""

    lease: bool = False


class ReadPoint(NamedTuple):
    """Everything that was acknowledged before a `ReadIndex` was asked is in the log up to `index`, all of it committed. by_lease: no round was made for it."""

    index: int  # type: ignore[assignment]  # tuple.index() is never wanted here
    by_lease: bool


@attrs.define(frozen=True)
class CommandsUpTo:
    """Ask the publisher. -> how many commands there are in the log up to the entry `index`, or more: told once its state machine has got there."""

    index: int


class ReadFrom(NamedTuple):
    """What a leader answers a node that has reads: a handler that has had the first `commands` commands has had all that was acknowledged before. by_lease: no
    round was made for it."""

    commands: int
    by_lease: bool


@attrs.define(frozen=True)
class GetRaftView:
    pass


# -- between rooms: membership ----------------------------------------------------------------------------------------------------


@attrs.define(frozen=True)
class Member:
    """A member as gossip knows it. state: alive, suspect, failed or left."""

    id: str
    addr: str
    meta: dict[str, str]
    state: str = "alive"


@attrs.define(frozen=True)
class MembershipView:
    """Told to the supervisor at each change. `counters`: dropped packets and the like, by reason; `warnings`: what an operator should mend."""

    members: tuple[Member, ...] = ()
    counters: dict[str, int] = attrs.field(factory=dict)
    seeds: dict[str, str] = attrs.field(factory=dict)  # each configured or discovered seed, and what became of the last attempt
    warnings: tuple[str, ...] = ()
    discovery: tuple[str, ...] = ()  # what is wrong with this node's own seeds


@attrs.define(frozen=True)
class MembershipEvent:
    """kind: what happened to the member; update: its metadata or address is new."""

    kind: Literal["join", "leave", "failed", "update"]
    member: Member


@attrs.define(frozen=True)
class SetMeta:
    """Tell the membership actor: gossip this metadata of ours from now on (a JSON object of strings, at most 512 bytes encoded)."""

    meta: dict[str, str]


@attrs.define(frozen=True)
class GetMembership:
    """-> MembershipView."""


@attrs.define(frozen=True)
class LeaveGossip:
    """Ask the membership actor to say good-bye. -> True when it was said often enough or after `timeout` seconds."""

    timeout: float = 3.0


# -- between rooms: the cluster as the replication and management rooms need it ---------------------------------------------------


@attrs.define(frozen=True)
class Topology:
    """The supervisor tells publisher and management, at each change, whom to talk to.

    leader_id "" when none is known. leads: this node leads and its log holds an entry of its term. grpc_addr maps member ids to the address of their gRPC server
    (live members only); in_quorum: this node is in the Raft configuration, so committed entries reach it by Raft and not over a stream. foreign: live members that
    are nodes of go-cluster: their metadata has a management address, and none for gRPC.
    voters: how the servers of the quorum should stand in the roster; meta None: gossip does not know it now, and addr is its Raft address.
    makes: of every member that gossip knows and that has not left, dead or alive, whether it is one of ours (True) or of go-cluster.
    """

    term: int = 0
    leader_id: str = ""
    leads: bool = False
    in_quorum: bool = False
    grpc_addr: dict[str, str] = attrs.field(factory=dict)
    mgmt_addr: dict[str, str] = attrs.field(factory=dict)
    live: frozenset[str] = frozenset()
    silent: frozenset[str] = frozenset()  # what the leader's Raft hears nothing from, long before gossip gives it up
    foreign: frozenset[str] = frozenset()
    voters: tuple[RosterMember, ...] = ()
    makes: dict[str, bool] = attrs.field(factory=dict)

    @property
    def foreign_leader(self) -> str:
        """The management address of the leader when it is a node of go-cluster, else ""."""
        return self.mgmt_addr.get(self.leader_id, "") if self.leader_id in self.foreign else ""

    def heir(self, voters: list[str]) -> str | None:
        """Whom this leader should hand over to; None: whoever has most of the log. Beside nodes of go-cluster it is one of ours, which takes our publishes."""
        if not self.foreign.intersection(voters):
            return None
        return next((voter for voter in voters if voter in self.live - self.foreign - self.silent), None)


# -- what publishing shows, and what the event bus is told ------------------------------------------------------------------------


@attrs.define(frozen=True)
class ReplicationView:
    """The answer of the publisher to `GetReplicationView`."""

    topics: tuple[TopicStatus, ...] = ()
    applied_index: int = 0
    waiting: int = 0
    counters: dict[str, int] = attrs.field(factory=dict)
    warnings: tuple[str, ...] = ()
    roster: tuple[RosterMember, ...] = ()
    failing: tuple[Failing, ...] = ()
    dead_letters: dict[str, int] = attrs.field(factory=dict)
    left_out: int = 0  # topics beyond those that were asked for


@attrs.define(frozen=True)
class GetReplicationView:
    """Ask the publisher. most: how many topics at most, by name; None: all of them, which costs the publisher a second where there are 100,000."""

    most: int | None = None


@attrs.define(frozen=True)
class Emit:
    """Tell the event bus. news: False when nobody is to be told, since only what late listeners hear is different now (an address)."""

    event: Event
    news: bool = True
