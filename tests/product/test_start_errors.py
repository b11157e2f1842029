"""A node that cannot start says why: one line and code 2 from the command, a typed exception from the library; and it leaves nothing behind."""

from __future__ import annotations

import contextlib
import errno
import gc
import json
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pykka
import pytest

from coterie import BindFailed, ClusterSupervisor, Config, ConfigError, CoterieError, Publish, Status, StorageError
from tests.product.commands import CLUSTERCTL, Program, clusterctl
from tests.product.nodes import free_port
from tests.product.wait import wait_for

PORTS = ("raft_addr", "mem_bind", "mgmt_addr", "grpc_addr")


def settings(directory: Path | str) -> dict[str, str]:
    mgmt = free_port()
    return {
        "raft_addr": f"127.0.0.1:{free_port()}",
        "mem_bind": f"127.0.0.1:{free_port()}",
        "mgmt_addr": f"127.0.0.1:{mgmt}",
        "data_dir": str(directory),
    }


def flags(chosen: dict[str, str]) -> list[str]:
    """The settings as the command line has them. grpc_addr is the neighbour of mgmt_addr."""
    names = {"raft_addr": "--raft-addr", "mem_bind": "--mem-bind", "mgmt_addr": "--mgmt-addr", "data_dir": "--data"}
    return [word for field, value in chosen.items() for word in (names[field], value)]


def refused(*arguments: str) -> str:
    """The one line of a `clusterctl run` that does not start."""
    ran = clusterctl("run", *arguments)
    assert (ran.returncode, ran.stdout) == (2, ""), ran
    assert re.fullmatch(r"clusterctl: [^\n]+\n", ran.stderr), ran.stderr
    return ran.stderr


@contextlib.contextmanager
def listener(address: str, kind: socket.SocketKind = socket.SOCK_STREAM) -> Iterator[None]:
    host, _, port = address.rpartition(":")
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind((host, int(port)))
        if kind == socket.SOCK_STREAM:
            sock.listen()
        yield


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """No thread, file descriptor or actor more than before."""
    gc.collect()
    threads, descriptors, actors = set(threading.enumerate()), open_descriptors(), len(pykka.ActorRegistry.get_all())
    yield

    def clean() -> bool:
        gc.collect()
        return set(threading.enumerate()) <= threads and open_descriptors() <= descriptors

    try:
        wait_for(clean, 5, "threads and descriptors are gone")
    except AssertionError as error:
        more = {number: where for number, where in open_descriptors().items() if number not in descriptors}
        raise AssertionError(f"{error}: {set(threading.enumerate()) - threads} {more}") from None
    assert len(pykka.ActorRegistry.get_all()) == actors


class Descriptors(dict[int, str]):
    """Open files and sockets of this process, by number. Epoll instances, pipes and the like of gRPC's core, which lives as long as the process, do not count."""

    def __le__(self, other: object) -> bool:
        assert isinstance(other, Descriptors)
        return not set(self.values()) - set(other.values())


def open_descriptors() -> Descriptors:
    found = Descriptors()
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            target = str(entry.readlink())
            if not target.startswith(("anon_inode:", "pipe:", "/dev/", "/proc/", "/sys/")) and "coterie-test-ports" not in target:
                found[int(entry.name)] = target
    return found


# -- ports ------------------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def taken(chosen: dict[str, str], setting: str) -> Iterator[str]:
    """Somebody else listens on the port of `setting`; gives its address."""
    address = chosen.get(setting) or next_port(chosen["mgmt_addr"])
    with listener(address):
        yield address


def next_port(address: str) -> str:
    host, _, port = address.rpartition(":")
    return f"{host}:{int(port) + 1}"


@pytest.mark.parametrize("setting", PORTS)
def test_a_port_in_use_is_one_line_that_names_the_setting_and_the_address(tmp_path: Path, setting: str) -> None:
    chosen = settings(tmp_path / "n1")
    with taken(chosen, setting) as address:
        said = refused("--id", "n1", "--bootstrap", *flags(chosen))
    assert setting in said and address in said and "in use" in said.lower(), said
    assert "stop it, choose another port" in said


