"""acks="all": a publish that is committed waits until every live member has delivered it.

    committed ──► AllAcks (at the node that published) ──question──► AckReports (at the leader, who hears all acknowledgements) ──answer──► settled

**Who is waited for**: the members that this node's gossip has for alive when it learns the record's place, but for nodes of go-cluster, which acknowledge
nothing. Who fails or leaves afterwards is let go; who comes later, or comes back, is not waited for. The node that published decides this alone, and the
leader only tells what it has heard: so a leader that is new, and has yet to hear of somebody, can let nobody go. **Delivered** is what the member
acknowledges (`delivery`): its handler has had the record, or it is a dead letter by now, or a gap; without a handler it is stored.

When the leader changes, everybody tells the new one how far it is, and this node asks that one. So a wait outlives the leader. It ends by the publish's
deadline, with `NotDelivered`, which says where the record stands and who is missing.

Acknowledgements are cumulative. So what is held of one topic for the same members is settled in the order of its places, and one question is out for all of
it: for the lowest place. A question for each publish lost, and so did a flag in the forwarded batch: its answer would come so late that a leader's death
would leave the publisher without the place.

Nothing here runs for other publishes but a test whether something is held.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Final, NamedTuple

from coterie.actors.errors import InvalidRequest, NotLeader, Overloaded
from coterie.actors.replication.answers import Place, not_delivered, settle
from coterie.actors.replication.messages import ForwardedBatch
from coterie.actors.replication.packing import Chunk
from coterie.proto.errors import WireError
from coterie.proto.forwarding import MAX_MEMBERS, decode_acked, decode_question, encode_acked, encode_question

PAUSE: Final = 0.05  # seconds after a question that came to nothing; and the shortest wait that is asked for
PATIENCE: Final = 1.0  # seconds until the leader says what it knows, so that the error can name who is missing
MOST_QUESTIONS: Final = 4096  # at a leader
ITSELF: Final = (
    ". It has not been delivered here either: a handler that waits for such a publish inside its own call waits for itself; there, publish with tell, or with "
    "acks='quorum'"
)

Acked = Callable[[str], Mapping[str, int]]  # what each member has acknowledged of a topic, as far as it was heard


class _Held(NamedTuple):
    seq: int
    number: int
    deadline: float
    chunk: Chunk
    place: Place


class _Group:
    """What is held of one topic for the same members, the lowest place first. asked, about, answer_by: the question that is out (0: none), its seq, and
    when the leader tells what it knows. trouble: why nobody has told how far the members are; "" when somebody has."""

    __slots__ = ("about", "acked", "answer_by", "ask_after", "asked", "began", "held", "members", "topic", "trouble")

    def __init__(self, topic: str, began: frozenset[str]) -> None:
        self.topic, self.began, self.members = topic, began, began
        self.held: list[_Held] = []
        self.acked: dict[str, int] = {}
        self.asked = self.about = 0
        self.answer_by = self.ask_after = 0.0
        self.trouble = "no leader has told who has it"

    def heard(self, acked: Mapping[str, int]) -> None:
        self.trouble = ""
        for member in self.members:
            self.acked[member] = max(self.acked.get(member, 0), acked.get(member, 0))

    def missing(self, seq: int) -> tuple[str, ...]:
        return tuple(sorted(member for member in self.members if self.acked.get(member, 0) < seq))


class AllAcks:
    """At the node that published. count(reason, n): counts answers that found nobody. most: records that may be held."""

    def __init__(self, node: str, count: Callable[[str, int], object], most: int) -> None:
        self._node, self._count, self._most = node, count, most
        self._live = frozenset({node})
        self._groups: dict[str, list[_Group]] = {}  # of each topic, the latest members last
        self._questions: dict[int, tuple[_Group, tuple[str, ...]]] = {}
        self._unasked: dict[_Group, None] = {}  # those without a question that is out
        self._number = 0
        self.records = 0

    def check_room(self) -> None:
        """Raises Overloaded."""
        if self.records >= self._most:
            raise Overloaded(
                f"{self.records} records published with acks='all' wait for members already; the bound is {self._most}: publish slower, or with "
                "acks='quorum', and look in the status for who is behind. It was not carried out"
            )

    def hold(self, chunk: Chunk, place: Place) -> None:
        """A chunk is committed."""
        if chunk.reply is None and all(reply is None for reply in chunk.replies):
            chunk.settled = True  # told, not asked
            return
        groups = self._groups.setdefault(place.topic, [])
        if not groups or groups[-1].began is not self._live:
            groups.append(_Group(place.topic, self._live))
            self._unasked[groups[-1]] = None
        group = groups[-1]
        self._number += 1
        chunk.records = []  # they are in the log; only their number is wanted
        heapq.heappush(group.held, _Held(place.last_seq, self._number, chunk.deadline, chunk, place))
        self.records += place.count
        if group.acked:
            self._settle([group])  # a repetition of a record that all are known to have
        if place.last_seq < group.about or chunk.deadline < group.answer_by:
            self._ask_again(
                group
            )  # a repetition of an earlier record, or one that waits for less long: the answer would come too late for it

    def set_live(self, live: frozenset[str]) -> None:
        """The live members that acknowledge."""
        if live == self._live:
            return
        self._live = live
        for group in self._all_groups():
            if not group.members <= live:
                group.members &= live
                self._ask_again(group)
        self._settle(self._all_groups())

    def look(self, acked: Acked, topics: Iterable[str] | None = None) -> None:
        """This node leads: `acked` is what it has heard; of these topics, or of all that something is held of."""
        for topic in list(self._groups) if topics is None else topics:
            groups = self._groups.get(topic)
            if groups:
                heard = acked(topic)
                for group in groups:
                    group.heard(heard)
                self._settle(groups)

    def ask(self, send: Callable[[bytes, float], int], now: float) -> None:
        """Another node leads: ask it. send(question, now): -> the number under which the answer comes, 0 when there is no way to the leader now."""
        for group in list(self._unasked):
            if now < group.ask_after:
                continue
            members = tuple(sorted(group.members))[:MAX_MEMBERS]
            remaining = min(held.deadline for held in group.held) - now
            wait = max(PAUSE, min(PATIENCE, remaining / 2))
            group.about, group.answer_by = group.held[0].seq, now + wait
            group.asked = send(encode_question(group.topic, group.about, members, wait), now)
            if not group.asked:
                return
            self._questions[group.asked] = group, members
            del self._unasked[group]

    def answered(self, number: int, payload: bytes | None, error: Exception | None, leader: str, now: float) -> bool:
        """An answer came over the link. -> whether it was to a question."""
        asked = self._questions.pop(number, None)
        if asked is None:
            return False
        group, members = asked
        if group.asked == number:
            self._ask_again(group)
        try:
            if error is not None:
                raise error
            group.heard(dict(zip(members, decode_acked(payload or b"", len(members)), strict=True)))
            self._settle([group])
        except InvalidRequest:
            self._give_up(group, f"the leader {leader} is of a version that cannot tell who has it")
        except Exception as failure:  # noqa: BLE001 - whatever it is, it is asked again until the deadline, whose error then tells it
            group.ask_after = now + PAUSE
            group.trouble = f"the leader {leader} did not tell who has it: {failure}"
        return True

    def link_lost(self) -> None:
        """What was asked over it has no answer any more."""
        self._questions.clear()
        for group in self._all_groups():
            self._ask_again(group)

    def expire(self, now: float) -> None:
        for group in self._all_groups():
            late = [held for held in group.held if held.deadline <= now]
            if late:
                group.held = [held for held in group.held if held.deadline > now]
                heapq.heapify(group.held)
                self._fail(
                    group,
                    late,
                    f"the deadline has passed; {group.trouble or 'a handler is slow, or fails on an earlier record'}",
                    not group.trouble,
                )
                self._tidy(group)

    def stop(self) -> None:
        for group in self._all_groups():
            self._give_up(group, "the node that published stopped meanwhile")

    def _ask_again(self, group: _Group) -> None:
        if group.held:
            group.asked = group.about = 0
            group.answer_by = 0.0
            self._unasked[group] = None

    def _give_up(self, group: _Group, why: str) -> None:
        held, group.held = group.held, []
        self._fail(group, held, why)
        self._tidy(group)

    def _fail(self, group: _Group, late: list[_Held], why: str, late_here: bool = False) -> None:
        """late_here: it is late at this node's own handler, too, where that is missing."""
        for held in late:
            missing = group.missing(held.seq)
            itself = late_here and self._node in missing
            not_delivered(held.chunk, held.place, missing, why + (ITSELF if itself else ""))
            self.records -= held.place.count

    def _settle(self, groups: Iterable[_Group]) -> None:
        for group in list(groups):
            least = min((group.acked.get(member, 0) for member in group.members), default=math.inf)
            while group.held and group.held[0].seq <= least:
                held = heapq.heappop(group.held)
                topic, index, seq, count, duplicates = held.place
                self.records -= count
                self._count("answers_lost", settle(held.chunk, topic, index, seq, count, duplicates))
            self._tidy(group)

    def _tidy(self, group: _Group) -> None:
        if not group.held:
            self._unasked.pop(group, None)
            groups = self._groups.get(group.topic, [])
            if group in groups:
                groups.remove(group)
            if not groups:
                self._groups.pop(group.topic, None)

    def _all_groups(self) -> list[_Group]:
        return [group for groups in self._groups.values() for group in groups]


