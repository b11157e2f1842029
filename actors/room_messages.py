"""What the rooms tell each other, through the supervisor's wiring: between Raft, publishing, membership, delivery and management.

Data alone, no words of any wire: at this seam another engine could stand in for one of ours. What a user sends and gets is in `messages`. The views are snapshots:
immutable, handed out by an actor instead of letting anybody look into it. What is made for every record or entry is a slotted class or a tuple; the rest is frozen.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final, Literal, NamedTuple

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


@attrs.define(frozen=True)
class TakeSnapshot:
    """Ask the publisher, who may take long. -> Snapshot: what the state machine is now, in the form that `peer` takes, by what gossip knows. other: it has refused
    that form."""

    peer: str
    other: bool = False


@attrs.define(frozen=True)
class Snapshot:
    """The state machine as of the entry (index, term): `size` bytes in the file `content`, which stands at its beginning and is the taker's to close. foreign: in
    the form of go-cluster."""

    index: int
    term: int
    content: IO[bytes]
    size: int
    foreign: bool


@attrs.define(frozen=True)
class InstallSnapshot:
    """Ask the publisher: put the snapshot in `content`, which ends with the entry (index, term), in the place of the state machine, and keep `mark` beside it. ->
    True when that is on the disk; an InvalidRequest says what is wrong with the content. The publisher closes the file."""

    content: IO[bytes]
    index: int
    term: int
    mark: bytes


@attrs.define(frozen=True)
class InstallRoster:
    """Ask the publisher: `document`, the snapshot of a go-cluster node that ends with the entry (index, term), takes the place of the roster, and the topics go on
    where they are: of what the entries behind the applied one held, only the roster is known, and delivery is told that. after: what must be applied before, since
    the log here still has it. mark, and the answer, as of `InstallSnapshot`."""

    document: bytes
    index: int
    term: int
    mark: bytes
    after: int


# -- a snapshot that tells only the roster: what others of ours know beside it ---------------------------------------------------


@attrs.define(frozen=True)
class RosterSnapshot:
    """`sender`, a leader of go-cluster, says: up to the entry (index, term) the roster is `document`, and these are the servers."""

    sender: str
    index: int
    term: int
    servers: tuple[str, ...]
    document: bytes


@attrs.define(frozen=True)
class StateFound:
    """Another node of ours has the state as of the entry (index, term): `content`, as of `InstallSnapshot`, and the configuration there, encoded."""

    node: str
    content: IO[bytes]
    index: int
    term: int
    configuration_index: int
    configuration: bytes


@attrs.define(frozen=True)
class NobodyNumbers:
    """No other node of ours has ever had a log or records: what the snapshot does not tell nobody here can tell."""


@attrs.define(frozen=True)
class NoState:
    """Nobody gave it, for now; `reason` says why. waits: it is worth waiting for; otherwise the snapshot cannot be used."""

    reason: str
    waits: bool = True


@attrs.define(frozen=True)
class StateReach:
    """How far a node's own state goes. empty: it has neither a log nor records, and so has numbered nothing."""

    applied: int
    empty: bool


class StateEnd(NamedTuple):
    """Of a state that comes from another node: the entry (index, term) that it ends with, the configuration there, encoded, and how many bytes it has."""

    index: int  # type: ignore[assignment]  # tuple.index() is never wanted here
    term: int
    configuration_index: int
    configuration: bytes
    size: int


@attrs.define(frozen=True)
class WholeState:
    """A node's state, and the configuration (encoded, with the index of its entry) where it ends."""

    snapshot: Snapshot
    configuration_index: int
    configuration: bytes


@attrs.define(frozen=True)
class MakeDurable:
    """Ask the publisher. -> the index up to which the state machine is sure to survive a failure of power."""


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


# -- between rooms: delivery to the application -----------------------------------------------------------------------------------


