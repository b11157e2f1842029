"""What actors say to each other: the seam between the rooms, and the words of the front door.

Three groups. The first is public: what a user sends to the `ClusterSupervisor` and gets back; frozen attrs classes, data alone (no sockets, no futures, no words of
any wire), so that a node can one day live in a process of its own, and another engine (etcd, JetStream) can stand behind the same door.
The second is what the rooms tell each other through the supervisor's wiring. The third are snapshots: immutable views that an actor hands out
instead of letting anybody look into it. What is made for every record or entry is a slotted class or a tuple; the rest is frozen.
"""

from __future__ import annotations

from typing import IO, Any, Literal, NamedTuple

import attrs

Acks = Literal["quorum", "leader"]

# -- public: requests -------------------------------------------------------------------------------------------------------------


@attrs.define(slots=True)
class Publish:
    """Publish `data` on `topic` to every node. -> Published.

    topic: 1..255 bytes of UTF-8, any characters; topics are told apart exactly. data: up to `Config.max_payload` bytes.
    acks: "quorum" resolves when a quorum has it on disk; "leader" when the leader has (it can be lost with the leader).
    message_id: a retry with the same id within the dedupe window is not published again, and gets the first one's seq.
    timeout: seconds until the request fails with NoQuorum or Overloaded (not done) or Indeterminate (unknown); None: `Config.request_timeout`.
    Not frozen, since one is made for each record and a frozen one costs three times as much; nobody changes it.
    """

    topic: str
    data: bytes
    acks: Acks = "quorum"
    message_id: str | None = None
    headers: dict[str, str] | None = None
    timeout: float | None = None


@attrs.define(frozen=True)
class Write:
    """Run `handle_write(op, data)` on the leader. -> bytes. Raises HandlerFailed, NoQuorum, Indeterminate."""

    op: str
    data: bytes = b""
    timeout: float | None = None


@attrs.define(frozen=True)
class Read:
    """Run `handle_read(op, data)` on the leader, which has a valid lease when it answers. -> bytes."""

    op: str
    data: bytes = b""
    timeout: float | None = None


@attrs.define(frozen=True)
class Join:
    """Make the server `id` at Raft address `raft_addr` (host:port) a voter: it first catches up as a learner. Leader only. -> Joined."""

    id: str
    raft_addr: str
    timeout: float | None = None


@attrs.define(frozen=True)
class Leave:
    """Take the server `id` out of the quorum. Leader only. -> Left."""

    id: str
    timeout: float | None = None


@attrs.define(frozen=True)
class Status:
    """-> ClusterStatus. local=True: this node's own view without asking the leader."""

    local: bool = False
    timeout: float | None = None


@attrs.define(frozen=True)
class Subscribe:
    """Events of the cluster. -> EventStream (an iterator with close()), or, with `listener`, True: each event is told to that actor.
    capacity: how many events may wait for the listener before further ones are missed; at least 1. Raises InvalidRequest.
    replay: begin with what is so, as events marked `current`: `LeaderChanged` for the leader, `MemberJoin` for each member that is there; and the same again after
    events were missed. False: only what happens from now on."""

    listener: Any = None
    capacity: int = 1024
    replay: bool = True


@attrs.define(frozen=True)
class RegisterHandler:
    """Use the handler actor `ref` (a running `HandlerActor`) for writes, reads and deliveries; a second one replaces the first. -> True."""

    ref: Any


@attrs.define(frozen=True)
class TransferLeadership:
    """Hand leadership to `id`, or to the most advanced voter. Leader only. -> True when another leads."""

    id: str | None = None
    timeout: float | None = None


@attrs.define(frozen=True)
class DeadLetters:
    """-> LetterPage: the latest dead letters that this node's buffer holds, the latest first.

    topic: only those of records of this topic; None: all. limit: at most so many, 1 to 1000. before: only letters with a smaller number (`LetterPage.next` of
    the page before). Raises InvalidRequest.
    """

    topic: str | None = None
    limit: int = 100
    before: int | None = None
    timeout: float | None = None


@attrs.define(frozen=True)
class Requeue:
    """Publish the record of dead letter number `letter` to its topic once more. -> Published, with its new seq; the same one when it was requeued before.
    Every node's handler gets it, also where it had been handled. Raises InvalidRequest (no such letter), and what Publish raises."""

    letter: int
    timeout: float | None = None


