"""AppendEntries, on the receiving side (Raft paper, 5.3).

The log changes only where it must: entries that stand already are skipped, and a suffix is cut only at an entry of another term. A
delayed, duplicated or reordered request can therefore do no harm. What a request may not contain is refused as a whole before anything is
stored: gaps (which hashicorp/raft accepts), types that nobody sends any more, configurations that do not decode (either of which can kill
a hashicorp follower).
"""

from __future__ import annotations

from operator import itemgetter
from typing import Final

import attrs

from coterie.actors.raft.doubt import matched
from coterie.actors.raft.node import Node, Role
from coterie.proto.errors import WireError
from coterie.proto.raft_codec import decode_configuration
from coterie.proto.raft_messages import (
    BARRIER,
    COMMAND,
    CONFIGURATION,
    NOOP,
    AppendRequest,
    AppendResponse,
    Configuration,
    Entry,
    Header,
    RpcError,
)

KNOWN_KINDS: Final = frozenset({COMMAND, NOOP, BARRIER, CONFIGURATION})

_indexes = itemgetter(0)
_terms = itemgetter(1)
_kinds = itemgetter(2)


class Unacceptable(Exception):
    """The request cannot come from a correct leader; the text is the answer to it."""


def on_append_request(node: Node, request: AppendRequest) -> AppendResponse | RpcError:
    """AppendEntries (Raft paper, figure 2): also hashicorp's heartbeat, which matches anywhere, since it carries neither prev nor commit."""
    if is_strange(node, request.header):
        node.counters["append_requests_of_strangers"] += 1
        return RpcError(f"{request.header.id!r} is no server of the configuration here, which has a leader of its own in term {node.term}")
    if request.term < node.term:
        return AppendResponse(node.header, node.term, node.log.last_index, success=False)
    if request.term == node.term and node.role is Role.LEADER:
        node.counters["second_leader_of_term"] += 1
        return RpcError(f"term {node.term} is led by {node.me.id}, which is this server")
    follow(node, request.header, request.term)
    if request.commit > node.told_committed:
        node.told_committed = request.commit
    if request.prev_index or request.entries:
        node.leader_reaches = max(request.commit, request.prev_index + len(request.entries or ()))
        if not node.leader_reached:
            node.leader_reached = node.leader_reaches
    request = _above_the_start(node, request)
    refusal = _mismatch(node, request)
    if refusal is not None:
        return refusal
    try:
        _take(node, request)
    except Unacceptable as problem:
        node.counters["unacceptable_append_requests"] += 1
        return RpcError(str(problem), AppendResponse(node.header, node.term, node.log.last_index, success=False))
    return AppendResponse(node.header, node.term, node.log.last_index, success=True)


def is_strange(node: Node, sender: Header) -> bool:
    """Is a server that no configuration here lists telling us to follow it, while we have a leader that lives?

    It may be a true leader whose configuration we lack: then our own leader falls silent, and we follow it a heartbeat time-out later. But it may
    also be a removed server, one of another cluster, or a forger, none of whom may depose a leader (hashicorp/raft believes them all).

    Who decides alone is its own leader, also in the moment before it has elected itself: nobody can have become leader of that cluster without
    it. It was added to another cluster with its log still in place, and where terms happen to agree, the two logs would be taken for one.
    It does not tell such a sender its term either, which would depose that cluster's leader if it is the later one.
    """
    if not node.configuration.servers or node.configurations.lists(sender.id):
        return False
    if node.decides_alone:
        return True
    return node.leader_is_alive() and (node.leader is None or node.leader.id != sender.id)


def follow(node: Node, header: Header, term: int) -> None:
    """The sender leads this term: there is no other (Raft paper, 5.2)."""
    leader = node.leader
    node.leader_seen = node.now
    node.bound_until = node.now + node.settings.voters_hold
    if term > node.term or node.role is not Role.FOLLOWER:
        node.become_follower(term, node.server_of(header), "another server leads a later term")
    elif leader is None or leader.id != header.id or leader.address != header.address:
        node.set_leader(node.server_of(header))
        node.reset_election_timer()
    else:
        node.reset_election_timer()
    if node.voted_for == node.me.id:
        # Its own candidacy in this term is over. That nobody else gets its vote in it stays true, and `decides_alone` must not take it for a vote that won.
        node.vote_for(header.id or header.address)


