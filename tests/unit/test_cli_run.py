"""`clusterctl run`: flags become a Config, signals stop the node, and every way to fail is one line and a code. The node is a fake."""

from __future__ import annotations

import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from typing import Any

import attrs
import click
import pykka
import pytest

from coterie import cli
from coterie.actors.config import Config
from coterie.actors.errors import BindFailed, ConfigError, StorageError
from coterie.actors.messages import LeaderChanged, MemberJoin, Subscribe
from coterie.cli_run import FIELDS, configuration, describe, run_node
from coterie.logs import BackgroundHandler
from coterie.transport import logs

PATIENCE = 10.0

RUN_FLAGS = """
    --id --raft-addr --mem-bind --mem-adv --join --mgmt-addr --mgmt-proto --discovery --dns-names --dns-port --disc-refresh --file-path --file-env
    --tls-enable --tls-ca --tls-cert --tls-key --tls-skip-verify --tls-server-name --trace --bootstrap --data
""".split()  # noqa: SIM905 - as the contract lists them


# -- flags ------------------------------------------------------------------------------------------------------------------------


def test_every_flag_of_the_contract_is_there() -> None:
    ran = subprocess.run([sys.executable, "-m", "coterie.cli", "run", "--help"], capture_output=True, text=True, timeout=60, check=True)
    assert [flag for flag in RUN_FLAGS if f"{flag} " not in ran.stdout] == []


def test_the_help_names_the_defaults_of_config() -> None:
    defaults = {field.name: field.default for field in attrs.fields(Config)}
    said = {
        p.name: p.show_default
        for p in cli.commands.commands["run"].params
        if isinstance(p, click.Option) and isinstance(p.show_default, str)
    }
    assert {"raft_addr", "mem_bind", "mgmt_addr", "mgmt_proto", "discovery", "dns_port", "disc_refresh"} <= said.keys()
    for flag, shown in said.items():
        default = defaults[FIELDS.get(flag, flag)]
        said_of = {"": ("the one that is bound", "the next port up"), 0.0: ("never",)}
        meant = said_of.get(default, (str(default), f"{default:g}s" if default.__class__ is float else ""))
        assert shown in meant, (flag, default)


def test_flags_become_the_fields_of_a_config() -> None:
    given = {
        "id": "n1",
        "raft_addr": "127.0.0.1:1",
        "mem_bind": ":2",
        "join": "h:3,i:4",
        "mgmt_addr": ":5",
        "data": "/d",
        "bootstrap": True,
        "grpc_addr": ":6",
    }
    config = configuration(given)
    assert (config.node_id, config.raft_addr, config.mem_bind, config.seeds()) == ("n1", "127.0.0.1:1", ":2", ("h:3", "i:4"))
    assert (config.mgmt_addr, config.grpc_addr, config.data_dir, config.bootstrap) == (":5", ":6", "/d", True)


def test_flags_of_discovery_become_fields() -> None:
    config = configuration(
        {"id": "n1", "discovery": "dns", "dns_names": "a.b", "dns_port": 8946, "dns_servers": "10.0.0.2", "disc_refresh": "1500ms"}
    )
    assert (config.discovery_kind, config.dns_names_csv, config.dns_port, config.dns_servers_csv) == ("dns", "a.b", 8946, "10.0.0.2")
    assert config.disc_refresh == 1.5
    config = configuration({"id": "n1", "discovery": "file", "file_path": "/etc/seeds/*", "file_env": "SEEDS"})
    assert (config.file_path, config.file_env) == ("/etc/seeds/*", "SEEDS")


@pytest.mark.parametrize(
    ("given", "flag"),
    [
        ({"id": ""}, "--id"),
        ({"id": "n1", "raft_addr": "nowhere"}, "--raft-addr"),
        ({"id": "n1", "join": "h"}, "--join"),
        ({"id": "n1", "tls_enable": True}, "--tls-enable"),
        ({"id": "n1", "tls_ca": "ca.pem"}, "--tls-ca"),
        ({"id": "n1", "discovery": "dns"}, "--discovery"),
        ({"id": "n1", "dns_names": "a.b"}, "--dns-names"),
        ({"id": "n1", "file_path": "seeds"}, "--file-path"),
        ({"id": "n1", "mgmt_proto": "ftp"}, "--mgmt-proto"),
    ],
)
def test_a_bad_flag_is_named_as_it_was_given(given: dict[str, Any], flag: str) -> None:
    with pytest.raises(ConfigError, match=f"^{flag}="):
        configuration(given)


@pytest.mark.parametrize(
    ("given", "remedy"),
    [
        ({"tls_enable": True}, "--tls-cert and --tls-key missing"),
        ({"tls_ca": "ca.pem"}, "set --tls-enable too"),
        ({"discovery": "file"}, "give --file-path or --file-env too"),
        ({"discovery": "dns"}, "give --dns-names too"),
        ({"file_path": "seeds"}, "set --discovery to 'file'"),
    ],
)
def test_the_remedy_names_flags_too(given: dict[str, Any], remedy: str) -> None:
    with pytest.raises(ConfigError) as refused:
        configuration({"id": "n1", **given})
    assert remedy in str(refused.value)


@pytest.mark.parametrize(
    "arguments",
    [("--tls-enable",), ("--discovery", "file"), ("--raft-addr", "x"), ("--log-level", "loud"), ("--dns-port", "x")],
)
def test_flags_that_cannot_be_used_end_with_code_2_and_one_line(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["run", "--id", "n1", *arguments])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("clusterctl: ")
    assert said.count("\n") == 1


# -- the life of a node -----------------------------------------------------------------------------------------------------------


