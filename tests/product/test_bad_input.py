"""Bad input at the front doors of a live cluster: each is refused with a clear reason, and the cluster does not notice."""

from __future__ import annotations

import base64
import http.client
import itertools
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.product.nodes import CommandFailed, Node, free_port
from tests.product.siege import Siege, call, counted, post, resident_bytes, siege
from tests.product.wait import wait_for


@pytest.fixture(scope="module")
def besieged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Siege]:
    with siege(tmp_path_factory.mktemp("bad-input")) as cluster:
        yield cluster


@pytest.fixture
def cluster(besieged: Siege) -> Iterator[Siege]:
    with besieged.unharmed():
        yield besieged


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


# -- HTTP -------------------------------------------------------------------------------------------------------------------------

BODIES: list[tuple[str, Any, str]] = [  # path, body, what the answer says
    ("/join", b"{", "no JSON"),
    ("/join", b"", "no JSON"),
    ("/join", b"\xff\xfe{}", "no JSON"),
    ("/join", b"[" * 100_000, "no JSON"),
    ("/join", b'{"id": NaN}', "no JSON"),
    ("/join", b"[]", "array"),
    ("/join", b"null", "null"),
    ("/join", {"id": 7, "raftAddr": "127.0.0.1:1"}, "id=7"),
    ("/join", {"id": {"a": 1}, "raftAddr": "127.0.0.1:1"}, "id="),
    ("/join", {"id": "n9", "raftAddr": 9520}, "raftAddr=9520"),
    ("/join", {"id": "n9"}, "raftAddr"),
    ("/leave", {"id": ""}, "id=''"),
    ("/leave", {"id": None}, "id=''"),
    ("/leave", {"id": "x" * 5000}, "at most 128 bytes"),
    ("/leave", {"id": "a\nb"}, "control characters"),
    ("/appwrite", {"op": "demo", "data": "!!!"}, "no base64"),
    ("/appwrite", {"op": ["demo"], "data": ""}, "op="),
    ("/appwrite", {"op": "x" * 5000, "data": ""}, "at most 1024 bytes"),
    ("/appsync", {"topic": "t", "data": 5}, "data=5"),
    ("/appsync", b'{"topic": "\\ud800", "data": ""}', "surrogate"),
    ("/appsync", {"data": ""}, "topic="),
    ("/appsync", {"topic": "x" * 1024, "data": ""}, "1 to 255 bytes"),
    ("/appsync", {"topic": "т" * 128, "data": ""}, "1 to 255 bytes"),
]


@pytest.mark.parametrize("at", ["leader", "follower"])
def test_what_is_no_request_gets_400_and_the_reason(cluster: Siege, at: str) -> None:
    node: Node = getattr(cluster, at)
    for path, body, reason in BODIES:
        status, answer = post(node, path, body)
        assert (status, reason in answer["error"]) == (400, True), f"{path} {str(body)[:60]}: {status} {answer}"


