"""What a user imports: every name of the contract is there, documented, and typed."""

from __future__ import annotations

import ast
import pydoc
import subprocess
import sys
from pathlib import Path

import attrs
import pykka
import pytest

import coterie

CONTRACT = """
    ClusterSupervisor Config HandlerActor Join Leave Publish Published Read RegisterHandler Status ClusterStatus Subscribe Write Cluster AsyncCluster
    NotLeader NoQuorum Indeterminate Overloaded PayloadTooLarge AlreadyMember VersionMismatch Unreachable ConfigError StorageError CoterieError
    LeaderChanged ElectionStart ElectionEnd MemberJoin MemberLeave MemberFailed
""".split()  # noqa: SIM905 - as the contract lists them
ERRORS = [name for name in coterie.__all__ if isinstance(getattr(coterie, name), type) and issubclass(getattr(coterie, name), Exception)]
MESSAGES = ["Publish", "PublishMany", "Write", "Read", "Join", "Leave", "Status", "Subscribe", "RegisterHandler", "TransferLeadership"]


@pytest.mark.parametrize("name", sorted({*CONTRACT, *coterie.__all__}))
def test_every_public_name_is_importable_and_documented(name: str) -> None:
    value = getattr(coterie, name)
    assert value.__name__ == name
    assert name in pydoc.render_doc(value)
    assert name in dir(coterie)
    assert name in coterie.__all__


@pytest.mark.parametrize("name", [name for name in sorted(coterie.__all__) if isinstance(getattr(coterie, name), type)])
def test_every_public_class_and_method_says_what_it_does(name: str) -> None:
    """What an editor shows, and `help()`."""
    value = getattr(coterie, name)
    assert vars(value)["__doc__"], name
    inherited = {method for base in value.__mro__[1:] for method in vars(base)}
    own = [
        n
        for n, member in vars(value).items()
        if not n.startswith("_") and n not in inherited and (callable(member) or isinstance(member, property))
    ]
    assert [method for method in own if not getattr(value, method).__doc__] == []


def test_the_type_checkers_list_is_the_same() -> None:
    stub = ast.parse((Path(coterie.__file__).parent / "__init__.pyi").read_text())
    imported = {alias.asname or alias.name for node in ast.walk(stub) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert set(coterie.__all__) <= imported


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'coterie' has no attribute 'Clutser'"):
        _ = coterie.Clutser
    with pytest.raises(ImportError):
        exec("from coterie import Clutser")


def test_importing_costs_nothing() -> None:
    script = "import coterie, sys; sys.exit(any(m in sys.modules for m in ('grpc', 'lmdb', 'pykka', 'uvicorn', 'httpx', 'attrs')))"
    assert subprocess.run([sys.executable, "-c", script], timeout=60, check=False).returncode == 0


def test_a_node_without_tls_and_without_go_leaders_starts_without_what_these_need() -> None:
    script = "import coterie.actors.supervisor, sys; print(*{'cryptography', 'grpclib', 'h2'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], timeout=120, check=True, capture_output=True, text=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize("name", ERRORS)
def test_every_error_is_a_coterie_error_with_words(name: str) -> None:
    error = getattr(coterie, name)
    assert issubclass(error, coterie.CoterieError)
    assert error.__doc__


def test_errors_are_also_what_python_would_call_them() -> None:
    assert issubclass(coterie.ConfigError, ValueError)
    assert issubclass(coterie.PayloadTooLarge, ValueError)
    assert issubclass(coterie.DeadlineExceeded, pykka.Timeout)
    assert issubclass(coterie.DeadlineExceeded, coterie.Indeterminate)
    assert not issubclass(coterie.NoQuorum, coterie.Indeterminate)
    assert not issubclass(coterie.Overloaded, coterie.Indeterminate)
    refused = coterie.NotLeader("n2", "10.0.0.2:17946")
    assert (refused.leader_id, refused.leader_addr) == ("n2", "10.0.0.2:17946")
    assert "10.0.0.2:17946" in str(refused)


@pytest.mark.parametrize("name", MESSAGES)
def test_messages_and_replies_are_attrs_classes(name: str) -> None:
    assert attrs.has(getattr(coterie, name))


def test_the_shapes_that_users_write() -> None:
    assert attrs.asdict(coterie.Published("t", 1, 2)) == {"topic": "t", "seq": 1, "index": 2}
    many = coterie.PublishedMany("t", 3, 2, 9)
    assert (attrs.asdict(many), many.last_seq) == ({"topic": "t", "first_seq": 3, "count": 2, "index": 9}, 4)
    assert coterie.Write("reserve", b"42") == coterie.Write(op="reserve", data=b"42")
    assert coterie.Status() == coterie.Status(local=False)
    assert [f.name for f in attrs.fields(coterie.ClusterStatus)][:6] == [
        "healthy",
        "term",
        "leader_id",
        "leader_addr",
        "members",
        "warnings",
    ]
    assert issubclass(coterie.ClusterSupervisor, pykka.ThreadingActor)
    assert issubclass(coterie.HandlerActor, pykka.ThreadingActor)
    for event in ("LeaderChanged", "ElectionStart", "ElectionEnd", "MemberJoin", "MemberLeave", "MemberFailed", "ReplicationGap"):
        fields = [f.name for f in attrs.fields(getattr(coterie, event))]
        assert fields[:2] == ["time", "term"]
    for method in ("publish", "publish_many", "write", "read", "status", "join", "leave", "events", "stop"):
        assert callable(getattr(coterie.Cluster, method)) and callable(getattr(coterie.AsyncCluster, method))