class FakeNode:
    """What `ClusterSupervisor.start` gives, as far as the command knows it."""

    def __init__(self) -> None:
        self.events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.runs = threading.Event()
        self.stopped = threading.Event()
        self.failure: Exception | None = None
        self.refusal: Exception | None = None
        self.config: Any = None

    def start(self, config: Any) -> FakeNode:
        self.config = config
        if self.refusal is not None:
            raise self.refusal
        return self

    def ask(self, message: Any, timeout: float | None = None) -> Any:
        if isinstance(message, Subscribe):
            self.runs.set()
            return iter(self.events.get, None)
        assert message == "failed"
        if self.stopped.is_set():
            raise pykka.ActorDeadError("the supervisor is stopped")
        return self.failure

    def addresses(self) -> dict[str, str]:
        return {"raft": "h:1", "gossip": "h:2", "mgmt": "h:3", "http": "h:3", "grpc": "h:4"}

    def stop(self) -> None:
        self.stopped.set()
        self.events.put(None)


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeNode]:
    node = FakeNode()
    monkeypatch.setitem(sys.modules, "coterie.actors.supervisor", types.SimpleNamespace(ClusterSupervisor=node))
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield node
    node.events.put(None)
    root.handlers[:], root.level = handlers, level
    for number, handler in before.items():
        signal.signal(number, handler)


def run(node: FakeNode, meanwhile: Any = lambda: None) -> int:
    def act() -> None:
        assert node.runs.wait(PATIENCE)
        meanwhile()

    actor = threading.Thread(target=act)
    actor.start()
    try:
        with pytest.raises(SystemExit) as ended:
            cli.main(["run", "--id", "n1", "--bootstrap"])
    finally:
        node.runs.set()
        actor.join(PATIENCE)
    return int(ended.value.code or 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_node_and_all_is_well(node: FakeNode, capsys: pytest.CaptureFixture[str], number: signal.Signals) -> None:
    def meanwhile() -> None:
        node.events.put(LeaderChanged(time=1.0, term=2, leader_id="n1", leader_addr="h:1"))
        os.kill(os.getpid(), number)

    assert run(node, meanwhile) == 0
    assert node.stopped.is_set()
    assert (node.config.node_id, node.config.bootstrap) == ("n1", True)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "node n1 runs: raft h:1, gossip h:2, http h:3, grpc h:4; SIGTERM or Ctrl+C stops it\n" in captured.err
    assert f"node n1 stops ({number.name})" in captured.err


@pytest.mark.parametrize(
    ("refusal", "code"),
    [(BindFailed("raft_addr ':9520' cannot be bound: in use"), 2), (StorageError("the data directory is another node's"), 2)],
)
def test_a_node_that_does_not_start_is_one_line_and_a_code(
    node: FakeNode, capsys: pytest.CaptureFixture[str], refusal: Exception, code: int
) -> None:
    node.refusal = refusal
    assert run_refused(node) == code
    assert capsys.readouterr().err == f"clusterctl: node n1 did not start: {refusal}\n"


def run_refused(node: FakeNode) -> int:
    node.runs.set()
    return run(node)


def test_a_node_that_fails_later_ends_the_process_with_the_reason(node: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    def meanwhile() -> None:
        node.failure = StorageError("the disk is full")

    assert run(node, meanwhile) == 1
    assert node.stopped.is_set()
    assert "clusterctl: node n1 gave up: the disk is full\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    "meanwhile", ["", "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})"], ids=["it waits", "no signal wakes it"]
)
def test_a_second_signal_ends_the_process_at_once_whatever_the_main_thread_does(meanwhile: str) -> None:
    script = f"""
import os, signal, sys, threading, types
class Node:
    def start(self, config): return self
    def addresses(self): return dict.fromkeys(("raft", "gossip", "http", "grpc"), "h:1")
    def ask(self, message, timeout=None): return iter(threading.Event().wait, True) if message != "failed" else None
    def stop(self):
        {meanwhile or "pass"}
        print("stopping", flush=True)
        threading.Event().wait()
sys.modules["coterie.actors.supervisor"] = types.SimpleNamespace(ClusterSupervisor=Node())
from coterie import cli
cli.main(["run", "--id", "n1"])
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        assert "node n1 runs" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        assert process.stdout.readline() == "stopping\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 128 + signal.SIGINT
    finally:
        process.kill()
        process.communicate()


def test_an_event_is_one_line() -> None:
    assert describe(MemberJoin(time=1.0, term=3, member_id="n2", addr="h:1")) == "MemberJoin term=3 member_id=n2 addr=h:1"


def test_a_log_that_nobody_reads_holds_nobody_up_and_the_loss_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    blocked, entered = threading.Event(), threading.Event()

    class Stuck:
        def __init__(self) -> None:
            self.written: list[str] = []

        def write(self, text: str) -> None:
            entered.set()
            assert blocked.wait(PATIENCE)
            self.written.append(text)

        def flush(self) -> None:
            pass

    stream = Stuck()
    before = logs.backlog.dropped
    monkeypatch.setattr(logs.backlog, "elsewhere", logs.backlog.elsewhere)
    handler = BackgroundHandler(stream, capacity=10)  # type: ignore[arg-type]
    record = logging.LogRecord("n", logging.INFO, "", 0, "text", (), None)
    handler.emit(record)
    assert entered.wait(PATIENCE)
    for _ in range(100):
        handler.emit(record)
    assert handler.dropped == 90
    assert logs.backlog.dropped - before == 90  # as the status shows it
    blocked.set()
    handler.close()
    assert any("90 log records were dropped" in text for text in stream.written)


def test_the_log_level_is_checked() -> None:
    with pytest.raises(Exception, match="--log-level 'loud': give one of debug"):
        run_node({"id": "n1"}, "loud")
