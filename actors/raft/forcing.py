"""A configuration that is forced on a log, for a cluster whose quorum is lost, or that begins anew from a backup. Pure.

Ordinarily a configuration is agreed on by the one before it. Where too few of its servers are left for that, an operator says who is in the quorum from now
on, and each
server that is left appends that as an entry to its own log, while it is stopped. What is in the log before it is taken as committed: the next leader commits
it all.

Servers that are left may have logs of different lengths, and each makes its entry alone. Three things must hold then, and the term of the entry is chosen
for them:

- *Logs compare as they did before.* By Raft's order (last term, last index) the longest has every entry that any of the others knows to be committed (Raft
paper, 5.4.1
  and 5.4.3), and no server votes for one with a shorter log. The term of the entry grows with that of the last entry, so that the order stays. Of two
  servers that
  are left the longer log therefore wins. Of three or more, a majority with shorter logs can decide before the longest is heard, as in any election: an operator
  who wants all of it makes that server the only voter first.
- *Two entries of one index and term are the same entry* (Raft paper, 5.3), or a follower would keep what its leader does not have. Of two logs with the same
last term and index, which are the
  same log therefore, the entries are the same: nothing of the server or of the time is in it. All others differ in term or index. And the term is further up
  than any election went
  that another server may have had: `STEP` beyond its own last entry's.
- *No later leader has that term.* The server's own term rises by two steps, so elections begin above what any of them has given to its entry.

hashicorp/raft's RecoverCluster makes a snapshot with the new configuration instead of an entry; it needs the application for that, which an offline tool
does not have.
"""

from __future__ import annotations

from typing import Final

from coterie.actors.raft.log import HardState
from coterie.proto.raft_codec import encode_configuration
from coterie.proto.raft_messages import CONFIGURATION, Configuration, Entry

STEP: Final = 1 << 20


def forced_entry(last_index: int, last_term: int, configuration: Configuration) -> Entry:
    """The entry that follows a log with this end."""
    return Entry(last_index + 1, last_term + STEP, CONFIGURATION, encode_configuration(configuration))


def forced_state(before: HardState, last_term: int, me: str, configuration: Configuration) -> HardState:
    """Term and vote of the server `me` with that entry. The only voter votes for itself: it must know that it decides alone (`Node.decides_alone`)."""
    alone = [server.id for server in configuration.voters()] == [me]
    return HardState(max(before.term + 1, last_term + 2 * STEP), me if alone else "")
