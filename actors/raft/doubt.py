"""A server that has lost entries which it had acknowledged: what it must not do until it has caught up. Pure.

Raft rests on this: what a quorum has acknowledged is in the log of every later leader, since the votes of a leader come from a quorum too, and the two
quorums share a server that votes for no log without it (Raft paper, 5.4). A server whose disk has lost the end of its log would be such a server, and would
vote for a log that lacks what it has forgotten. So it is *in doubt*: it gives no vote, no pre-vote, does not campaign, takes no hand-over and never decides
alone. Everything else it does: it follows, and what it acknowledges from now on it has. Its hard state is whole (else it does not start): its votes are not
forgotten, and its term T is not below any in which it has acknowledged anything.

Let L be the last entry it had. Nobody gets its vote after the loss; so any leader of a term from T on has all that was committed with its help: that of T
since it was elected with a vote for the whole log, or put the entries there itself; one of a later term since the quorum that elected it shares with that
of the entry another server than this one. The doubt is over, therefore, when one of two things is so:

- a leader of a term from T on has matched this log up to L or beyond it: then all it ever acknowledged, as far as it was committed, is here again;
- an entry of a later term than T is committed and here: whatever was, or can still be, committed in the terms up to T stands before it.

The second is for a leader whose log is shorter than L, and for a loss so large that L is not known (`last` 0). That the entries are on the disk before a vote
leaves it is the order of `Ready`. When a quorum of the voters is in doubt nobody is elected, ever: somebody must decide what is lost (`clusterctl recover`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coterie.actors.raft.ready import DoubtSettled

if TYPE_CHECKING:
    from coterie.actors.raft.node import Node


def matched(node: Node, index: int) -> None:
    """The leader of this term has matched the log up to `index`."""
    doubt = node.doubt
    if doubt is None or node.term < doubt.term:
        return
    reaches = bool(doubt.last) and index >= doubt.last
    if reaches or (node.commit >= node.log.first_index - 1 and node.log.term(node.commit) > doubt.term):
        node.doubt = None
        node.events.append(DoubtSettled(node.term, index))
