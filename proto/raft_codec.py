"""Raft's requests and answers as bytes, as hashicorp/raft's network transport has them.

A request is one byte that names the RPC and one map; an answer is one string (the error, empty when there is none) and one map. Nothing
carries a length or an id: `raft_stream` cuts the stream, and an answer belongs to the request that stands at its position. Keys stand in
byte order, the header's among the others; the deprecated Leader and Candidate repeat the address, as Go still fills them.

Of ours is one key, `CoterieConflict` in the answer to AppendEntries: [term, first index of that term]. Go skips keys it does not know.

Writing asks the type; reading goes by a table (RPC byte, schema, constructor), since every RPC skips what only another one knows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import itemgetter
from typing import Any, Final, NamedTuple

import msgpack

from coterie.proto.errors import WireError
from coterie.proto.gomsgpack import MALFORMED, Reader, Schema, pack, pack_fields, pack_map, pack_signed
from coterie.proto.raft_configuration import decode_configuration, encode_configuration
from coterie.proto.raft_entries import MAX_ENTRIES, columns, decode_entries, encode_entries, new_entry, usual_entry
from coterie.proto.raft_messages import (
    AppendRequest,
    AppendResponse,
    Entry,
    Header,
    PreVoteRequest,
    PreVoteResponse,
    Request,
    Response,
    RpcError,
    SnapshotRequest,
    SnapshotResponse,
    TimeoutNowRequest,
    TimeoutNowResponse,
    VoteRequest,
    VoteResponse,
)

__all__ = [
    "MAX_ENTRIES",
    "decode_configuration",
    "decode_entries",
    "decode_error",
    "decode_request",
    "decode_response",
    "empty_response",
    "encode_append",
    "encode_configuration",
    "encode_entries",
    "encode_request",
    "encode_response",
]

Fields = Mapping[bytes, Any]

SMALL: Final = 4096  # bytes; a message up to this size is read at one go when it is in the usual form


def encode_request(request: Request) -> bytes:
    """The RPC byte and the map. For a snapshot, the caller sends `size` raw bytes after it."""
    if isinstance(request, AppendRequest):
        entries = encode_entries(request.entries)
        return encode_append(request.header, request.term, request.prev_index, request.prev_term, request.commit, entries)
    if isinstance(request, SnapshotRequest):
        return _encode_snapshot(request)
    address = _raw(request.header.address)
    fields: dict[str, object] = {"Addr": address}
    if isinstance(request, VoteRequest):
        fields["Candidate"] = address
    fields["ID"] = _raw(request.header.id)
    if isinstance(request, VoteRequest | PreVoteRequest):
        fields |= {"LastLogIndex": request.last_index, "LastLogTerm": request.last_term}
    if isinstance(request, VoteRequest):
        fields["LeadershipTransfer"] = request.leadership_transfer
    fields["ProtocolVersion"] = request.header.version
    if isinstance(request, VoteRequest | PreVoteRequest):
        fields["Term"] = request.term
    return _RPC_BYTE[type(request)] + pack(fields)


def encode_append(header: Header, term: int, prev_index: int, prev_term: int, commit: int, entries: bytes) -> bytes:
    """AppendEntries around entries that are encoded already: a leader encodes a batch once and sends it to every follower."""
    address = _raw(header.address)
    before = pack_fields({"Addr": address})
    after = pack_fields(
        {
            "ID": _raw(header.id),
            "Leader": address,
            "LeaderCommitIndex": commit,
            "PrevLogEntry": prev_index,
            "PrevLogTerm": prev_term,
            "ProtocolVersion": header.version,
            "Term": term,
        }
    )
    return _RPC_BYTE[AppendRequest] + pack_map(before, b"\xa7Entries", entries, after, fields=9)


def _encode_snapshot(request: SnapshotRequest) -> bytes:
    address = _raw(request.header.address)
    before = {
        "Addr": address,
        "Configuration": request.configuration,
        "ConfigurationIndex": request.configuration_index,
        "ID": _raw(request.header.id),
        "LastLogIndex": request.last_index,
        "LastLogTerm": request.last_term,
        "Leader": address,
        "Peers": None if request.peers is None else pack(request.peers),
        "ProtocolVersion": request.header.version,
    }
    size = b"\xa4Size" + pack_signed(request.size)
    after = {"SnapshotVersion": request.snapshot_version, "Term": request.term}
    return _RPC_BYTE[SnapshotRequest] + pack_map(pack_fields(before), size, pack_fields(after), fields=12)


def encode_response(response: Response | RpcError) -> bytes:
    """The error string and the body. An error without a body is followed by nil: Go reads a missing one as a closed connection."""
    if isinstance(response, RpcError):
        return pack(response.error) + (b"\xc0" if response.body is None else _encode_body(response.body))
    return b"\xa0" + _encode_body(response)


def _encode_body(response: Response) -> bytes:
    fields: dict[str, object] = {"Addr": _raw(response.header.address)}
    if isinstance(response, AppendResponse) and response.conflict is not None:
        fields["CoterieConflict"] = response.conflict
    if isinstance(response, VoteResponse | PreVoteResponse):
        fields["Granted"] = response.granted
    fields["ID"] = _raw(response.header.id)
    if isinstance(response, AppendResponse):
        fields |= {"LastLog": response.last_index, "NoRetryBackoff": response.no_retry_backoff}
    if isinstance(response, VoteResponse):
        fields["Peers"] = None
    fields["ProtocolVersion"] = response.header.version
    if isinstance(response, AppendResponse | SnapshotResponse):
        fields["Success"] = response.success
    if not isinstance(response, TimeoutNowResponse):
        fields["Term"] = response.term
    return pack(fields)


def _raw(text: str) -> bytes | None:
    """A byte slice of Go, nil when empty: so it stands in the headers that Go leaves out."""
    return text.encode() or None


def decode_request(rpc: int, body: bytes) -> Request:
    """The request from its RPC byte and its map; nil reads as all zeros. Raises WireError."""
    if rpc == 0 and len(body) <= SMALL:
        usual = _usual_append_request(body)
        if usual is not None:
            return usual
    form = _REQUESTS.get(rpc)
    if form is None:
        raise WireError(f"RPC byte {rpc} is not known (0 to {max(_REQUESTS)} are)")
    fields = Reader(body, form.request.__name__).struct(form.schema)
    address = fields.get(b"Addr") or fields.get(b"Leader") or fields.get(b"Candidate") or ""
    return form.build(Header(fields.get(b"ID", ""), address, fields.get(b"ProtocolVersion", 0)), fields)


def decode_response(request: type[Request], body: bytes) -> Response | None:
    """The answer to a request of that type; None for nil. Raises WireError."""
    if request is AppendRequest and len(body) <= SMALL:
        usual = _usual_append_response(body)
        if usual is not None:
            return usual
    schema, build = _RESPONSES[request]
    reader = Reader(body, f"answer to {request.__name__}")
    if reader.is_nil(b""):
        return None
    fields = reader.struct(schema)
    return build(Header(fields.get(b"ID", ""), fields.get(b"Addr", ""), fields.get(b"ProtocolVersion", 0)), fields)


def _usual_append_request(body: bytes) -> AppendRequest | None:
    """A small request in just the form in which Go and we write it, read in one call; None for any other, which the patient way reads or refuses.

    What a lone commit waits for is this, twice: the patient way takes 20 µs, and four times that when its code is cold.
    """
    try:
        fields = msgpack.unpackb(body, raw=True)
        address, rows, name, leader, commit, prev, prev_term, version, term = _APPEND_REQUEST(fields)
        entries = None if rows is None else tuple(new_entry(columns(row)) for row in rows)
        deprecated = (leader or b"").decode()
        header = Header((name or b"").decode(), (address or b"").decode() or deprecated, version)
    except (KeyError, AttributeError, *MALFORMED):
        return None
    count = 0 if entries is None else len(entries)
    if (
        len(fields) != 9
        or body.count(b"AppendedAt") != count
        or body.count(b"AppendedAt\xaf\x01") != count
        or not all(type(number) is int and number >= 0 for number in (commit, prev, prev_term, version, term))
        or not all(usual_entry(entry) for entry in entries or ())
    ):
        return None
    return AppendRequest(header, term, prev, prev_term, commit, entries)


def _usual_append_response(body: bytes) -> AppendResponse | None:
    """The same for the answer."""
    try:
        fields = msgpack.unpackb(body, raw=True)
        address, name, last, no_backoff, version, success, term = _APPEND_RESPONSE(fields)
        header = Header((name or b"").decode(), (address or b"").decode(), version)
    except (KeyError, AttributeError, *MALFORMED):
        return None
    if (
        len(fields) != 7
        or not (type(no_backoff) is bool is type(success))
        or not all(type(number) is int and number >= 0 for number in (last, version, term))
    ):
        return None
    return AppendResponse(header, term, last, success, no_backoff)


_APPEND_REQUEST: Final = itemgetter(
    b"Addr", b"Entries", b"ID", b"Leader", b"LeaderCommitIndex", b"PrevLogEntry", b"PrevLogTerm", b"ProtocolVersion", b"Term"
)
_APPEND_RESPONSE: Final = itemgetter(b"Addr", b"ID", b"LastLog", b"NoRetryBackoff", b"ProtocolVersion", b"Success", b"Term")


def empty_response(request: type[Request]) -> Response:
    """What Go reads from a nil body: every field zero."""
    return _RESPONSES[request][1](Header("", "", 0), {})


def decode_error(data: bytes) -> str:
    """The error in front of an answer's body; shown to people only, so odd bytes are escaped rather than refused."""
    if data == b"\xa0":
        return ""
    return (Reader(data, "error of an answer").blob(b"") or b"").decode("utf-8", "backslashreplace")


