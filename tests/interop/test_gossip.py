"""One gossip cluster of hashicorp/memberlist nodes and ours: everybody sees everybody come, change, fail and leave.

The Go nodes run with their LAN defaults: compression is on, so every stream of theirs and every larger packet comes compressed. A Go node's
event delegate cannot tell a failure from a leave; what it believes stands in the states of its push/pull, which `believes` asks for.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from coterie.proto.gossip_messages import ALIVE, DEAD, LEFT
from tests.interop.our_gossip import GossipPeer
from tests.interop.support import LinePeer, believes

pytestmark = [pytest.mark.go, pytest.mark.timeout(300)]

StartGo = Callable[..., LinePeer]
StartOurs = Callable[..., GossipPeer]
Member = LinePeer | GossipPeer

FAILURE = 20.0  # probe, suspicion (4 s, more while this machine is busy) and the rumour's way


def meta_of(name: str) -> str:
    return f'{{"mgmt":"{name}.test:17946"}}'


def wait_for(watcher: Member, kind: str, name: str, meta: str | None = None, *, within: float = 10.0, since: int = 0) -> None:
    """`watcher` is told of a join, update, failure or leave of `name`; to a Go node the last two are one."""
    if isinstance(watcher, GossipPeer):
        watcher.wait_for(kind, name, meta, within=within, since=since)
        return
    kind = "leave" if kind == "failed" else kind
    watcher.wait_for(kind, lambda line: line["node"] == name and meta in (None, line["meta"]), within=within, since=since)


def all_see_all(members: list[Member], within: float) -> None:
    deadline = time.monotonic() + within
    for watcher in members:
        for other in members:
            if other is not watcher:
                wait_for(watcher, "join", other.name, meta_of(other.name), within=max(0.0, deadline - time.monotonic()))


def test_go_members_among_themselves(go_member: StartGo) -> None:
    first, second = go_member("g1", meta_of("g1")), go_member("g2", meta_of("g2"))
    second.ask("join", addrs=[first.address])
    all_see_all([first, second], 5)
    assert {member["node"] for member in first.ask("members")["members"]} == {"g1", "g2"}
    second.ask("leave", timeout=5)
    wait_for(first, "leave", "g2")
    assert believes(first) == {"g1": ALIVE, "g2": LEFT}


def test_two_go_and_two_of_ours_see_each_other_and_new_metadata(go_member: StartGo, our_member: StartOurs) -> None:
    goes = [go_member(name, meta_of(name)) for name in ("g1", "g2")]
    ours = [our_member("o1", meta_of("o1"), goes[0].address)]
    goes[1].ask("join", addrs=[ours[0].address])
    ours.append(our_member("o2", meta_of("o2"), goes[1].address))
    all_see_all([*goes, *ours], 5)

    goes[0].ask("meta", meta='{"new":"go"}')
    for watcher in (goes[1], *ours):
        wait_for(watcher, "update", "g1", '{"new":"go"}')
    largest = '{"new":"' + "x" * 502 + '"}'
    assert len(largest) == 512
    ours[0].set_meta(largest)
    for watcher in (*goes, ours[1]):
        wait_for(watcher, "update", "o1", largest)
    assert set(believes(goes[0]).values()) == {ALIVE}


@pytest.mark.parametrize("kind", ["go", "ours"])
def test_a_killed_member_fails_for_both_kinds(
    kind: str, go_member: StartGo, our_member: StartOurs, our_member_process: Callable[..., LinePeer]
) -> None:
    go = go_member("g1", meta_of("g1"))
    ours = our_member("o1", meta_of("o1"), go.address)
    if kind == "go":
        doomed = go_member("doomed", meta_of("doomed"))
        doomed.ask("join", addrs=[go.address])
    else:
        doomed = our_member_process("doomed", meta_of("doomed"), go.address)
    for watcher in (go, ours):
        wait_for(watcher, "join", "doomed", meta_of("doomed"))
    wait_for(go, "join", "o1")
    ours.wait_for("join", "g1")

    doomed.kill()
    for watcher in (go, ours):
        wait_for(watcher, "failed", "doomed", within=FAILURE)
    assert not ours.told("leave", "doomed") and ours.members()["doomed"].state == "failed"
    assert believes(go) == {"g1": ALIVE, "o1": ALIVE, "doomed": DEAD}


def test_a_leave_is_a_leave_both_ways(go_member: StartGo, our_member: StartOurs) -> None:
    go, leaving_go = go_member("g1", meta_of("g1")), go_member("g2", meta_of("g2"))
    ours, leaving_ours = our_member("o1", meta_of("o1"), go.address), our_member("o2", meta_of("o2"), go.address)
    leaving_go.ask("join", addrs=[go.address])
    all_see_all([go, ours, leaving_go, leaving_ours], 5)

    leaving_ours.leave()
    wait_for(go, "leave", "o2")
    wait_for(ours, "leave", "o2")
    leaving_go.ask("leave", timeout=5)
    wait_for(go, "leave", "g2")
    wait_for(ours, "leave", "g2")
    assert not ours.told("failed", "g2") and not ours.told("failed", "o2")
    assert {name: ours.members()[name].state for name in ("g1", "g2", "o2")} == {"g1": "alive", "g2": "left", "o2": "left"}
    assert believes(go) == {"g1": ALIVE, "o1": ALIVE, "g2": LEFT, "o2": LEFT}


def test_a_restarted_go_member_is_taken_back(go_member: StartGo, our_member: StartOurs) -> None:
    """It starts again at incarnation 1, while everybody remembers a dead one with a higher."""
    ours = our_member("o1", meta_of("o1"))
    go = go_member("g1", meta_of("g1"))
    go.ask("join", addrs=[ours.address])
    go.ask("meta", meta='{"life":"1"}')
    ours.wait_for("update", "g1", '{"life":"1"}')

    go.kill()
    ours.wait_for("failed", "g1", within=FAILURE)
    mark = ours.mark()
    again = go_member("g1", '{"life":"2"}', go.address)
    again.ask("join", addrs=[ours.address])
    ours.wait_for("join", "g1", '{"life":"2"}', since=mark)
    wait_for(again, "join", "o1", meta_of("o1"))
    assert believes(again) == {"g1": ALIVE, "o1": ALIVE}
