"""What `clusterctl` asks a node, against a fake cluster's real servers; the commands run in processes of their own where that is the point."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from coterie import cli
from coterie.actors.errors import (
    AlreadyApplied,
    AlreadyMember,
    HandlerFailed,
    Indeterminate,
    InvalidRequest,
    NoQuorum,
    NotDelivered,
    NotLeader,
    PayloadTooLarge,
    UnknownMember,
    Unreachable,
)
from coterie.actors.management.client_api import client_service
from coterie.actors.management.grpc_api import management_services
from coterie.actors.management.http_app import http_app
from coterie.actors.management.requests import parse_status, status_document
from coterie.actors.messages import (
    Applied,
    Apply,
    DeadLetter,
    DeadLetters,
    Join,
    Joined,
    Leave,
    LetterPage,
    MemberStatus,
    Publish,
    Published,
    Read,
    Requeue,
    Status,
    Write,
)
from coterie.cli_ask import status_code
from coterie.transport.grpc_server import GrpcServer
from coterie.transport.http_server import HttpServer
from tests.product.management_world import STATUS, FakeCluster


class World:
    def __init__(self) -> None:
        self.cluster, self.leader = FakeCluster(), FakeCluster()
        self.servers = [HttpServer("127.0.0.1:0", http_app(c.service()), "n1") for c in (self.cluster, self.leader)]
        services = {**management_services(self.cluster.service()), **client_service(self.cluster.service())}
        self.grpc = GrpcServer("127.0.0.1:0", services, "n1")
        self.addr, self.leader_addr = (f"127.0.0.1:{server.port}" for server in self.servers)
        self.grpc_addr = f"127.0.0.1:{self.grpc.port}"


@pytest.fixture(scope="module")
def running() -> Iterator[World]:
    world = World()
    yield world
    for server in world.servers:
        server.close()
    world.grpc.stop()


@pytest.fixture
def world(running: World) -> World:
    running.cluster.forget()
    running.leader.forget()
    return running


@attrs.define
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def clusterctl(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str) -> Ran:
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
        captured = capsys.readouterr()
        return Ran(int(ended.value.code or 0), captured.out, captured.err)

    return run


# -- status -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("proto", ["http", "grpc"])
def test_status_is_json_when_it_is_not_read_by_a_person(world: World, clusterctl: Any, proto: str) -> None:
    addr = world.addr if proto == "http" else world.grpc_addr
    ran = clusterctl("status", "--addr", addr, "--mgmt-proto", proto)
    assert (ran.code, ran.err) == (0, "")
    assert ran.json == status_document(STATUS)
    assert parse_status(ran.json) == STATUS


def test_status_as_a_table(world: World, clusterctl: Any) -> None:
    world.cluster.answers[Status] = attrs.evolve(STATUS, warnings=("voters not heard: n2",))
    ran = clusterctl("status", "--addr", world.addr, "--output", "table")
    assert ran.code == 1
    assert "healthy  leader n1 at 10.0.0.1:17946  term 7  answered by n1" in ran.out
    for cell in ("n2", "alive", "voter", "10.0.0.2:9520", "0.1 s ago", "orders", "n2 at 7", "warning: voters not heard: n2"):
        assert cell in ran.out


VOTERS = STATUS.members


def with_states(*states: str) -> tuple[MemberStatus, ...]:
    return tuple(MemberStatus(f"n{n}", "", {}, state, "voter") for n, state in enumerate(states, 1))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, 0),
        ({"warnings": ("something",)}, 1),
        ({"healthy": False}, 1),
        ({"members": with_states("alive", "alive", "failed")}, 1),
        ({"members": with_states("alive", "suspect", "alive")}, 0),
        ({"members": with_states("alive", "failed", "unknown"), "healthy": False}, 2),
        ({"leader_id": "", "healthy": False}, 2),
    ],
)
def test_the_exit_code_of_a_status_tells_well_degraded_and_no_quorum(
    world: World, clusterctl: Any, changes: dict[str, Any], code: int
) -> None:
    world.cluster.answers[Status] = attrs.evolve(STATUS, **changes)
    assert clusterctl("status", "--addr", world.addr).code == code


def test_a_status_of_a_go_node_which_has_six_keys_is_understood() -> None:
    document = {
        "Healthy": True,
        "Term": 3,
        "LeaderID": "n1",
        "LeaderAddr": "h:1",
        "Members": [{"ID": "n1", "Addr": "h:2", "Meta": None}],
        "Warnings": None,
    }
    assert status_code(document) == 0
    assert parse_status(document).members == (MemberStatus("n1", "h:2", {}),)


# -- join and leave ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("proto", ["http", "grpc"])
def test_join_and_leave(world: World, clusterctl: Any, proto: str) -> None:
    where = ("--addr", world.addr if proto == "http" else world.grpc_addr, "--mgmt-proto", proto)
    ran = clusterctl("join", "--id", "n3", "--raft-addr", "127.0.0.1:9523", *where)
    assert (ran.code, ran.json, ran.err) == (0, {"accepted": True}, "")
    ran = clusterctl("leave", "--id", "n3", *where)
    assert (ran.code, ran.json) == (0, {"accepted": True})
    assert [attrs.evolve(m, timeout=None) for m in world.cluster.asked] == [Join("n3", "127.0.0.1:9523"), Leave("n3")]


def test_a_follower_s_answer_is_followed_to_the_leader_once(world: World, clusterctl: Any) -> None:
    world.cluster.answers[Join] = NotLeader("n1", world.leader_addr)
    ran = clusterctl("join", "--id", "n3", "--raft-addr", "h:1", "--addr", world.addr)
    assert (ran.code, ran.json) == (0, {"accepted": True})
    assert world.leader.asked == [Join("n3", "h:1")]
    world.leader.answers[Leave] = NotLeader("n1", world.addr)
    world.cluster.answers[Leave] = NotLeader("n1", world.leader_addr)
    ran = clusterctl("leave", "--id", "n3", "--addr", world.addr)
    assert ran.code == 1
    assert ran.json == {"accepted": False, "leader": world.addr, "error": "not leader"}
    assert ran.err == "clusterctl: leave n3: not leader\n"


def test_a_join_that_waits_asks_until_it_is_accepted(world: World, clusterctl: Any) -> None:
    refusals: list[Exception] = [NoQuorum("no leader"), NotLeader("", ""), Unreachable("nobody at h:1"), Unreachable("nobody at h:1")]
    world.cluster.answers[Join] = lambda m: refusals.pop(0) if refusals else Joined(m.id, m.raft_addr)
    ran = clusterctl("join", "--id", "n3", "--raft-addr", "h:1", "--addr", f"127.0.0.1:1,{world.addr}", "--wait", "1m")
    assert (ran.code, ran.json) == (0, {"accepted": True})
    assert ran.err.count("asking again") == 3, "each reason once"
    assert "nobody at h:1; asking again" in ran.err


def test_a_join_that_waits_ends_with_a_refusal_for_good_or_when_its_time_is_over(world: World, clusterctl: Any) -> None:
    world.cluster.answers[Join] = AlreadyMember("that address belongs to n2")
    ran = clusterctl("join", "--id", "n3", "--raft-addr", "h:1", "--addr", world.addr, "--wait", "1m")
    assert (ran.code, ran.json["kind"]) == (1, "AlreadyMember")
    assert len(world.cluster.asked) == 1
    ran = clusterctl("join", "--id", "n3", "--raft-addr", "h:1", "--addr", "127.0.0.1:1", "--wait", "700ms")
    assert (ran.code, ran.out) == (2, "")
    assert "127.0.0.1:1 cannot be asked" in ran.err.splitlines()[-1]
    world.cluster.answers[Join] = NoQuorum("no leader")
    ran = clusterctl("join", "--id", "n3", "--raft-addr", "h:1", "--addr", world.addr, "--wait", "700ms")
    assert (ran.code, ran.json["kind"]) == (2, "NoQuorum")


def test_a_probe_is_a_word_and_a_code(world: World, clusterctl: Any) -> None:
    assert clusterctl("probe", "ready", "--addr", world.addr).json == {"ready": True, "reason": ""}
    assert clusterctl("probe", "live", "--addr", world.addr).json == {"live": True, "reason": ""}
    world.cluster.answers[Status] = attrs.evolve(STATUS, leader_id="")
    ran = clusterctl("probe", "ready", "--addr", world.addr)
    assert (ran.code, ran.json) == (1, {"ready": False, "reason": "no leader is known"})
    assert ran.err == "clusterctl: not ready: no leader is known\n"
    assert clusterctl("probe", "live", "--addr", "127.0.0.1:1").code == 2


@pytest.mark.parametrize("proto", ["http", "grpc"])
@pytest.mark.parametrize(("error", "code"), [(UnknownMember("n9 is in no quorum"), 1), (NoQuorum("no leader within 10 s"), 2)])
def test_a_refusal_is_an_answer_and_a_line_and_a_code(world: World, clusterctl: Any, proto: str, error: Exception, code: int) -> None:
    world.cluster.answers[Leave] = error
    ran = clusterctl("leave", "--id", "n9", "--addr", world.addr if proto == "http" else world.grpc_addr, "--mgmt-proto", proto)
    assert ran.code == code
    assert ran.json == {"accepted": False, "error": str(error), "kind": type(error).__name__}
    assert ran.err == f"clusterctl: leave n9: {error}\n"


# -- the application's data -------------------------------------------------------------------------------------------------------


def test_publish_tells_the_place_of_the_record(world: World, clusterctl: Any, tmp_path: Path) -> None:
    ran = clusterctl("publish", "orders", "42", "--addr", world.addr, "--message-id", "m-1", "--header", "a=1", "--header", "b=x=y")
    assert (ran.code, ran.json, ran.err) == (0, {"topic": "orders", "seq": 1, "index": 1}, "")
    (tmp_path / "order").write_bytes(b"\x00\xff")
    assert clusterctl("publish", "orders", f"@{tmp_path}/order", "--addr", world.addr).code == 0
    ran = clusterctl("publish", "orders", "--acks", "all", "--addr", world.addr, "--output", "table")
    assert (ran.code, ran.out) == (0, "published on orders, seq 1, log index 1\n")
    assert world.cluster.asked == [
        Publish("orders", b"42", message_id="m-1", headers={"a": "1", "b": "x=y"}),
        Publish("orders", b"\x00\xff"),
        Publish("orders", b"", "all"),
    ]


@pytest.mark.parametrize("proto", ["http", "grpc"])
def test_what_is_published_and_not_delivered_by_all_says_where_it_stands(world: World, clusterctl: Any, proto: str) -> None:
    world.cluster.answers[Publish] = NotDelivered("seq 7 is published", "orders", 7, 7, 12, ("n2", "n3"))
    ran = clusterctl(
        "publish", "orders", "x", "--acks", "all", "--addr", world.grpc_addr if proto == "grpc" else world.addr, "--mgmt-proto", proto
    )
    place = {"topic": "orders", "seq": 7, "index": 12, "missing": ["n2", "n3"]}
    assert (ran.code, ran.json) == (1, {"error": "seq 7 is published", "kind": "NotDelivered", **place})
    assert ran.err == "clusterctl: publish on orders: seq 7 is published\n"


def test_publish_takes_what_stands_at_its_input(world: World) -> None:
    command = [sys.executable, "-m", "coterie.cli", "publish", "t", "-", "--addr", world.addr]
    ran = subprocess.run(command, input=b"\xfe\x00from a pipe\n", capture_output=True, timeout=60, check=False)
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert world.cluster.asked == [Publish("t", b"\xfe\x00from a pipe\n")]


def test_publish_write_and_read_over_grpc(world: World, clusterctl: Any) -> None:
    where = ("--addr", world.grpc_addr, "--mgmt-proto", "grpc")
    assert clusterctl("publish", "orders", "42", *where, "--message-id", "m", "--header", "a=1").json == {
        "topic": "orders",
        "seq": 1,
        "index": 1,
    }
    assert clusterctl("write", "reserve", "42", *where).json["text"] == "24"
    assert clusterctl("read", "stock", "42", *where).json["text"] == "read 42"
    assert clusterctl("read", "stock", "42", *where, "--consistency", "lease").json["text"] == "read 42"
    world.cluster.answers[Apply] = lambda m: Applied(m.number or 1, m.data)
    assert clusterctl("apply", "up", "42", *where).json == {"index": 1, "result": "NDI=", "text": "42"}
    assert clusterctl("apply", "up", "42", *where, "--session", "s", "--number", "7").json["index"] == 7
    assert [attrs.evolve(message, timeout=None) for message in world.cluster.asked] == [
        Publish("orders", b"42", message_id="m", headers={"a": "1"}),
        Write("reserve", b"42"),
        Read("stock", b"42"),
        Read("stock", b"42", consistency="lease"),
        Apply("up", b"42"),
        Apply("up", b"42", session="s", number=7),
    ]
    world.cluster.answers[Apply] = AlreadyApplied("long ago")
    assert clusterctl("apply", "up", *where).json == {"error": "long ago", "kind": "AlreadyApplied"}
    world.cluster.answers[Publish] = PayloadTooLarge("too large")
    ran = clusterctl("publish", "orders", "42", *where)
    assert (ran.code, ran.json) == (1, {"error": "too large", "kind": "PayloadTooLarge"})


def test_a_node_of_go_cluster_takes_a_publish_but_no_message_id(world: World, clusterctl: Any) -> None:
    server = GrpcServer("127.0.0.1:0", management_services(world.cluster.service()), "g1")
    try:
        where = ("--addr", f"127.0.0.1:{server.port}", "--mgmt-proto", "grpc")
        assert clusterctl("publish", "orders", "42", *where).json == {"topic": "orders"}
        assert clusterctl("publish", "orders", "42", *where, "--message-id", "m").json["kind"] == "VersionMismatch"
        assert clusterctl("apply", "up", *where).json["kind"] == "VersionMismatch"
        assert [type(message) for message in world.cluster.asked] == [Publish]
    finally:
        server.stop()


def test_write_and_read_show_the_handler_s_answer(world: World, clusterctl: Any) -> None:
    assert clusterctl("write", "reserve", "42", "--addr", world.addr).json == {"data": "MjQ=", "text": "24"}
    assert clusterctl("read", "stock", "42", "--addr", world.addr).json == {"data": "cmVhZCA0Mg==", "text": "read 42"}
    world.cluster.answers[Write] = b"\xff\x00"
    assert clusterctl("write", "export", "--addr", world.addr).json == {"data": "/wA="}
    assert [type(m).__name__ for m in world.cluster.asked] == ["Write", "Read", "Write"]


@pytest.mark.parametrize(("output", "said"), [("raw", b"\xff\x00"), ("table", b"\xff\x00\n")])
def test_the_bytes_of_an_answer_come_as_they_are(world: World, output: str, said: bytes) -> None:
    world.cluster.answers[Write] = b"\xff\x00"
    command = [sys.executable, "-m", "coterie.cli", "write", "export", "--addr", world.addr, "--output", output]
    assert subprocess.run(command, capture_output=True, timeout=60, check=True).stdout == said


@pytest.mark.parametrize(
    ("error", "code"), [(HandlerFailed("no handler is registered"), 1), (NoQuorum("no leader"), 2), (Indeterminate("unknown"), 2)]
)
def test_a_refused_write_says_whether_it_is_the_cluster_s_fault(world: World, clusterctl: Any, error: Exception, code: int) -> None:
    world.cluster.answers[Write] = error
    ran = clusterctl("write", "reserve", "42", "--addr", world.addr)
    assert (ran.code, ran.json) == (code, {"error": str(error), "kind": type(error).__name__})
    assert ran.err == f"clusterctl: write reserve: {error}\n"


# -- several addresses ------------------------------------------------------------------------------------------------------------


def test_of_several_addresses_the_next_is_asked_where_nobody_listens(world: World, clusterctl: Any) -> None:
    ran = clusterctl("status", "--addr", f"127.0.0.1:1, {world.addr},127.0.0.1:2")
    assert (ran.code, ran.json["LeaderID"]) == (0, "n1")
    assert ran.err.startswith("clusterctl: 127.0.0.1:1 cannot be asked")
    assert ran.err.endswith(f"asked {world.addr} instead\n")
    assert clusterctl("write", "reserve", "42", "--addr", f"127.0.0.1:1,{world.addr}").code == 0
    ran = clusterctl("status", "--addr", "127.0.0.1:1,127.0.0.1:2")
    assert (ran.code, ran.out) == (2, "")
    assert "127.0.0.1:1 cannot" in ran.err and "127.0.0.1:2 cannot" in ran.err and ran.err.count("\n") == 1


def test_a_write_whose_answer_was_lost_is_not_tried_elsewhere_but_a_status_is(world: World, clusterctl: Any) -> None:
    world.cluster.answers[Write] = FakeCluster.PENDING
    addrs = f"{world.addr},{world.leader_addr}"
    ran = clusterctl("write", "reserve", "42", "--addr", addrs, "--timeout", "300ms")
    assert (ran.code, ran.out) == (2, "")
    assert "no answer within 0.3 s" in ran.err
    assert world.leader.asked == []
    world.cluster.answers[Status] = FakeCluster.PENDING
    assert clusterctl("status", "--addr", addrs, "--timeout", "300ms").code == 0
    assert len(world.leader.asked) == 1


# -- members, topics, watch -------------------------------------------------------------------------------------------------------


def test_members_lists_those_whom_nobody_reaches_too(world: World, clusterctl: Any) -> None:
    world.cluster.answers[Status] = attrs.evolve(
        STATUS, members=with_states("alive", "alive", "unknown"), warnings=("voters not heard: n3",)
    )
    ran = clusterctl("members", "--addr", world.addr)
    assert (ran.code, [(m["ID"], m["State"]) for m in ran.json["Members"]]) == (1, [("n1", "alive"), ("n2", "alive"), ("n3", "unknown")])
    assert sorted(ran.json) == ["AnsweredBy", "Healthy", "LeaderID", "Members", "Warnings"]
    ran = clusterctl("members", "--addr", world.addr, "--output", "table")
    assert "n3" in ran.out and "unknown" in ran.out and "warning: voters not heard: n3" in ran.out


def test_topics_say_how_far_each_node_is_behind(world: World, clusterctl: Any) -> None:
    ran = clusterctl("topics", "--addr", world.addr)
    assert ran.code == 0
    assert ran.json["Topics"] == [
        {
            "Topic": "orders",
            "Seq": 9,
            "Delivered": 8,
            "RetainedFrom": 1,
            "Acked": {"n1": 9, "n2": 7},
            "Retained": 9,
            "Lag": {"n1": 0, "n2": 2},
        }
    ]
    ran = clusterctl("topics", "--addr", world.addr, "--output", "table")
    for cell in ("orders", "9 (from 1)", "n1 9", "n2 7", "n2 2"):
        assert cell in ran.out
    world.cluster.answers[Status] = attrs.evolve(STATUS, topics=())
    assert "nothing has been published yet" in clusterctl("topics", "--addr", world.addr, "--output", "table").out


def test_watch_is_a_document_a_line_where_no_terminal_is(world: World, clusterctl: Any) -> None:
    ran = clusterctl("status", "--addr", world.addr, "--watch=1ms", "--count", "3")
    assert (ran.code, [json.loads(line)["LeaderID"] for line in ran.out.splitlines()]) == (0, ["n1"] * 3)
    ran = clusterctl("members", "--addr", "127.0.0.1:1", "--watch=1ms", "--count", "2")
    assert (ran.code, ["cannot be asked" in json.loads(line)["error"] for line in ran.out.splitlines()]) == (2, [True] * 2)


def test_watch_on_a_terminal_draws_tables(world: World, clusterctl: Any) -> None:
    ran = clusterctl("members", "--addr", world.addr, "--watch=1ms", "--count", "2", "--output", "table")
    assert ran.code == 0
    assert "n2" in ran.out and "10.0.0.2:9520" in ran.out


# -- what goes wrong --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("status", "--addr", "127.0.0.1:1"), "127.0.0.1:1 cannot be asked"),
        (("status", "--addr", "127.0.0.1:1", "--mgmt-proto", "grpc"), "is the node up"),
        (("status", "--addr", "nowhere"), "give a management address, host:port"),
        (("status", "--addr", "h:99999"), "give a management address, host:port"),
        (("status", "--timeout", "soon"), "--timeout 'soon': give a duration"),
        (("status", "--timeout", "0"), "give a duration above zero"),
        (("status", "--addr", ","), "give the management address of a node"),
        (("status", "--output", "xml"), "'xml' is not one of 'table', 'json'"),
        (("status", "--mgmt-proto", "ftp"), "'ftp' is not one of 'http', 'grpc'"),
        (("status", "--bogus"), "No such option '--bogus'"),
        (("status", "--timout", "1s"), "'--timeout'"),
        (("status", "--count", "2"), "--count: give --watch too"),
        (("status", "--watch=0s"), "--watch '0s': give a duration above zero"),
        (("members", "--addr", "127.0.0.1:1"), "127.0.0.1:1 cannot be asked"),
        (("stauts",), "Did you mean 'status'?"),
        (("publish",), "Missing argument 'TOPIC'"),
        (("publish", "t", "@/no/such/file"), "@/no/such/file: No such file or directory; give @ and the path of a file"),
        (("publish", "t", "x", "--header", "novalue"), "--header 'novalue': give NAME=VALUE"),
        (("completion", "tcsh"), "'tcsh' is not one of 'bash', 'zsh', 'fish'"),
        (("join", "--id", "n1"), "Missing option '--raft-addr'"),
        (("leave",), "Missing option '--id'"),
        (("leave", "--id", "n1", "--tls-ca", "ca.pem"), "--tls-ca is given and TLS is off"),
        (("dance",), "No such command 'dance'"),
    ],
)
def test_usage_and_reach_are_code_2_and_one_line(clusterctl: Any, arguments: tuple[str, ...], says: str) -> None:
    ran = clusterctl(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert says in ran.err
    assert ran.err.count("\n") == 1


def test_a_port_that_speaks_something_else_is_named(world: World, clusterctl: Any) -> None:
    ran = clusterctl("status", "--addr", world.grpc_addr)
    assert ran.code == 2
    assert (
        ran.err
        == f"clusterctl: {world.grpc_addr} cannot be asked: what came back is no HTTP; is it the port of gRPC (--mgmt-proto grpc)?\n"
    )


def test_flags_come_from_the_environment_too(world: World, clusterctl: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COTERIE_ADDR", world.addr)
    monkeypatch.setenv("COTERIE_ID", "n3")
    monkeypatch.setenv("COTERIE_RAFT_ADDR", "h:1")
    assert clusterctl("join").json == {"accepted": True}
    assert world.cluster.asked == [Join("n3", "h:1")]


# -- dead letters -----------------------------------------------------------------------------------------------------------------

LETTERS = tuple(
    DeadLetter(n, 1000.0 + n, "orders", 40 + n, n, 900.0, "n2", 10, "ValueError: no", b"\x1b[31mred" if n == 2 else b"x" * 100, {})
    for n in (3, 2, 1)
)


def pages(message: DeadLetters) -> LetterPage:
    found = [letter for letter in LETTERS if message.before is None or letter.letter < message.before]
    return LetterPage(tuple(found[: min(message.limit, 2)]), found[1].letter if len(found) > 2 else None)


def test_dead_letters_are_fetched_page_by_page_and_shown(world: World, clusterctl: Any) -> None:
    world.cluster.answers[DeadLetters] = pages
    ran = clusterctl("dead-letters", "--addr", world.addr, "--topic", "orders")
    assert (ran.code, ran.err) == (0, "")
    assert [letter["letter"] for letter in ran.json["letters"]] == [3, 2, 1] and ran.json["next"] is None
    assert [(m.topic, m.limit, m.before) for m in world.cluster.asked] == [("orders", 100, None), ("orders", 98, 2)]
    ran = clusterctl("dead-letters", "--addr", world.addr, "--output", "table", "--limit", "2")
    assert ran.code == 0 and "ValueError: no" in ran.out and "·[31mred" in ran.out and "\x1b" not in ran.out
    assert "higher --limit" in ran.out
    world.cluster.answers[DeadLetters] = LetterPage(())
    assert clusterctl("dead-letters", "--addr", world.addr, "--output", "table").out == "no dead letters\n"


def test_dead_letters_are_requeued_one_by_one_and_refusals_are_said(world: World, clusterctl: Any) -> None:
    world.cluster.answers[Requeue] = lambda m: Published("orders", 50, 60) if m.letter < 3 else InvalidRequest(f"letter={m.letter}: none")
    ran = clusterctl("dead-letters", "--addr", world.addr, "--requeue", "1", "--requeue", "2")
    assert ran.code == 0 and ran.json["requeued"][1] == {"letter": 2, "topic": "orders", "seq": 50, "index": 60}
    ran = clusterctl("dead-letters", "--addr", world.addr, "--requeue", "3", "--requeue", "1", "--output", "table")
    assert ran.code == 1 and "letter 3" in ran.err and ran.out == "letter 1: published again on orders, seq 50\n"
    assert clusterctl("dead-letters", "--addr", world.addr, "--mgmt-proto", "grpc").code == 2


def test_what_a_node_refuses_about_dead_letters_is_said(world: World, clusterctl: Any) -> None:
    world.cluster.answers[DeadLetters] = NoQuorum("stopping")
    ran = clusterctl("dead-letters", "--addr", world.addr)
    assert ran.code == 1 and "stopping" in ran.err
