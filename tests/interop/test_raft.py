"""One quorum of three, made of hashicorp/raft servers and ours: every role on either side, and in the end one log, entry by entry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from coterie.actors.disk.lmdb_env import Identity
from coterie.actors.raft.lmdb_log import LmdbLog
from coterie.actors.raft.memory_log import MemoryLog
from coterie.proto.raft_messages import COMMAND, CONFIGURATION, Entry
from tests.interop.our_raft import RaftPeer
from tests.interop.support import LinePeer, LogEntry, PeerError, from_go, from_ours

pytestmark = [pytest.mark.go, pytest.mark.timeout(300)]

StartGo = Callable[[str], LinePeer]
StartOurs = Callable[..., RaftPeer]
Peer = LinePeer | RaftPeer


# -- what both kinds can do -------------------------------------------------------------------------------------------------------


def go_leads(peer: LinePeer, within: float = 10.0, since: int = 0) -> None:
    peer.wait_for("role", lambda line: line["role"] == "Leader", within=within, since=since)


def lead(peer: LinePeer) -> LinePeer:
    peer.ask("bootstrap")
    go_leads(peer)
    return peer


def batch(prefix: str, count: int) -> list[bytes]:
    return [f"{prefix}-{number}".encode() for number in range(count)]


def apply(leader: Peer, prefix: str, count: int) -> list[bytes]:
    """`count` commands through `leader`, all committed when this returns."""
    if isinstance(leader, LinePeer):
        leader.ask("apply", prefix=prefix, count=count)
    else:
        indexes = leader.propose(batch(prefix, count))
        assert indexes == list(range(indexes[0], indexes[0] + count))
    return batch(prefix, count)


def wait_applied(peer: Peer, command: bytes) -> None:
    if isinstance(peer, LinePeer):
        peer.wait_for("applied", lambda line: from_go([line])[0].data == command)
    else:
        peer.wait_command(command)


def applied(peer: Peer) -> list[LogEntry]:
    return from_go(peer.said("applied")) if isinstance(peer, LinePeer) else from_ours(peer.commands())


def log_of(peer: Peer, last: int) -> list[LogEntry]:
    return from_go(peer.ask("log")["entries"])[:last] if isinstance(peer, LinePeer) else from_ours(peer.stored(last))


def agree(peers: Sequence[Peer], commands: list[bytes]) -> None:
    """Every state machine had exactly `commands`, at the same places, and the logs are one log up to the last of them."""
    for peer in peers:
        wait_applied(peer, commands[-1])
    first, *others = peers
    wanted = applied(first)
    assert [entry.data for entry in wanted] == commands
    last = wanted[-1].index
    log = log_of(first, last)
    assert [entry.index for entry in log] == list(range(1, last + 1))
    for peer in others:
        assert applied(peer) == wanted, peer.name
        assert log_of(peer, last) == log, peer.name


def new_leader(peers: Sequence[Peer], marks: dict[str, int]) -> Peer:
    """Whoever of `peers` leads, once all of them know it: Go servers by what they said since their mark."""
    names = {peer.name for peer in peers}
    known = set()
    for peer in peers:
        if isinstance(peer, LinePeer):
            known.add(peer.wait_for("leader", lambda line: line["node"] in names, since=marks[peer.name])["node"])
        else:
            known.add(peer.wait_view(lambda view: view.leader_id in names).leader_id)
    assert len(known) == 1, known
    return next(peer for peer in peers if peer.name in known)


# -- the harness itself -----------------------------------------------------------------------------------------------------------


def test_go_servers_among_themselves(go_server: StartGo) -> None:
    first, second = lead(go_server("g1")), go_server("g2")
    first.ask("voter", node="g2", addr=second.address)
    agree([first, second], apply(first, "a", 20))
    with pytest.raises(PeerError, match="not the leader"):
        second.ask("apply", prefix="b", count=1)


# -- ours follows -----------------------------------------------------------------------------------------------------------------


def test_ours_follows_a_go_leader_and_survives_it(go_server: StartGo, our_server: StartOurs) -> None:
    first, second, ours = lead(go_server("g1")), go_server("g2"), our_server("o1")
    first.ask("voter", node="g2", addr=second.address)
    first.ask("voter", node="o1", addr=ours.address)
    commands = apply(first, "a", 500)
    agree([first, second, ours], commands)
    assert ours.view().leader_id == "g1"

    marks = {"g2": second.mark()}
    first.kill()
    leader = new_leader([second, ours], marks)
    commands += apply(leader, "b", 100)
    agree([second, ours], commands)


def test_two_of_ours_follow_one_go_leader(go_server: StartGo, our_server: StartOurs) -> None:
    go, one, two = lead(go_server("g1")), our_server("o1"), our_server("o2")
    commands = apply(go, "before", 30)
    go.ask("voter", node="o1", addr=one.address)
    go.ask("voter", node="o2", addr=two.address)
    commands += apply(go, "a", 500)
    agree([go, one, two], commands)

    go.kill()
    leader = new_leader([one, two], {})
    commands += apply(leader, "b", 100)
    agree([one, two], commands)


def test_a_diverged_log_of_ours_is_overwritten_by_a_go_leader(go_server: StartGo, our_server: StartOurs) -> None:
    go = lead(go_server("g1"))
    commands = apply(go, "a", 20)
    bootstrap = from_go(go.ask("log")["entries"])[0]
    assert bootstrap.kind == CONFIGURATION
    stale = MemoryLog()
    stale.append([Entry(*bootstrap), *(Entry(index, bootstrap.term, COMMAND, b"never committed") for index in range(2, 60))])
    ours = our_server("o1", log=stale)
    go.ask("voter", node="o1", addr=ours.address)
    agree([go, ours], commands + apply(go, "b", 100))


def test_ours_is_a_nonvoter_then_a_voter_then_removed_and_disturbs_nobody(go_server: StartGo, our_server: StartOurs) -> None:
    first, second, ours = lead(go_server("g1")), go_server("g2"), our_server("o1")
    first.ask("voter", node="g2", addr=second.address)
    first.ask("nonvoter", node="o1", addr=ours.address)
    commands = apply(first, "a", 50)
    agree([first, second, ours], commands)
    first.ask("voter", node="o1", addr=ours.address)
    commands += apply(first, "b", 50)
    agree([first, second, ours], commands)

    term, marks = first.ask("state")["term"], {peer.name: peer.mark() for peer in (first, second)}
    first.ask("remove", node="o1")
    # Go often stops the replication before the removed server has heard of it: then it asks for pre-votes, which raise nobody's term.
    ours.wait_view(lambda view: view.role == "pre-candidate" or "o1" not in {server.id for server in view.servers})
    agree([first, second], commands + apply(first, "c", 50))
    assert first.ask("state")["term"] == second.ask("state")["term"] == term == ours.view().term
    assert not any(peer.said("role", since=marks[peer.name]) for peer in (first, second))


def test_ours_comes_back_from_its_disk_and_catches_up(go_server: StartGo, our_server: StartOurs, tmp_path: Path) -> None:
    first, second = lead(go_server("g1")), go_server("g2")
    identity = Identity("o1", "0123456789abcdef")
    ours = our_server("o1", log=LmdbLog.open(tmp_path, identity))
    first.ask("voter", node="g2", addr=second.address)
    first.ask("voter", node="o1", addr=ours.address)
    commands = apply(first, "a", 200)
    agree([first, second, ours], commands)

    ours.close()
    commands += apply(first, "b", 300)
    ours = our_server("o1", log=LmdbLog.open(tmp_path, identity), bind=ours.address)
    agree([first, second, ours], commands + apply(first, "c", 10))


# -- ours leads -------------------------------------------------------------------------------------------------------------------


def test_leadership_goes_from_go_to_ours_and_back(go_server: StartGo, our_server: StartOurs) -> None:
    first, second, ours = lead(go_server("g1")), go_server("g2"), our_server("o1")
    first.ask("voter", node="g2", addr=second.address)
    first.ask("voter", node="o1", addr=ours.address)
    commands = apply(first, "a", 50)

    first.ask("transfer", node="o1", addr=ours.address)
    ours.leads()
    commands += apply(ours, "b", 500)
    agree([ours, first, second], commands)

    mark = second.mark()
    ours.transfer("g2")
    go_leads(second, since=mark)
    commands += apply(second, "c", 50)
    agree([second, first, ours], commands)


def test_ours_bootstraps_and_takes_in_go_servers(go_server: StartGo, our_server: StartOurs) -> None:
    ours, first, second = our_server("o1", bootstrap=True), go_server("g1"), go_server("g2")
    ours.leads()
    commands = apply(ours, "before", 200)
    ours.add("g1", first.address)
    ours.add("g2", second.address)
    commands += apply(ours, "a", 500)
    agree([ours, first, second], commands)
    assert {server["suffrage"] for server in first.ask("servers")["servers"]} == {"Voter"}

    marks = {peer.name: peer.mark() for peer in (first, second)}
    ours.stop()
    leader = new_leader([first, second], marks)
    commands += apply(leader, "b", 50)
    agree([first, second], commands)


def test_two_of_ours_and_a_go_follower_whose_log_diverged(go_server: StartGo, our_server: StartOurs) -> None:
    go, one, two = lead(go_server("g1")), our_server("o1"), our_server("o2")
    go.ask("voter", node="o1", addr=one.address)
    go.ask("voter", node="o2", addr=two.address)
    commands = apply(go, "a", 50)
    agree([go, one, two], commands)

    # Alone, the Go leader takes in what no quorum will ever have; it is frozen before it can meet the others again.
    one.close()
    two.close()
    with pytest.raises(PeerError, match=r"leadership lost|not the leader"):
        go.ask("apply", prefix="lost", count=10)
    assert go.ask("state")["last"] > from_go(go.said("applied"))[-1].index
    go.pause()
    one = our_server("o1", log=one.log, bind=one.address)
    two = our_server("o2", log=two.log, bind=two.address)
    leader = new_leader([one, two], {})
    commands += apply(leader, "b", 200)
    go.resume()
    agree([one, two, go], commands)
