"""The words of the front door: what a user sends to the `ClusterSupervisor`, what comes back, and what is told of the cluster.

Frozen attrs classes (slotted where one is made for each record), data alone: no sockets, no futures, no words of any wire. So a node can one day live in a process
of its own, and another engine (etcd, JetStream) can stand behind the same door. What the rooms tell each other is in `room_messages`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import attrs

Acks = Literal["quorum", "leader", "all"]
Consistency = Literal["linearizable", "lease", "local"]


def _listed(data: Any) -> Any:
    """The caller's list may change later. What is no list of records is left for the publisher to refuse."""
    return list(data) if isinstance(data, Iterable) and not isinstance(data, (bytes, bytearray, memoryview, str)) else data


# -- public: requests -------------------------------------------------------------------------------------------------------------


@attrs.define(slots=True)
class Publish:
    """Publish `data` on `topic` to every node. -> Published.

    topic: 1..255 bytes of UTF-8, any characters; topics are told apart exactly. data: up to `Config.max_payload` bytes.
    acks: "quorum" resolves when a quorum has it on disk; "leader" when the leader has (it can be lost with the leader); "all" when a quorum has it and every
    live member has delivered it besides: its handler has had it (or it is a dead letter there), or it is stored where there is no handler. Live is who gossip has
    for alive when the record has its place, without nodes of go-cluster; who fails meanwhile is waited for no more, who comes later is not. See `NotDelivered`.
    message_id: a retry with the same id within the dedupe window is not published again, and gets the first one's seq.
    timeout: seconds until the request fails with NoQuorum or Overloaded (not done), Indeterminate (unknown) or NotDelivered (done, but not delivered by all as
    "all" demands); None: `Config.request_timeout`. A handler that waits with "all" inside its own call waits for itself, until then.
    Not frozen, since one is made for each record and a frozen one costs three times as much; nobody changes it.
    """

    topic: str
    data: bytes
    acks: Acks = "quorum"
    message_id: str | None = None
    headers: dict[str, str] | None = None
    timeout: float | None = None


@attrs.define(slots=True)
class Apply:
    """Run `handle_apply(index, op, data)` on every node's handler, in log order. -> Applied, with what the handler of the node that was asked returned.

    op: 1..255 bytes of UTF-8. data: up to `Config.max_payload` bytes. session, number: a client's name for itself, unique for ever (1..255 bytes of UTF-8),
    and which of its commands this is, counted from 1: a retry with the same two is not applied again, and gets the first one's result. timeout: as in `Publish`.
    Raises HandlerFailed (`handle_apply` raised: it counts as applied), NoQuorum, Overloaded (not applied), Indeterminate (unknown), SessionExpired, AlreadyApplied.
    """

    op: str
    data: bytes = b""
    session: str | None = None
    number: int | None = None
    timeout: float | None = None


@attrs.define(slots=True)
class PublishMany:
    """Publish the records `data` on `topic`, all of them or none: they stand in one entry of the log, side by side and in this order. -> PublishedMany.

    data: 1 to 65,536 records, each up to `Config.max_payload` bytes, together up to 1 MiB (or `max_payload`, where that is more). They are copied when the message
    is made. topic, acks, timeout: as in `Publish`. A record has no message id here: a retry after Indeterminate may publish all of them a second time.
    Raises InvalidRequest and PayloadTooLarge, too, for all of them at once.
    trace: for the node itself, which puts it into the first record's headers where somebody traces.
    """

    topic: str
    data: Sequence[bytes] = attrs.field(converter=_listed)
    acks: Acks = "quorum"
    timeout: float | None = None
    trace: dict[str, str] | None = None


@attrs.define(frozen=True)
class Write:
    """Run `handle_write(op, data)` on the leader. -> bytes. Raises HandlerFailed, NoQuorum, Indeterminate."""

    op: str
    data: bytes = b""
    timeout: float | None = None