@attrs.define(frozen=True)
class Here:
    """Between nodes: carry `message` out on this node or refuse it with NotLeader; another node has passed it on already."""

    message: Any


# -- public: replies --------------------------------------------------------------------------------------------------------------


@attrs.define(slots=True)
class Published:
    """`seq`: the record's place in its topic, from 1, the same on every node for ever (0 with acks="leader", where it is not known yet).
    `index`: the Raft log index of the entry that carries it."""

    topic: str
    seq: int
    index: int


@attrs.define(frozen=True)
class Joined:
    id: str
    raft_addr: str


@attrs.define(frozen=True)
class Left:
    id: str


@attrs.define(frozen=True)
class MemberStatus:
    """One row of the status. state: alive, suspect, failed, left or unknown (in the quorum, never seen in gossip); suffrage: voter, learner or none."""

    id: str
    addr: str
    meta: dict[str, str]
    state: str = "alive"
    suffrage: str = "none"
    raft_addr: str = ""
    match_index: int | None = None
    last_contact: float | None = None


@attrs.define(frozen=True)
class TopicStatus:
    """seq: last sequence number applied; delivered: last one this node's handler has had; retained_from: first one still in the buffer."""

    topic: str
    seq: int
    delivered: int
    retained_from: int = 1
    acked: dict[str, int] = attrs.field(factory=dict)


@attrs.define(frozen=True)
class RosterMember:
    """A member of the roster, which the log keeps for go-cluster's nodes: addr is its gossip address, meta its gossip metadata (None where a Go node wrote none)."""

    id: str
    addr: str
    meta: dict[str, str] | None = attrs.field(factory=dict)


@attrs.define(frozen=True)
class Failing:
    """A record on which the handler of `node` fails, and at which its topic stands there. attempts: how often it has raised, since the handler was
    registered; error: what it raised last; waiting: why the record, given up, is no dead letter yet ("": it is given to the handler again)."""

    node: str
    topic: str
    seq: int
    attempts: int
    error: str
    waiting: str = ""


@attrs.define(frozen=True)
class DeadLetter:
    """A record that a handler failed on too often.

    letter: its number, which is its seq in the dead-letter topic; time: when it was written, seconds since the epoch. topic, seq, index, published, data,
    headers: the record's own (published: when). node: whose handler failed; attempts: how often; reason: type and text of the last exception.
    """

    letter: int
    time: float
    topic: str
    seq: int
    index: int
    published: float
    node: str
    attempts: int
    reason: str
    data: bytes
    headers: dict[str, str] = attrs.field(factory=dict)


@attrs.define(frozen=True)
class LetterPage:
    """Some dead letters, the latest first. next: give it as `before` for older ones; None when there are none."""

    letters: tuple[DeadLetter, ...]
    next: int | None = None


@attrs.define(frozen=True)
class ClusterStatus:
    """The state of the cluster as `answered_by` sees it.

    healthy: there is a leader, and enough voters live for it to commit. What is wrong besides (a dead voter that the quorum can do without, a
    handler that fails, a member that nobody hears) stands in `warnings`. seeds: those of the node that was asked, also when the leader's view is given, and what
    became of the last attempt at each. failing: the records on which handlers fail, of `answered_by` and of the node that was
    asked; dead_letters: by the topic of their records, how many letters have come by since `answered_by` started.
    """

    healthy: bool
    term: int
    leader_id: str
    leader_addr: str
    members: tuple[MemberStatus, ...]
    warnings: tuple[str, ...] = ()
    answered_by: str = ""
    role: str = ""
    commit_index: int = 0
    applied_index: int = 0
    last_index: int = 0
    topics: tuple[TopicStatus, ...] = ()
    dropped: dict[str, int] = attrs.field(factory=dict)
    seeds: dict[str, str] = attrs.field(factory=dict)
    roster: tuple[RosterMember, ...] = ()
    failing: tuple[Failing, ...] = ()
    dead_letters: dict[str, int] = attrs.field(factory=dict)


class Condition(NamedTuple):
    """How a node is. state: starting, running, failed (it serves no more, and only a new start helps) or stopping. reason: of all but running."""

    state: str
    reason: str = ""


