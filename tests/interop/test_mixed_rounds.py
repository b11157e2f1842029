"""Twenty leaders die in a quorum of both kinds, the quorum grows and shrinks under leaders of both kinds, and at the end all have one log, entry by entry.

The logs are read from the disks of the dead: ours from LMDB, Go's from raft-boltdb by `go/dump`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.interop.go_node import GoNode
from tests.interop.mixed import Stored, join, make_go_lead, same_logs, stored_by_go, stored_by_ours, wait_rosters, who_leads
from tests.interop.support import PeerError
from tests.product.checks import check_outcomes, check_same
from tests.product.failover import first_write
from tests.product.nodes import Node, ProcessCluster
from tests.product.wait import wait_for

pytestmark = [pytest.mark.go, pytest.mark.long, pytest.mark.timeout(900)]

ROUNDS = 20
KEPT = 1_000_000  # entries: the whole log stays, to be compared


class Mixed:
    """Two nodes of ours, and Go nodes g1, g2, …"""

    def __init__(self, programs: Path, directory: Path, stack: ExitStack) -> None:
        self.programs, self.directory, self.stack = programs, directory, stack
        self.ours = ProcessCluster(directory, 2, trailing_entries=KEPT)
        stack.callback(lambda: [node.kill() for node in self.ours.nodes])
        self.ours.start()
        self.go: list[GoNode] = []

    def add_go(self) -> GoNode:
        go = GoNode(self.programs / "roster", self.directory, f"g{len(self.go) + 1}", [self.ours.seed], trailing=KEPT)
        self.stack.callback(go.close)
        self.go.append(go.start())
        return go

    def leader(self) -> Node | GoNode:
        return who_leads(self.ours, *(go for go in self.go if go.peer.alive), within=30)

    def ours_lead(self) -> Node:
        """Until one of ours does, which a publish brings about."""
        first_write(self.ours.others()[0], deadline=30)
        return self.ours.leader()

    def names(self) -> set[str]:
        return {node.name for node in (*self.ours.nodes, *self.go)}

    def servers(self, of: GoNode) -> set[str]:
        return {server["node"] for server in of.peer.ask("servers")["servers"]}

    def wait_one_end(self) -> None:
        """Until all have on their disks, and know committed, all that the leader has."""

        def ends() -> set[tuple[int, int]]:
            statuses = (node.status(local=True) for node in self.ours.nodes)
            return {(s["last_index"], s["commit_index"]) for s in statuses} | {
                (s["last"], s["commit"]) for s in (go.state() for go in self.go)
            }

        wait_for(lambda: len(found := ends()) == 1 and len(set(next(iter(found)))) == 1, 30, "all logs end at the same entry", every=0.2)

    def kill_all(self) -> None:
        """Followers first: without a quorum nobody can win an election, and write of it into its log."""
        leader = self.leader()
        everybody: list[Node | GoNode] = [*self.ours.nodes, *self.go]
        for node in sorted(everybody, key=lambda node: node is leader):
            node.kill()

    def logs(self) -> dict[str, list[Stored]]:
        return {node.name: stored_by_ours(node) for node in self.ours.nodes} | {go.name: stored_by_go(self.programs, go) for go in self.go}


@pytest.fixture
def mixed(programs: Path, tmp_path: Path) -> Iterator[Mixed]:
    with ExitStack() as stack:
        yield Mixed(programs, tmp_path, stack)


def go_leads(mixed: Mixed, go: GoNode) -> None:
    mixed.ours_lead()
    make_go_lead(mixed.ours, go, patience=40)


# -- leaders die ----------------------------------------------------------------------------------------------------------------------


def test_twenty_leaders_of_both_kinds_die_and_the_logs_are_one(mixed: Mixed) -> None:
    """The first half with one Go server among three, the second half with two among four. Every third leader is made to be a Go server."""
    cluster = mixed.ours
    join(cluster.leader(), mixed.add_go())
    wait_rosters(cluster.nodes, mixed.go, mixed.names())
    died: list[str] = []
    publishers: list[str] = []
    for round_ in range(ROUNDS):
        if round_ == ROUNDS // 2:
            join(mixed.ours_lead(), mixed.add_go())
            wait_rosters(cluster.nodes, mixed.go, mixed.names())
        loads = {
            node.name: node.load(f"{node.name}.{round_}", topics=["a", "b/c"], seed=round_, pause=0.003, timeout=5, size=[10, 4096])
            for node in cluster.nodes
        }
        time.sleep(0.3)  # of load
        if round_ % 3 == 1:
            go_leads(mixed, mixed.go[round_ % len(mixed.go)])
        leader = mixed.leader()
        leader.kill()
        died.append(leader.name)
        survivors = cluster.others()
        took = first_write(survivors[round_ % len(survivors)], deadline=30)
        print(f"round {round_ + 1} of {ROUNDS}: {leader.name} died, next write after {took:.2f} s", flush=True)
        leader.start()
        time.sleep(0.3)  # of load, while the dead one catches up
        for node in survivors:
            node.load_done(loads[node.name], stop=True)
            publishers.append(loads[node.name])
        cluster.wait_whole(30)
    kinds = Counter("Go" if name.startswith("g") else "ours" for name in died)
    assert min(kinds.values()) >= 5, f"died: {died}"

    cluster.wait_settled(60)
    counts = check_outcomes(check_same(cluster.nodes), cluster.nodes, publishers)
    wait_rosters(cluster.nodes, mixed.go, mixed.names())
    mixed.wait_one_end()
    mixed.kill_all()
    entries = same_logs(mixed.logs())
    print(f"died: {dict(kinds)}; outcomes: {counts}; {entries} entries are the same on {sorted(mixed.names())}")
    assert entries > counts["acked"] / 64 > 5  # a batch may carry many


# -- the quorum changes, and the leadership goes both ways --------------------------------------------------------------------------------


def test_both_kinds_of_leaders_change_the_quorum_and_hand_over_and_the_logs_are_one(mixed: Mixed) -> None:
    cluster = mixed.ours
    n1, n2 = cluster.nodes
    g1, g2 = mixed.add_go(), mixed.add_go()

    # Ours takes in both, puts one out, and takes it in again.
    for go in (g1, g2):
        join(cluster.leader(), go)
    wait_rosters(cluster.nodes, mixed.go, mixed.names())
    cluster.leader().ask("leave", id="g2")
    wait_for(lambda: mixed.servers(g1) == {"n1", "n2", "g1"}, 15, "g2 is out")
    join(cluster.leader(), g2)
    wait_rosters(cluster.nodes, mixed.go, mixed.names())

    # Ours hands over to Go, which puts a server of ours out and takes it in again, as a nonvoter and as a voter.
    make_go_lead(cluster, g1)
    g1.peer.ask("remove", node="n2")
    wait_for(lambda: mixed.servers(g1) == {"n1", "g1", "g2"}, 15, "n2 is out")
    g1.peer.ask("nonvoter", node="n2", addr=n2.raft_addr)
    wait_for(lambda: suffrage(n1, "n2") == "learner", 15, "n1 has n2 as a learner")
    g1.peer.ask("voter", node="n2", addr=n2.raft_addr)
    wait_for(lambda: suffrage(n1, "n2") == "voter", 15, "n1 has n2 as a voter")
    assert g1.leads(), "all of it was done by the Go leader"

    # Go hands over to ours, ours to ours, ours to the other Go server, and that to ours.
    hand_over(g1, n2)
    n2.ask("transfer", id="n1")
    wait_for(lambda: n1.status(local=True)["role"] == "leader", 15, "n1 leads")
    make_go_lead(cluster, g2)
    hand_over(g2, n1)
    for number, node in enumerate(cluster.nodes, start=1):
        assert node.ask("publish", topic="t", data=str(number), timeout=15)["seq"] == number

    cluster.wait_settled()
    check_same(cluster.nodes)
    wait_rosters(cluster.nodes, mixed.go, mixed.names())
    mixed.wait_one_end()
    mixed.kill_all()
    logs = mixed.logs()
    same_logs(logs)
    terms = {entry.term for entry in logs["g1"]}
    print(f"{len(logs['g1'])} entries in {len(terms)} terms are the same on {sorted(mixed.names())}")


def suffrage(node: Node, of: str) -> str:
    return next((m["suffrage"] for m in node.status(local=True)["members"] if m["id"] == of), "none")


def hand_over(go: GoNode, to: Node) -> None:
    """By hashicorp/raft's own LeadershipTransferToServer. It refuses while the other is behind, and is then asked again."""

    def asked() -> bool:
        try:
            go.peer.ask("transfer", node=to.name, addr=to.raft_addr, within=20)
        except PeerError:
            return to.status(local=True)["role"] == "leader"
        return True

    wait_for(asked, 30, f"{go.name} hands over to {to.name}", every=0.2)
    wait_for(lambda: to.status(local=True)["role"] == "leader", 15, f"{to.name} leads")
    assert not go.leads()