@attrs.define(frozen=True)
class Read:
    """Run `handle_read(op, data)`. -> bytes. Raises InvalidRequest, HandlerFailed, NoQuorum, Overloaded.

    consistency: None: on the leader, whose leadership a quorum has confirmed after the read came. On this node itself, whichever it is: "linearizable": its
    handler has had every command that was acknowledged anywhere before the read was asked; "lease": the same, but the leader's clock vouches for its leadership
    while its lease lasts; "local": at once, from whatever this node's handler has, which may be old.
    """

    op: str
    data: bytes = b""
    timeout: float | None = None
    consistency: Consistency | None = None


@attrs.define(frozen=True)
class Join:
    """Make the server `id` at Raft address `raft_addr` (host:port) a voter: it first catches up as a learner. Leader only. -> Joined.
    Raises NotLeader, AlreadyMember, Unreachable, InvalidRequest, NoQuorum."""

    id: str
    raft_addr: str
    timeout: float | None = None


@attrs.define(frozen=True)
class Leave:
    """Take the server `id` out of the quorum. Leader only; if it is the leader itself, it hands leadership over first, and the new leader takes it out. -> Left."""

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
    """Hand leadership to the voter `id`, or to the one that has most of the log. Leader only. -> True when another leads, or `id` leads already. Raises NotLeader,
    UnknownMember (no voter beside the leader has that id), Unreachable (it did not take over; this node leads on)."""

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


@attrs.define(slots=True)
class Applied:
    """A command was applied. index: its place among all commands of the cluster, from 1 without a hole, the same on every node for ever; result: what
    `handle_apply` returned, b"" for None."""

    index: int
    result: bytes


@attrs.define(slots=True)
class PublishedMany:
    """The records have the places first_seq to last_seq of their topic, without another between them (first_seq is 0 with acks="leader", where it is not known
    yet). `index`: the Raft log index of the entry that carries them."""

    topic: str
    first_seq: int
    count: int
    index: int

    @property
    def last_seq(self) -> int:
        """The place of the last record; 0 where it is not known yet."""
        return self.first_seq + self.count - 1 if self.first_seq else 0


@attrs.define(frozen=True)
class Joined:
    """The server `id` is a voter at `raft_addr` (host:port)."""

    id: str
    raft_addr: str


@attrs.define(frozen=True)
class Left:
    """The server `id` is in the quorum no more."""

    id: str


@attrs.define(frozen=True)
class MemberStatus:
    """One row of the status. state: alive, suspect, failed, left or unknown (in the quorum, never seen in gossip); suffrage: voter, learner or none.
    addr: gossip address; meta: what it says of itself in gossip; raft_addr: its address in the quorum. match_index, last_contact (seconds ago): how much of the log
    the leader knows it to have, and when it last answered; None where that is not known."""

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
    """seq: last sequence number applied; delivered: last one this node's handler has had; retained_from: first one still in the buffer.
    acked: of a leader's view: by node id, the last one that each member has delivered."""

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
    topics: the first 10,000 by name; topics_left_out: how many there are beyond them.
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
    topics_left_out: int = 0
    dropped: dict[str, int] = attrs.field(factory=dict)
    seeds: dict[str, str] = attrs.field(factory=dict)
    roster: tuple[RosterMember, ...] = ()
    failing: tuple[Failing, ...] = ()
    dead_letters: dict[str, int] = attrs.field(factory=dict)


class Condition(NamedTuple):
    """How a node is. state: starting, running, stalled (its disk does not answer), waiting (for a state that its leader cannot
    tell), failed (it serves no more, and only a new start helps) or stopping. reason: of all but running."""

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
    """Something about the member `member_id`, whose gossip address is `addr`."""

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
    """Records first_missing..last_missing of `topic` were trimmed before this node could have them; they will not be delivered here.

    With `topic` "": what the entries first_index..last_index of the Raft log held, of whatever topic, is not known here and has no numbers: a Go leader had
    compacted them, its snapshot tells only the roster, and there was no other node of ours to tell the rest. Both are 0 otherwise."""

    topic: str = ""
    first_missing: int = 0
    last_missing: int = 0
    first_index: int = 0
    last_index: int = 0


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