def _append_request(header: Header, fields: Fields) -> AppendRequest:
    get = fields.get
    return AppendRequest(
        header, get(b"Term", 0), get(b"PrevLogEntry", 0), get(b"PrevLogTerm", 0), get(b"LeaderCommitIndex", 0), get(b"Entries")
    )


def _vote_request(header: Header, fields: Fields) -> VoteRequest:
    get = fields.get
    return VoteRequest(header, get(b"Term", 0), get(b"LastLogIndex", 0), get(b"LastLogTerm", 0), get(b"LeadershipTransfer", False))


def _pre_vote_request(header: Header, fields: Fields) -> PreVoteRequest:
    return PreVoteRequest(header, fields.get(b"Term", 0), fields.get(b"LastLogIndex", 0), fields.get(b"LastLogTerm", 0))


def _timeout_now_request(header: Header, _: Fields) -> TimeoutNowRequest:
    return TimeoutNowRequest(header)


def _snapshot_request(header: Header, fields: Fields) -> SnapshotRequest:
    get = fields.get
    if get(b"Size", 0) < 0:
        raise WireError(f"SnapshotRequest.Size: {get(b'Size')} is negative")
    return SnapshotRequest(
        header,
        get(b"Term", 0),
        get(b"LastLogIndex", 0),
        get(b"LastLogTerm", 0),
        get(b"Configuration") or b"",
        get(b"ConfigurationIndex", 0),
        get(b"Size", 0),
        _peers(get(b"Peers")),
        get(b"SnapshotVersion", 0),
    )


