"""The tutorial of the guide, to the letter: its commands, its ports, three processes on one machine."""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import os
import pty
import re
import shlex
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.product.commands import CLUSTERCTL, Program, clusterctl
from tests.product.nodes import free_port
from tests.product.wait import wait_for

RUN = """
clusterctl run --id n1 --raft-addr 127.0.0.1:9521 --mem-bind 127.0.0.1:7946 --mgmt-addr 127.0.0.1:17946 --bootstrap --data {tmp}/cluster-n1
clusterctl run --id n2 --raft-addr 127.0.0.1:9522 --mem-bind 127.0.0.1:8946 --mgmt-addr 127.0.0.1:18946 --join 127.0.0.1:7946 --data {tmp}/cluster-n2
clusterctl run --id n3 --raft-addr 127.0.0.1:9523 --mem-bind 127.0.0.1:9946 --mgmt-addr 127.0.0.1:19946 --join 127.0.0.1:7946 --data {tmp}/cluster-n3
"""
JOIN_N2 = """curl -sS -XPOST http://127.0.0.1:17946/join -H 'Content-Type: application/json' -d '{"id":"n2","raftAddr":"127.0.0.1:9522"}'"""
JOIN_N3 = "clusterctl join --id n3 --raft-addr 127.0.0.1:9523 --addr 127.0.0.1:17946"
STATUS_ON_N2 = "curl -sS http://127.0.0.1:18946/status"

TCP = (9521, 9522, 9523, 7946, 8946, 9946, 17946, 17947, 18946, 18947, 19946, 19947)
MGMT = {"n1": "127.0.0.1:17946", "n2": "127.0.0.1:18946", "n3": "127.0.0.1:19946"}


def taken_port() -> int | None:
    """A port of the tutorial that somebody on this machine has."""
    for kind, ports in ((socket.SOCK_STREAM, TCP), (socket.SOCK_DGRAM, (7946, 8946, 9946))):
        for port in ports:
            with socket.socket(socket.AF_INET, kind) as sock:
                if kind == socket.SOCK_STREAM:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    sock.bind(("127.0.0.1", port))
                except OSError as error:
                    assert error.errno == errno.EADDRINUSE
                    return port
    return None


def curl(command: str) -> str:
    """The command's output: of the real curl, or of what it would have asked."""
    words = shlex.split(command)
    if shutil.which("curl"):
        return subprocess.run(words, capture_output=True, text=True, timeout=30, check=True).stdout
    host, path = re.match(r"http://([^/]+)(/.*)", next(w for w in words if w.startswith("http://"))).groups()  # type: ignore[union-attr]
    connection = http.client.HTTPConnection(host, timeout=30)
    with contextlib.closing(connection):
        body = words[words.index("-d") + 1] if "-d" in words else None
        connection.request("POST" if body else "GET", path, body)
        return connection.getresponse().read().decode()


class Tutorial:
    def __init__(self, directory: Path) -> None:
        commands = [line for line in RUN.format(tmp=directory).splitlines() if line]
        self.commands = {f"n{number}": shlex.split(line)[1:] for number, line in enumerate(commands, 1)}
        self.nodes: dict[str, Program] = {}

    def start(self, name: str) -> None:
        self.nodes[name] = Program(CLUSTERCTL, *self.commands[name])
        self.nodes[name].wait_line(f"node {name} runs")

    def status(self, name: str = "n2") -> dict[str, Any]:
        document: dict[str, Any] = json.loads(curl(f"curl -sS http://{MGMT[name]}/status"))
        return document

    def form(self) -> None:
        for name in self.commands:
            self.start(name)
        wait_for(lambda: self.status("n1")["LeaderID"] == "n1", 10, "n1 leads")
        assert json.loads(curl(JOIN_N2)) == {"accepted": True}
        joined = clusterctl(*shlex.split(JOIN_N3)[1:])
        assert (joined.returncode, json.loads(joined.stdout), joined.stderr) == (0, {"accepted": True}, "")

    def well(self) -> bool:
        """All three see n1 lead three living voters, and have nothing to warn of."""
        documents = [self.status(name) for name in MGMT]
        return all(
            d["Healthy"]
            and d["LeaderID"] == "n1"
            and not d["Warnings"]
            and [(m["ID"], m["State"], m["Suffrage"]) for m in d["Members"]] == [(n, "alive", "voter") for n in MGMT]
            for d in documents
        )


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tutorial]:
    if (port := taken_port()) is not None:
        pytest.skip(f"port {port} of the tutorial is taken on this machine")
    tutorial = Tutorial(tmp_path_factory.mktemp("tutorial"))
    try:
        tutorial.form()
        wait_for(tutorial.well, 10, "the cluster of the tutorial is well", every=0.1)
        yield tutorial
    finally:
        for node in tutorial.nodes.values():
            node.kill()


