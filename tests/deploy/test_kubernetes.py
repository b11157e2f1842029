"""The Kubernetes objects against each other, the defaults of `Config`, the flags of `clusterctl` and the paths of the management API; and the start script, run."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from starlette.routing import Route

from coterie.actors.config import Config
from coterie.actors.management.http_app import http_app
from tests.deploy.manifests import check_command, compose, kubernetes
from tests.product.management_world import FakeCluster

OBJECTS = kubernetes()
SET = OBJECTS["StatefulSet", "coterie"]
POD = SET["spec"]["template"]["spec"]
NODE, JOIN = POD["containers"]
PATHS = {route.path for route in http_app(FakeCluster().service()).routes if isinstance(route, Route)}


def environment(container: dict[str, Any], pod: str = "coterie-1") -> dict[str, str]:
    """As the kubelet makes it."""
    found = {"POD_NAME": pod, "NAMESPACE": "shop"}
    for entry in container["env"]:
        if "value" in entry:
            found[entry["name"]] = re.sub(r"\$\((\w+)\)", lambda m: found[m[1]], entry["value"])
    return found


def ports(objects: list[dict[str, Any]], key: str) -> dict[str, tuple[int, str]]:
    return {port["name"]: (port[key], port["protocol"]) for port in objects}


def test_ports_are_those_of_the_defaults_and_the_same_everywhere() -> None:
    config = Config(node_id="n1")
    raft, gossip, http = (int(address.removeprefix(":")) for address in (config.raft_addr, config.mem_bind, config.mgmt_addr))
    wanted = {
        "raft": (raft, "TCP"),
        "gossip": (gossip, "TCP"),
        "gossip-udp": (gossip, "UDP"),
        "http": (http, "TCP"),
        "grpc": (http + 1, "TCP"),
    }
    assert ports(NODE["ports"], "containerPort") == wanted
    assert ports(OBJECTS["Service", "coterie"]["spec"]["ports"], "port") == wanted
    assert ports(OBJECTS["Service", "coterie-api"]["spec"]["ports"], "port").items() <= wanted.items()


def test_names_and_labels_fit_together() -> None:
    headless = OBJECTS["Service", "coterie"]["spec"]
    assert SET["spec"]["serviceName"] == "coterie"
    assert (headless["clusterIP"], headless["publishNotReadyAddresses"]) == ("None", True)
    labels = SET["spec"]["template"]["metadata"]["labels"]
    for selector in (
        headless["selector"],
        OBJECTS["Service", "coterie-api"]["spec"]["selector"],
        SET["spec"]["selector"]["matchLabels"],
        OBJECTS["PodDisruptionBudget", "coterie"]["spec"]["selector"]["matchLabels"],
    ):
        assert selector == labels
    assert SET["spec"]["podManagementPolicy"] == "Parallel"
    assert OBJECTS["PodDisruptionBudget", "coterie"]["spec"]["maxUnavailable"] < SET["spec"]["replicas"] / 2
    names = [f"coterie-{number}.coterie" for number in range(SET["spec"]["replicas"])]
    assert environment(NODE)["PEERS"] == ",".join(f"{name}:17946" for name in names)
    assert NODE["image"] == JOIN["image"] == compose()["services"]["n1"]["image"]


def test_the_node_s_variables_are_flags_and_its_names_are_dns_names_of_the_service() -> None:
    given = environment(NODE)
    check_command(["run"], given)
    assert given["COTERIE_ID"] == "coterie-1"
    assert given["COTERIE_RAFT_ADDR"] == "coterie-1.coterie.shop.svc.cluster.local:9520"
    assert given["COTERIE_DNS_NAMES"] == "_gossip._tcp.coterie.shop.svc.cluster.local"
    assert given["COTERIE_DATA"] == NODE["volumeMounts"][0]["mountPath"]
    assert NODE["volumeMounts"][0]["name"] == SET["spec"]["volumeClaimTemplates"][0]["metadata"]["name"]
    assert POD["enableServiceLinks"] is False


def test_probes_ask_paths_that_are_there() -> None:
    assert {NODE[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")} == {
        "/livez",
        "/readyz",
    } & PATHS
    assert {NODE[probe]["httpGet"]["port"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")} == {"http"}
    pause = int(NODE["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pause < POD["terminationGracePeriodSeconds"] / 2, "the node needs the rest to hand over and close"


def test_nothing_runs_as_root_or_writes_outside_of_its_volume() -> None:
    assert POD["securityContext"]["runAsNonRoot"] is True
    assert str(POD["securityContext"]["runAsUser"]) in (Path(__file__).parents[2] / "deploy/Dockerfile").read_text()
    for container in (NODE, JOIN):
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


# -- the scripts ------------------------------------------------------------------------------------------------------------------


def run_script(container: dict[str, Any], directory: Path, pod: str, answers: str) -> list[str]:
    """Run a container's script with a `clusterctl` of the test's; what that was called with, and whether it was to bootstrap."""
    log, fake = directory / "log", directory / "clusterctl"
    fake.write_text(f'#!/bin/sh\necho "$* bootstrap=${{COTERIE_BOOTSTRAP:-no}}" >>{log}\n{answers}\n')
    fake.chmod(0o755)
    (directory / "sleep").write_text("#!/bin/sh\n")
    (directory / "sleep").chmod(0o755)
    path = f"{directory}:{os.environ['PATH']}"
    subprocess.run(
        [*container["command"], *container["args"]],
        env=environment(container, pod) | {"PATH": path},
        timeout=30,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return log.read_text().splitlines()


NOBODY = "[ $1 = run ] || exit 2"
UNJOINED = """[ $1 = run ] || echo '{"Members": [{"ID": "coterie-1", "Suffrage": "none"}]}'"""
VOTERS = """[ $1 = run ] || echo '{"Members": [{"ID": "coterie-1", "Suffrage": "voter"}]}'"""


@pytest.mark.parametrize(
    ("pod", "answers", "bootstrap"),
    [("coterie-0", NOBODY, "true"), ("coterie-0", UNJOINED, "true"), ("coterie-0", VOTERS, "no"), ("coterie-1", NOBODY, "no")],
)
def test_only_the_first_pod_forms_a_cluster_and_only_where_none_is(tmp_path: Path, pod: str, answers: str, bootstrap: str) -> None:
    calls = run_script(NODE, tmp_path, pod, answers)
    assert calls[-1] == f"run bootstrap={bootstrap}"
    for call in calls[:-1]:
        check_command(call.split(" bootstrap=")[0].split(), {})


def test_the_sidecar_joins_its_pod(tmp_path: Path) -> None:
    (call,) = run_script(JOIN, tmp_path, "coterie-2", "exit 0")
    words = call.split(" bootstrap=")[0].split()
    assert words[0] == "join"
    check_command(words, environment(JOIN, "coterie-2"))
    with pytest.raises(subprocess.CalledProcessError):
        run_script(JOIN, tmp_path, "coterie-2", "exit 2")
