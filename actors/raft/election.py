"""Who leads: time-outs, pre-votes, votes, and leadership that is handed over.

A server that misses its leader first asks, without changing anything, whether the others would vote for it (pre-vote, Raft thesis 9.6);
only a quorum of would-be votes starts a real election. Nobody gives a vote or a would-be vote while its own leader is alive (thesis
4.2.3), unless that leader itself asked for the change (or a server says so that must succeed it, `take_over`). So a server that was cut off, paused or
removed deposes nobody when it returns.

"Alive" is measured against the shortest election time-out, not against this server's own random one: whoever times out first finds the
others willing, and two of three are enough at the first attempt (hashicorp/raft issue 606).

A candidate's own vote counts when it is on its own disk, like everybody's.
"""

from __future__ import annotations

from typing import Final

from coterie.actors.raft.node import Node, Role
from coterie.actors.raft.ready import ElectionEnded, ElectionStarted, Send, VoteToken
from coterie.actors.raft.replication import become_leader
from coterie.proto.raft_messages import (
    PreVoteRequest,
    PreVoteResponse,
    Response,
    RpcError,
    Server,
    TimeoutNowRequest,
    TimeoutNowResponse,
    VoteRequest,
    VoteResponse,
)

# What a hashicorp/raft server that knows no pre-vote, or wants none, answers to one.
WITHOUT_PRE_VOTE: Final = "unexpected command"

# One before 1.7 knows the message not at all, and hangs up. So many connections in a row that end so soon (seconds) after the question are such an answer.
HANG_UPS: Final = 2
SOON: Final = 0.5

# For so many heartbeat time-outs after a leader was seen, a candidate must be a voter of the configuration as it is known here.
PATIENCE: Final = 4


def election_timeout(node: Node) -> None:
    """The election timer ran out (Raft paper, 5.2). Only a voter whose disk answers campaigns."""
    node.set_leader(None)
    if not node.is_voter or node.disk_is_stuck() or node.doubt is not None:
        if node.role is not Role.FOLLOWER:
            node.become_follower(node.term, None, "may not campaign")
        node.reset_election_timer()
    elif node.quorum > 1:
        pre_campaign(node)
    elif node.decides_alone:
        campaign(node)
    else:
        node.reset_election_timer()  # it has only the beginning of the log yet


def pre_campaign(node: Node) -> None:
    """Ask who would vote for this server in the next term (Raft thesis, 9.6)."""
    end_round(node)
    node.role = Role.PRE_CANDIDATE
    node.votes = {node.me.id: True}
    node.election_deadline = node.now + node.spread(node.settings.election_timeout)
    node.events.append(ElectionStarted(node.term + 1, pre_vote=True))
    for peer in node.other_voters():
        ask(node, peer)


def campaign(node: Node, transfer: bool = False) -> None:
    """Start an election in the next term (Raft paper, 5.2). The own vote is counted in `own_vote_stored`."""
    if node.role is Role.LEADER:
        node.become_follower(node.term, None, "asked to campaign")
    end_round(node)
    node.set_leader(None)
    node.role = Role.CANDIDATE
    node.set_term(node.term + 1)
    node.vote_for(node.me.id)
    node.votes = {}
    node.transferring_to_me = transfer
    node.election_deadline = node.now + node.spread(node.settings.election_timeout)
    node.events.append(ElectionStarted(node.term, pre_vote=False))
    for peer in node.other_voters():
        ask(node, peer)


def end_round(node: Node) -> None:
    """A round that brought no leader is over: listeners see an end for each start."""
    if node.role in (Role.PRE_CANDIDATE, Role.CANDIDATE):
        node.events.append(ElectionEnded(node.term, None))


def ask(node: Node, peer: Server) -> None:
    """Send this round's question to one voter, if there is a connection; else it is asked when there is one."""
    link = node.links.get(peer.id)
    if link is None or peer.id in node.votes:
        return
    log = node.log
    if node.role is Role.PRE_CANDIDATE:
        term = node.term + 1
        node.pre_vote_asked[peer.id] = node.now
        pre_vote = PreVoteRequest(node.header, term, log.last_index, log.last_term)
        node.before.append(Send(peer.id, peer.address, pre_vote, VoteToken(link, term, pre_vote=True)))
    else:
        vote = VoteRequest(node.header, node.term, log.last_index, log.last_term, node.transferring_to_me)
        node.after.append(Send(peer.id, peer.address, vote, VoteToken(link, node.term, pre_vote=False)))


def take_over(node: Node, leader_id: str) -> bool:
    """Campaign against a leader that lives, with the flag of a hand-over that it has not asked for, so that the others give their votes (and so does it).

    For a leader that does not do its work for this server's users, a node of another make: see `replication/takeover`. A deposed leader costs the cluster an
    election, so it is tried only where it should succeed: by a voter in contact with that leader that has all of the log it has heard of, on its disk.
    Safe at any time all the same: the votes are those of every election (Raft paper, 5.4.1). -> whether it has begun.
    """
    if node.role is not Role.FOLLOWER or node.leader is None or node.leader.id != leader_id or not node.leader_is_alive():
        return False
    behind = node.log.last_index < node.leader_reaches or node.log.has_unsaved or bool(node.handed)
    if behind or not node.is_voter or node.quorum == 1 or node.disk_is_stuck() or node.doubt is not None:
        return False
    campaign(node, transfer=True)
    return True


