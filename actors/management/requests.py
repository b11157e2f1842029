"""Requests and answers of the management API as JSON documents: the field names, what is valid, and the shape of every answer.

Pure: from a JSON value to a message of the front door, and from its reply to a JSON value. The names are those of go-cluster, to the letter; as its decoder does,
a field is also found under another case of its name, unknown fields are ignored, and `null` is the same as absent.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from coterie.actors.errors import CoterieError, InvalidRequest, NotDelivered, NotLeader
from coterie.actors.management.failures import as_ours, kind_of
from coterie.actors.messages import (
    Acks,
    Applied,
    Apply,
    ClusterStatus,
    Consistency,
    DeadLetter,
    DeadLetters,
    Failing,
    Join,
    Leave,
    LetterPage,
    MemberStatus,
    Publish,
    Published,
    Read,
    Requeue,
    RosterMember,
    TopicStatus,
    TransferLeadership,
    Write,
)
from coterie.transport.addresses import parse_address
from coterie.transport.errors import AddressError

__all__ = [
    "OPERATIONS",
    "Operation",
    "check_acks",
    "check_consistency",
    "check_id",
    "check_op",
    "check_raft_addr",
    "check_topic",
    "letters_document",
    "parse_letters",
    "parse_object",
    "parse_status",
    "refusal_document",
    "status_document",
]

MAX_ID: Final = 128
MAX_TOPIC: Final = 255
MAX_OP: Final = 1024

Document = dict[str, Any]


class Operation(NamedTuple):
    """One POST endpoint. parse: JSON object -> message, raises InvalidRequest; answer: reply -> document; refuse: error -> document."""

    parse: Callable[[Document], Any]
    answer: Callable[[Any], Document]
    refuse: Callable[[BaseException], Document]


def parse_object(body: bytes) -> Document:
    """The JSON object in `body`. Raises InvalidRequest with the reason."""
    try:
        document = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"bad request: the body is no JSON: {error}") from None
    if not isinstance(document, dict):
        raise InvalidRequest(f"bad request: the body is a JSON {_json_type(document)}; give an object")
    return document


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _json_type(value: object) -> str:
    if value is None:
        return "null"
    names: dict[type, str] = {bool: "boolean", int: "number", float: "number", str: "string", list: "array", dict: "object"}
    return names[type(value)]


def _text(document: Document, field: str) -> str:
    """The string in `field`, "" when there is none."""
    value = document.get(field)
    if value is None:
        value = next((v for key, v in document.items() if key.lower() == field.lower() and v is not None), "")
    if not isinstance(value, str):
        raise InvalidRequest(f"{field}={_shown(value)}: this is a JSON {_json_type(value)}; give a string")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(f"{field}={_shown(value)}: it holds half of a surrogate pair; give text") from None
    return value


def _whole(document: Document, field: str) -> int:
    value = document.get(field)
    if value.__class__ is not int:
        raise InvalidRequest(f"{field}={_shown(value)}: this is a JSON {_json_type(value)}; give a whole number")
    return int(value)


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "…"


def _data(document: Document) -> bytes:
    text = _text(document, "data")
    try:
        return base64.b64decode(text.replace("\n", "").replace("\r", ""), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest(f"data={_shown(text)}: this is no base64: {error}; give the standard alphabet with padding") from None


def check_id(text: str) -> str:
    """A node's id. Raises InvalidRequest."""
    if not text:
        raise InvalidRequest("id='': give the id of a node")
    if len(text.encode()) > MAX_ID or any(ord(c) < 32 or ord(c) == 127 for c in text):
        raise InvalidRequest(f"id={_shown(text)}: give at most {MAX_ID} bytes without control characters")
    return text


def _id_or_none(text: str) -> str | None:
    return check_id(text) if text else None


def check_raft_addr(text: str) -> str:
    """A Raft address that others can dial. Raises InvalidRequest."""
    try:
        address = parse_address(text)
    except AddressError as error:
        raise InvalidRequest(f"raftAddr: {error}") from None
    if address.everywhere or not address.port:
        raise InvalidRequest(f"raftAddr={_shown(text)}: give the host and port that the others dial, such as 10.0.0.2:9520")
    return text


def check_topic(text: str) -> str:
    """A topic's name, any characters. Raises InvalidRequest."""
    if not 1 <= len(text.encode()) <= MAX_TOPIC:
        raise InvalidRequest(f"topic={_shown(text)}: give 1 to {MAX_TOPIC} bytes of UTF-8")
    return text


