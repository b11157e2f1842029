"""Changes of the quorum that take more than one step, as small pure machines beside the core.

A join is: ask the server at the address who it is (so that a wrong address or a wrong id never gets a vote) → learner → caught up → voter. Only the last step
changes what a quorum is, and it is taken when the newcomer has what the others have: a cluster of one that takes in a server which is
dead or empty would otherwise stop until it is well; `learn` and `promote` are its two halves. A leave is one step. A move gives a server of the quorum another
address, once the server there has said that it is the one; a leader that has moved itself is looked for at its old address instead, and stays where it answers.
Each step waits until the core takes it (one change at a time, an entry of the leader's own term first), until the deadline.

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
    MOVE = "its new address is proposed"
    COMMIT = "the change is committed"


class QuorumChange:
    """One change under way. kind: join, learn, promote, leave or move. `reply` is whoever asked; me: this server's id."""

    def __init__(self, kind: str, server_id: str, address: str, deadline: float, reply: Any, me: str = "") -> None:
        self.kind, self.id, self.address, self.deadline, self.reply = kind, server_id, address, deadline, reply
        self.stage = {"leave": _Stage.REMOVE, "promote": _Stage.CATCH_UP}.get(kind, _Stage.IDENTIFY)
        self.ask_at = address  # who is there?
        self._own = server_id == me
        self._index = 0

    @property
    def asks(self) -> bool:
        """The server at `ask_at` is to be asked who it is, before anything else."""
        return self.stage is _Stage.IDENTIFY

    def check(self, configuration: Configuration) -> Outcome:
        """What can be said at once, before anything is sent."""
        server = configuration.get(self.id)
        if self.kind == "leave":
            if server is None:
                return UnknownMember(f"id={self.id!r}: no such member of the quorum; its members are {_names(configuration)}")
            return None
        if self.kind in ("move", "promote") and server is None:
            return UnknownMember(f"id={self.id!r}: no such member of the quorum; its members are {_names(configuration)}")
        if self.kind == "promote":
            return True if configuration.is_voter(self.id) else None
        holder = next((s for s in configuration.servers if s.address == self.address and s.id != self.id), None)
        if holder is not None:
            return AlreadyMember(f"raftAddr={self.address!r}: that address belongs to {holder.id!r}; give the Raft address of {self.id!r}")
        if self.kind == "move" and server is not None:
            if server.address == self.address:
                return True
            self.ask_at = server.address if self._own else self.address
            return None
        if server is not None and server.address != self.address:
            return AlreadyMember(
                f"id={self.id!r}: already in the quorum at {server.address}; give another id, or let that one leave first if it has moved to {self.address}"
            )
        if configuration.is_voter(self.id) or (self.kind == "learn" and server is not None):
            return True
        return None

    def identified(self, header: Header | None, error: CoterieError | None) -> Outcome:
        """The answer of the server at the address."""
        if self.kind == "move" and self._own:
            if header is not None and header.id == self.id:
                return AlreadyMember(f"id={self.id!r}: it is still reached at {self.ask_at}, which the configuration keeps")
            self.stage = _Stage.MOVE
            return None
        if error is not None:
            return error
        if header is not None and header.id != self.id:
            return AlreadyMember(
                f"raftAddr={self.address!r}: the server there says it is {header.id!r}, not {self.id!r}; give the address of {self.id!r}"
            )
        self.stage = _Stage.MOVE if self.kind == "move" else _Stage.LEARN
        return None

    def holds(self, core: CoreView) -> bool:
        """Whether the committed configuration is as this change wants it, whoever brought that about."""
        configuration = core.configuration
        server = configuration.get(self.id)
        wanted = {
            "leave": server is None,
            "learn": server is not None,
            "move": server is not None and server.address == self.address,
        }.get(self.kind, configuration.is_voter(self.id))
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
            self.stage = _Stage.COMMIT if self.kind == "learn" else _Stage.CATCH_UP
        if self.stage is _Stage.CATCH_UP:
            match = next((peer.match for peer in core.progress() if peer.id == self.id), 0)
            if match > 0 and core.last_index < match + CAUGHT_UP:
                self.stage = _Stage.PROMOTE
        if self.stage is _Stage.PROMOTE:
            present = core.configuration.get(self.id)
            self._index = core.change(AddVoter(self.id, self.address or (present.address if present else "")), None, now)
            self.stage = _Stage.COMMIT
        if self.stage is _Stage.MOVE:
            kind = AddVoter if core.configuration.is_voter(self.id) else AddNonvoter
            self._index = core.change(kind(self.id, self.address), None, now)
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
