"""`clusterctl run` under a service manager: what it says at the notification socket, which is the test's; and the unit in `deploy/systemd`."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pykka
import pytest

from coterie import cli
from coterie.cli_run import _failure
from coterie.sd_notify import ServiceManager
from tests.product.commands import ROOT

UNIT = ROOT / "deploy/systemd/coterie@.service"
PATIENCE = 60.0


@pytest.fixture
def said(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(PATIENCE)
        yield sock


def wait_for_line(said: socket.socket, wanted: str) -> list[str]:
    """All lines up to the datagram that has `wanted`."""
    heard: list[str] = []
    while wanted not in heard:
        heard += said.recv(4096).decode().splitlines()
    return heard


def test_a_node_says_that_it_is_ready_who_leads_that_it_lives_and_that_it_stops(said: socket.socket) -> None:
    told = {"NOTIFY_SOCKET": said.getsockname(), "WATCHDOG_USEC": "900000"}
    free = [word for flag in ("--raft-addr", "--mem-bind", "--mgmt-addr") for word in (flag, "127.0.0.1:0")]
    command = [sys.executable, "-m", "coterie.cli", "run", "--id", "n1", "--bootstrap", *free]
    with subprocess.Popen(command, env=os.environ | told, cwd=ROOT, stderr=subprocess.PIPE, text=True) as node:
        try:
            assert "WATCHDOG=1" not in wait_for_line(said, "READY=1")
            wait_for_line(said, "WATCHDOG=1")
            wait_for_line(said, "WATCHDOG=1")
            node.send_signal(signal.SIGTERM)
            last = wait_for_line(said, "STOPPING=1")
            assert "READY=1" not in last
            _, stderr = node.communicate(timeout=PATIENCE)
            assert node.returncode == 0, stderr
        finally:
            node.kill()


def test_who_leads_is_the_status(said: socket.socket) -> None:
    manager = ServiceManager({"NOTIFY_SOCKET": said.getsockname()})
    manager.status("runs; n2 leads in term 7")
    manager.alive()  # no watchdog is wanted
    manager.stopping("stops")
    assert [said.recv(4096).decode() for _ in range(2)] == ["STATUS=runs; n2 leads in term 7", "STOPPING=1\nSTATUS=stops"]


def test_an_abstract_socket_is_one_too() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0coterie-test-{os.getpid()}")
        sock.settimeout(PATIENCE)
        ServiceManager({"NOTIFY_SOCKET": f"@coterie-test-{os.getpid()}"}).ready("runs")
        assert sock.recv(4096) == b"READY=1\nSTATUS=runs"


class Supervisor:
    """Answers "failed" with what it is given."""

    def __init__(self, answer: object) -> None:
        self.answer = answer

    def ask(self, message: str, timeout: float) -> object:
        if isinstance(self.answer, pykka.Timeout):
            raise self.answer
        return self.answer


def test_a_supervisor_that_does_not_answer_gives_no_sign_of_life(said: socket.socket) -> None:
    manager = ServiceManager({"NOTIFY_SOCKET": said.getsockname(), "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())})
    assert manager.look_every == 1.0
    assert _failure(Supervisor(pykka.Timeout("busy")), manager) is None
    assert _failure(Supervisor(OSError("disk")), manager) is not None
    assert _failure(Supervisor(None), manager) is None
    said.setblocking(False)
    assert said.recv(4096) == b"WATCHDOG=1"
    with pytest.raises(BlockingIOError):
        said.recv(4096)


@pytest.mark.parametrize("environment", [{}, {"WATCHDOG_USEC": "x"}, {"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}])
def test_without_a_manager_nothing_is_said(environment: dict[str, str]) -> None:
    manager = ServiceManager(environment)
    manager.ready("runs")
    manager.alive()
    assert manager.look_every == 0


def test_a_manager_that_is_gone_is_told_of_once(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    manager = ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "nobody")})
    manager.ready("runs")
    manager.status("runs")
    assert caplog.text.count("the service manager cannot be told") == 1


# -- the unit ---------------------------------------------------------------------------------------------------------------------


def unit() -> dict[str, list[str]]:
    """[Service]: each setting's values in order."""
    section, found = "", {}
    for line in UNIT.read_text().splitlines():
        if line.startswith("["):
            section = line
        elif "=" in line and not line.startswith("#") and section == "[Service]":
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def test_the_unit_starts_what_the_command_is() -> None:
    service = unit()
    assert (service["Type"], service["NotifyAccess"]) == (["notify"], ["main"])
    assert service["ExecStart"] == ["/opt/coterie/bin/clusterctl run"]
    known = {parameter.envvar for parameter in cli.commands.commands["run"].params}
    assert {setting.partition("=")[0] for setting in service["Environment"]} <= known
    assert int(service["WatchdogSec"][0]) > 3
    assert service["RestartPreventExitStatus"] == ["2"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    there = tmp_path / "coterie@n1.service"
    there.write_text(UNIT.read_text().replace("/opt/coterie/bin/clusterctl", str(Path(sys.executable).parent / "clusterctl")))
    ran = subprocess.run(["systemd-analyze", "verify", "--man=no", str(there)], capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, "coterie@" in ran.stderr) == (0, False), ran.stderr
