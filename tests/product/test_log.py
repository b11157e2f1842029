"""What three `clusterctl run` say in their log: a line a record for machines, and not more of them because a node is dead."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.product.commands import CLUSTERCTL, Program, clusterctl
from tests.product.nodes import free_port
from tests.product.wait import wait_for

NAMES = ("n1", "n2", "n3")
WATCHED = 15.0  # seconds
MOST_LINES = 15  # of a node, in that time, about a dead leader and a collector of traces that is away
SECRET = "the-payload-of-an-application"
KEY = "MDEyMzQ1Njc4OWFiY2RlZg=="


class Logging:
    """Three nodes that log JSON and export their traces to where nobody is."""

    def __init__(self, directory: Path) -> None:
        self.mgmt = {name: f"127.0.0.1:{free_port()}" for name in NAMES}
        self.raft = {name: f"127.0.0.1:{free_port()}" for name in NAMES}
        seed, self.running = f"127.0.0.1:{free_port()}", {}
        for name in NAMES:
            first = name == "n1"
            self.running[name] = Program(
                *(CLUSTERCTL, "run", "--id", name, "--raft-addr", self.raft[name], "--mgmt-addr", self.mgmt[name]),
                *("--mem-bind", seed if first else "127.0.0.1:0", "--data", str(directory / name)),
                *(("--bootstrap",) if first else ("--join", seed)),
                *("--log-format", "json", "--gossip-key", KEY),
            )
            self.running[name].wait_line("SIGTERM")
        for name in NAMES[1:]:
            done = clusterctl("join", "--id", name, "--raft-addr", self.raft[name], "--addr", self.mgmt["n1"])
            assert done.returncode == 0, done.stderr
        for name in NAMES:
            wait_for(lambda name=name: self.sees_all(name), 30, f"{name} sees a leader and all three", every=0.2)

    def sees_all(self, name: str) -> bool:
        status = self.status(name)
        return bool(status.get("LeaderID")) and [m["State"] for m in status["Members"]] == ["alive"] * 3

    def status(self, name: str) -> dict[str, Any]:
        done = clusterctl("status", "--addr", self.mgmt[name])
        return dict(json.loads(done.stdout or "{}"))

    def lines(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.running[name].lines]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Logging]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
        cluster = Logging(tmp_path_factory.mktemp("logging"))
    yield cluster
    for program in cluster.running.values():
        program.kill()


def test_every_line_is_an_object_that_says_when_who_and_what(cluster: Logging) -> None:
    for name in NAMES:
        ours = [line for line in cluster.lines(name) if line["logger"].startswith("coterie")]
        for line in ours:
            assert {"time", "level", "logger", "message"} <= set(line), line
            assert (line.get("node"), line["logger"].split(".")[1]) == (name, name), line
    joined = [line for line in cluster.lines("n1") if line.get("event") == "MemberJoin"]
    assert [line["member_id"] for line in joined] == ["n2", "n3"]


@pytest.mark.long
def test_a_dead_leader_is_said_and_not_said_again_and_again(cluster: Logging) -> None:
    leader = cluster.status("n2")["LeaderID"]
    others = [name for name in NAMES if name != leader]
    before = {name: len(cluster.running[name].lines) for name in others}
    cluster.running[leader].kill()
    began = time.monotonic()
    wait_for(lambda: cluster.status(others[0]).get("LeaderID") in others, 30, "another leads")

    def publish_until_over() -> bool:
        done = clusterctl("publish", "t", SECRET, "--addr", cluster.mgmt[others[0]])
        assert done.returncode == 0, done.stderr
        return time.monotonic() - began >= WATCHED

    wait_for(publish_until_over, WATCHED + 10, "the time is over", every=0.5)
    for name in others:
        said = cluster.running[name].lines[before[name] :]
        assert any(leader in line and "MemberFailed" in line for line in said), said
        assert len(said) <= MOST_LINES, "\n".join(said)
        assert SECRET not in "\n".join(said)
        assert KEY not in cluster.running[name].text
        print(f"{name}: {len(said)} lines in {WATCHED:g} s about a dead leader")
    assert any("trace_exporter" in line for line in cluster.running[others[0]].lines)