class Deliver:
    """Ask a handler actor to handle records of one topic, in order. -> Delivered.

    records: [(seq, data, headers | None)]; index and time (seconds since the epoch) are of their batch; attempt counts from 1 for the first record.
    node: whose records they are; trace: the context in which it applied their entry, where that was traced. letters: they are dead letters, for
    `handle_dead_letter`.
    """

    __slots__ = ("attempt", "index", "letters", "node", "records", "time", "topic", "trace")

    def __init__(
        self,
        topic: str,
        records: list[tuple[int, bytes, dict[str, str] | None]],
        index: int,
        time: float,
        attempt: int = 1,
        node: str = "",
        trace: Any = None,
        letters: bool = False,
    ) -> None:
        self.topic, self.records, self.index, self.time, self.attempt = topic, records, index, time, attempt
        self.node, self.trace, self.letters = node, trace, letters


class Delivered:
    """How far a handler came: `count` records were handled; `error` is what the next one raised, None when all were."""

    __slots__ = ("count", "error")

    def __init__(self, count: int, error: BaseException | None = None) -> None:
        self.count, self.error = count, error


@attrs.define(frozen=True)
class HandleWrite:
    """Ask a handler actor. trace: the context of the request, where somebody traces, and node: the node that asks."""

    op: str
    data: bytes
    trace: Any = None
    node: str = ""


@attrs.define(frozen=True)
class HandleRead:
    """As `HandleWrite`."""

    op: str
    data: bytes
    trace: Any = None
    node: str = ""


class HandleReads:
    """Ask a handler actor for many reads at once: (op, data, trace) each. -> a list with the bytes, or the HandlerFailed, of each."""

    __slots__ = ("node", "reads")

    def __init__(self, reads: list[tuple[str, bytes, Any]], node: str) -> None:
        self.reads, self.node = reads, node


@attrs.define(frozen=True)
class AwaitCommands:
    """Ask the publisher. -> True once this node's handler has handled the first `commands` commands of the log, at once where it handles none. Raises HandlerFailed
    where it cannot go on."""

    commands: int


@attrs.define(frozen=True)
class CommandSupport:
    """What a handler offers for commands: it overrides handle_apply, handle_snapshot, handle_restore; keeps: it has an `applied_index` of its own."""

    applies: bool = False
    snapshots: bool = False
    restores: bool = False
    keeps: bool = False


@attrs.define(frozen=True)
class SetHandler:
    """Tell the publisher, and it the actors that deliver, which handler actor is in force (None: none), and what it does about commands."""

    ref: Any
    commands: CommandSupport = attrs.field(factory=CommandSupport)


@attrs.define(frozen=True)
class BeginCommands:
    """Ask a handler actor: up to which command, of those of `node`, does your state go? -> the index, 0 for none."""

    node: str


@attrs.define(frozen=True)
class SnapshotCommands:
    """Ask a handler actor for its state as of the last command. directory: for a file of it; None: the system's place. -> WrittenState. Raises what
    `handle_snapshot` raises, OSError, ValueError."""

    directory: Path | None


@attrs.define(frozen=True)
class WrittenState:
    """Blocks of a handler's state (proto.command_state), each behind its length (4 bytes, big-endian), in `content`, which is the asker's to close. size: of
    the blocks."""

    content: IO[bytes]
    blocks: int
    size: int


@attrs.define(frozen=True)
class RestoreCommands:
    """Ask a handler actor to be what a snapshot of `node` says; it goes up to command `index`. -> True."""

    node: str
    index: int
    chunks: Iterator[bytes]


class ApplyCommands:
    """Ask a handler actor to apply commands of `node`, in order: [(index, op, data)]. -> [(done, result)], one for each command that it came to: result is what
    `handle_apply` returned, or the text of what it raised. It may stop early to let its other messages through. trace: as in `Deliver`."""

    __slots__ = ("commands", "node", "trace")

    def __init__(self, node: str, commands: list[tuple[int, str, bytes]], trace: Any = None) -> None:
        self.node, self.commands, self.trace = node, commands, trace


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


@attrs.define(frozen=True)
class GetReplicationView:
    pass


@attrs.define(frozen=True)
class Emit:
    """Tell the event bus. news: False when nobody is to be told, since only what late listeners hear is different now (an address)."""

    event: Event
    news: bool = True
