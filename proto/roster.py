"""The roster commands of go-cluster: what its nodes write into the Raft log about who belongs to the cluster, and the document that is their snapshot.

    entry     {"Op":"AddNode","Payload":P}             P is base64 (standard, padded) of the bytes of one more JSON object, since Go writes []byte so:
              AddNode     {"ID":"n1","Addr":"10.0.0.1:7946","Meta":{"mgmt":"10.0.0.1:17946"}}
              RemoveNode  {"id":"n1"}
    document  {"version":1,"members":[member, …]}      sorted by the bytes of the ids; a member as in AddNode

What is written here are the very bytes that Go's encoding/json makes of them. Read is what Go's decoder takes of what a Go node would ever write: keys in any
case, further keys, `null` as absent, the last of a repeated key; and beyond that a Payload that is the object itself, as a node with json.RawMessage would
write it. Not taken, though Go takes it: bytes that are no UTF-8, a Payload as an array of numbers, and what is above the bounds.

Whether an entry changes the roster must be decided alike on every node and by every later version: the verdict rests on the bytes alone. So the bounds
are part of the format, and nothing here asks for the interpreter's own limits (of nesting, of digits).
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, NamedTuple

from coterie.proto.errors import WireError

MAX_BYTES: Final = 65_536  # of one entry; a Go node's metadata has at most 512
MAX_DEPTH: Final = 32  # of nested objects and arrays
VERSION: Final = 1  # of the document

_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*+"?', re.DOTALL)  # one pass, also over a string without an end
_BASE64: Final = re.compile("(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_ESCAPED: Final = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}  # what Go escapes beyond JSON's own


class RosterRow(NamedTuple):
    """A member of the roster. addr: its gossip address; meta: its gossip metadata, None where Go has a nil map."""

    id: str
    addr: str
    meta: Mapping[str, str] | None

    @classmethod
    def told(cls, member_id: str, addr: str, meta: Mapping[str, str]) -> RosterRow:
        """From what gossip tells: it reads back from an entry as it is here."""
        return cls(_whole(member_id), _whole(addr), {_whole(key): _whole(value) for key, value in meta.items()})


class RosterCommand(NamedTuple):
    """op "add" puts `row` in, in the place of one with its id; "remove" takes the one with its id out (then addr and meta say nothing)."""

    op: Literal["add", "remove"]
    row: RosterRow


def removal(member_id: str) -> RosterCommand:
    return RosterCommand("remove", RosterRow(member_id, "", None))


class UnknownOp(WireError):
    """A well-formed command of an Op that this version does not know: of a later go-cluster, perhaps."""


def decode_command(data: bytes) -> RosterCommand:
    """The command in an entry's data. WireError when it is not exactly one, UnknownOp when it is one of another kind: either is skipped by every node."""
    command = _parse(data, "roster command")
    op, payload = _text(command, "Op"), _get(command, "Payload")
    if op not in ("AddNode", "RemoveNode"):
        raise UnknownOp(f"roster command: Op {op!r:.80}; this version knows AddNode and RemoveNode")
    body = _parse(_debased(payload), f"payload of {op}") if payload.__class__ is str else payload
    if body.__class__ is not _Object:
        raise WireError(f"payload of {op}: no JSON object")
    if op == "RemoveNode":
        return removal(_id(body))
    return RosterCommand("add", _member(body))


def encode_command(command: RosterCommand) -> bytes:
    """The data of its entry, byte by byte as a Go node writes it."""
    if command.op == "add":
        op, payload = "AddNode", _go_json(_as_go(command.row))
    else:
        op, payload = "RemoveNode", _go_json({"id": command.row.id})
    return _go_json({"Op": op, "Payload": base64.b64encode(payload).decode()})


def encode_document(members: Iterable[RosterRow]) -> bytes:
    """The snapshot of a roster, byte by byte as a Go node writes it."""
    return _go_json({"version": VERSION, "members": [_as_go(member) for member in in_order(members)]})


def in_order(members: Iterable[RosterRow]) -> list[RosterRow]:
    """By the bytes of the ids, as Go sorts them."""
    return sorted(members, key=lambda member: member.id.encode())


def decode_document(data: bytes) -> list[RosterRow]:
    """The members in such a document. WireError when it is not one of version 1."""
    document = _parse(data, "roster document", bounded=False)
    if _get(document, "version") != VERSION:
        raise WireError(f"roster document: not of version {VERSION}")
    members = _get(document, "members")
    if members is None:
        return []
    if members.__class__ is not list or not all(member.__class__ is _Object for member in members):
        raise WireError("roster document: members is no array of objects")
    return [_member(member) for member in members]


# -- reading ------------------------------------------------------------------------------------------------------------------------


class _Object(list[tuple[str, Any]]):
    """A JSON object as its pairs in their order: keys may repeat, and differ by case alone."""


def _parse(data: bytes, what: str, bounded: bool = True) -> _Object:
    if bounded and len(data) > MAX_BYTES:
        raise WireError(f"{what}: {len(data)} bytes, above {MAX_BYTES}")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise WireError(f"{what}: {error}") from None
    depth = 0
    for bracket in _STRING.sub("", text):
        depth += (bracket in "[{") - (bracket in "]}")
        if depth > MAX_DEPTH:
            raise WireError(f"{what}: nested deeper than {MAX_DEPTH}")
    try:
        value = json.loads(text, object_pairs_hook=_Object, parse_int=_number, parse_float=_number, parse_constant=_no_constant)
    except ValueError as error:
        raise WireError(f"{what}: {error}") from None
    if value.__class__ is not _Object:
        raise WireError(f"{what}: no JSON object")
    return value


def _number(digits: str) -> int:
    """The one number that is ever looked at is the document's version."""
    return VERSION if digits == str(VERSION) else 0


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _get(pairs: _Object, name: str) -> Any:
    """The value of the last key that is `name` in any case, as Go takes it; `null` leaves what an earlier one said."""
    found = None
    for key, value in pairs:
        if value is not None and key.lower() == name.lower():
            found = value
    return found


def _text(pairs: _Object, name: str) -> str:
    value = _get(pairs, name)
    if value is None:
        return ""
    if value.__class__ is not str:
        raise WireError(f"roster command: {name} is no string")
    return _whole(value)


def _whole(text: str) -> str:
    """Half of a surrogate pair is what Go makes of it."""
    return _SURROGATE.sub("\ufffd", text)


def _id(body: _Object) -> str:
    found = _text(body, "ID")
    if not found:
        raise WireError("roster command: an empty ID")
    return found


def _member(body: _Object) -> RosterRow:
    meta = _get(body, "Meta")
    if meta is not None and (meta.__class__ is not _Object or not all(value.__class__ is str or value is None for _, value in meta)):
        raise WireError("roster command: Meta is no object of strings")
    told = None if meta is None else {_whole(key): _whole(value or "") for key, value in meta}
    return RosterRow(_id(body), _text(body, "Addr"), told)


def _debased(text: str) -> bytes:
    text = text.replace("\n", "").replace("\r", "")
    if not _BASE64.fullmatch(text):
        raise WireError("roster command: its Payload is no base64")
    return base64.b64decode(text)


# -- writing ------------------------------------------------------------------------------------------------------------------------


def _as_go(member: RosterRow) -> dict[str, Any]:
    meta = member.meta
    ordered = None if meta is None else {key: meta[key] for key in sorted(meta, key=str.encode)}
    return {"ID": member.id, "Addr": member.addr, "Meta": ordered}


def _go_json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).translate(_ESCAPED).encode()