# -- public: events ---------------------------------------------------------------------------------------------------------------


@attrs.define(frozen=True)
class Event:
    """time: seconds since the epoch, when it happened; term: Raft term at that time, as this node knows it. current: it is no news but what is so now, told to a
    listener that came late or missed something."""

    time: float
    term: int
    current: bool = attrs.field(default=False, kw_only=True)


@attrs.define(frozen=True)
class LeaderChanged(Event):
    """Another leads, or the same in a later term; leader_id "" when none is known any more. leader_addr: its management address, "" while unknown."""

    leader_id: str = ""
    leader_addr: str = ""


@attrs.define(frozen=True)
class ElectionStart(Event):
    """The leader is lost, or this node campaigns, or another leadership was heard of. One `ElectionEnd` follows."""


@attrs.define(frozen=True)
class ElectionEnd(Event):
    """A leader is known. Rounds without a winner are no end."""

    leader_id: str = ""
    leader_addr: str = ""


@attrs.define(frozen=True)
class MemberEvent(Event):
    member_id: str = ""
    addr: str = ""


@attrs.define(frozen=True)
class MemberJoin(MemberEvent):
    """A member is there: new, or back."""


@attrs.define(frozen=True)
class MemberLeave(MemberEvent):
    """A member has said good-bye."""


@attrs.define(frozen=True)
class MemberFailed(MemberEvent):
    """A member is not heard any more, and did not say good-bye."""


@attrs.define(frozen=True)
class EventsMissed(Event):
    """At this place `count` events are missing: so many came while the listener's queue was full. What is so after them follows, marked `current`."""

    count: int = 0


@attrs.define(frozen=True)
class ReplicationGap(Event):
    """Records first_missing..last_missing of `topic` were trimmed before this node could have them; they will not be delivered here."""

    topic: str = ""
    first_missing: int = 0
    last_missing: int = 0


@attrs.define(frozen=True)
class DeadLettered(Event):
    """Record `seq` of `topic` is a dead letter now, number `letter` of the dead-letter topic: the handler of `node` failed on it for `reason`. On every node."""

    topic: str = ""
    seq: int = 0
    node: str = ""
    reason: str = ""
    letter: int = 0


@attrs.define(frozen=True)
class LeaderInfo:
    """What the callbacks of `Config` get. addr: the leader's management address, "" when unknown."""

    id: str
    addr: str
    term: int


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
    """Ask the publisher, who may take long. -> Snapshot: what the state machine is now, in the form that `peer` takes."""

    peer: str


@attrs.define(frozen=True)
class Snapshot:
    """The state machine as of the entry (index, term): `size` bytes in the file `content`, which stands at its beginning and is the taker's to close."""

    index: int
    term: int
    content: IO[bytes]
    size: int


@attrs.define(frozen=True)
class InstallSnapshot:
    """Ask the publisher: put the snapshot in `content`, which ends with the entry (index, term), in the place of the state machine, and keep `mark` beside it. ->
    True when that is on the disk; an InvalidRequest says what is wrong with the content. The publisher closes the file."""

    content: IO[bytes]
    index: int
    term: int
    mark: bytes


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
    """Ask the Raft actor. kind: "join" (learner, then voter when caught up), "leave". -> True, or a typed error."""

    kind: Literal["join", "leave"]
    id: str
    address: str = ""
    deadline: float = 0.0  # monotonic


@attrs.define(frozen=True)
class TakeOver:
    """Tell the Raft actor: campaign against `leader_id`, a node of go-cluster that leads while publishes wait here. Nothing happens where that would be in vain."""

    leader_id: str


@attrs.define(frozen=True)
class PeerView:
    id: str
    address: str
    suffrage: str
    match_index: int | None = None
    last_contact: float | None = None  # seconds ago
    state: str = ""


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
    counters: dict[str, int] = attrs.field(factory=dict)


@attrs.define(frozen=True)
class ConfirmLeadership:
    """Ask the Raft actor. -> True once a quorum has confirmed that this node still leads, after this was asked; NotLeader when it does not. So a leader that
    was deposed without knowing it (it stood still, or is cut off) answers nothing from its old state."""


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


@attrs.define(frozen=True)
class SetHandler:
    """Tell the delivery actor which handler actor is in force (None: none)."""

    ref: Any


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