def _above_the_start(node: Node, request: AppendRequest) -> AppendRequest:
    """The part of the request that this log still has. What was compacted away is committed, so the leader's entries there are the same."""
    entries, start = request.entries or (), node.log.first_index - 1
    if request.prev_index >= start or not (request.prev_index or entries):
        return request
    if request.prev_index + len(entries) <= start:
        return attrs.evolve(request, prev_index=0, prev_term=0, entries=())
    rest = tuple(entry for entry in entries if entry.index > start)
    return attrs.evolve(request, prev_index=start, prev_term=node.log.term(start), entries=rest)


def _mismatch(node: Node, request: AppendRequest) -> AppendResponse | None:
    """No entry of that term at prev: say what stands there, so that the leader can jump over the whole term (Raft paper, 5.3, end)."""
    log = node.log
    if log.matches(request.prev_index, request.prev_term):
        return None
    conflict = None
    if log.first_index <= request.prev_index <= log.last_index:
        conflict = (log.term(request.prev_index), log.first_of_term(request.prev_index))
    return AppendResponse(node.header, node.term, log.last_index, success=False, no_retry_backoff=True, conflict=conflict)


def _take(node: Node, request: AppendRequest) -> None:
    """Store what is new, then move the commit index as far as this request vouches for the log (Raft paper, figure 2, steps 3 to 5)."""
    entries = request.entries
    if entries:
        configurations = _check(request, entries)
        new = _cut_conflict(node, entries)
        if new:
            node.log.append(new)
            for index, configuration in configurations:
                if index >= new[0].index:
                    node.configurations.append(index, configuration)
                    node.configuration_changed()
    commit = min(request.commit, request.prev_index + len(entries or ()))
    if commit > node.commit:
        node.set_commit(commit)
    if node.doubt is not None:
        matched(node, request.prev_index + len(entries or ()))


def _check(request: AppendRequest, entries: tuple[Entry, ...]) -> list[tuple[int, Configuration]]:
    """Whole lists at a time: this runs for each entry that is replicated. Returns the decoded configurations."""
    first = request.prev_index + 1
    if list(map(_indexes, entries)) != list(range(first, first + len(entries))):
        raise Unacceptable(f"entries do not follow each other from index {first} on")
    terms = list(map(_terms, entries))
    if terms[0] != terms[-1] and terms != sorted(terms):
        raise Unacceptable(f"terms fall along the entries from index {first} on")
    if terms[0] < request.prev_term or terms[-1] > request.term:
        raise Unacceptable(f"entries from index {first} on have terms outside of {request.prev_term}..{request.term}")
    kinds = set(map(_kinds, entries))
    if not kinds <= KNOWN_KINDS:
        raise Unacceptable(f"entry types {sorted(kinds - KNOWN_KINDS)} are not supported")
    if CONFIGURATION not in kinds:
        return []
    return [(entry.index, _decoded(entry)) for entry in entries if entry.kind == CONFIGURATION]


def _decoded(entry: Entry) -> Configuration:
    try:
        return decode_configuration(entry.data or b"")
    except WireError as problem:
        raise Unacceptable(f"configuration at index {entry.index} does not decode: {problem}") from problem


def _cut_conflict(node: Node, entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
    """What of `entries` is not in the log yet, after the log was cut where it contradicts them."""
    log = node.log
    if entries[0].index == log.last_index + 1:
        return entries
    for position, entry in enumerate(entries):
        if entry.index > log.last_index:
            return entries[position:]
        if log.term(entry.index) != entry.term:
            if entry.index <= node.commit:
                node.counters["committed_entry_contradicted"] += 1
                raise Unacceptable(
                    f"entry {entry.index} of term {entry.term} contradicts a committed entry of term {log.term(entry.index)}"
                )
            truncate(node, entry.index)
            return entries[position:]
    return ()


def truncate(node: Node, index: int) -> None:
    node.log.truncate(index)
    if node.configurations.truncate(index):
        node.configuration_changed()
