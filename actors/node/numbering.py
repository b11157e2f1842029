"""Who else gives records their numbers? For a node that a Go leader has sent a snapshot, which tells the roster and no numbers. Pure.

Every node of ours that has applied some of the log has numbers, also one that is away, and one that was in the quorum or followed by stream and is in no quorum now.
A node of go-cluster has none. So whoever is not certainly of go-cluster counts: by what gossip knows of it, dead or alive, else by its row in the roster; a server
of which neither tells anything may be ours.

One that answers that it has neither a log nor records has numbered nothing yet: two newcomers do not wait for each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from coterie.actors.node.topology import META_GRPC, is_foreign
from coterie.actors.snapshot_messages import NobodyNumbers, NoState, StateReach
from coterie.proto.roster import RosterRow


def may_number(me: str, servers: Iterable[str], rows: Iterable[RosterRow], makes: Mapping[str, bool]) -> list[str]:
    """The ids of the others that have numbers, or may have them, those of the quorum first. servers, rows: of the snapshot; makes: as in `Topology`."""
    of_roster = {row.id: META_GRPC in row.meta for row in rows if row.meta is not None and (META_GRPC in row.meta or is_foreign(row.meta))}
    known = {**of_roster, **makes}
    quorum = sorted(set(servers) - {me})
    found = [name for name in quorum if known.get(name, True)]
    return found + sorted(name for name, ours in known.items() if ours and name != me and name not in quorum)


def verdict(index: int, heard: Mapping[str, StateReach | str]) -> NobodyNumbers | NoState:
    """What follows where no state up to entry `index` came. heard: of each that may number, how far it is, or why it did not tell."""
    if all(isinstance(said, StateReach) and said.empty for said in heard.values()):
        return NobodyNumbers()
    reasons = [f"{name} {_said(said, index)}" for name, said in heard.items() if isinstance(said, str) or not said.empty]
    return NoState("; ".join(reasons))


def _said(said: StateReach | str, index: int) -> str:
    return said if isinstance(said, str) else f"has entries up to {said.applied} itself, and {index} is wanted"
