"""What a publish waited for until its deadline, in words that say who holds it up. None of these publishes was carried out."""

from __future__ import annotations

from coterie.actors.errors import CoterieError, NoQuorum, Overloaded
from coterie.actors.replication.window import Window
from coterie.actors.room_messages import Topology


def why_waiting(topic: str, topology: Topology, window: Window, room: int, refusal: CoterieError | None) -> CoterieError:
    """room: left in the topic's window on this leader; refusal: the leader's last one for this topic, on a follower."""
    if topology.leads:
        if room > 0:
            return NoQuorum("this leader had no commit from a quorum within the deadline; the publish was not carried out")
        return _window_shut(topic, window)
    if isinstance(refusal, Overloaded):
        return refusal
    leader = topology.leader_id
    if topology.foreign_leader:
        return NoQuorum(
            f"the leader {leader} is a node of go-cluster, whose publishes go past the Raft log, so that it can promise no quorum: no publish is handed to it, and "
            "no node of ours took over within the deadline (see take_over_from_go); it was not carried out"
        )
    if leader:
        return NoQuorum(
            f"the leader {leader} could not be reached, or did not take the publish, within the deadline; it was not carried out"
        )
    return NoQuorum("no leader was found within the deadline; the publish was not carried out")


def _window_shut(topic: str, window: Window) -> Overloaded:
    slowest = window.slowest(topic)
    who = (
        f"the slowest member, {slowest[0]}, has acknowledged up to seq {slowest[1]}"
        if slowest
        else "no member has acknowledged anything yet"
    )
    return Overloaded(
        f"topic {topic!r}: repl_window={window.limit} records wait for their acknowledgement; {who}. Its handler is slow, or fails, or itself waits for a "
        "publish (inside handle_sync publish with tell, never with an ask that blocks). The publish was not carried out"
    )
