"""The HTTP API to the letter, over real sockets, against a cluster that is not there."""

from __future__ import annotations

import base64
import json
import random
import resource
import socket
import threading
from collections.abc import Iterator
from typing import Any

import attrs
import httpx
import pykka
import pytest

from coterie.actors.errors import (
    AlreadyMember,
    HandlerFailed,
    Indeterminate,
    NoQuorum,
    NotLeader,
    Overloaded,
    PayloadTooLarge,
    UnknownMember,
)
from coterie.actors.management.http_app import http_app
from coterie.actors.messages import Join, Leave, Publish, Read, Status, Write
from coterie.transport.errors import BindError
from coterie.transport.http_server import HttpServer
from tests.product.management_world import STATUS, FakeCluster


class World:
    def __init__(self, cluster: FakeCluster, server: HttpServer, client: httpx.Client) -> None:
        self.cluster, self.server, self.client = cluster, server, client

    def post(self, path: str, body: Any) -> httpx.Response:
        return self.client.post(path, content=body if isinstance(body, (bytes, str)) else json.dumps(body))

    def answers(self) -> bool:
        return self.client.get("/healthz").text == "ok"


@pytest.fixture(scope="module")
def running() -> Iterator[World]:
    cluster = FakeCluster()
    server = HttpServer("127.0.0.1:0", http_app(cluster.service()), "n1")
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=20, trust_env=False) as client:
            yield World(cluster, server, client)
    finally:
        server.close()


@pytest.fixture
def world(running: World) -> World:
    running.cluster.forget()
    return running


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


# -- what the model promises ------------------------------------------------------------------------------------------------------


def test_status_has_the_names_and_shapes_of_the_contract(world: World) -> None:
    answer = world.client.get("/status")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    document = answer.json()
    assert {key: document[key] for key in ("Healthy", "Term", "LeaderID", "LeaderAddr", "Warnings")} == {
        "Healthy": True,
        "Term": 7,
        "LeaderID": "n1",
        "LeaderAddr": "10.0.0.1:17946",
        "Warnings": None,
    }
    first = document["Members"][0]
    assert {key: first[key] for key in ("ID", "Addr", "Meta")} == {"ID": "n1", "Addr": "10.0.0.1:7946", "Meta": {"mgmt": "10.0.0.1:17946"}}
    assert (first["State"], first["Suffrage"], first["RaftAddr"], first["MatchIndex"]) == ("alive", "voter", "10.0.0.1:9520", 41)
    assert document["AnsweredBy"] == "n1"
    assert document["Dropped"] == {"gossip: packets": 2}
    assert document["Topics"] == [{"Topic": "orders", "Seq": 9, "Delivered": 8, "RetainedFrom": 1, "Acked": {"n1": 9, "n2": 7}}]
    assert list(document)[:6] == ["Healthy", "Term", "LeaderID", "LeaderAddr", "Members", "Warnings"]


def test_health_and_metrics_are_text(world: World) -> None:
    for path in ("/healthz", "/livez", "/readyz"):
        answer = world.client.get(path)
        assert (answer.status_code, answer.text) == (200, "ok")
    answer = world.client.get("/metrics")
    assert (answer.text, answer.headers["content-type"]) == ("up 1\n", "text/plain; version=0.0.4; charset=utf-8")


def test_a_node_without_a_leader_is_alive_but_not_ready(world: World) -> None:
    world.cluster.answers[Status] = attrs.evolve(STATUS, leader_id="", healthy=False)
    assert world.client.get("/livez").status_code == 200
    answer = world.client.get("/readyz")
    assert (answer.status_code, answer.text) == (503, "no leader is known")


