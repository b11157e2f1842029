"""The leader keeps the roster as the quorum is: it proposes AddNode for a voter that is not in it as gossip has it, and RemoveNode for who is no voter any more.

Level-triggered: what is wanted (`Topology.voters`) is compared with what the state machine holds whenever either changes, and the difference is proposed.
So nothing is lost when a leader dies between a change of the quorum and its entry: the next one compares again. And nothing is written twice: while
proposals are under way nothing is compared, and a roster that is as it should be is left alone. A command says where it leads, not what changes, so
one that is in the log twice does no harm.

go-cluster's own leaders write gossip's view of its members at each join; where the two differ, the node that leads has its way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from coterie.actors.messages import RosterMember
from coterie.actors.replication.roster import Roster
from coterie.actors.room_messages import Propose, Topology
from coterie.proto.errors import WireError
from coterie.proto.roster import RosterCommand, RosterRow, decode_command, encode_command, removal

PAUSE: Final = 1.0  # seconds after a proposal that failed


class RosterProposal:
    """The context of one command's `Propose`."""

    __slots__ = ()


def due(rows: Mapping[str, RosterRow], voters: Iterable[RosterMember]) -> list[RosterCommand]:
    """What brings the roster to where it should be: nothing when it is there. A member that gossip does not know now stays as it is."""
    wanted = {}
    for voter in voters:
        row = RosterRow.told(voter.id, voter.addr, voter.meta or {})
        wanted[row.id] = rows.get(row.id, row) if voter.meta is None else row
    return [RosterCommand("add", row) for name, row in wanted.items() if rows.get(name) != row] + [
        removal(name) for name in rows if name not in wanted
    ]


class Registrar:
    """raft: the Raft actor's reference; count(reason, n): what could not be written."""

    def __init__(self, raft: Any, roster: Roster, count: Callable[[str, int], None]) -> None:
        self._raft, self._roster, self._count = raft, roster, count
        self._under_way: set[RosterProposal] = set()
        self.retry_at: float | None = None

    def reconcile(self, topology: Topology) -> None:
        """Propose what is due, if this node leads and nothing of it is under way."""
        self.retry_at = None
        if not topology.leads or self._under_way or not topology.voters:
            return
        for command in due(self._roster.rows, topology.voters):
            data = encode_command(command)
            if not _reads_back(data, command):  # an id or metadata that no roster can hold
                self._count("roster_rows_not_written", 1)
                continue
            proposal = RosterProposal()
            self._under_way.add(proposal)
            self._raft.send(Propose(data, proposal, False, topology.term))

    def committed(self, proposal: RosterProposal) -> None:
        """Compared again with the last of them, also where it changed nothing: what is wanted may have changed while they were under way."""
        self._under_way.discard(proposal)
        if not self._under_way:
            self.retry_at = 0.0

    def failed(self, proposal: RosterProposal, now: float) -> None:
        """It is compared again after a pause: leadership is on its way to another, or was lost."""
        self._under_way.discard(proposal)
        self.retry_at = now + PAUSE


def _reads_back(data: bytes, command: RosterCommand) -> bool:
    try:
        return decode_command(data) == command
    except WireError:
        return False
