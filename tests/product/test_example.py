"""The example service, three times as a user runs it, with ports of its own; and what Prometheus sees of the three."""

from __future__ import annotations

import http.client
import itertools
import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.metrics_contract import CONTRACT
from tests.product.commands import Program, clusterctl
from tests.product.nodes import free_port
from tests.product.wait import wait_for

NAMES = ("n1", "n2", "n3")


class Services:
    def __init__(self, directory: Path) -> None:
        self.ports = {name: [free_port() for _ in range(4)] for name in NAMES}  # raft, gossip, management, http
        self.directory = directory
        self.running: dict[str, Program] = {}

    def start(self, name: str) -> None:
        self.running[name] = Program(
            *(sys.executable, "-m", "examples.three_node_service", name),
            *("--data", str(self.directory / name)),
            *("--ports", ",".join(map(str, self.ports[name]))),
            *("--seed", f"127.0.0.1:{self.ports['n1'][1]}"),
        )
        self.running[name].wait_line(f"READY {name}")

    def mgmt(self, name: str) -> str:
        return f"127.0.0.1:{self.ports[name][2]}"

    def get(self, name: str, path: str) -> tuple[int, str]:
        return fetch(self.ports[name][3], path)

    def metrics(self, name: str) -> dict[str, list[tuple[dict[str, str], float]]]:
        status, text = fetch(self.ports[name][2], "/metrics")
        assert status == 200
        found: dict[str, list[tuple[dict[str, str], float]]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found.setdefault(sample.name, []).append((sample.labels, sample.value))
        return found

    def metric(self, of: str, metric: str, /, **labels: str) -> float | None:
        """None: there is no such series."""
        return next((value for given, value in self.metrics(of).get(metric, []) if given == labels), None)


def fetch(port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    services = Services(tmp_path_factory.mktemp("example"))
    try:
        for name in NAMES:
            services.start(name)
        wait_for(lambda: services.get("n1", "/status")[1].startswith("leader=n1"), 10, "n1 leads")
        for name in NAMES[1:]:
            ran = clusterctl("join", "--id", name, "--raft-addr", f"127.0.0.1:{services.ports[name][0]}", "--addr", services.mgmt("n1"))
            assert (ran.returncode, json.loads(ran.stdout)) == (0, {"accepted": True}), ran
        yield services
    finally:
        for program in services.running.values():
            program.kill()


def test_status_is_the_line_of_the_guide_on_every_node(services: Services) -> None:
    for name in NAMES:
        wait_for(
            lambda name=name: services.get(name, "/status") == (200, "leader=n1 term=2 members=3\n"),
            10,
            f"{name}: {services.get(name, '/status')}",
        )


def test_callbacks_and_events_print_what_the_guide_says(services: Services) -> None:
    first = services.running["n1"]
    for line in ("election started", "election ended leader=n1", "LEADER n1 term=2", "EVENT type=LeaderChanged term=2"):
        first.wait_line(lambda said, line=line: said == line)

    def joins(name: str) -> int:
        return sum(line.startswith("EVENT type=MemberJoin term=") for line in services.running[name].lines)

    for name in NAMES:
        wait_for(lambda name=name: joins(name) == 2, 20, f"{name} hears of both others")
    assert (services.directory / "n1" / "replbuf").is_dir()


def test_healthz_and_unknown_paths(services: Services) -> None:
    for name in NAMES:
        assert services.get(name, "/healthz") == (200, "ok")
        assert services.get(name, "/nothing")[0] == 404


def test_a_write_at_any_node_runs_on_the_leader(services: Services) -> None:
    for name in NAMES:
        status, text = services.get(name, "/write")
        assert status == 200
        assert text.startswith("op=demo at=") and text.endswith(" payload=hello")


def test_a_publish_at_any_node_reaches_every_node(services: Services) -> None:
    line = "SYNC topic=demo.topic data=sync-data"
    before = services.running["n1"].lines.count(line)
    for name in NAMES:
        assert services.get(name, "/publish") == (200, "ok")
    for name in NAMES:
        wait_for(lambda name=name: services.running[name].lines.count(line) == before + 3, 10, f"{name} prints each once")


def test_the_leaders_metrics_have_every_name_of_the_contract_with_its_labels(services: Services) -> None:
    services.get("n2", "/publish")
    assert clusterctl("join", "--id", "", "--raft-addr", "127.0.0.1:1", "--addr", services.mgmt("n1")).returncode == 1
    wait_for(lambda: len(services.metrics("n1").get("go_cluster_repl_lag_per_node", [])) == 3, 10, "every member has acknowledged")
    seen = services.metrics("n1")
    for name, (_, labels) in CONTRACT.items():
        assert name in seen, name
        assert all(sorted(given) == sorted(labels) for given, _ in seen[name]), (name, seen[name])
    assert {given["node"] for given, _ in seen["go_cluster_repl_acks_per_node_total"]} == set(NAMES)
    assert {given["topic"] for given, _ in seen["go_cluster_repl_seq"]} == {"demo.topic"}
    assert services.metric("n1", "go_cluster_join_requests_total", result="accepted") == 2
    assert (services.metric("n1", "go_cluster_grpc_conn_active") or 0) >= 0
    for name in NAMES[1:]:
        _, text = fetch(services.ports[name][2], "/metrics")
        assert [metric for metric in CONTRACT if f"# TYPE {metric} " not in text] == [], name
        missing = [metric for metric in CONTRACT if metric not in services.metrics(name) and not metric.startswith("go_cluster_repl_")]
        assert missing == [], name


def test_metrics_tell_who_leads_who_is_there_and_how_far_all_are(services: Services) -> None:
    topic = {"topic": "demo.topic"}
    published = services.metric("n1", "go_cluster_repl_published_total", **topic) or 0
    for name in itertools.islice(itertools.cycle(NAMES), 10):
        assert services.get(name, "/publish") == (200, "ok")
    assert services.metric("n1", "go_cluster_repl_published_total", **topic) == published + 10
    assert services.metric("n1", "go_cluster_repl_seq", **topic) == published + 10
    wait_for(lambda: services.metric("n1", "go_cluster_repl_ack_seq", **topic) == published + 10, 10, "all have acknowledged")
    wait_for(lambda: services.metric("n1", "go_cluster_repl_lag", **topic) == 0, 10, "lag 0 in the end")
    for name in NAMES:
        node = {**topic, "node": name}
        assert services.metric("n1", "go_cluster_repl_ack_seq_per_node", **node) == published + 10
        wait_for(lambda node=node: services.metric("n1", "go_cluster_repl_lag_per_node", **node) == 0, 10, f"{name} lags 0 in the end")
        assert (services.metric("n1", "go_cluster_repl_acks_per_node_total", **node) or 0) >= 10
        wait_for(
            lambda name=name: services.metric(name, "coterie_delivered_total", **topic) == published + 10, 10, f"{name} has delivered all"
        )
    assert (services.metric("n1", "go_cluster_repl_broadcast_total", **topic) or 0) >= 20
    assert (services.metric("n1", "go_cluster_repl_acks_total", **topic) or 0) >= 30
    assert [services.metric(name, "go_cluster_is_leader") for name in NAMES] == [1, 0, 0]
    assert [services.metric(name, "go_cluster_members_total") for name in NAMES] == [3, 3, 3]
    assert services.metric("n1", "go_cluster_repl_subs") in (2, 3)
    assert [services.metric(name, "coterie_term") for name in NAMES] == [2, 2, 2]
    assert all((services.metric(name, "go_cluster_leader_changes_total") or 0) >= 1 for name in NAMES)


def test_the_leader_leaves_the_stage_and_the_others_go_on(services: Services) -> None:
    assert services.running["n1"].stop(signal.SIGTERM) == 0, services.running["n1"].text
    left = NAMES[1:]

    def another_leads() -> bool:
        return sum(services.metric(name, "go_cluster_is_leader") or 0 for name in left) == 1

    wait_for(another_leads, 10, "another leads")
    leader = next(name for name in left if services.metric(name, "go_cluster_is_leader") == 1)
    for name in left:
        program = services.running[name]
        wait_for(lambda name=name: services.get(name, "/status")[1].startswith(f"leader={leader}"), 10, f"{name} sees {leader}")
        program.wait_line(lambda line: line.startswith(f"LEADER {leader} term="))
        program.wait_line(f"election ended leader={leader}")
        program.wait_line("EVENT type=ElectionEnd term=")
        assert services.get(name, "/write")[0] == 200
    before = services.metric(leader, "go_cluster_repl_seq", topic="demo.topic") or 0
    assert services.get(left[0], "/publish") == (200, "ok")
    wait_for(lambda: services.metric(leader, "go_cluster_repl_seq", topic="demo.topic") == before + 1, 10, "sequences go on")
    for name in left:
        assert services.running[name].stop(signal.SIGINT) == 0
    for program in services.running.values():
        assert "Traceback" not in program.text, program.text
