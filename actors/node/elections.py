"""When an election is under way, as this node sees it: the source of `ElectionStart`, `ElectionEnd` and `LeaderChanged` on every node. Pure.

A node's own Raft tells only of its own candidacies; a follower that just votes, and a member that is no Raft server, would hear nothing. So the events are made of
what every node has: who leads in which term, as the topology shows it.

- An election begins when the leader is lost, when this node campaigns, or with the first word of another leadership that comes without a gap in between.
- It ends when a leader is known. Rounds without a winner are part of it, so each `ElectionStart` has one `ElectionEnd`, with a leader, and the two alternate.
- A node that learns at its start who leads has seen no election: it gets a `LeaderChanged` alone.
"""

from __future__ import annotations

from coterie.actors.messages import ElectionEnd, ElectionStart, Event, LeaderChanged

Leadership = tuple[str, int]  # (leader's id, term); ("", 0) when none is known


class Elections:
    def __init__(self) -> None:
        self._known: Leadership = ("", 0)
        self._under_way = False

    def campaigning(self, now: float, term: int) -> list[Event]:
        """This node stands for election; `term` as it is known."""
        return self._start(now, term)

    def look(self, now: float, leader: str, addr: str, term: int) -> list[Event]:
        """leader: its id, "" when none is known; addr: its management address. What that means, in order."""
        before, self._known = self._known, (leader, term) if leader else ("", 0)
        changed = self._known != before
        events: list[Event] = []
        if changed and before[0]:
            events += self._start(now, term)
        if leader and self._under_way:
            self._under_way = False
            events.append(ElectionEnd(now, term, leader, addr))
        if changed:
            events.append(LeaderChanged(now, term, leader, addr))
        return events

    def _start(self, now: float, term: int) -> list[Event]:
        if self._under_way:
            return []
        self._under_way = True
        return [ElectionStart(now, term)]
