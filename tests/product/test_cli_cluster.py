"""`clusterctl` against three node processes: how fast it answers, what it shows, and its exit codes as nodes die."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.product.commands import CLUSTERCTL, Program, clusterctl
from tests.product.nodes import ProcessCluster, process_cluster
from tests.product.wait import wait_for

WAIT = 30.0
# How many times as long as an interpreter that does nothing a question may take. Where that is 40 ms, as on an idle machine of 2020, it is 0.3 s.
FACTOR = 7.5


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessCluster]:
    with process_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


def took(*command: str) -> float:
    began = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, timeout=WAIT, check=True)
    return time.perf_counter() - began


def test_an_answer_takes_little_more_than_the_interpreter_s_start(cluster: ProcessCluster) -> None:
    addr = cluster.nodes[1].mgmt_addr
    wait_for(lambda: clusterctl("status", "--addr", addr).returncode == 0, WAIT, "all is well")
    best: dict[str, float] = {}
    for round_ in range(
        20
    ):  # in turn, so that other work on the machine meets all of them; the best of each is the one that it disturbed least
        if round_ >= 3 and max(best["status"], best["members"]) < FACTOR * best["python"]:
            break
        for name, command in {
            "python": (sys.executable, "-c", "pass"),
            "status": (CLUSTERCTL, "status", "--addr", addr),
            "members": (CLUSTERCTL, "members", "--addr", addr),
        }.items():
            best[name] = min(best.get(name, WAIT), took(*command))
    print({name: f"{seconds * 1000:.0f} ms" for name, seconds in best.items()})
    assert max(best["status"], best["members"]) < FACTOR * best["python"], best


def test_every_command_works_on_a_cluster_that_is_well(cluster: ProcessCluster) -> None:
    addr = cluster.nodes[2].mgmt_addr
    published = clusterctl("publish", "orders", "42", "--addr", addr, "--message-id", "once")
    assert (published.returncode, json.loads(published.stdout)["seq"]) == (0, 1), published
    again = clusterctl("publish", "orders", "42", "--addr", addr, "--message-id", "once")
    assert json.loads(again.stdout) == json.loads(published.stdout), "published once"
    over_grpc = clusterctl("publish", "orders", "43", "--addr", grpc_addr(addr), "--mgmt-proto", "grpc")
    assert (over_grpc.returncode, json.loads(over_grpc.stdout)["seq"]) == (0, 2), over_grpc

    def delivered() -> bool:
        topics = json.loads(clusterctl("topics", "--addr", addr).stdout)["Topics"]
        return bool(topics) and (topics[0]["Topic"], topics[0]["Seq"], topics[0]["Lag"]) == ("orders", 2, {"n1": 0, "n2": 0, "n3": 0})

    wait_for(delivered, WAIT, "all nodes have had both records", every=0.1)
    assert clusterctl("probe", "ready", "--addr", addr).returncode == 0
    for node in cluster.nodes:  # of the leader too, whoever is asked
        for asked in cluster.nodes:
            repeated = clusterctl("join", "--id", node.name, "--raft-addr", node.raft_addr, "--addr", asked.mgmt_addr)
            assert (repeated.returncode, json.loads(repeated.stdout)) == (0, {"accepted": True}), repeated
    watched = clusterctl("members", "--addr", addr, "--watch=50ms", "--count", "2")
    assert [len(json.loads(line)["Members"]) for line in watched.stdout.splitlines()] == [3, 3]


def grpc_addr(addr: str) -> str:
    host, _, port = addr.rpartition(":")
    return f"{host}:{int(port) + 1}"


def ask(command: str, addrs: str) -> tuple[int, dict[str, Any] | None]:
    ran = clusterctl(command, "--addr", addrs, "--timeout", "5s")
    return ran.returncode, json.loads(ran.stdout) if ran.stdout else None


@pytest.mark.long
def test_after_a_leaders_death_no_answer_says_that_all_is_well(cluster: ProcessCluster) -> None:
    """Not before the others elect, nor in the first seconds of the new leader, while gossip has the old one for alive yet."""
    old = cluster.leader()
    left = cluster.others(old)
    old.kill()
    codes = []

    def failed() -> bool:
        for node in left:
            code, document = ask("status", node.mgmt_addr)
            codes.append((code, document))
        return any(row["ID"] == old.name and row["State"] == "failed" for row in (codes[-1][1] or {}).get("Members", ()))

    wait_for(failed, WAIT, "gossip gives it up", every=0.05)
    assert [document for code, document in codes if code == 0] == []
    assert any((document or {}).get("LeaderID") in {node.name for node in left} for _, document in codes)
    old.start()
    for node in cluster.nodes:
        wait_for(lambda node=node: ask("status", node.mgmt_addr)[0] == 0, WAIT, f"{node.name} says that all is well again", every=0.1)


@pytest.mark.long
def test_exit_codes_and_rows_as_nodes_die(cluster: ProcessCluster) -> None:
    """The last test of the module: it takes the cluster apart."""
    leader = cluster.leader()
    one, other = cluster.others(leader)
    addrs = ",".join(node.mgmt_addr for node in (one, leader, other))
    names = [node.name for node in cluster.nodes]
    for command in ("status", "members", "topics"):
        assert ask(command, addrs)[0] == 0, command
    with contextlib.closing(_Listening(leader.mgmt_addr)) as events:
        one.kill()
        for command in ("status", "members", "topics"):
            wait_for(lambda command=command: ask(command, addrs)[0] == 1, WAIT, f"{command} says degraded", every=0.1)
        assert [row["ID"] for row in (ask("members", addrs)[1] or {})["Members"]] == names
        failed = events.program.wait_line(lambda line: '"MemberFailed"' in line, WAIT)
        assert json.loads(failed)["memberId"] == one.name
    other.kill()
    for command in ("status", "members", "topics"):
        wait_for(lambda command=command: ask(command, addrs)[0] == 2, WAIT, f"{command} says no quorum", every=0.1)
    document = ask("members", addrs)[1] or {}
    assert [row["ID"] for row in document["Members"]] == names
    assert document["Healthy"] is False
    leader.kill()
    ran = clusterctl("status", "--addr", addrs)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert re.fullmatch(r"clusterctl: (?:[\d.:]+ cannot be asked: [^\n;]+; is a node up there\?(?:; )?){3}\n", ran.stderr), ran.stderr


class _Listening:
    """`clusterctl events` from when it listens on."""

    def __init__(self, addr: str) -> None:
        self.program = Program(CLUSTERCTL, "events", "--addr", addr, "--output", "json")
        self.program.wait_line("listening at", WAIT)

    def close(self) -> None:
        self.program.kill()
