"""What Raft servers say to each other: the RPCs of hashicorp/raft's network transport, protocol version 3.

These are plain values; `raft_codec` turns them into bytes and back. Field names are Raft's own (the Raft paper, figure 2); where
hashicorp's wire uses another name, the codec knows it. An RPC carries no id on the wire: an answer belongs to its connection and its
position there, so whoever sends a request keeps beside it what the answer will need.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import attrs

PROTOCOL_VERSION: Final = 3

# Kinds of log entry (hashicorp/raft `LogType`).
COMMAND: Final = 0
NOOP: Final = 1
ADD_PEER_DEPRECATED: Final = 2
REMOVE_PEER_DEPRECATED: Final = 3
BARRIER: Final = 4
CONFIGURATION: Final = 5

# A server's part in the quorum (hashicorp/raft `ServerSuffrage`).
VOTER: Final = 0
NONVOTER: Final = 1
STAGING: Final = 2


class Entry(NamedTuple):
    """One entry of the log. A tuple, since one is made for every command.

    `data` and `extensions` are None where Go has a nil slice. `appended_at` is the leader's clock as Go's `time.MarshalBinary`
    gives it (15 or 16 bytes), or b"" for none: it is carried, never interpreted.
    """

    index: int  # type: ignore[assignment]  # the field is the log index; tuple.index() is never wanted here
    term: int
    kind: int
    data: bytes | None
    extensions: bytes | None = None
    appended_at: bytes = b""


class Server(NamedTuple):
    """One server of a configuration. `address` is its Raft address, `host:port`."""

    id: str
    address: str
    suffrage: int = VOTER


@attrs.define(frozen=True)
class Configuration:
    """The servers of the cluster, in the order of the configuration entry. It is asked many times for each entry, and made once."""

    servers: tuple[Server, ...] = ()
    _voters: tuple[Server, ...] = attrs.field(init=False, eq=False, repr=False)
    _by_id: dict[str, Server] = attrs.field(init=False, eq=False, repr=False)

    @_voters.default
    def _find_voters(self) -> tuple[Server, ...]:
        return tuple(server for server in self.servers if server.suffrage == VOTER)

    @_by_id.default
    def _index(self) -> dict[str, Server]:
        return {server.id: server for server in reversed(self.servers)}

    def voters(self) -> tuple[Server, ...]:
        return self._voters

    def get(self, server_id: str) -> Server | None:
        return self._by_id.get(server_id)

    def is_voter(self, server_id: str) -> bool:
        server = self._by_id.get(server_id)
        return server is not None and server.suffrage == VOTER


@attrs.define(frozen=True)
class Header:
    """Who speaks: protocol version, server id and advertised Raft address (all empty in some of Go's answers)."""

    id: str = ""
    address: str = ""
    version: int = PROTOCOL_VERSION


@attrs.define(frozen=True)
class AppendRequest:
    """AppendEntries (Raft paper, 5.3). `entries` may be None: a heartbeat in Go's fast path sends nil."""

    header: Header
    term: int
    prev_index: int
    prev_term: int
    commit: int
    entries: tuple[Entry, ...] | None


@attrs.define(frozen=True)
class AppendResponse:
    """Answer to AppendRequest.

    last_index: on success, Go's follower gives its last index *before* this request; on a mismatch, its last index now.
    conflict: ours alone, (term, first index of that term) of the entry that stands at prev_index; None from a Go follower.
    """

    header: Header
    term: int
    last_index: int
    success: bool
    no_retry_backoff: bool = False
    conflict: tuple[int, int] | None = None


@attrs.define(frozen=True)
class VoteRequest:
    header: Header
    term: int
    last_index: int
    last_term: int
    leadership_transfer: bool = False


@attrs.define(frozen=True)
class VoteResponse:
    header: Header
    term: int
    granted: bool


@attrs.define(frozen=True)
class PreVoteRequest:
    """`term` is the term the sender would campaign in: its own plus one."""

    header: Header
    term: int
    last_index: int
    last_term: int


@attrs.define(frozen=True)
class PreVoteResponse:
    header: Header
    term: int
    granted: bool


@attrs.define(frozen=True)
class TimeoutNowRequest:
    header: Header


@attrs.define(frozen=True)
class TimeoutNowResponse:
    header: Header


# What follows an InstallSnapshot, by its SnapshotVersion. hashicorp/raft takes 0 and 1, and refuses any other before it reads or stores a byte. (A content that its
# state machine cannot read it would store all the same, and not start with any more.)
GO_SNAPSHOT: Final = 1
OWN_SNAPSHOT: Final = 100
OTHER_FORM: Final = "unsupported snapshot version"  # how hashicorp/raft begins that refusal, and we


@attrs.define(frozen=True)
class SnapshotRequest:
    """InstallSnapshot: after it `size` raw bytes follow on the connection."""

    header: Header
    term: int
    last_index: int
    last_term: int
    configuration: bytes
    configuration_index: int
    size: int
    peers: tuple[bytes, ...] | None = None
    snapshot_version: int = GO_SNAPSHOT


@attrs.define(frozen=True)
class SnapshotResponse:
    header: Header
    term: int
    success: bool


@attrs.define(frozen=True)
class RpcError:
    """An answer whose error string is not empty. `body` is the decoded answer beside it, None where Go sent nil."""

    error: str
    body: Response | None = None


Request = AppendRequest | VoteRequest | PreVoteRequest | TimeoutNowRequest | SnapshotRequest
Response = AppendResponse | VoteResponse | PreVoteResponse | TimeoutNowResponse | SnapshotResponse


def answerer(message: Response | RpcError) -> str:
    """The id of the server that gave this answer; "" where it does not say: some answers of Go have an empty header, and before hashicorp/raft 1.5 all have."""
    body = message.body if message.__class__ is RpcError else message
    return body.header.id if body is not None else ""  # type: ignore[union-attr]