@pytest.mark.parametrize("setting", [*PORTS, "mem_bind over UDP"])
def test_a_port_in_use_raises_bind_failed_and_nothing_is_left(tmp_path: Path, setting: str, nothing_left: None) -> None:
    chosen = settings(tmp_path / "n1")
    occupied = listener(chosen["mem_bind"], socket.SOCK_DGRAM) if setting.endswith("UDP") else taken(chosen, setting)
    with occupied, pytest.raises(BindFailed, match=setting.split()[0]):
        ClusterSupervisor.start(Config(node_id="n1", bootstrap=True, **chosen))
    works(Config(node_id="n1", bootstrap=True, **chosen))


def works(config: Config) -> None:
    """The corrected configuration starts in the same process, on the same ports and directory, and stops."""
    node = ClusterSupervisor.start(config)
    try:
        wait_for(lambda: node.ask(Status()).leader_id == "n1", 10, "it leads")
        assert node.ask(Publish("t", b"d")).seq == 1
    finally:
        node.stop()
    assert not node.is_alive()


@pytest.mark.parametrize("address", ["192.0.2.1:9520", "no-such-host.invalid:9520"])
def test_an_address_that_is_not_of_this_machine_is_refused(tmp_path: Path, address: str, nothing_left: None) -> None:
    chosen = settings(tmp_path / "n1")
    for setting in ("raft_addr", "mem_bind", "mgmt_addr"):
        with pytest.raises(BindFailed, match=setting):
            ClusterSupervisor.start(Config(node_id="n1", **(chosen | {setting: address})))
    assert address in refused("--id", "n1", *flags(chosen | {"raft_addr": address}))


def test_the_last_port_has_no_neighbour(tmp_path: Path, nothing_left: None) -> None:
    with pytest.raises(BindFailed, match=r"65535.*no next port.*grpc_addr"):
        ClusterSupervisor.start(Config(node_id="n1", **(settings(tmp_path / "n1") | {"mgmt_addr": "127.0.0.1:65535"})))


# -- the data directory -----------------------------------------------------------------------------------------------------------


def below_a_file(tmp_path: Path) -> Path:
    (tmp_path / "file").write_text("")
    return tmp_path / "file" / "n1"


def is_a_file(tmp_path: Path) -> Path:
    (tmp_path / "file").write_text("")
    return tmp_path / "file"