def test_status_on_a_follower_is_the_leaders_view_with_the_names_of_the_guide(tutorial: Tutorial) -> None:
    document = json.loads(curl(STATUS_ON_N2))
    assert (document["Healthy"], document["LeaderID"], document["LeaderAddr"], document["Warnings"]) == (True, "n1", MGMT["n1"], None)
    assert document["Term"] >= 1
    assert {m["ID"]: (m["Addr"], m["Meta"]["mgmt"]) for m in document["Members"]} == {
        "n1": ("127.0.0.1:7946", MGMT["n1"]),
        "n2": ("127.0.0.1:8946", MGMT["n2"]),
        "n3": ("127.0.0.1:9946", MGMT["n3"]),
    }
    assert document["AnsweredBy"] == "n1"
    assert all(len(json.dumps(m["Meta"])) <= 512 and set(map(type, m["Meta"].values())) == {str} for m in document["Members"])


def test_healthz_livez_and_readyz_say_ok(tutorial: Tutorial) -> None:
    for name in MGMT:
        for path in ("healthz", "livez", "readyz"):
            assert curl(f"curl -sS http://{MGMT[name]}/{path}") == "ok"


def test_status_is_json_on_a_pipe_and_code_0_when_all_is_well(tutorial: Tutorial) -> None:
    for name, address in MGMT.items():
        ran = clusterctl("status", "--addr", address)
        assert (ran.returncode, ran.stderr) == (0, ""), ran
        document = json.loads(ran.stdout)
        assert (document["LeaderID"], len(document["Members"])) == ("n1", 3), name
    assert clusterctl("status").returncode == 0  # the default address is n1's


def on_a_terminal(*arguments: str) -> str:
    """What the command writes on a terminal."""
    master, slave = pty.openpty()
    with subprocess.Popen([CLUSTERCTL, *arguments], stdin=slave, stdout=slave, stderr=slave, env=os.environ | {"TERM": "xterm"}) as process:
        os.close(slave)
        said = bytearray()
        with contextlib.suppress(OSError):  # EIO: the other end is closed
            while data := os.read(master, 4096):
                said += data
        os.close(master)
        assert process.wait(30) == 0
    return re.sub(r"\x1b\[[0-9;]*m", "", said.decode())


def test_status_is_a_table_on_a_terminal(tutorial: Tutorial) -> None:
    said = on_a_terminal("status", "--addr", MGMT["n3"])
    assert "healthy" in said
    assert "leader n1" in said
    for column in ("member", "suffrage", "raft", "gossip"):
        assert column in said
    for name in MGMT:
        assert re.search(rf"^{name} +alive +{'leader' if name == 'n1' else 'voter'}\b", said, re.M), said
        assert MGMT[name] in said, "an address is not broken, though the terminal is narrow"
    with pytest.raises(ValueError, match="Expecting value"):
        json.loads(said)
    json.loads(on_a_terminal("status", "--output", "json"))


def test_leave_and_join_over_a_follower_find_the_leader(tutorial: Tutorial) -> None:
    ran = clusterctl("leave", "--id", "n3", "--addr", MGMT["n2"])
    assert (ran.returncode, json.loads(ran.stdout), ran.stderr) == (0, {"accepted": True}, "")
    wait_for(
        lambda: {m["ID"]: m["Suffrage"] for m in tutorial.status()["Members"]} == {"n1": "voter", "n2": "voter", "n3": "none"},
        10,
        "n3 left",
    )
    ran = clusterctl("leave", "--id", "n3", "--addr", MGMT["n1"])
    assert ran.returncode == 1
    assert json.loads(ran.stdout)["accepted"] is False
    assert "n3" in ran.stderr and ran.stderr.count("\n") == 1
    ran = clusterctl("join", "--id", "n3", "--raft-addr", "127.0.0.1:9523", "--addr", MGMT["n3"])
    assert (ran.returncode, json.loads(ran.stdout)) == (0, {"accepted": True})
    wait_for(tutorial.well, 10, "n3 is a voter again", every=0.1)