class _Question(NamedTuple):
    seq: int
    members: tuple[str, ...]
    until: float
    message: ForwardedBatch


class AckReports:
    """At the leader: the questions of other nodes, until their answer. acked: as of `AllAcks.look`."""

    def __init__(self, acked: Acked) -> None:
        self._acked = acked
        self._open: dict[str, list[_Question]] = {}
        self.count = 0

    def asked(self, message: ForwardedBatch, refusal: NotLeader | None, now: float) -> None:
        """Garbage is answered with InvalidRequest. refusal: this node does not lead."""
        try:
            asked = decode_question(message.data)
        except WireError as error:
            message.reply(message.forward_id, None, InvalidRequest(str(error)))
            return
        if refusal is None and self.count < MOST_QUESTIONS:
            self._open.setdefault(asked.topic, []).append(_Question(asked.seq, asked.members, now + asked.wait, message))
            self.count += 1
            self.heard([asked.topic])
        else:
            full = Overloaded(f"{self.count} questions about acknowledgements are open; the bound is {MOST_QUESTIONS}: ask later")
            message.reply(message.forward_id, None, refusal or full)

    def heard(self, topics: Iterable[str]) -> None:
        """Acknowledgements of these topics have come."""
        for topic in topics:
            questions = self._open.get(topic)
            if questions:
                acked = self._acked(topic)
                self._close(topic, lambda q, acked=acked: all(acked.get(member, 0) >= q.seq for member in q.members))  # type: ignore[misc]

    def expire(self, now: float) -> None:
        """Who has waited long enough hears what is known."""
        for topic in list(self._open):
            self._close(topic, lambda question: question.until <= now)

    def refuse(self, error: NotLeader) -> None:
        """This node does not lead any more."""
        for questions in self._open.values():
            for question in questions:
                question.message.reply(question.message.forward_id, None, error)
        self._open.clear()
        self.count = 0

    def closed(self, session: Hashable) -> None:
        """Nobody hears the answers of this session any more."""
        for topic, questions in list(self._open.items()):
            self._keep(topic, [question for question in questions if question.message.session != session])

    def _close(self, topic: str, done: Callable[[_Question], bool]) -> None:
        acked, kept = self._acked(topic), []
        for question in self._open[topic]:
            if done(question):
                known = encode_acked([acked.get(member, 0) for member in question.members])
                question.message.reply(question.message.forward_id, known, None)
            else:
                kept.append(question)
        self._keep(topic, kept)

    def _keep(self, topic: str, kept: list[_Question]) -> None:
        self.count += len(kept) - len(self._open[topic])
        if kept:
            self._open[topic] = kept
        else:
            del self._open[topic]
