"""One publish, write or join is one trace over the processes it passes through: spans that real nodes export."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.product.nodes import Node, ProcessCluster, process_cluster
from tests.product.spans import VARIABLE, names, read
from tests.product.wait import wait_for

DEADLINE = 30.0
ELSEWHERE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"  # a caller that is not one of ours

pytestmark = pytest.mark.usefixtures("cluster")
Spans = list[dict[str, Any]]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessCluster]:
    with pytest.MonkeyPatch.context() as patch:
        directory = tmp_path_factory.mktemp("traced")
        patch.setenv(VARIABLE, str(directory))
        with process_cluster(directory) as cluster:
            for node in cluster.nodes:  # each has found its application's provider, which was set after it had started
                wait_for(lambda node=node: traces(node, directory), DEADLINE, f"{node.name} traces")
            yield cluster


def traces(node: Node, directory: Path) -> bool:
    node.ask("read", op="warm", data="")
    return any(span["process"] == node.name for span in read(directory))


def trace_of(cluster: ProcessCluster, done: Callable[[Spans], bool], **wanted: Any) -> Spans:
    """All spans of the trace in which a span of ours has these attributes, once it is complete."""
    found: Spans = []

    def look() -> bool:
        spans = read(cluster.directory, "")
        first = next((s for s in spans if all(s["attributes"].get(k.replace("__", ".")) == v for k, v in wanted.items())), None)
        found[:] = [span for span in spans if first is not None and span["trace"] == first["trace"]]
        return bool(found) and done(found)

    try:
        wait_for(look, DEADLINE, f"a complete trace of {wanted}", every=0.1)
    except AssertionError as error:
        raise AssertionError(f"{error}: {names(found)}") from None
    return found


def one(spans: Spans, name: str, node: str | None = None) -> dict[str, Any]:
    (found,) = [s for s in spans if s["name"] == name and node in (None, s["process"])]
    return found


def chain(spans: Spans, span: dict[str, Any]) -> list[str]:
    """The names from `span` up to the root."""
    by_id, found = {s["id"]: s for s in spans}, []
    while span is not None:
        found.append(span["name"])
        span = by_id.get(span["parent"])
    return found


def complete(spans: Spans) -> bool:
    """All that a publish leaves behind, whatever else there may be."""
    begun = [span["name"].split()[0] for span in spans]
    return all(begun.count(name) >= 1 for name in ("publish", "propose", "commit")) and all(
        begun.count(name) >= 3 for name in ("apply", "deliver", "handling")
    )


def test_one_publish_on_a_follower_is_one_trace_over_three_processes(cluster: ProcessCluster) -> None:
    leader, follower = cluster.leader(), cluster.followers()[0]
    published = follower.ask("publish", topic="traced", data="x")
    spans = trace_of(
        cluster, lambda s: complete(s) and {"asking", "forward traced"} <= set(names(s)), messaging__destination__name="traced"
    )
    ours = [span for span in spans if span["scope"] == "coterie"]
    expected = ["apply"] * 3 + ["commit", *["deliver traced"] * 3, "forward traced", "propose", "publish traced"]
    assert names(ours) == sorted(expected)
    assert {span["process"] for span in ours} == {"n1", "n2", "n3"}
    for span in ours:
        assert span["attributes"]["coterie.node"] == span["process"], span
        assert span["attributes"]["messaging.system"] == "coterie"
        assert span["attributes"]["messaging.operation.name"] == span["name"].split()[0]
        assert span["status"] == "UNSET"
        assert span["start"] <= span["end"]
    for node in cluster.nodes:
        assert chain(spans, one(spans, "handling", node.name)) == [
            "handling", "deliver traced", "apply", "commit", "propose", "forward traced", "publish traced", "asking",
        ]  # fmt: skip
        assert one(spans, "deliver traced", node.name)["parent"] == one(spans, "apply", node.name)["id"]
        assert one(spans, "deliver traced", node.name)["links"] == [one(spans, "publish traced")["id"]]
        assert one(spans, "deliver traced", node.name)["attributes"]["coterie.seq"] == published["seq"]
        assert one(spans, "apply", node.name)["attributes"]["coterie.index"] == published["index"]
    where = {name: one(spans, name)["process"] for name in ("publish traced", "forward traced", "propose", "commit")}
    assert where == {"publish traced": follower.name, "forward traced": follower.name, "propose": leader.name, "commit": leader.name}
    kinds = {name: one(spans, name)["kind"] for name in ("publish traced", "forward traced", "propose", "commit")}
    assert kinds == {"publish traced": "PRODUCER", "forward traced": "CLIENT", "propose": "SERVER", "commit": "INTERNAL"}
    assert {s["kind"] for s in spans if s["name"] == "deliver traced"} == {"CONSUMER"}
    counts = {s["attributes"].get("messaging.batch.message_count") for s in spans if s["name"] in ("forward traced", "propose", "apply")}
    assert counts == {1}


def test_a_publish_on_the_leader_needs_no_forward(cluster: ProcessCluster) -> None:
    cluster.leader().ask("publish", topic="at home", data="x")
    spans = trace_of(cluster, complete, messaging__destination__name="at home")
    ours = names(span for span in spans if span["scope"] == "coterie")
    assert ours == sorted(["apply"] * 3 + ["commit", *["deliver at home"] * 3, "propose", "publish at home"])
    assert one(spans, "propose")["kind"] == "INTERNAL"


def test_a_write_on_a_follower_goes_through_grpc_to_the_leader_s_handler(cluster: ProcessCluster) -> None:
    leader, follower = cluster.leader(), cluster.followers()[0]
    call = "cluster.v1.Management/AppWrite"
    follower.ask("write", op="mark", data="x")
    spans = trace_of(cluster, lambda s: {"asking", "writing", "write", "handle write", call} <= set(names(s)), coterie__op="mark")
    assert chain(spans, one(spans, "writing")) == ["writing", "handle write", call, "write", "asking"]
    assert one(spans, "write")["process"] == follower.name
    assert {one(spans, name)["process"] for name in (call, "handle write", "writing")} == {leader.name}
    assert (one(spans, "write")["kind"], one(spans, call)["kind"]) == ("CLIENT", "SERVER")


def post(node: Node, path: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(
        f"http://{node.mgmt_addr}{path}", json.dumps(body).encode(), {"content-type": "application/json", "traceparent": ELSEWHERE}
    )
    with urllib.request.urlopen(request, timeout=DEADLINE) as answer:
        return dict(json.loads(answer.read()))


def test_http_requests_belong_to_the_trace_of_their_caller(cluster: ProcessCluster) -> None:
    follower = cluster.followers()[0]
    post(follower, "/appsync", {"topic": "by http", "data": "eA=="})
    post(follower, "/appwrite", {"op": "by http", "data": "eA=="})
    refused = post(follower, "/join", {"id": "n9", "raftAddr": "127.0.0.1:9"})
    assert not refused["accepted"]
    wanted = {"POST /appsync", "POST /appwrite", "POST /join", "join", "write", "writing", "handle write"}
    spans = trace_of(cluster, lambda s: complete(s) and wanted <= set(names(s)), messaging__destination__name="by http")
    caller = int(ELSEWHERE.split("-")[2], 16)
    assert {span["trace"] for span in spans} == {int(ELSEWHERE.split("-")[1], 16)}
    for path in ("/appsync", "/appwrite", "/join"):
        assert one(spans, f"POST {path}")["parent"] == caller
        assert one(spans, f"POST {path}")["attributes"]["http.response.status_code"] == 200
    assert chain(spans, one(spans, "handling", "n1"))[-2:] == ["publish by http", "POST /appsync"]
    assert chain(spans, one(spans, "writing"))[-2:] == ["write", "POST /appwrite"]
    assert chain(spans, one(spans, "join")) == ["join", "POST /join"]
    assert one(spans, "join")["status"] == "ERROR"
    assert one(spans, "join")["attributes"]["error.type"] == "NotLeader"