def check_op(op: str) -> str:
    """The name of a write or a read, any characters. Raises InvalidRequest."""
    if len(op.encode()) > MAX_OP:
        raise InvalidRequest(f"op={_shown(op)}: give at most {MAX_OP} bytes")
    return op


def check_acks(acks: str) -> Acks:
    """What a publish waits for; "" is "quorum". Raises InvalidRequest."""
    known: dict[str, Acks] = {"": "quorum", "quorum": "quorum", "leader": "leader", "all": "all"}
    if acks not in known:
        raise InvalidRequest(f"acks={_shown(acks)}: give quorum, leader or all")
    return known[acks]


def check_consistency(consistency: str) -> Consistency | None:
    """Where a read is answered; "": by the leader's handler. Raises InvalidRequest."""
    known: dict[str, Consistency | None] = {"": None, "linearizable": "linearizable", "lease": "lease", "local": "local"}
    if consistency not in known:
        raise InvalidRequest(
            f"consistency={_shown(consistency)}: give linearizable, lease or local; or leave it out, and the leader's handler answers"
        )
    return known[consistency]


def _apply(document: Document) -> Apply:
    """Of POST /apply. What of session and number is wrong, the node itself says."""
    number = _whole(document, "number") if document.get("number") is not None else None
    return Apply(check_op(_text(document, "op")), _data(document), _text(document, "session") or None, number)


def _applied(applied: Applied) -> Document:
    return {"index": applied.index, "result": base64.b64encode(applied.result).decode()}


def _publish(document: Document) -> Publish:
    """Of POST /publish, which is ours: it takes all that a `Publish` has and answers the record's place; `/appsync`, go-cluster's, answers `{}`."""
    headers = document.get("headers") or {}
    if not isinstance(headers, dict) or not all(isinstance(value, str) for value in headers.values()):
        raise InvalidRequest(f"headers={_shown(headers)}: give an object of strings")
    return Publish(
        check_topic(_text(document, "topic")),
        _data(document),
        acks=check_acks(_text(document, "acks")),
        message_id=_text(document, "messageId") or None,
        headers=headers or None,
    )


def _read(document: Document) -> Read:
    return Read(check_op(_text(document, "op")), _data(document), consistency=check_consistency(_text(document, "consistency")))


# -- answers ------------------------------------------------------------------------------------------------------------------------


def refusal_document(error: BaseException) -> Document:
    """Of whatever was not carried out, or not as it was asked."""
    ours = as_ours(error)
    document: Document = {"error": str(ours), "kind": kind_of(ours)}
    if isinstance(ours, NotDelivered):  # it is published, and this is where
        document |= {"topic": ours.topic, "seq": ours.seq, "index": ours.index, "missing": list(ours.missing)}
    return document


def _not_accepted(error: BaseException) -> Document:
    ours: CoterieError = as_ours(error)
    if isinstance(ours, NotLeader):
        return {"accepted": False, "leader": ours.leader_addr, "error": "not leader"}
    return {"accepted": False, **refusal_document(ours)}


def _base64(data: bytes) -> Document:
    return {"data": base64.b64encode(data).decode()}


def _place(published: Published) -> Document:
    return {"topic": published.topic, "seq": published.seq, "index": published.index}


OPERATIONS: Final[dict[str, Operation]] = {
    "join": Operation(
        lambda d: Join(check_id(_text(d, "id")), check_raft_addr(_text(d, "raftAddr"))), lambda _: {"accepted": True}, _not_accepted
    ),
    "leave": Operation(lambda d: Leave(check_id(_text(d, "id"))), lambda _: {"accepted": True}, _not_accepted),
    "transfer": Operation(lambda d: TransferLeadership(_id_or_none(_text(d, "id"))), lambda _: {"accepted": True}, _not_accepted),
    "appwrite": Operation(lambda d: Write(check_op(_text(d, "op")), _data(d)), _base64, refusal_document),
    "appsync": Operation(lambda d: Publish(check_topic(_text(d, "topic")), _data(d)), lambda _: {}, refusal_document),
    "requeue": Operation(lambda d: Requeue(_whole(d, "letter")), _place, refusal_document),
    "publish": Operation(_publish, _place, refusal_document),
    "apply": Operation(_apply, _applied, refusal_document),
    "read": Operation(_read, _base64, refusal_document),
}