def test_join_and_leave_work_over_grpc(tutorial: Tutorial) -> None:
    ran = clusterctl("status", "--addr", "127.0.0.1:18947", "--mgmt-proto", "grpc")
    assert (ran.returncode, json.loads(ran.stdout)["LeaderID"]) == (0, "n1"), ran
    ran = clusterctl("leave", "--id", "n9", "--addr", "127.0.0.1:17947", "--mgmt-proto", "grpc")
    assert (ran.returncode, json.loads(ran.stdout)["kind"]) == (1, "UnknownMember"), ran
    ran = clusterctl("join", "--id", "n2", "--raft-addr", "127.0.0.1:9522", "--addr", "127.0.0.1:18947", "--mgmt-proto", "grpc")
    assert (ran.returncode, json.loads(ran.stdout)) == (0, {"accepted": True}), ran


def test_grpc_on_the_management_address_and_http_beside_it(tmp_path: Path) -> None:
    mgmt = free_port()
    node = Program(
        *(CLUSTERCTL, "run", "--id", "g1", "--bootstrap", "--data", str(tmp_path / "g1"), "--mgmt-proto", "grpc"),
        *("--raft-addr", "127.0.0.1:0", "--mem-bind", "127.0.0.1:0", "--mgmt-addr", f"127.0.0.1:{mgmt}"),
    )
    try:
        node.wait_line("node g1 runs")
        wait_for(
            lambda: clusterctl("status", "--addr", f"127.0.0.1:{mgmt}", "--mgmt-proto", "grpc").returncode == 0, 10, "it answers over gRPC"
        )
        ran = clusterctl("status", "--addr", f"127.0.0.1:{mgmt + 1}")
        assert (ran.returncode, json.loads(ran.stdout)["LeaderAddr"]) == (0, f"127.0.0.1:{mgmt}")
        ran = clusterctl("status", "--addr", f"127.0.0.1:{mgmt}", "--timeout", "3s")
        assert (ran.returncode, ran.stdout) == (2, ""), "HTTP spoken to the gRPC port"
        assert re.fullmatch(r"clusterctl: [^\n]+\n", ran.stderr)
    finally:
        assert node.stop() == 0, node.text


def test_wrong_usage_is_code_2_and_one_line(tutorial: Tutorial) -> None:
    for arguments in (
        ("status", "--addr", "nowhere"),
        ("status", "--timeout", "soon"),
        ("status", "--bogus"),
        ("join", "--id", "n4"),
        ("join", "--raft-addr", "127.0.0.1:1"),
        ("leave",),
        ("bogus",),
        ("leave", "--id", "n3", "--tls-enable"),
    ):
        ran = clusterctl(*arguments)
        assert (ran.returncode, ran.stdout) == (2, ""), arguments
        assert re.fullmatch(r"clusterctl: .+\n", ran.stderr), ran.stderr


def test_the_exit_code_follows_the_nodes_as_they_stop_and_return(tutorial: Tutorial) -> None:
    """Degraded without one, no quorum without two, unreachable without all; SIGTERM stops each cleanly; started again they need no join."""
    assert tutorial.nodes["n3"].stop(signal.SIGTERM) == 0
    wait_for(lambda: clusterctl("status", "--addr", MGMT["n2"]).returncode == 1, 15, "code 1 with one voter of three away")
    document = json.loads(clusterctl("status", "--addr", MGMT["n2"]).stdout)
    assert document["Healthy"] is True
    assert any("n3" in warning for warning in document["Warnings"])
    assert tutorial.nodes["n2"].stop(signal.SIGINT) == 0
    wait_for(lambda: clusterctl("status", "--addr", MGMT["n1"]).returncode == 2, 15, "code 2 without a quorum")
    document = json.loads(clusterctl("status", "--addr", MGMT["n1"]).stdout)
    assert (document["Healthy"], any("no quorum" in w or "no leader" in w for w in document["Warnings"])) == (False, True)
    ran = clusterctl("status", "--addr", MGMT["n2"])
    assert (ran.returncode, ran.stdout) == (2, "")
    assert re.fullmatch(r"clusterctl: 127.0.0.1:18946 cannot be asked: .*refused.*\n", ran.stderr)
    ran = clusterctl("join", "--id", "n4", "--raft-addr", "127.0.0.1:9524", "--addr", MGMT["n1"], "--timeout", "2s")
    assert ran.returncode in (1, 2)
    assert json.loads(ran.stdout)["accepted"] is False
    for name in ("n2", "n3"):
        tutorial.start(name)
    wait_for(lambda: clusterctl("status", "--addr", MGMT["n3"]).returncode == 0, 20, "code 0 with all three back")
    for name in ("n2", "n3", "n1"):
        node = tutorial.nodes[name]
        assert node.stop(signal.SIGTERM) == 0, node.text
        assert f"node {name} stops (SIGTERM)" in node.text
        assert "Traceback" not in node.text and "ERROR" not in node.text, node.text