def test_another_method_gets_405_and_another_path_404(cluster: Siege) -> None:
    for path in ("/join", "/leave", "/appwrite", "/appsync"):
        for method in ("GET", "PUT", "DELETE", "PATCH"):
            assert call(cluster.follower.mgmt_addr, method, path)[0] == 405, (method, path)
    for path in ("/status", "/healthz", "/livez", "/readyz", "/metrics"):
        assert call(cluster.follower.mgmt_addr, "POST", path, b"{}")[0] == 405, path
    assert call(cluster.follower.mgmt_addr, "GET", "/../../etc/passwd")[0] == 404


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "chunked"])
def test_64_mb_are_refused_and_never_stored(cluster: Siege, declared: bool) -> None:
    node, size, part = cluster.leader, 64 << 20, b"x" * (1 << 20)
    before = resident_bytes(node)
    host, _, port = node.mgmt_addr.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    most = before
    try:
        connection.putrequest("POST", "/appsync")
        connection.putheader(*(("Content-Length", str(size)) if declared else ("Transfer-Encoding", "chunked")))
        connection.endheaders()
        try:
            for _ in range(size // len(part)):
                connection.send(part if declared else b"%x\r\n%s\r\n" % (len(part), part))
                most = max(most, resident_bytes(node))
        except OSError:
            pass  # it has heard enough and hung up
        try:
            answer = connection.getresponse()
            assert answer.status == 413
            assert "more than" in (text := answer.read().decode()) or "at most" in text
        except (OSError, http.client.HTTPException):
            pass  # the answer was overtaken by the reset; what counts is that nothing was stored
    finally:
        connection.close()
    assert most - before < 24 << 20, f"{most - before} bytes of a refused body were kept"


def test_a_record_above_the_limit_is_refused_on_every_way(cluster: Siege) -> None:
    data = "x" * ((1 << 20) + 1)
    for node in (cluster.leader, cluster.follower):
        with pytest.raises(CommandFailed) as refused:
            node.ask("publish", topic="large", data=data)
        assert refused.value.name == "PayloadTooLarge"
        assert str(1 << 20) in refused.value.text
        status, answer = post(node, "/appsync", {"topic": "large", "data": b64(data.encode())})
        assert (status, answer["kind"]) == (413, "PayloadTooLarge")


def test_a_record_at_the_limit_goes_through(cluster: Siege) -> None:
    assert cluster.follower.ask("publish", topic="large", data="x" * (1 << 20))["seq"] == 1


# -- topics -----------------------------------------------------------------------------------------------------------------------


def test_any_characters_make_a_topic_and_topics_are_told_apart_exactly(cluster: Siege) -> None:
    topics = [
        "a/b",
        "a_b",
        "a.b",
        "../../etc",
        "тема 🦉",
        " ",
        "A/B",
        "a\x00b",
        "n\nl",
        'q"',
        "\u0451",
        "\u0435\u0308",
        "x" * 255,
    ]  # two spellings of one letter
    for node in (cluster.leader, cluster.follower):
        for topic in topics:
            status, answer = post(node, "/appsync", {"topic": topic, "data": b64(b"d")})
            assert (status, answer) == (200, {}), topic
    for topic in topics:
        assert cluster.leader.ask("publish", topic=topic, data="d")["seq"] == 3, topic
    for node in cluster.nodes:
        wait_for(
            lambda node=node: [len(node.deliveries().get(topic, [])) for topic in topics] == [3] * len(topics), 10, f"{node.name} has all"
        )


def test_an_empty_or_too_long_topic_is_refused(cluster: Siege) -> None:
    for node, topic in itertools.product((cluster.leader, cluster.follower), ("", "x" * 256, "x" * 1024)):
        with pytest.raises(CommandFailed) as refused:
            node.ask("publish", topic=topic, data="d")
        assert (refused.value.name, "topic" in refused.value.text) == ("InvalidRequest", True), refused.value


# -- the quorum -------------------------------------------------------------------------------------------------------------------


def refused_join(node: Node, member: str, raft_addr: str) -> str:
    """The error, the same by HTTP as by message."""
    with pytest.raises(CommandFailed) as refused:
        node.ask("join", id=member, raft_addr=raft_addr, timeout=4)
    status, answer = post(node, "/join", {"id": member, "raftAddr": raft_addr})
    assert answer["accepted"] is False
    assert status >= 400
    assert answer["error"]
    return f"{refused.value.name}: {refused.value.text}"


def said_by(node: Node) -> str:
    return (node.directory / f"{node.name}.stderr").read_text()


def voters(node: Node) -> dict[str, tuple[str, str]]:
    return {m["id"]: (m["raft_addr"], m["suffrage"]) for m in node.status(local=True)["members"] if m["suffrage"] != "none"}


@pytest.fixture
def same_quorum(cluster: Siege) -> Iterator[Siege]:
    before = voters(cluster.leader)
    yield cluster
    for node in cluster.nodes:
        wait_for(lambda node=node: voters(node) == before, 10, f"{node.name} has the quorum of before: {before}")


@pytest.mark.parametrize(
    "address", ["", "nowhere", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:99999", ":9520", "0.0.0.0:9520", "a b:1", "1.2.3.4:-1", "[::1:1"]
)
def test_a_join_with_a_bad_address_is_refused(same_quorum: Siege, address: str) -> None:
    assert refused_join(same_quorum.leader, "n9", address).startswith("InvalidRequest: raftAddr")


def test_a_join_with_an_empty_id_is_refused(same_quorum: Siege) -> None:
    assert refused_join(same_quorum.leader, "", f"127.0.0.1:{free_port()}").startswith("InvalidRequest: id=''")


def test_a_join_with_another_members_address_is_refused(same_quorum: Siege) -> None:
    said = refused_join(same_quorum.leader, "n9", same_quorum.follower.raft_addr)
    assert said.startswith("AlreadyMember") and "n2" in said, said


def test_a_join_of_a_members_id_at_another_address_is_refused(same_quorum: Siege) -> None:
    said = refused_join(same_quorum.leader, "n2", f"127.0.0.1:{free_port()}")
    assert "n2" in said and same_quorum.follower.raft_addr in said, said


def test_a_join_of_a_member_again_is_well(same_quorum: Siege) -> None:
    assert post(same_quorum.leader, "/join", {"id": "n2", "raftAddr": same_quorum.follower.raft_addr}) == (200, {"accepted": True})


def test_a_join_of_nobody_is_refused_within_its_time(same_quorum: Siege) -> None:
    said = refused_join(same_quorum.leader, "n9", f"127.0.0.1:{free_port()}")
    assert said.startswith("Unreachable"), said


@pytest.mark.parametrize("port", ["mem_bind", "mgmt_addr", "grpc", "silent"])
def test_a_join_at_an_address_where_something_else_listens_is_refused(same_quorum: Siege, port: str) -> None:
    follower = same_quorum.follower
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = {
            "mem_bind": str(follower.config["mem_bind"]),
            "mgmt_addr": follower.mgmt_addr,
            "grpc": next(m["meta"]["grpc"] for m in follower.status(local=True)["members"] if m["id"] == "n2"),
            "silent": f"127.0.0.1:{silent.getsockname()[1]}",
        }[port]
        said = refused_join(same_quorum.leader, "n9", address)
        assert said.startswith("Unreachable") and address in said, said


def test_a_node_that_leads_a_cluster_of_its_own_is_not_taken_in(same_quorum: Siege, tmp_path: Path) -> None:
    stray = Node(tmp_path, "n4", same_quorum.cluster.seed, bootstrap=True)
    try:
        stray.start()
        wait_for(lambda: stray.status(local=True)["role"] == "leader", 10, "it leads itself")
        leader = same_quorum.leader
        wait_for(lambda: any(m["id"] == "n4" and "leads" in m["meta"] for m in leader.status(local=True)["members"]), 10, "gossip tells")
        said = refused_join(leader, "n4", stray.raft_addr)
        assert said.startswith("InvalidRequest: id='n4'") and "without bootstrap" in said, said
        assert stray.status(local=True)["leader_id"] == "n4"
    finally:
        stray.kill()


def test_a_second_node_with_a_members_id_changes_nothing_and_is_named(same_quorum: Siege, tmp_path: Path) -> None:
    before = {m["id"]: m["addr"] for m in same_quorum.leader.status(local=True)["members"]}
    stray = Node(tmp_path, "n2", same_quorum.cluster.seed)
    try:
        stray.start()
        for node in (same_quorum.leader, stray):
            wait_for(lambda node=node: counted(node).get("gossip: address_conflict", 0) > 0, 10, f"{node.name} counts the conflict")
        assert f"member n2 is at {before['n2']} and is claimed at {stray.config['mem_bind']} too" in said_by(same_quorum.leader)
        with same_quorum.unharmed():
            pass
        assert {m["id"]: m["addr"] for m in same_quorum.leader.status(local=True)["members"] if m["id"] in before} == before
    finally:
        stray.kill()


def test_a_leave_of_nobody_is_refused(same_quorum: Siege) -> None:
    with pytest.raises(CommandFailed) as refused:
        same_quorum.leader.ask("leave", id="n9")
    assert (refused.value.name, "n9" in refused.value.text) == ("UnknownMember", True)
    status, answer = post(same_quorum.leader, "/leave", {"id": "n9"})
    assert (status, answer["accepted"], "n9" in answer["error"]) == (400, False, True)


def test_a_follower_names_the_leader(same_quorum: Siege) -> None:
    for path, body in (("/join", {"id": "n9", "raftAddr": "127.0.0.1:1"}), ("/leave", {"id": "n1"})):
        assert post(same_quorum.follower, path, body) == (
            200,
            {"accepted": False, "leader": same_quorum.leader.mgmt_addr, "error": "not leader"},
        )


# -- the application's messages ---------------------------------------------------------------------------------------------------


def test_writes_and_reads_take_any_op_and_any_bytes(cluster: Siege) -> None:
    for op in ("", "demo", "опера/ция\n", "x" * 1024):
        status, answer = post(cluster.follower, "/appwrite", {"op": op, "data": b64(bytes(range(256)))})
        assert (status, base64.b64decode(answer["data"])) == (200, f"n1:{op}:".encode() + bytes(range(256)))
    assert json.loads(call(cluster.leader.mgmt_addr, "POST", "/appwrite", b'{"OP": "demo", "Data": "aGk=", "more": 1}')[1]) == {
        "data": b64(b"n1:demo:hi")
    }
