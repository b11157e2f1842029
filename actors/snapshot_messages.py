"""What the rooms tell each other about snapshots: of the state machine, of a roster that tells no more, and of what other nodes know beside it.

As in `room_messages`: data alone. A `content` is an open file that stands at its beginning; who gets it closes it.
"""

from __future__ import annotations

from typing import IO, NamedTuple

import attrs


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


@attrs.define(frozen=True)
class MakeDurable:
    """Ask the publisher. -> the index up to which the state machine is sure to survive a failure of power."""


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
