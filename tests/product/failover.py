"""Rounds of leaders that die under load, for the tests and for the long campaign."""

from __future__ import annotations

import signal
import time

from tests.product.nodes import CommandFailed, Node, ProcessCluster
from tests.product.wait import wait_for

MOST_SECONDS = 3.0  # from a leader's death to the next acknowledged write


def first_write(node: Node, deadline: float = 15) -> float:
    """Publish at `node` until it is acknowledged; -> seconds. Only errors that say what they are may come before."""
    began = time.monotonic()
    while True:
        try:
            node.ask("publish", topic="probe", data=f"probe:{time.monotonic_ns()}", timeout=3)
            return time.monotonic() - began
        except CommandFailed as error:
            assert error.name in ("Indeterminate", "NoQuorum", "NotLeader"), error
        assert time.monotonic() - began < deadline, f"{node.name} accepts no write {deadline} s after its leader's death"


def kill_leader_under_load(
    cluster: ProcessCluster, round_: int, topics: list[str], seconds: float = 0.3, **load: object
) -> tuple[float, list[str]]:
    """Load from the two others, SIGKILL of the leader, a write, more load, the dead one started again. -> (seconds to the write, the publishers)."""
    leader = cluster.leader()
    others = cluster.others(leader)
    names = [node.load(f"{node.name}.{round_}", topics=topics, seed=round_, **{"pause": 0.0005, "timeout": 5, **load}) for node in others]
    time.sleep(seconds)  # of load
    leader.kill()
    took = first_write(others[round_ % len(others)])
    leader.start()
    time.sleep(seconds)  # of load, while the dead one catches up
    for node, name in zip(others, names, strict=True):
        node.load_done(name, stop=True)
    cluster.wait_whole()
    return took, names


def pause(node: Node, seconds: float) -> None:
    """SIGSTOP, and SIGCONT after a while."""
    node.signal(signal.SIGSTOP)
    time.sleep(seconds)  # how long it stands is the scenario
    node.signal(signal.SIGCONT)


def wait_leader_elsewhere(cluster: ProcessCluster, old: Node, deadline: float = 10) -> Node:
    others = [node for node in cluster.others() if node is not old]
    wait_for(
        lambda: any(node.ask("status", local=True, wait=5)["role"] == "leader" for node in others),
        deadline,
        f"another than {old.name} leads",
    )
    return cluster.wait_leader(others)
