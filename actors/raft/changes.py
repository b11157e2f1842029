"""Changes of the quorum that take more than one step, as small pure machines beside the core.

A join is: ask the server at the address who it is (so that a wrong address or a wrong id never gets a vote) → learner → caught up → voter. Only the last step
changes what a quorum is, and it is taken when the newcomer has what the others have: a cluster of one that takes in a server which is
dead or empty would otherwise stop until it is well. A leave is one step. Each step waits until the core takes it (one change at a time, an entry of the
leader's own term first), until the deadline.

`advance` is called after every step of the core and answers None (goes on), or the outcome: True, or the error that the asker gets.
"""

from __future__ import annotations

import enum
from typing import Any, Protocol

from coterie.actors.errors import AlreadyMember, CoterieError, Indeterminate, NoQuorum, NotLeader, UnknownMember
from coterie.actors.raft import refusals
from coterie.actors.raft.membership import AddNonvoter, AddVoter, RemoveServer
from coterie.proto.raft_messages import Configuration, Header

Outcome = CoterieError | bool | None
CAUGHT_UP: int = 64  # a learner this few entries behind the leader's last one may vote


class CoreView(Protocol):
    """What a change needs of the core."""

    @property
    def commit(self) -> int: ...
    @property
    def last_index(self) -> int: ...
    @property
    def configuration(self) -> Configuration: ...
    @property
    def configuration_index(self) -> int: ...

    def change(self, change: Any, context: object, now: float) -> int: ...
    def progress(self) -> tuple[Any, ...]: ...


class _Stage(enum.Enum):
    IDENTIFY = "its identity is asked for"
    LEARN = "it becomes a learner"
    CATCH_UP = "it catches up as a learner"
    PROMOTE = "it becomes a voter"
    REMOVE = "its removal is proposed"
    COMMIT = "the change is committed"


class QuorumChange:
    """One join or leave under way. `reply` is whoever asked."""

    def __init__(self, kind: str, server_id: str, address: str, deadline: float, reply: Any) -> None:
        self.kind, self.id, self.address, self.deadline, self.reply = kind, server_id, address, deadline, reply
        self.stage = _Stage.IDENTIFY if kind == "join" else _Stage.REMOVE
        self._index = 0

    def check(self, configuration: Configuration) -> Outcome:
        """What can be said at once, before anything is sent."""
        server = configuration.get(self.id)
        if self.kind == "leave":
            if server is None:
                return UnknownMember(f"id={self.id!r}: no such member of the quorum; its members are {_names(configuration)}")
            return None
        holder = next((s for s in configuration.servers if s.address == self.address and s.id != self.id), None)
        if holder is not None:
            return AlreadyMember(f"raftAddr={self.address!r}: that address belongs to {holder.id!r}; give the Raft address of {self.id!r}")
        if server is not None and server.address != self.address:
            return AlreadyMember(
                f"id={self.id!r}: already in the quorum at {server.address}; give another id, or let that one leave first if it has moved to {self.address}"
            )
        if configuration.is_voter(self.id):
            return True
        return None

    def identified(self, header: Header | None, error: CoterieError | None) -> Outcome:
        """The answer of the server at the address."""
        if error is not None:
            return error
        if header is not None and header.id != self.id:
            return AlreadyMember(
                f"raftAddr={self.address!r}: the server there says it is {header.id!r}, not {self.id!r}; give the address of {self.id!r}"
            )
        self.stage = _Stage.LEARN
        return None

    def holds(self, core: CoreView) -> bool:
        """Whether the committed configuration is as this change wants it, whoever brought that about."""
        configuration = core.configuration
        wanted = configuration.is_voter(self.id) if self.kind == "join" else configuration.get(self.id) is None
        return wanted and core.commit >= core.configuration_index

    def advance(self, core: CoreView, now: float) -> Outcome:
        """Take whatever step can be taken now."""
        if now >= self.deadline:
            return self._too_late()
        try:
            return self._step(core, now)
        except refusals.NotLeading as refusal:
            return NotLeader(refusal.leader.id if refusal.leader else "")
        except (refusals.ChangeInProgress, refusals.NoEntryInTerm, refusals.TransferInProgress):
            return None
        except refusals.LastVoter:
            return NoQuorum(f"id={self.id!r} is the only voter: without it nobody could decide anything; let another node join first")
        except refusals.Refusal as refusal:
            return AlreadyMember(str(refusal))

    def _step(self, core: CoreView, now: float) -> Outcome:
        if self.stage is _Stage.LEARN:
            if core.configuration.get(self.id) is None:
                self._index = core.change(AddNonvoter(self.id, self.address), None, now)
            self.stage = _Stage.CATCH_UP
        if self.stage is _Stage.CATCH_UP:
            match = next((peer.match for peer in core.progress() if peer.id == self.id), 0)
            if match > 0 and core.last_index < match + CAUGHT_UP:
                self.stage = _Stage.PROMOTE
        if self.stage is _Stage.PROMOTE:
            self._index = core.change(AddVoter(self.id, self.address), None, now)
            self.stage = _Stage.COMMIT
        if self.stage is _Stage.REMOVE:
            if core.configuration.get(self.id) is not None:
                self._index = core.change(RemoveServer(self.id), None, now)
            self.stage = _Stage.COMMIT
        if self.stage is _Stage.COMMIT and core.commit >= self._index:
            return True
        return None

    def _too_late(self) -> CoterieError:
        where = f"id={self.id!r} at {self.address!r}" if self.address else f"id={self.id!r}"
        if self.stage is _Stage.IDENTIFY or self._index == 0:
            return NoQuorum(f"{where}: nothing was changed within the deadline, while {self.stage.value}; is the quorum alive?")
        return Indeterminate(f"{where}: not finished within the deadline, while {self.stage.value}; ask again, it goes on from there")


def _names(configuration: Configuration) -> str:
    return ", ".join(server.id for server in configuration.servers) or "none"