def foreign(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("meow")
    return tmp_path / "photos"


def another_nodes(tmp_path: Path) -> Path:
    return with_node_json(tmp_path, node_id="n7")


def damaged(tmp_path: Path) -> Path:
    return with_node_json(tmp_path, text="{half")


def newer(tmp_path: Path) -> Path:
    return with_node_json(tmp_path, format=99)


def with_node_json(tmp_path: Path, text: str = "", **fields: Any) -> Path:
    node = {"format": 1, "node_id": "n1", "incarnation_id": "00" * 16, "created": "2026-01-01T00:00:00+00:00"} | fields
    (tmp_path / "n1").mkdir()
    (tmp_path / "n1" / "node.json").write_text(text or json.dumps(node))
    return tmp_path / "n1"


def damaged_log(tmp_path: Path) -> Path:
    works(Config(node_id="n1", bootstrap=True, **settings(tmp_path / "n1")))
    data = tmp_path / "n1" / "raft" / "data.mdb"
    data.write_bytes(b"\xa5" * 8192)
    return tmp_path / "n1"


DIRECTORIES: list[tuple[Callable[[Path], Path], str]] = [
    (below_a_file, "is not a directory"),
    (is_a_file, "is not a directory"),
    (lambda _: Path("/proc/x"), "is not writable"),
    (foreign, "cat.jpg"),
    (another_nodes, "belongs to node 'n7'"),
    (damaged, "node.json is damaged"),
    (newer, "format 99 is newer"),
    (damaged_log, "remedy"),
]


@pytest.mark.parametrize(("make", "reason"), DIRECTORIES, ids=[getattr(m, "__name__", "?") for m, _ in DIRECTORIES])
def test_an_unusable_data_directory_is_refused(tmp_path: Path, make: Callable[[Path], Path], reason: str, nothing_left: None) -> None:
    directory = make(tmp_path)
    before = contents(directory)
    chosen = settings(directory)
    with pytest.raises(StorageError, match=re.escape(reason)):
        ClusterSupervisor.start(Config(node_id="n1", bootstrap=True, **chosen))
    said = refused("--id", "n1", "--bootstrap", *flags(chosen))
    assert reason in said and str(directory) in said and "remedy" in said, said
    assert contents(directory) == before, "a refused directory is not touched"
    works(Config(node_id="n1", bootstrap=True, **(chosen | {"data_dir": str(tmp_path / "new")})))


def contents(directory: Path) -> dict[str, bytes]:
    if not directory.is_dir():
        return {}
    return {str(p): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file() and p.name not in ("LOCK", "lock.mdb")}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_without_permission_is_refused(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    assert "is not writable" in refused("--id", "n1", "--bootstrap", *flags(settings(tmp_path / "closed" / "n1")))


def test_two_processes_on_one_directory(tmp_path: Path) -> None:
    first = Program(CLUSTERCTL, "run", "--id", "n1", "--bootstrap", *flags(settings(tmp_path / "n1")))
    try:
        first.wait_line("node n1 runs")
        said = refused("--id", "n1", "--bootstrap", *flags(settings(tmp_path / "n1")))
        assert f"in use by process {first.process.pid}" in said
        with pytest.raises(StorageError, match=f"in use by process {first.process.pid}"):
            ClusterSupervisor.start(Config(node_id="n1", bootstrap=True, **settings(tmp_path / "n1")))
    finally:
        assert first.stop() == 0, first.text


def test_two_nodes_of_one_process_on_one_directory(tmp_path: Path, nothing_left: None) -> None:
    first = ClusterSupervisor.start(Config(node_id="n1", bootstrap=True, **settings(tmp_path / "n1")))
    try:
        with pytest.raises(StorageError, match=f"in use by process {os.getpid()}"):
            ClusterSupervisor.start(Config(node_id="n1", bootstrap=True, **settings(tmp_path / "n1")))
        assert first.ask(Status()).answered_by == "n1"
    finally:
        first.stop()


def test_a_buffer_of_another_node_is_refused(tmp_path: Path, nothing_left: None) -> None:
    works(Config(node_id="n1", bootstrap=True, repl_buffer_dir=str(tmp_path / "buffer"), **settings(tmp_path / "n1")))
    with pytest.raises(StorageError, match="n1"):
        ClusterSupervisor.start(Config(node_id="n2", repl_buffer_dir=str(tmp_path / "buffer"), **settings(tmp_path / "n2")))


# -- options ----------------------------------------------------------------------------------------------------------------------

OPTIONS: list[tuple[list[str], str]] = [
    ([], "--id"),
    (["--id", "n1", "--bogus"], "--bogus"),
    (["--id", "n1", "stray"], "stray"),
    (["--id", ""], "--id"),
    (["--id", "n\n1"], "--id"),
    (["--id", "x" * 129], "--id"),
    (["--id", "n1", "--raft-addr", "nowhere"], "--raft-addr='nowhere'"),
    (["--id", "n1", "--raft-addr", "127.0.0.1:70000"], "--raft-addr"),
    (["--id", "n1", "--mem-bind", "1.2.3.4"], "--mem-bind"),
    (["--id", "n1", "--mem-adv", "x y:1"], "--mem-adv"),
    (["--id", "n1", "--mgmt-addr", "::1:80"], "--mgmt-addr"),
    (["--id", "n1", "--mgmt-proto", "ftp"], "--mgmt-proto"),
    (["--id", "n1", "--join", "127.0.0.1"], "--join"),
    (["--id", "n1", "--join", ":7946"], "--join"),
    (["--id", "n1", "--disc-refresh", "soon"], "--disc-refresh='soon'"),
    (["--id", "n1", "--disc-refresh", "-5s"], "--disc-refresh"),
    (["--id", "n1", "--dns-port", "x"], "--dns-port"),
    (["--id", "n1", "--dns-port", "99999"], "--dns-port"),
    (["--id", "n1", "--discovery", "dns"], "--discovery"),
    (["--id", "n1", "--discovery", "file"], "--discovery"),
    (["--id", "n1", "--discovery", "magic"], "--discovery"),
    (["--id", "n1", "--dns-names", "a.b"], "--dns-names"),
    (["--id", "n1", "--file-path", "seeds"], "--file-path"),
    (["--id", "n1", "--file-env", "SEEDS"], "--file-env"),
    (["--id", "n1", "--tls-enable"], "--tls-enable"),
    (["--id", "n1", "--tls-ca", "ca.pem"], "--tls-ca"),
    (["--id", "n1", "--tls-cert", "c.pem"], "--tls-cert"),
    (["--id", "n1", "--tls-key", "k.pem"], "--tls-key"),
    (["--id", "n1", "--tls-server-name", "n"], "--tls-server-name"),
    (["--id", "n1", "--tls-skip-verify"], "--tls-skip-verify"),
    (["--id", "n1", "--log-level", "loud"], "--log-level"),
]


def test_a_bad_option_is_one_line_that_names_it(capfd: pytest.CaptureFixture[str]) -> None:
    from coterie import cli  # in this process: a command each would take the test half a minute

    for arguments, named in OPTIONS:
        with pytest.raises(SystemExit) as ended:
            cli.main(["run", *arguments])
        out, err = capfd.readouterr()
        assert (ended.value.code, out) == (2, ""), arguments
        assert re.fullmatch(r"clusterctl: [^\n]+\n", err) and named in err, (arguments, err)


def test_options_as_processes() -> None:
    assert "--id" in refused()
    assert "--tls-enable" in refused("--id", "n1", "--tls-enable")


def test_a_bad_setting_is_a_config_error_before_anything_is_opened(tmp_path: Path, nothing_left: None) -> None:
    for field, value in (("raft_addr", "x"), ("repl_retry", "soon"), ("node_id", ""), ("tls_enable", True), ("discovery_kind", "dns")):
        with pytest.raises(ConfigError, match=field) as raised:
            Config(**({"node_id": "n1", "data_dir": str(tmp_path / "n1")} | {field: value}))
        assert isinstance(raised.value, CoterieError)
        assert isinstance(raised.value, ValueError)
        assert repr(value) in str(raised.value)
    assert not (tmp_path / "n1").exists()
    for wrong in ((), ("n1",), (Config(node_id="n1"), 2)):
        with pytest.raises(TypeError, match="takes one argument, a Config"):
            ClusterSupervisor.start(*wrong)


def test_ports_and_directory_are_free_again_after_each_of_many_starts(tmp_path: Path, nothing_left: None) -> None:
    chosen = settings(tmp_path / "n1")
    for expected in (1, 2, 3):
        node = ClusterSupervisor.start(Config(node_id="n1", bootstrap=True, **chosen))
        wait_for(lambda node=node: node.ask(Status()).leader_id == "n1", 10, "it leads")
        assert node.ask(Publish("t", b"d")).seq == expected
        node.stop()
    for setting in ("raft_addr", "mem_bind", "mgmt_addr"):
        with listener_or_none(chosen[setting]) as free:
            assert free, setting


@contextlib.contextmanager
def listener_or_none(address: str) -> Iterator[bool]:
    host, _, port = address.rpartition(":")
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, int(port)))
            yield True
        except OSError as error:
            assert error.errno == errno.EADDRINUSE
            yield False