def _append_response(header: Header, fields: Fields) -> AppendResponse:
    get = fields.get
    return AppendResponse(
        header, get(b"Term", 0), get(b"LastLog", 0), get(b"Success", False), get(b"NoRetryBackoff", False), get(b"CoterieConflict")
    )


def _vote_response(header: Header, fields: Fields) -> VoteResponse:
    return VoteResponse(header, fields.get(b"Term", 0), fields.get(b"Granted", False))


def _pre_vote_response(header: Header, fields: Fields) -> PreVoteResponse:
    return PreVoteResponse(header, fields.get(b"Term", 0), fields.get(b"Granted", False))


def _timeout_now_response(header: Header, _: Fields) -> TimeoutNowResponse:
    return TimeoutNowResponse(header)


def _snapshot_response(header: Header, fields: Fields) -> SnapshotResponse:
    return SnapshotResponse(header, fields.get(b"Term", 0), fields.get(b"Success", False))


def _peers(packed: bytes | None) -> tuple[bytes, ...] | None:
    """The deprecated list of voters. Nobody reads it at protocol version 3, so one that is none is no reason to refuse the snapshot."""
    if packed is None:
        return None
    try:
        reader = Reader(packed, "SnapshotRequest.Peers")
        return tuple(reader.blob(b"") or b"" for _ in range(reader.array(b"")))
    except WireError:
        return None


