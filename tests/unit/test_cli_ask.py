"""`clusterctl status`, `join` and `leave`, against a fake cluster's real servers; the commands run in processes of their own where that is the point."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import attrs
import pytest

from coterie import cli
from coterie.actors.errors import NoQuorum, NotLeader, UnknownMember
from coterie.actors.management.grpc_api import management_services
from coterie.actors.management.http_app import http_app
from coterie.actors.management.requests import parse_status, status_document
from coterie.actors.messages import Join, Leave, MemberStatus, Status
from coterie.cli_ask import status_code
from coterie.transport.grpc_server import GrpcServer
from coterie.transport.http_server import HttpServer
from tests.product.management_world import STATUS, FakeCluster


class World:
    def __init__(self) -> None:
        self.cluster, self.leader = FakeCluster(), FakeCluster()
        self.servers = [HttpServer("127.0.0.1:0", http_app(c.service()), "n1") for c in (self.cluster, self.leader)]
        self.grpc = GrpcServer("127.0.0.1:0", management_services(self.cluster.service()), "n1")
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


@pytest.mark.parametrize("proto", ["http", "grpc"])
@pytest.mark.parametrize(("error", "code"), [(UnknownMember("n9 is in no quorum"), 1), (NoQuorum("no leader within 10 s"), 2)])
def test_a_refusal_is_an_answer_and_a_line_and_a_code(world: World, clusterctl: Any, proto: str, error: Exception, code: int) -> None:
    world.cluster.answers[Leave] = error
    ran = clusterctl("leave", "--id", "n9", "--addr", world.addr if proto == "http" else world.grpc_addr, "--mgmt-proto", proto)
    assert ran.code == code
    assert ran.json == {"accepted": False, "error": str(error), "kind": type(error).__name__}
    assert ran.err == f"clusterctl: leave n9: {error}\n"


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
        (("status", "--output", "xml"), "give table or json"),
        (("status", "--mgmt-proto", "ftp"), "give http or grpc"),
        (("status", "--bogus"), "No such option: --bogus"),
        (("join", "--id", "n1"), "Missing option '--raft-addr'"),
        (("leave",), "Missing option '--id'"),
        (("leave", "--id", "n1", "--tls-ca", "ca.pem"), "--tls-ca: TLS is not in this version"),
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
    assert world.grpc_addr in ran.err
    assert ran.err.count("\n") == 1


def test_flags_come_from_the_environment_too(world: World, clusterctl: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COTERIE_ADDR", world.addr)
    monkeypatch.setenv("COTERIE_ID", "n3")
    monkeypatch.setenv("COTERIE_RAFT_ADDR", "h:1")
    assert clusterctl("join").json == {"accepted": True}
    assert world.cluster.asked == [Join("n3", "h:1")]


def test_a_question_starts_without_the_weight_of_a_node() -> None:
    code = (
        "import sys; from coterie import cli; code = cli._run(['status', '--addr', '127.0.0.1:1']);"
        "heavy = {'grpc', 'uvicorn', 'starlette', 'httpx', 'lmdb', 'prometheus_client', 'rich', 'asyncio'} & set(sys.modules);"
        "assert not heavy, heavy; sys.exit(code)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stdout) == (2, ""), ran.stderr
    assert "cannot be asked" in ran.stderr


def test_a_reader_that_goes_away_is_no_traceback(world: World) -> None:
    command = f"{sys.executable} -m coterie.cli status --addr {world.addr} | true"
    ran = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in ran.stderr
    assert "Exception" not in ran.stderr


def test_the_commands_mount_in_another_application(world: World) -> None:
    import typer
    from typer.testing import CliRunner

    application = typer.Typer()
    application.add_typer(cli.app, name="cluster")
    result = CliRunner().invoke(application, ["cluster", "status", "--addr", world.addr])
    assert (result.exit_code, json.loads(result.stdout)["LeaderID"]) == (0, "n1")
