"""What a leader is asked to decide and cannot answer at once: quorum changes and hand-overs of leadership.

Each takes more than one `Ready` of the core, so whoever asked waits in here while the core goes on:

- A **change** of the quorum is a small machine (`changes.py`) that is given another step after each step of the core, and from time to time, since a newcomer that
  catches up is no event of the core. It is settled by its outcome, by its deadline, or by the loss of leadership. The one loss that is no failure: a
  leader that leaves the quorum loses its leadership with the very commit that makes the change true.
- A **transfer** is done when a later term has a leader, whoever that is, and has failed when the core says so (`TransferFailed`).

Every asker gets an answer: `close` fails those who still wait, and a change that has begun is then Indeterminate, for it may still take effect.

No thread, socket or clock in here: times come in, and `identify` begins to ask a newcomer who it is; its answer comes back to `identified`. An actor of its own
for these was not made: they read the core and change it in the middle of its work, and two threads at one core would need a lock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from coterie.actors.errors import CoterieError, Indeterminate, NotLeader, UnknownMember, Unreachable
from coterie.actors.future import LightFuture
from coterie.actors.messages import TransferLeadership
from coterie.actors.raft import refusals
from coterie.actors.raft.changes import Outcome, QuorumChange
from coterie.actors.raft.core import RaftCore
from coterie.actors.raft.node import Role
from coterie.actors.raft.ready import TransferFailed
from coterie.actors.room_messages import ChangeQuorum
from coterie.proto.raft_messages import Configuration, Header, Server


def _no_heir(server_id: str | None, configuration: Configuration) -> str:
    if server_id is None:
        return "there is no voter beside this leader to hand over to"
    what = "a learner, which cannot lead" if configuration.get(server_id) is not None else "no member of the quorum"
    voters = ", ".join(server.id for server in configuration.voters())
    return f"id={server_id!r}: this is {what}; the voters are {voters}"


def not_leader(leader: Server | None) -> NotLeader:
    """The error that names who leads, as far as the core knows."""
    return NotLeader(leader.id if leader else "", leader.address if leader else "")


class Decisions:
    """See the module's text. identify(change): ask the server at `change.ask_at` who it is, without blocking."""

    __slots__ = ("_core", "_identify", "_transfers", "changes")

    def __init__(self, core: RaftCore, identify: Callable[[QuorumChange], object]) -> None:
        self._core, self._identify = core, identify
        self.changes: list[QuorumChange] = []
        self._transfers: list[tuple[LightFuture, int]] = []  # (who asked, in which term)

    def close(self) -> None:
        """The node stops: whoever waits is answered."""
        error = Indeterminate("the node stopped before the outcome was known")
        for change in self.changes:
            change.reply.fail(error)
        for future, _ in self._transfers:
            future.fail(error)
        self.changes, self._transfers = [], []

    # -- changes of the quorum ------------------------------------------------------------------------------------------------

    def change(self, request: ChangeQuorum, reply: Any) -> bool:
        """True when it is as wanted already; False when `reply` gets the answer later. Raises NotLeader, UnknownMember, AlreadyMember, and Indeterminate while
        another change of the same server is under way."""
        core = self._core
        if core.role is not Role.LEADER:
            raise not_leader(core.leader)
        change = QuorumChange(request.kind, request.id, request.address, request.deadline, reply, core.me)
        outcome = change.check(core.configuration)
        if isinstance(outcome, CoterieError):
            raise outcome
        if outcome is True:
            return True
        if any(other.id == change.id for other in self.changes):
            raise Indeterminate(f"id={change.id!r}: another change of it is under way; ask again when it is done")
        self.changes.append(change)
        if change.asks:
            self._identify(change)
        return False

    def identified(self, change: QuorumChange, header: Header | None, error: CoterieError | None) -> None:
        """Who the newcomer says it is, or why it could not be asked."""
        if change in self.changes:
            self._settle(change, change.identified(header, error))

    def advance(self, now: float) -> None:
        """Let each change take whatever step it can."""
        core = self._core
        for change in list(self.changes):
            if core.role is Role.LEADER:
                self._settle(change, change.advance(core, now))
            elif change.holds(core):
                self._settle(change, True)
            else:
                leader = core.leader
                self._settle(
                    change,
                    Indeterminate(
                        f"id={change.id!r}: leadership was lost on the way; ask the leader {leader.id if leader else '(none yet)'}"
                    ),
                )

    def _settle(self, change: QuorumChange, outcome: Outcome) -> None:
        if outcome is None:
            return
        self.changes.remove(change)
        if isinstance(outcome, CoterieError):
            change.reply.fail(outcome)
        else:
            change.reply.set(True)

    # -- leadership handed over ---------------------------------------------------------------------------------------------

    def transfer(self, request: TransferLeadership, reply: LightFuture, now: float) -> None:
        """Begin to hand leadership over; `reply` gets True or the error. Raises NotLeader, UnknownMember, Unreachable."""
        core = self._core
        if request.id == core.me and core.role is Role.LEADER:
            reply.set(True)
            return
        try:
            core.transfer(request.id, now)
        except refusals.NotLeading as refusal:
            raise NotLeader(refusal.leader.id if refusal.leader else "") from None
        except refusals.UnknownServer:
            raise UnknownMember(_no_heir(request.id, core.configuration)) from None
        except refusals.Refusal as refusal:
            raise Unreachable(str(refusal)) from None
        self._transfers.append((reply, self._core.term))

    def settle_transfers(self, events: list[Any]) -> None:
        """The core has spoken: which transfers are done, and have they failed?"""
        failed = next((event for event in events if isinstance(event, TransferFailed)), None)
        for future, term in list(self._transfers):
            if failed is not None:
                future.fail(Unreachable(f"leadership was not transferred to {failed.target}: {failed.reason}"))
            elif self._core.term > term and self._core.leader is not None:
                future.set(True)
            else:
                continue
            self._transfers.remove((future, term))
