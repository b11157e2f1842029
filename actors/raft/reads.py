"""From which index on a read may be answered: the leader's side of ReadIndex (Raft thesis, 6.4), and the lease that spares its round.

A read that is to see everything acknowledged before it was asked needs two things of the leader: its commit index, once an entry of its own term is committed
(before that it may not know yet what an earlier leader had acknowledged), and a proof that no other leader had been elected when the read came.

**The round** is the proof. It has a number, and every AppendEntries that leaves from its beginning on carries it in its token; when a quorum of the voters has
answered such requests, all who asked before the round began get the commit index of its beginning. Whoever asks meanwhile waits for the next: so there is
one round under way, however many ask, and under load entries carry it and no heartbeat is sent for it. Numbers and no times: a clock that stands still, or
two events at one reading of it, cannot confirm anything. What learners answer counts for nothing.

**The lease** is an older proof that is still good: a quorum has answered a request that was sent less than `Settings.read_lease` ago. Every server keeps its
vote for at least `Settings.voters_hold` after any leader has spoken to it (`Node.is_bound`), so by then nobody else can lead. It trusts the clocks: in the time of a
lease two of them may not differ by more than `CLOCK_MARGIN` of it, and a machine whose clock stands still while the others go on (a suspended virtual
machine, where its monotonic clock does not count that) breaks it. Leadership that is handed over passes by all of that, so from the moment in which it is offered
to somebody no lease of this leadership is trusted any more: the offer may arrive late.

Rejected: to confirm by the times at which answered requests had been sent. It needs no number, but each burst of reads then wants a heartbeat of its own.
"""

from __future__ import annotations

from coterie.actors.raft.node import Node, Role
from coterie.actors.raft.ready import ReadConfirmed
from coterie.actors.raft.replication import quorum_th


def ask(node: Node, context: object, lease: bool) -> None:
    """On a leader: answer by its lease, if that is wanted and there is one, or wait for the next round."""
    if lease and _serves(node) and lease_holds(node):
        node.counters["reads_by_lease"] += 1
        node.reads.confirmed.append(ReadConfirmed(context, node.commit, by_lease=True))
    else:
        node.reads.waiting.append(context)


def advance(node: Node) -> None:
    """On a leader, when something may have changed: end the round that a quorum has answered, and begin the next for those who wait."""
    reads = node.reads
    while True:
        if reads.asked:
            if quorum_round(node) < reads.round:
                return
            node.counters["reads_by_round"] += len(reads.asked)
            reads.confirmed += [ReadConfirmed(context, reads.index, by_lease=False) for context in reads.asked]
            reads.asked = []
        if not reads.waiting or not _serves(node):
            return
        node.counters["read_rounds"] += 1
        reads.round += 1
        reads.index = node.commit
        reads.asked, reads.waiting = reads.waiting, []


def quorum_round(node: Node) -> int:
    """The latest round that a quorum of the voters, this server among them where it is one, has answered for."""
    progress = node.progress
    return quorum_th(
        node,
        [
            node.reads.round if server.id == node.me.id else progress[server.id].round if server.id in progress else 0
            for server in node.configuration.voters()
        ],
    )


def lease_holds(node: Node) -> bool:
    """Has a quorum answered what was sent so lately that nobody else can lead now?"""
    if node.reads.lease_void:
        return False
    progress = node.progress
    never = float("-inf")
    answered = sorted(
        (
            node.now if server.id == node.me.id else progress[server.id].answered if server.id in progress else never
            for server in node.configuration.voters()
        ),
        reverse=True,
    )
    return len(answered) >= node.quorum and node.now - answered[node.quorum - 1] < node.settings.read_lease


def _serves(node: Node) -> bool:
    """It leads, and an entry of this leadership is committed."""
    return node.role is Role.LEADER and node.commit >= node.first_of_leadership