def _entries(reader: Reader, name: bytes) -> tuple[Entry, ...] | None:
    return decode_entries(reader.segment(name))


def _conflict(reader: Reader, name: bytes) -> tuple[int, int] | None:
    """Only a hint: one that is malformed is worth as little as none."""
    hint = Reader(reader.segment(name), "CoterieConflict")
    try:
        return (hint.uint(name), hint.uint(name)) if hint.array(name) == 2 else None
    except WireError:
        return None


class _Form(NamedTuple):
    """How one RPC's request is read."""

    request: type[Request]
    schema: Schema
    build: Callable[[Header, Fields], Request]


_HEADER: Final[Schema] = {b"Addr": Reader.text, b"ID": Reader.text, b"ProtocolVersion": Reader.signed}
_TERM: Final[Schema] = {**_HEADER, b"Term": Reader.uint}
_LAST_LOG: Final[Schema] = {**_TERM, b"LastLogIndex": Reader.uint, b"LastLogTerm": Reader.uint}
_APPEND: Final[Schema] = {
    **_TERM,
    b"Entries": _entries,
    b"Leader": Reader.text,
    b"LeaderCommitIndex": Reader.uint,
    b"PrevLogEntry": Reader.uint,
    b"PrevLogTerm": Reader.uint,
}
_VOTE: Final[Schema] = {**_LAST_LOG, b"Candidate": Reader.text, b"LeadershipTransfer": Reader.boolean}
_SNAPSHOT: Final[Schema] = {
    **_LAST_LOG,
    b"Configuration": Reader.blob,
    b"ConfigurationIndex": Reader.uint,
    b"Leader": Reader.text,
    b"Peers": Reader.blob,
    b"Size": Reader.signed,
    b"SnapshotVersion": Reader.signed,
}
_REQUESTS: Final = {
    0: _Form(AppendRequest, _APPEND, _append_request),
    1: _Form(VoteRequest, _VOTE, _vote_request),
    2: _Form(SnapshotRequest, _SNAPSHOT, _snapshot_request),
    3: _Form(TimeoutNowRequest, _HEADER, _timeout_now_request),
    4: _Form(PreVoteRequest, _LAST_LOG, _pre_vote_request),
}
_RPC_BYTE: Final = {form.request: bytes((number,)) for number, form in _REQUESTS.items()}

_GRANTED: Final[Schema] = {**_TERM, b"Granted": Reader.boolean}
_APPENDED: Final[Schema] = {
    **_TERM,
    b"CoterieConflict": _conflict,
    b"LastLog": Reader.uint,
    b"NoRetryBackoff": Reader.boolean,
    b"Success": Reader.boolean,
}
_RESPONSES: Final[dict[type[Request], tuple[Schema, Callable[[Header, Fields], Response]]]] = {
    AppendRequest: (_APPENDED, _append_response),
    VoteRequest: (_GRANTED, _vote_response),
    SnapshotRequest: ({**_TERM, b"Success": Reader.boolean}, _snapshot_response),
    TimeoutNowRequest: (_HEADER, _timeout_now_response),
    PreVoteRequest: (_GRANTED, _pre_vote_response),
}