def test_requests_become_messages_and_replies_become_documents(world: World) -> None:
    asked = world.cluster.asked
    assert world.post("/join", {"id": "n2", "raftAddr": "127.0.0.1:9522"}).json() == {"accepted": True}
    assert asked.pop() == Join("n2", "127.0.0.1:9522")
    assert world.post("/leave", {"id": "n2"}).json() == {"accepted": True}
    assert asked.pop() == Leave("n2")
    assert world.post("/appwrite", {"op": "demo", "data": b64(b"abc")}).json() == {"data": b64(b"cba")}
    assert asked.pop() == Write("demo", b"abc")
    assert world.post("/read", {"op": "demo", "data": b64(b"abc")}).json() == {"data": b64(b"read abc")}
    assert asked.pop() == Read("demo", b"abc")
    assert world.post("/appsync", {"topic": "t", "data": b64(b"\x00\xff")}).json() == {}
    assert asked.pop() == Publish("t", b"\x00\xff")
    ours = {"topic": "t", "data": b64(b"x"), "messageId": "m", "headers": {"a": "1"}, "acks": "leader"}
    assert world.post("/publish", ours).json() == {"topic": "t", "seq": 1, "index": 1}
    assert asked.pop() == Publish("t", b"x", "leader", "m", {"a": "1"})
    assert world.post("/publish", {"topic": "t", "acks": "all"}).status_code == 200
    assert asked.pop() == Publish("t", b"", "all")


def test_a_client_of_the_model_may_write_names_in_another_case_leave_data_out_and_add_fields(world: World) -> None:
    assert world.post("/join", {"ID": "n2", "RaftAddr": "h:1", "more": [1]}).json() == {"accepted": True}
    assert world.cluster.asked.pop() == Join("n2", "h:1")
    assert world.post("/appwrite", {"op": "demo", "data": None}).json() == {"data": ""}
    assert world.cluster.asked.pop() == Write("demo", b"")


def test_a_follower_names_the_leader(world: World) -> None:
    world.cluster.answers[Join] = world.cluster.answers[Leave] = NotLeader("n1", "10.0.0.1:17946")
    for path, body in (("/join", {"id": "n2", "raftAddr": "h:1"}), ("/leave", {"id": "n2"})):
        answer = world.post(path, body)
        assert answer.status_code == 200
        assert answer.json() == {"accepted": False, "leader": "10.0.0.1:17946", "error": "not leader"}
    assert world.cluster.joins == ["rejected"]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NoQuorum("no leader"), 503),
        (Indeterminate("unknown"), 504),
        (Overloaded("the window of t is full"), 429),
        (PayloadTooLarge("too large"), 413),
        (HandlerFailed("ValueError: no such order"), 500),
        (NotLeader("n1", "10.0.0.1:1"), 503),
        (pykka.ActorDeadError("stopped"), 503),
        (ZeroDivisionError("a bug"), 500),
    ],
)
def test_an_error_is_an_answer_with_its_text_its_kind_and_a_status_code(world: World, error: Exception, status: int) -> None:
    world.cluster.answers[Write] = error
    answer = world.post("/appwrite", {"op": "demo", "data": ""})
    assert answer.status_code == status
    assert set(answer.json()) == {"error", "kind"}
    assert answer.json()["error"]


@pytest.mark.parametrize("error", [UnknownMember("n9 is in no quorum"), AlreadyMember("n2 is a voter at h:1")])
def test_a_change_that_makes_no_sense_is_not_accepted(world: World, error: Exception) -> None:
    world.cluster.answers[Leave] = world.cluster.answers[Join] = error
    for answer in (world.post("/leave", {"id": "n9"}), world.post("/join", {"id": "n9", "raftAddr": "h:1"})):
        assert (answer.status_code, answer.json()) == (400, {"accepted": False, "error": str(error), "kind": type(error).__name__})


# -- bad input --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "method", "right"),
    [
        ("/status", "POST", "GET"),
        ("/healthz", "PUT", "GET"),
        ("/metrics", "DELETE", "GET"),
        ("/join", "GET", "POST"),
        ("/leave", "PUT", "POST"),
        ("/appwrite", "GET", "POST"),
        ("/appsync", "PATCH", "POST"),
        ("/read", "GET", "POST"),
    ],
)
def test_another_method_is_refused_and_told_which_is_right(world: World, path: str, method: str, right: str) -> None:
    answer = world.client.request(method, path)
    assert answer.status_code == 405
    assert right in answer.headers["allow"]
    assert answer.json() == {"error": f"{method} {path}: method not allowed"}


