"""`clusterctl tls init`: what it makes serves both sides of a handshake, is private, and never replaces anything."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from coterie import cli
from coterie.cli_tls import make_files
from coterie.transport.tls import Tls, TlsSettings
from tests.wire.test_transport_tls import pair


@pytest.fixture
def clusterctl(capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
        out, err = capsys.readouterr()
        return ended.value.code, out, err  # type: ignore[return-value]

    return run


def settings(directory: Path, name: str) -> TlsSettings:
    return TlsSettings(str(directory / "ca.pem"), str(directory / f"{name}.pem"), str(directory / f"{name}-key.pem"))


def test_what_it_makes_is_private_said_and_serves(tmp_path: Path, clusterctl: Any) -> None:
    directory = tmp_path / "certs"
    code, out, err = clusterctl("tls", "init", "--dir", str(directory), "--nodes", "n1,n2", "--hosts", "db.lan,10.0.0.9")
    assert (code, err) == (0, "")
    made = json.loads(out)
    assert (made["ca"], made["newCA"], sorted(made["nodes"])) == (str(directory / "ca.pem"), True, ["n1", "n2"])
    assert made["nodes"]["n1"] == {"cert": str(directory / "n1.pem"), "key": str(directory / "n1-key.pem")}
    assert {path.name for path in directory.iterdir()} == {
        f"{name}{end}.pem" for name in ("ca", "n1", "n2", "client") for end in ("", "-key")
    }
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.glob("*-key.pem")} == {0o600}
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    server = Tls(settings(directory, "n1"), watch=False)
    for client in ("n2", "client"):
        side = Tls(settings(directory, client), role="client", watch=False)
        for name in ("localhost", "127.0.0.1", "n1", "db.lan", "10.0.0.9"):
            side.settings = TlsSettings(server_name=name)
            with pair(side, server) as ((out_stream, _), (_, reader)):
                out_stream.send(b"hello")
                assert reader.recv(5) == b"hello"


def test_nothing_is_overwritten_and_a_node_can_be_added(tmp_path: Path, clusterctl: Any) -> None:
    directory = str(tmp_path / "certs")
    assert clusterctl("tls", "init", "--dir", directory, "--nodes", "n1")[0] == 0
    before = {path.name: path.read_bytes() for path in Path(directory).iterdir()}
    code, out, err = clusterctl("tls", "init", "--dir", directory, "--nodes", "n2,n1")
    assert (code, out) == (2, "")
    assert "n1.pem" in err and "nothing is overwritten" in err
    assert {path.name: path.read_bytes() for path in Path(directory).iterdir()} == before
    code, out, _ = clusterctl("tls", "init", "--dir", directory, "--nodes", "n2", "--output", "json")
    assert (code, json.loads(out)["newCA"]) == (0, False)
    assert {name: Path(directory, name).read_bytes() for name in before} == before
    server, client = (Tls(settings(Path(directory), name), watch=False) for name in ("n1", "n2"))
    with pair(client, server):
        pass


def test_an_authority_that_is_half_there_or_is_none_is_refused(tmp_path: Path, clusterctl: Any) -> None:
    make_files(tmp_path, ["n1"], [])
    (tmp_path / "ca-key.pem").rename(tmp_path / "away.pem")
    said = clusterctl("tls", "init", "--dir", str(tmp_path), "--nodes", "n2")[2]
    assert "ca.pem" in said and "there already" in said
    (tmp_path / "ca-key.pem").write_bytes((tmp_path / "n1-key.pem").read_bytes())
    assert "is not the key of" in clusterctl("tls", "init", "--dir", str(tmp_path), "--nodes", "n2")[2]
    (tmp_path / "ca-key.pem").write_bytes(b"x")
    assert "no certificate and key in PEM" in clusterctl("tls", "init", "--dir", str(tmp_path), "--nodes", "n2")[2]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--nodes", ""), "--nodes: give at least one id"),
        (("--nodes", "../n1"), "--nodes '../n1'"),
        (("--nodes", "n1,n1"), "--nodes 'n1'"),
        (("--nodes", "ca"), "--nodes 'ca'"),
        (("--nodes", "client-key"), "--nodes 'client-key'"),
        (("--nodes", "n1,n1-key"), "--nodes 'n1-key'"),
        (("--nodes", "n1", "--hosts", "a:80"), "--hosts 'a:80'"),
        (("--nodes", "n1", "--hosts", "a b"), "--hosts 'a b'"),
        (("--nodes", "n1", "--days", "0"), "--days 0"),
    ],
)
def test_what_cannot_be_made_is_refused_before_anything_is(tmp_path: Path, clusterctl: Any, arguments: tuple[str, ...], says: str) -> None:
    code, out, err = clusterctl("tls", "init", "--dir", str(tmp_path / "certs"), *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert says in err
    assert not (tmp_path / "certs").exists()


def test_a_directory_that_cannot_be_is_named(tmp_path: Path, clusterctl: Any) -> None:
    (tmp_path / "file").write_text("")
    assert "give a directory" in clusterctl("tls", "init", "--dir", str(tmp_path / "file" / "certs"), "--nodes", "n1")[2]


def test_a_person_is_told_how_to_use_it(tmp_path: Path, clusterctl: Any) -> None:
    _, out, _ = clusterctl("tls", "init", "--dir", str(tmp_path), "--nodes", "n1", "--output", "table")
    assert f"--tls-enable --tls-ca {tmp_path}/ca.pem --tls-cert {tmp_path}/n1.pem --tls-key {tmp_path}/n1-key.pem" in out
    assert "not for production" in out and "curl --cacert" in out
    assert "PRIVATE" not in out
    assert "cryptography" in sys.modules


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--tls-ca", "none.pem"), "--tls-ca is given and TLS is off"),
        (("--tls-enable", "--tls-ca", "none.pem"), "--tls-ca 'none.pem': cannot be read"),
        (("--tls-enable", "--tls-cert", "n1.pem"), "--tls-cert and --tls-key belong together"),
    ],
)
def test_flags_of_a_question_that_cannot_be_used(clusterctl: Any, flags: tuple[str, ...], says: str) -> None:
    code, out, err = clusterctl("status", "--addr", "127.0.0.1:1", *flags)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert says in err
