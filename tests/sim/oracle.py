"""What Raft promises (Raft paper, figure 3), checked after every step against all nodes at once: nobody in the system can see this much.

Each check is incremental: a log that was checked when it was written needs no second look.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from coterie.actors.raft.node import Role
from coterie.actors.raft.ready import AppendToken, Ready, Send
from coterie.proto.raft_codec import encode_configuration
from coterie.proto.raft_messages import CONFIGURATION, AppendResponse, Entry, VoteRequest, VoteResponse
from tests.sim.kernel import Kernel

if TYPE_CHECKING:
    from tests.sim.node import SimNode
    from tests.sim.raft_world import RaftWorld


def term_of(node: SimNode, index: int) -> int | None:
    """The term of the entry at `index` in its log, or in what was made of the log; None when it has none there."""
    log = node.core._node.log
    if index >= log.first_index - 1:
        return int(log.term(index)) if index <= log.last_index else None
    return entry_of(node, index).term if index else 0


def entry_of(node: SimNode, index: int) -> Entry:
    """The entry at `index` of its log, or of what was made of the log."""
    log = node.core._node.log
    if index >= log.first_index:
        entry: Entry = log.entries(index, index, 1)[0]
        return entry
    history = node.disk.log if index <= node.disk.start or node.installed is None else node.installed[1]
    return history[index - 1]


class Oracle:
    def __init__(self, world: RaftWorld) -> None:
        self.world = world
        self.kernel: Kernel = world.kernel
        self.leaders: dict[int, str] = {}
        self.entries: dict[tuple[int, int], tuple[int, bytes | None, int]] = {}  # (index, term) -> kind, data, term before
        self.latest = 0  # the latest term that had a leader
        self.highest = 0  # index that is committed anywhere
        self.terms: set[int] = set()  # of entries that are committed
        self.cuts = 0  # how often something went from a disk
        self.chosen: dict[int, tuple[int, int]] = {}  # index -> term, and the term in which it was seen committed

    def leads(self, node: SimNode) -> None:
        """Election safety: one leader a term. Leader completeness: it has all that was committed in earlier terms."""
        term = node.core.term
        holder = self.leaders.setdefault(term, node.id)
        self.latest = max(self.latest, term)
        self.kernel.require(holder == node.id, f"election safety: {holder} and {node.id} both lead term {term}")
        self.kernel.require(node.disk.hard.term >= term, f"{node.id} leads term {term}, which is not on its disk")
        for index, (entry_term, seen_in) in self.chosen.items():
            if seen_in < term and term_of(node, index) != entry_term:
                self.kernel.fail(f"leader completeness: {node.id} leads term {term} without committed entry {index} of term {entry_term}")

    def written(self, node: SimNode, ready: Ready) -> None:
        """Log matching: an index and a term name one entry and, by induction, all before it."""
        disk = node.disk
        if ready.truncate_from is not None or ready.mark is not None:
            self.cuts += 1
        if ready.hard_state is not None and ready.hard_state.term < disk.hard.term:
            self.kernel.fail(f"{node.id}: term on disk went back")
        before = disk.term(ready.entries[0].index - 1) if ready.entries else 0
        for entry in ready.entries:
            said = (entry.kind, entry.data, before)
            known = self.entries.setdefault((entry.index, entry.term), said)
            if entry.kind == CONFIGURATION and node.core.role is Role.LEADER and node.core.term == entry.term:
                self._one_change_at_a_time(node, entry)
            if known != said:
                self.kernel.fail(f"log matching: {node.id} writes {said} at {entry.index}, term {entry.term}; elsewhere {known}")
            before = entry.term

    def _one_change_at_a_time(self, node: SimNode, entry: Entry) -> None:
        """Raft thesis, 4.1, with the no-op rule: the change before is committed, and so is an entry of this leader's term."""
        index, _ = node.disk.configuration_before(entry.index)
        self.kernel.require(
            index in self.chosen, f"{node.id} changes the configuration at {entry.index} before that of {index} is committed"
        )
        self.kernel.require(entry.term in self.terms, f"{node.id} changes the configuration before it committed in term {entry.term}")

    def truncated(self, node: SimNode) -> None:
        """The configuration in force is the latest of the log, also after a part of it was cut off."""
        index, log = node.core.configuration_index, node.core._node.log
        inside = index <= log.last_index
        entry = entry_of(node, index) if inside and index else None
        right = index == 0 or (entry is not None and entry.data == encode_configuration(node.core.configuration))
        later = [at for at in range(index + 1, log.last_index + 1) if entry_of(node, at).kind == CONFIGURATION]
        self.kernel.require(not later, f"{node.id} goes by the configuration at {index}, its log has later ones at {later}")
        self.kernel.require(right, f"{node.id} goes by the configuration at {index}, where its log has {entry}")

    def matches(self, node: SimNode, checked: dict[str, tuple[int, int]]) -> None:
        """What the leader believes to be on a follower's disk is there. One that was paused, and has not heard of its successor, believes what was: the
        successor may have had it cut off again, or the follower removed and emptied; and one whose disk was damaged is believed until its connection ends.

        checked: what was found right already, which it stays until something is cut off a disk."""
        if self.latest > node.core.term:
            return
        cuts = self.cuts
        for peer, progress in node.core._node.progress.items():
            match = (
                progress.match if node.core.configuration.get(peer) is not None else 0
            )  # one that is being told of its removal counts for nothing
            if match and checked.get(peer) != (match, cuts):
                term = term_of(node, match)
                disk = self.world.nodes[peer].disk
                if term is None or not (disk.holds(match, term) or disk.doubt is not None):
                    self.kernel.fail(f"{node.id} believes {peer} to hold {match} of term {term}")
                checked[peer] = (match, cuts)

    def committed(self, node: SimNode, first: int, last: int) -> None:
        """State machine safety; and what a leader calls committed is on the disks of a quorum."""
        log = node.core._node.log
        for index in range(first, last + 1):
            term = term_of(node, index)
            known = self.chosen.setdefault(index, (term, node.core.term))
            if known[0] != term:
                self.kernel.fail(f"state machine safety: {node.id} commits {index} of term {term}; chosen was {known}")
            self.terms.add(term)
        self.highest = max(self.highest, last)
        if node.core.role is Role.LEADER:
            term = log.term(last)
            if term != node.core.term:
                self.kernel.fail(f"{node.id} leads term {node.core.term} and commits {last} of term {term} by counting")
            voters = node.core.configuration.voters()
            disks = {voter.id: self.world.nodes[voter.id].disk for voter in voters}
            # An acknowledgement may be counted after its disk was damaged: it was true, and that server does not vote before it has it all again.
            holders = [
                name for name, disk in disks.items() if disk.holds(last, term) or (disk.doubt is not None and last <= disk.doubt.last)
            ]
            if 2 * len(holders) <= len(voters):
                self.kernel.fail(f"durability: {node.id} commits {last} of term {term}, which only {holders} hold")

    def applied(self, node: SimNode, entry: Entry) -> None:
        if entry.index != node.applied + 1:
            self.kernel.fail(f"{node.id} applies {entry.index} after {node.applied}")
        chosen = self.chosen.get(entry.index)
        if chosen is None or chosen[0] != entry.term:
            self.kernel.fail(f"{node.id} applies {entry}, chosen was {chosen}")

    def request_leaves(self, node: SimNode, send: Send) -> None:
        if isinstance(send.request, VoteRequest):
            hard = node.disk.hard
            durable = hard.term > send.request.term or (hard.term == send.request.term and hard.voted_for == node.id)
            self.kernel.require(durable, f"{node.id} asks for votes of term {send.request.term} with {hard} on its disk")

    def answer_leaves(self, node: SimNode, asker: str, token: Any, response: AppendResponse | VoteResponse) -> None:
        """A vote or an acknowledgement never leaves before it is durable."""
        hard, fail = node.disk.hard, self.kernel.fail
        if hard.term < response.term:
            fail(f"{node.id} answers in term {response.term} with {hard} on its disk")
        if isinstance(response, AppendResponse):
            if response.success and isinstance(token, AppendToken):
                if token.term != response.term:
                    fail(f"{node.id} acknowledges a request of term {token.term} in term {response.term}")
                last = token.prev + token.length
                if hard.term == response.term and node.disk.last_index < last:
                    fail(f"{node.id} acknowledges {last} with {node.disk.last_index} on its disk")
        elif response.granted and hard.term == response.term and hard.voted_for != asker:
            fail(f"{node.id} grants {asker} a vote in term {response.term} with {hard} on its disk")

    def confirmed(self, node: SimNode, index: int, committed: int) -> None:
        """A read is answered from all that was committed anywhere when it was asked."""
        if index < committed:
            self.kernel.fail(f"stale read: {node.id} answers from index {index} what was asked when {committed} was committed")