def test_an_unknown_path_is_not_found(world: World) -> None:
    answer = world.client.get("/nothing")
    assert (answer.status_code, answer.json()) == (404, {"error": "GET /nothing: not found"})


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"null", b"[]", b'"x"', b"{'id':1}", b"\xff\xfe", b'{"id": NaN}', b"[" * 100_000, b'{"a":' * 100_000, b"1" * 10_000],
    ids=["empty", "cut", "null", "array", "string", "quotes", "no utf-8", "nan", "deep array", "deep object", "long number"],
)
@pytest.mark.parametrize("path", ["/join", "/leave", "/appwrite", "/appsync", "/publish", "/read"])
def test_malformed_json_is_refused_with_the_reason(world: World, path: str, body: bytes) -> None:
    answer = world.post(path, body)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("bad request: the body is")
    assert world.cluster.asked == []


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/join", {"id": 7, "raftAddr": "h:1"}, "id"),
        ("/join", {"id": "", "raftAddr": "h:1"}, "id"),
        ("/join", {"raftAddr": "h:1"}, "id"),
        ("/join", {"id": "n" * 129, "raftAddr": "h:1"}, "id"),
        ("/join", {"id": "a\nb", "raftAddr": "h:1"}, "id"),
        ("/join", {"id": "n2", "raftAddr": ["h:1"]}, "raftAddr"),
        ("/join", {"id": "n2"}, "raftAddr"),
        ("/join", {"id": "n2", "raftAddr": "nowhere"}, "raftAddr"),
        ("/join", {"id": "n2", "raftAddr": "h:99999"}, "raftAddr"),
        ("/join", {"id": "n2", "raftAddr": ":9522"}, "raftAddr"),
        ("/join", {"id": "n2", "raftAddr": "0.0.0.0:9522"}, "raftAddr"),
        ("/join", {"id": "n2", "raftAddr": "h:0"}, "raftAddr"),
        ("/leave", {"id": {}}, "id"),
        ("/leave", {}, "id"),
        ("/appwrite", {"op": 1, "data": ""}, "op"),
        ("/appwrite", {"op": "x" * 1025, "data": ""}, "op"),
        ("/appwrite", {"op": "x", "data": 5}, "data"),
        ("/appwrite", {"op": "x", "data": "no base64!"}, "data"),
        ("/appwrite", {"op": "x", "data": "YQ"}, "data"),
        ("/appsync", {"topic": "", "data": ""}, "topic"),
        ("/appsync", {"topic": "t" * 1024, "data": ""}, "topic"),
        ("/appsync", {"topic": "ü" * 128, "data": ""}, "topic"),
        ("/appsync", {"topic": True, "data": ""}, "topic"),
        ("/publish", {"topic": "", "data": ""}, "topic"),
        ("/publish", {"topic": "t", "headers": ["a"]}, "headers"),
        ("/publish", {"topic": "t", "headers": {"a": 1}}, "headers"),
        ("/publish", {"topic": "t", "messageId": 7}, "messageId"),
        ("/publish", {"topic": "t", "acks": "none"}, "acks"),
        ("/appsync", {"topic": "\ud800", "data": ""}, "topic"),
        ("/read", {"op": None, "data": "===="}, "data"),
    ],
)
def test_a_wrong_value_is_refused_naming_its_field(world: World, path: str, body: dict[str, Any], field: str) -> None:
    answer = world.post(path, body)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(field)
    assert answer.json()["kind"] == "InvalidRequest"
    assert world.cluster.asked == []
    if path in ("/join", "/leave"):
        assert answer.json()["accepted"] is False


@pytest.mark.parametrize("topic", ["a/b", "a_b", "t" * 255, "темы/ü 🦉", "..", "\x00"])
def test_any_name_of_a_topic_reaches_the_cluster_as_it_is(world: World, topic: str) -> None:
    assert world.post("/appsync", {"topic": topic, "data": ""}).json() == {}
    assert world.cluster.asked.pop().topic == topic


