"""The generated protobuf code is what the .proto files say, and runs on the oldest supported runtime."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from coterie.proto.generated import client_pb2, cluster_pb2, node_pb2
from tools import generate_proto


def test_the_generator_is_as_old_as_the_oldest_supported_runtime() -> None:
    lower_bound = re.search(r'"protobuf>=(\d+\.\d+)"', (generate_proto.ROOT / "pyproject.toml").read_text())
    assert lower_bound is not None
    for module in ("client_pb2.py", "cluster_pb2.py", "node_pb2.py"):
        assert f"# Protobuf Python Version: {lower_bound[1]}." in (generate_proto.HERE / module).read_text()


@pytest.mark.long
@pytest.mark.timeout(300)
def test_generating_again_gives_the_same(tmp_path: Path) -> None:
    try:
        generate_proto.generator()
    except subprocess.CalledProcessError as error:
        pytest.skip(f"the generator cannot be installed here: {(error.stderr or str(error)).strip().splitlines()[-1]}")
    for path in generate_proto.generate(tmp_path):
        assert path.read_text() == (generate_proto.HERE / path.name).read_text(), f"{path.name} is out of date: run `make proto`"


def test_names_that_go_nodes_use_in_json_are_the_json_names() -> None:
    fields = {message.name: [f.json_name for f in message.fields] for message in cluster_pb2.DESCRIPTOR.message_types_by_name.values()}
    assert fields["JoinRequest"] == ["id", "raftAddr"]
    assert fields["JoinResponse"] == ["accepted", "leader", "error"]
    assert fields["AppWriteRequest"] == ["op", "data"]
    assert fields["SubscribeRequest"] == ["nodeId"]
    assert fields["SubscribeMessage"] == ["topic", "data", "seq"]
    assert fields["AckRequest"] == ["topic", "seq", "nodeId"]


def test_services_are_named_as_they_are_called() -> None:
    methods = {
        service.full_name: [m.name for m in service.methods]
        for file in (client_pb2, cluster_pb2, node_pb2)
        for service in file.DESCRIPTOR.services_by_name.values()
    }
    assert methods == {
        "coterie.v1.Client": ["Publish", "Apply", "Read"],
        "cluster.v1.Management": ["GetStatus", "Join", "Leave", "AppWrite", "AppSync"],
        "cluster.v1.Replication": ["Subscribe", "Ack"],
        "coterie.v1.Node": ["Read", "ReadIndex", "Transfer", "Forward", "Acks", "HandlerState", "State", "Follow"],
    }
