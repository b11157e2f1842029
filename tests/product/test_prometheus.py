"""Prometheus itself scrapes nodes in processes of their own: the rules fire when they should, and every panel of every dashboard shows something.

One story, in order: a cluster that is well, under load; a handler that stalls; a subscriber that stops; a quorum that is cut.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.metrics_contract import CONTRACT, OURS, PROCESS, full
from tests.product.nodes import ProcessCluster
from tests.product.prometheus import (
    DASHBOARDS,
    MISSING,
    ROOT,
    RULES,
    Prometheus,
    alerts,
    dashboard_queries,
    exposing,
    filled_in,
    metrics_in,
)
from tests.product.wait import wait_for

needs_prometheus = pytest.mark.skipif(bool(MISSING), reason=MISSING)
# A cluster that is well has no series of these: their panels are asked of a node that is not well.
RARE = {
    "coterie_actor_restarts_total",
    "coterie_dead_letters_total",
    "coterie_dropped_total",
    "coterie_redelivered_total",
    "coterie_tls_certificate_expiry_timestamp_seconds",
}
# What may be true of the machine that the tests run on.
SLOW_MACHINE = {"CoterieCommitSlow", "CoterieFsyncSlow", "CoterieGossipUnhealthy"}
KNOWN = {*CONTRACT, *OURS, *PROCESS}


def known(metric: str) -> bool:
    """A metric of ours, or a series of one of our histograms."""
    return metric in KNOWN or re.sub(r"_(bucket|count|sum)$", "", metric) in KNOWN


# -- the files by themselves -------------------------------------------------------------------------------------------------------


def test_rules_and_dashboards_ask_for_metrics_that_exist() -> None:
    asked = [(rule["alert"], rule["expr"]) for rule in alerts()] + [
        (f"{board}: {panel}", query) for board, panel, query in dashboard_queries()
    ]
    assert len(asked) > 60
    for where, query in asked:
        assert {metric for metric in metrics_in(query) if not known(metric)} == set(), where


def test_every_alert_says_how_bad_it_is_and_what_to_do() -> None:
    guide = (ROOT / "docs/monitoring.md").read_text()
    anchors = {
        re.sub(r"[^\w\- ]", "", line.lstrip("#").strip().lower()).replace(" ", "-") for line in guide.splitlines() if line[:1] == "#"
    }
    names = [rule["alert"] for rule in alerts()]
    assert len(set(names)) == len(names)
    for rule in alerts():
        assert rule["labels"]["severity"] in ("info", "warning", "critical"), rule["alert"]
        assert set(rule["annotations"]) == {"summary", "description", "runbook"}, rule["alert"]
        page, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert page == "docs/monitoring.md" and anchor in anchors, rule["alert"]


def test_every_alert_has_a_scenario_in_which_it_fires() -> None:
    scenarios = (RULES.parent / "rules_test.yml").read_text()
    fired = set(re.findall(r'\{alertname="(\w+)"\}', scenarios))
    assert fired == {rule["alert"] for rule in alerts()}


def test_every_metric_of_the_contract_is_on_a_dashboard() -> None:
    shown = {metric for _, _, query in dashboard_queries() for metric in metrics_in(query)}
    missing = {name for name in {**CONTRACT, **OURS} if not any(metric == name or metric.startswith(f"{name}_") for metric in shown)}
    assert missing == set()
    for path in DASHBOARDS:
        board = json.loads(path.read_text())
        assert board["uid"] == f"coterie-{path.stem}"
        ids = [panel["id"] for panel in board["panels"]]
        assert len(set(ids)) == len(ids)


@needs_prometheus
def test_promtool_accepts_rules_and_configuration_and_every_scenario_holds(tmp_path: Path) -> None:
    for name in ("rules.yml", "rules_test.yml", "prometheus.yml"):
        shutil.copy(RULES.parent / name, tmp_path)
    for command in (
        ("check", "rules", "rules.yml"),
        ("check", "config", "--syntax-only", "prometheus.yml"),
        ("test", "rules", "rules_test.yml"),
    ):
        ran = subprocess.run(["promtool", *command], check=False, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert ran.returncode == 0, (command, ran.stdout, ran.stderr)


# -- with a cluster ----------------------------------------------------------------------------------------------------------------


class Watched:
    """Three voters under load (job `orders`); one voter with a member that is in no quorum (job `small`); a node that has seen everything (job `rare`)."""

    def __init__(self, directory: Path) -> None:
        (directory / "small").mkdir()
        self.cluster, self.small = ProcessCluster(directory), ProcessCluster(directory / "small", 1)
        self.member = self.small.add("m2")
        self.prometheus: Prometheus

    def start(self) -> None:
        self.cluster.start()
        self.small.nodes[0].start()
        self.member.start()
        self.cluster.leader().load("steady", topics=["created", "paid"], pause=0.002)
        self.small.nodes[0].load("small", topics=["created"], pause=0.05)

    def jobs(self, rare: str) -> dict[str, list[str]]:
        return {
            "orders": [node.mgmt_addr for node in self.cluster.nodes],
            "small": [node.mgmt_addr for node in self.small.nodes],
            "rare": [rare],
        }


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    directory = tmp_path_factory.mktemp("watched")
    watched, metrics = Watched(directory), full()

    def growing() -> bytes:
        metrics.redelivered("a/b", 1)
        metrics.dead_letter("a/b")
        metrics.dropped("no handler", 1)
        metrics.actor_restarted("events")
        return metrics.text()

    with contextlib.ExitStack() as stack:
        for node in (*watched.cluster.nodes, *watched.small.nodes):
            stack.callback(node.kill)
        watched.start()
        rare = stack.enter_context(exposing(growing))
        watched.prometheus = stack.enter_context(Prometheus(directory, watched.jobs(rare)).running())
        yield watched


@pytest.mark.long
@needs_prometheus
def test_a_cluster_that_is_well_raises_no_alarm_and_is_seen_whole(watched: Watched) -> None:
    prometheus = watched.prometheus
    wait_for(lambda: len(prometheus.query('count_over_time(up{job!="rare"}[1m]) >= 4')) == 5, 60, "all nodes were scraped several times")
    for job in ("orders", "small"):
        assert prometheus.firing(job).keys() - SLOW_MACHINE == set()
    types = prometheus.types()
    expected = {name: kind for name, (kind, _) in {**CONTRACT, **OURS}.items()}
    assert {name: types.get(name) for name in expected} == expected


@pytest.mark.long
@needs_prometheus
@pytest.mark.parametrize("board", [path.stem for path in DASHBOARDS])
def test_every_query_of_the_dashboard_returns_data(watched: Watched, board: str) -> None:
    prometheus = watched.prometheus
    queries = [(panel, query) for name, panel, query in dashboard_queries() if name == board]
    assert queries
    for panel, query in queries:
        asked = filled_in(query, "rare" if metrics_in(query) & RARE else "orders")
        wait_for(lambda asked=asked: bool(prometheus.query(asked)), 30, f"{board}: {panel}: {query}", every=0.2)  # type: ignore[misc]


@pytest.mark.long
@needs_prometheus
def test_a_handler_that_stalls(watched: Watched) -> None:
    node = watched.cluster.followers()[0]
    node.ask("stall", on=True)
    watched.prometheus.wait_firing("orders", "CoterieHandlerStalled", node.mgmt_addr)
    assert watched.prometheus.firing("orders")["CoterieHandlerStalled"] == {node.mgmt_addr}

    def behind() -> set[str]:
        return {labels["node"] for labels, _ in watched.prometheus.query('go_cluster_repl_lag_per_node{job="orders"} > 200')}

    wait_for(lambda: behind() == {node.name}, 40, "and the leader shows who holds it up", every=0.2)
    node.ask("stall", on=False)
    watched.prometheus.wait_quiet("orders", "CoterieHandlerStalled")


@pytest.mark.long
@needs_prometheus
def test_a_subscriber_that_stops(watched: Watched) -> None:
    """The only one of a leader that needs no other for its quorum; and one of a quorum of three."""
    gone = watched.cluster.followers()[0]
    watched.member.kill()
    gone.kill()
    watched.prometheus.wait_firing("small", "CoterieNodeDown", watched.member.mgmt_addr)
    watched.prometheus.wait_firing("small", "GoClusterNoSubscribers", watched.small.nodes[0].mgmt_addr)
    watched.prometheus.wait_firing("orders", "CoterieNodeDown", gone.mgmt_addr)
    watched.prometheus.wait_firing(
        "orders", "CoterieVoterDown", *(node.mgmt_addr for node in watched.cluster.others(gone))
    )  # whoever leads
    assert not watched.prometheus.firing("orders").keys() & {"CoterieNoLeader", "CoterieNoQuorum", "GoClusterNoSubscribers"}


@pytest.mark.long
@needs_prometheus
def test_a_quorum_that_is_cut(watched: Watched) -> None:
    (gone,) = watched.cluster.followers()
    gone.kill()
    watched.prometheus.wait_firing("orders", "CoterieNoLeader", "")
    watched.prometheus.wait_firing("orders", "CoterieNoQuorum", "")
    (left,) = watched.cluster.others()
    watched.prometheus.wait_firing("orders", "CoterieLeaderUnknown", left.mgmt_addr)
    assert "CoterieNoLeader" not in watched.prometheus.firing("small")