def test_a_64_megabyte_body_is_refused_without_being_stored(world: World) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    chunk = b"x" * (1 << 20)

    def chunks() -> Iterator[bytes]:
        for _ in range(64):
            yield chunk

    declared = world.client.post("/appwrite", content=chunks(), headers={"content-length": str(64 << 20)})
    streamed = world.client.post("/appwrite", content=chunks())
    for answer in (declared, streamed):
        assert (answer.status_code, answer.json()["kind"]) == (413, "PayloadTooLarge")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 24 << 10  # KiB
    assert world.cluster.asked == []
    assert world.answers()


def test_the_largest_payload_passes(world: World) -> None:
    data = b"\xfb" * (1 << 20)
    assert world.post("/appsync", {"topic": "t", "data": b64(data)}).status_code == 200
    assert world.cluster.asked.pop().data == data


# -- concurrency and hostile peers ------------------------------------------------------------------------------------------------


def test_a_question_is_answered_while_a_hundred_writes_wait(world: World) -> None:
    world.cluster.answers[Write] = FakeCluster.PENDING
    done = []
    # One client: a hundred of them would spend seconds on a hundred TLS contexts, while the first writes run out of their time.
    client = httpx.Client(timeout=20, trust_env=False, limits=httpx.Limits(max_connections=None))

    def write() -> None:
        done.append(client.post(f"{world.client.base_url}/appwrite", content='{"op":"slow"}').status_code)

    writers = [threading.Thread(target=write) for _ in range(100)]
    for writer in writers:
        writer.start()
    world.cluster.wait_asked(100)
    assert world.answers()
    assert world.client.get("/status").status_code == 200
    for future in world.cluster.pending:
        future.set(b"")
    for writer in writers:
        writer.join(20)
    client.close()
    assert done == [200] * 100


def test_a_request_that_nobody_answers_ends_at_its_deadline() -> None:
    cluster = FakeCluster()
    cluster.answers[Write] = FakeCluster.PENDING
    server = HttpServer("127.0.0.1:0", http_app(cluster.service(timeout=0.05)), "n1")
    try:
        answer = httpx.post(f"http://127.0.0.1:{server.port}/appwrite", content='{"op":"x"}', timeout=10, trust_env=False)
        assert (answer.status_code, answer.json()["kind"]) == (504, "DeadlineExceeded")
    finally:
        server.close()


def test_500_idle_connections_and_garbage_leave_the_server_answering(world: World) -> None:
    idle = [socket.create_connection(("127.0.0.1", world.server.port)) for _ in range(500)]
    try:
        noise = random.Random(7)
        for size in (1, 100, 10_000, 200_000):
            with socket.create_connection(("127.0.0.1", world.server.port)) as garbage:
                garbage.settimeout(10)
                try:
                    garbage.sendall(noise.randbytes(size))
                    garbage.shutdown(socket.SHUT_WR)
                    while garbage.recv(65536):
                        pass
                except OSError:
                    pass  # reset: as good as closed
        assert world.answers()
        assert world.server.counters.snapshot()["garbage"] >= 1
    finally:
        for connection in idle:
            connection.close()


def test_a_connection_that_dribbles_its_request_is_closed() -> None:
    server = HttpServer("127.0.0.1:0", http_app(FakeCluster().service()), "n1", head_timeout=0.2)
    try:
        for start in (b"", b"GET /status HTTP/1.1\r\nx"):
            with socket.create_connection(("127.0.0.1", server.port)) as slow:
                slow.settimeout(10)
                slow.sendall(start)
                assert slow.recv(1) == b""
        assert server.counters.snapshot()["too slow"] == 2
    finally:
        server.close()


def test_stopping_does_not_wait_for_who_is_connected() -> None:
    server = HttpServer("127.0.0.1:0", http_app(FakeCluster().service()), "leaving")
    with socket.create_connection(("127.0.0.1", server.port)):
        assert httpx.get(f"http://127.0.0.1:{server.port}/healthz", trust_env=False).text == "ok"
        server.close()
        assert not [thread for thread in threading.enumerate() if thread.name == "leaving/http"]
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{server.port}/healthz", trust_env=False)


def test_a_port_in_use_is_a_typed_error(world: World) -> None:
    with pytest.raises(BindError, match=f"http_addr '127.0.0.1:{world.server.port}' cannot be bound.*choose another port"):
        HttpServer(f"127.0.0.1:{world.server.port}", http_app(FakeCluster().service()))