def on_vote_response(node: Node, peer: str, token: VoteToken, message: Response | RpcError | None) -> None:
    """RequestVote or RequestPreVote was answered (Raft paper, 5.2; thesis, 9.6)."""
    granted = False
    if message is None:
        granted = token.pre_vote and _hangs_up_on_pre_votes(node, peer)
        if not granted:
            return  # the connection ended first: the voter is asked again when there is a new one
    else:
        node.pre_vote_hang_ups.pop(peer, None)
    asking = Role.PRE_CANDIDATE if token.pre_vote else Role.CANDIDATE
    if isinstance(message, (VoteResponse, PreVoteResponse)):
        granted = message.granted
        # A refused pre-vote may carry the term that was asked for instead of the peer's own (hashicorp): only a later one is news.
        if message.term > (token.term if token.pre_vote else node.term) and not granted:
            if message.term > node.term:
                node.become_follower(message.term, None, "a peer is in a later term")
            return
    elif isinstance(message, RpcError):
        granted = token.pre_vote and WITHOUT_PRE_VOTE in message.error
    if node.role is not asking or token.term != (node.term + 1 if token.pre_vote else node.term):
        return
    node.votes[peer] = granted
    count_votes(node)


def _hangs_up_on_pre_votes(node: Node, peer: str) -> bool:
    """Beside servers that know no pre-vote there is none: without this, a quorum that needs them would never elect anybody. What it costs where it errs, with a peer
    that dies twice at just that moment, is one election that is not won."""
    soon = node.now - node.pre_vote_asked.get(peer, float("-inf")) < SOON
    hang_ups = node.pre_vote_hang_ups[peer] = node.pre_vote_hang_ups.get(peer, 0) + 1 if soon else 0
    return hang_ups >= HANG_UPS


def own_vote_stored(node: Node) -> None:
    node.votes[node.me.id] = True
    count_votes(node)


def count_votes(node: Node) -> None:
    """Go on with a quorum of the voters; a round that cannot get one waits for its time-out."""
    granted = sum(node.votes.get(voter.id, False) for voter in node.configuration.voters())
    if granted < node.quorum:
        return
    if node.role is Role.PRE_CANDIDATE:
        campaign(node)
    elif node.role is Role.CANDIDATE and node.votes.get(node.me.id, False):
        node.events.append(ElectionEnded(node.term, node.me))
        become_leader(node)


def _log_suffices(node: Node, request: VoteRequest | PreVoteRequest) -> bool:
    """Its log is at least as up-to-date as ours (Raft paper, 5.4.1), and not shorter than what a leader has told this server to be committed.

    Whoever can be elected has that much. Who has less can only win by the votes of servers that have forgotten it: of one that was emptied and taken back under
    its old name, in the eyes of a candidate whose configuration is from before its removal (the simulator found it).
    """
    log = node.log
    return request.last_index >= node.told_committed and (request.last_term, request.last_index) >= (log.last_term, log.last_index)


def _may_stand(node: Node, candidate: Server) -> bool:
    """Is a vote for this server thinkable? Without a configuration it is: this server is being added to a cluster.

    hashicorp/raft never votes for who is no voter in its configuration. But that may be behind the candidate's, whose quorum needs this very
    vote, and then nobody ever leads again (the simulator found it; the Raft thesis, 4.1, therefore ignores the configuration here). So
    who is unknown or has no vote is refused only as long as a leader was seen lately.
    """
    if not node.configuration.servers or node.configuration.is_voter(candidate.id):
        return True
    return node.now - node.leader_seen >= PATIENCE * node.settings.heartbeat_timeout


def on_vote_request(node: Node, request: VoteRequest) -> VoteResponse:
    """RequestVote (Raft paper, 5.2, 5.4.1; thesis, 4.2.3)."""
    candidate = node.server_of(request.header)
    if node.decides_alone or node.doubt is not None or not _may_stand(node, candidate):
        return VoteResponse(node.header, node.term, granted=False)
    if not request.leadership_transfer and _spoken_for(node) and not _leads(node, candidate):
        return VoteResponse(node.header, node.term, granted=False)
    if request.term < node.term:
        return VoteResponse(node.header, node.term, granted=False)
    if request.term > node.term:
        node.become_follower(request.term, None, f"{candidate.id} campaigns in a later term")
    if not _log_suffices(node, request):
        return VoteResponse(node.header, node.term, granted=False)
    if node.voted_for not in ("", candidate.id):
        return VoteResponse(node.header, node.term, granted=False)
    if node.role is not Role.FOLLOWER:
        node.become_follower(node.term, None, f"{candidate.id} was faster")
    if node.voted_for != candidate.id:
        node.vote_for(candidate.id)
    node.reset_election_timer()
    return VoteResponse(node.header, node.term, granted=True)


def on_pre_vote_request(node: Node, request: PreVoteRequest) -> PreVoteResponse:
    """RequestPreVote (Raft thesis, 9.6): would RequestVote be granted? Nothing changes here."""
    candidate = node.server_of(request.header)
    willing = (
        not node.decides_alone
        and node.doubt is None
        and _may_stand(node, candidate)
        and (not _spoken_for(node) or _leads(node, candidate))
        and request.term >= node.term
        and _log_suffices(node, request)
    )
    return PreVoteResponse(node.header, request.term if willing else node.term, willing)


def _spoken_for(node: Node) -> bool:
    return node.leader_is_alive() or node.is_bound()


def _leads(node: Node, candidate: Server) -> bool:
    return node.leader is not None and node.leader.id == candidate.id and candidate.id != node.me.id


def on_timeout_now(node: Node, request: TimeoutNowRequest) -> TimeoutNowResponse:
    """The leader hands over (Raft thesis, 3.10): campaign at once, without a pre-vote. Nobody else can hand over while it lives."""
    hands_over = _leads(node, node.server_of(request.header)) or not _spoken_for(node)
    able = node.is_voter and node.doubt is None and not node.disk_is_stuck()
    if hands_over and able and node.role is not Role.LEADER:
        campaign(node, transfer=True)
    else:
        node.counters["timeout_now_ignored"] += 1
    return TimeoutNowResponse(node.header)
