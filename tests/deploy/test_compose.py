"""The compose file's three nodes and two joins: their commands, variables and names, each on a machine of its own that is a network namespace."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coterie.actors.config import Config
from tests.deploy.manifests import COMPOSE, DOCKERFILE, check_command, compose
from tests.deploy.networks import SUBNET, Machines, reason_not_to
from tests.product.commands import CLUSTERCTL, Program
from tests.product.wait import wait_for

NODES = ("n1", "n2", "n3")
JOINS = ("join-n2", "join-n3")
WAIT = 60.0


# -- the files --------------------------------------------------------------------------------------------------------------------


def test_every_service_is_a_command_that_the_cli_takes() -> None:
    services = compose()["services"]
    assert set(services) == {*NODES, *JOINS}
    for service in services.values():
        check_command(service["command"], service.get("environment", {}))
        assert service["healthcheck"].get("disable") or service["healthcheck"]["test"][:2] == ["CMD", "clusterctl"]


def test_the_nodes_differ_in_their_names_alone_and_one_forms_the_cluster() -> None:
    services = compose()["services"]
    for name in NODES:
        environment = services[name]["environment"]
        assert (services[name]["hostname"], environment["COTERIE_ID"]) == (name, name)
        assert environment["COTERIE_RAFT_ADDR"] == f"{name}:9520"
        assert set(environment["COTERIE_JOIN"].split(",")) == {f"{other}:7946" for other in NODES if other != name}
        assert services[name]["volumes"] == [f"{name}:/data"]
    assert [name for name in NODES if "COTERIE_BOOTSTRAP" in services[name]["environment"]] == ["n1"]


def test_the_image_has_the_ports_and_the_data_directory_of_the_defaults() -> None:
    text = DOCKERFILE.read_text()
    config = Config(node_id="n1")
    exposed = set(re.findall(r"(\d+)/(?:tcp|udp)", text))
    assert exposed == {config.raft_addr[1:], config.mem_bind[1:], config.mgmt_addr[1:], str(int(config.mgmt_addr[1:]) + 1)}
    assert "COTERIE_DATA=/data" in text and "VOLUME /data" in text
    assert re.search(r"^USER \d+:\d+$", text, re.M), "not root"
    for image in re.findall(r"^FROM (\S+)", text, re.M):
        assert "/" not in image, "a standard image, from no registry of anybody's"
    health = json.loads(re.search(r"^HEALTHCHECK .*CMD (\[.*\])$", text, re.M)[1])  # type: ignore[index]
    check_command(health[1:], {})


def test_what_the_image_is_built_from_is_there() -> None:
    ignore = (COMPOSE.parent / "Dockerfile.dockerignore").read_text().split()
    for word in ignore:
        if word.startswith("!"):
            assert (COMPOSE.parents[1] / word[1:]).exists(), word


# -- the topology -----------------------------------------------------------------------------------------------------------------


class Topology:
    """The compose file's services; a node's volume is a directory of the test's."""

    def __init__(self, machines: Machines, directory: Path, stack: contextlib.ExitStack) -> None:
        self.machines, self.directory, self._stack = machines, directory, stack
        self.services: dict[str, dict[str, Any]] = compose()["services"]
        self.nodes: dict[str, Program] = {}

    def start(self, name: str) -> None:
        service = self.services[name]
        environment = {**service["environment"], "COTERIE_DATA": str(self.directory / name)}
        node = Program(*self.machines.at(name, CLUSTERCTL, *service["command"], **environment))
        self._stack.callback(node.kill)
        self.nodes[name] = node

    def join(self, name: str) -> Program:
        """Of a service that joins; it runs on n3's machine, any would do."""
        program = Program(*self.machines.at("n3", CLUSTERCTL, *self.services[name]["command"]))
        self._stack.callback(program.kill)
        return program

    def ctl(self, name: str, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.machines.at(name, CLUSTERCTL, *words), capture_output=True, text=True, timeout=WAIT, check=False)

    def wait_well(self, name: str) -> None:
        """Until the status at that node has nothing to warn of; what it says instead, with all nodes' logs, when it does not come to that."""
        try:
            wait_for(lambda: self.ctl(name, "status").returncode == 0, WAIT, f"all is well at {name}", every=0.2)
        except AssertionError as error:
            logs = "\n".join(f"-- {node}\n{program.text[-3000:]}" for node, program in self.nodes.items())
            raise AssertionError(f"{error}\n{self.ctl(name, 'status').stdout}\n{logs}") from None

    def healthy(self, name: str) -> bool:
        test = self.services[name]["healthcheck"]["test"]
        return self.ctl(name, *test[2:]).returncode == 0


@pytest.fixture
def topology(tmp_path: Path) -> Iterator[Topology]:
    if reason := reason_not_to():
        pytest.skip(reason)
    with contextlib.ExitStack() as stack:
        machines = stack.enter_context(Machines(*NODES))
        yield Topology(machines, tmp_path, stack)


@pytest.mark.long
@pytest.mark.root
@pytest.mark.timeout(300)
def test_three_machines_form_a_cluster_publish_lose_one_and_take_it_back_at_another_address(topology: Topology) -> None:
    joins = [topology.join(name) for name in JOINS]  # before anybody is there: they wait
    for name in NODES:
        topology.start(name)
    for join in joins:
        assert join.process.wait(WAIT) == 0, join.text
    topology.wait_well("n2")
    members = json.loads(topology.ctl("n3", "members").stdout)["Members"]
    assert [(m["ID"], m["Suffrage"], m["RaftAddr"]) for m in members] == [(name, "voter", f"{name}:9520") for name in NODES]
    assert {m["ID"]: m["Addr"] for m in members} == {name: f"{address}:7946" for name, address in topology.machines.addresses.items()}
    assert all(map(topology.healthy, NODES))

    first = json.loads(topology.ctl("n3", "publish", "orders", "1").stdout)
    assert (first["topic"], first["seq"]) == ("orders", 1)
    leader = json.loads(topology.ctl("n2", "status").stdout)["LeaderID"]
    others = [name for name in NODES if name != leader]
    topology.nodes[leader].kill()
    published = topology.ctl(others[0], "publish", "orders", "2", "--message-id", "second")
    assert (published.returncode, json.loads(published.stdout)["seq"]) == (0, 2), published
    wait_for(lambda: topology.ctl(others[1], "status").returncode == 1, WAIT, "degraded", every=0.2)
    assert all(map(topology.healthy, others))
    assert not topology.healthy(leader)

    topology.machines.move(leader, f"{SUBNET}.77")
    topology.start(leader)
    topology.wait_well(others[0])
    status = json.loads(topology.ctl(leader, "status").stdout)
    assert next(m["Addr"] for m in status["Members"] if m["ID"] == leader) == f"{SUBNET}.77:7946"
    caught_up = {topic["Topic"]: topic["Seq"] for topic in status["Topics"]}
    assert caught_up == {"orders": 2}
    again = topology.join(JOINS[0])
    assert again.process.wait(WAIT) == 0, "a join may be repeated"
    for name in NODES:
        assert topology.nodes[name].stop(signal.SIGTERM) == 0, topology.nodes[name].text