def status_document(status: ClusterStatus) -> Document:
    """The answer of GET /status. The first six keys are the contract; the others are ours."""
    return {
        "Healthy": status.healthy,
        "Term": status.term,
        "LeaderID": status.leader_id,
        "LeaderAddr": status.leader_addr,
        "Members": [_member(m) for m in status.members],
        "Warnings": list(status.warnings) or None,
        "AnsweredBy": status.answered_by,
        "Role": status.role,
        "CommitIndex": status.commit_index,
        "AppliedIndex": status.applied_index,
        "LastIndex": status.last_index,
        "Topics": [
            {"Topic": t.topic, "Seq": t.seq, "Delivered": t.delivered, "RetainedFrom": t.retained_from, "Acked": t.acked}
            for t in status.topics
        ],
        "TopicsLeftOut": status.topics_left_out,
        "Dropped": status.dropped,
        "Seeds": status.seeds,
        "Roster": [{"ID": m.id, "Addr": m.addr, "Meta": m.meta} for m in status.roster],
        "Failing": [
            {"Node": f.node, "Topic": f.topic, "Seq": f.seq, "Attempts": f.attempts, "Error": f.error, "Waiting": f.waiting}
            for f in status.failing
        ],
        "DeadLetters": status.dead_letters,
    }


def _member(member: MemberStatus) -> Document:
    return {
        "ID": member.id,
        "Addr": member.addr,
        "Meta": member.meta,
        "State": member.state,
        "Suffrage": member.suffrage,
        "RaftAddr": member.raft_addr,
        "MatchIndex": member.match_index,
        "LastContact": member.last_contact,
    }


def parse_letters(query: Mapping[str, str]) -> DeadLetters:
    """The question in a query string: topic, limit, before. Raises InvalidRequest."""
    numbers: dict[str, int] = {}
    for field in ("limit", "before"):
        text = query.get(field, "")
        if text:
            if not (text.isascii() and text.isdigit() and len(text) < 20):
                raise InvalidRequest(f"{field}={_shown(text)}: give a whole number")
            numbers[field] = int(text)
    topic = query.get("topic") or None
    return DeadLetters(check_topic(topic) if topic is not None else None, **numbers)


def letters_document(page: LetterPage) -> Document:
    """The answer of GET /dead-letters."""
    return {"letters": [_letter(letter) for letter in page.letters], "next": page.next}


def _letter(letter: DeadLetter) -> Document:
    return {
        "letter": letter.letter,
        "time": letter.time,
        "topic": letter.topic,
        "seq": letter.seq,
        "index": letter.index,
        "published": letter.published,
        "node": letter.node,
        "attempts": letter.attempts,
        "reason": letter.reason,
        "headers": letter.headers,
        **_base64(letter.data),
    }


def parse_status(document: Document) -> ClusterStatus:
    """The status in such a document, also in one of go-cluster, which has the first six keys only. Raises InvalidRequest."""
    try:
        return ClusterStatus(
            healthy=bool(document["Healthy"]),
            term=int(document["Term"]),
            leader_id=str(document["LeaderID"]),
            leader_addr=str(document["LeaderAddr"]),
            members=tuple(_parse_member(m) for m in document["Members"] or ()),
            warnings=tuple(str(w) for w in document["Warnings"] or ()),
            answered_by=str(document.get("AnsweredBy", "")),
            role=str(document.get("Role", "")),
            commit_index=int(document.get("CommitIndex", 0)),
            applied_index=int(document.get("AppliedIndex", 0)),
            last_index=int(document.get("LastIndex", 0)),
            topics=tuple(
                TopicStatus(t["Topic"], t["Seq"], t["Delivered"], t["RetainedFrom"], dict(t["Acked"])) for t in document.get("Topics") or ()
            ),
            topics_left_out=int(document.get("TopicsLeftOut", 0)),
            dropped=dict(document.get("Dropped") or {}),
            seeds=dict(document.get("Seeds") or {}),
            roster=tuple(RosterMember(m["ID"], m["Addr"], m["Meta"]) for m in document.get("Roster") or ()),
            failing=tuple(
                Failing(f["Node"], f["Topic"], f["Seq"], f["Attempts"], f["Error"], f.get("Waiting", ""))
                for f in document.get("Failing") or ()
            ),
            dead_letters=dict(document.get("DeadLetters") or {}),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidRequest(
            f"the answer is no status: {type(error).__name__}: {error}; is a node of the cluster at that address?"
        ) from None


def _parse_member(row: Document) -> MemberStatus:
    return MemberStatus(
        id=str(row["ID"]),
        addr=str(row["Addr"]),
        meta=dict(row.get("Meta") or {}),
        state=str(row.get("State", "alive")),
        suffrage=str(row.get("Suffrage", "none")),
        raft_addr=str(row.get("RaftAddr", "")),
        match_index=row.get("MatchIndex"),
        last_contact=row.get("LastContact"),
    )
