"""The gRPC surface of a whole node, as clients see it that have only the .proto, or not even that: reflection, health, both codecs, subscriptions, metrics."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import queue
import threading
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from prometheus_client.parser import text_string_to_metric_families

from coterie import Cluster, Config, HandlerActor, Publish, Status
from coterie.proto.grpc_standard import HEALTH, REFLECTION, message
from tests.product.management_world import wait_until

PATIENCE = 20.0
ANYWHERE = {"raft_addr": "127.0.0.1:0", "mem_bind": "127.0.0.1:0", "mgmt_addr": "127.0.0.1:0"}
NAMES = {"raft_addr": "raftAddr", "node_id": "nodeId", "message_id": "messageId"}  # in JSON
Reply = dict[str, Any]


class Echo(HandlerActor):
    def handle_write(self, op: str, request: bytes) -> bytes:
        if op == "fail":
            raise ValueError("on purpose")
        return op.encode() + b":" + request

    def handle_read(self, op: str, request: bytes) -> bytes:
        return b"read " + op.encode() + b":" + request

    def handle_apply(self, index: int, op: str, data: bytes) -> bytes:
        if op == "fail":
            raise ValueError("on purpose")
        return b"%d " % index + data


@pytest.fixture(scope="module")
def node() -> Iterator[Cluster]:
    config = Config(
        node_id="n1",
        bootstrap=True,
        raft_addr="127.0.0.1:0",
        mem_bind="127.0.0.1:0",
        mgmt_addr="127.0.0.1:0",
        mgmt_proto="grpc",
        repl_retry=0.4,
        app_handlers=Echo,
    )
    with Cluster(config) as cluster:
        wait_until(lambda: cluster.status().healthy)
        yield cluster


@pytest.fixture
def channel(node: Cluster) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(node.ref.addresses()["grpc"]) as channel:
        grpc.channel_ready_future(channel).result(PATIENCE)
        yield channel


# -- two clients that know nothing of this code -------------------------------------------------------------------------------------


class Reflected:
    """A client that has a node's address and nothing else: what it needs to know it asks by reflection, as grpcurl does."""

    def __init__(self, channel: grpc.Channel, version: str = REFLECTION[0]) -> None:
        self._channel, self._version = channel, version
        self._package = version.rpartition(".")[0]
        self.pool = DescriptorPool()

    def ask(self, **question: str) -> Any:
        request = message(f"{self._package}.ServerReflectionRequest")(**question)
        answer = message(f"{self._package}.ServerReflectionResponse")
        call = self._channel.stream_stream(f"/{self._version}/ServerReflectionInfo")(iter([request.SerializeToString()]), timeout=PATIENCE)
        return answer.FromString(next(iter(call)))

    def services(self) -> list[str]:
        return [service.name for service in self.ask(list_services="*").list_services_response.service]

    def learn(self, symbol: str) -> None:
        for file in self.ask(file_containing_symbol=symbol).file_descriptor_response.file_descriptor_proto:
            self.pool.Add(FileDescriptorProto.FromString(file))

    def method(self, service: str, name: str) -> tuple[Any, Any]:
        """The message classes of its request and its reply."""
        found = self.pool.FindServiceByName(service).methods_by_name[name]
        return GetMessageClass(found.input_type), GetMessageClass(found.output_type)


class Protobuf:
    """Calls by what reflection told."""

    def __init__(self, channel: grpc.Channel, service: str = "cluster.v1.Management") -> None:
        self.channel = channel
        self._told = Reflected(channel)
        self._told.learn(service)

    def call(self, service: str, name: str, **fields: Any) -> Reply:
        request, reply = self._told.method(service, name)
        got = reply.FromString(self.channel.unary_unary(f"/{service}/{name}")(request(**fields).SerializeToString(), timeout=PATIENCE))
        return {field.name: getattr(got, field.name) for field in got.DESCRIPTOR.fields}

    def subscribe(self, name: str) -> tuple[Any, Iterator[tuple[str, bytes, int]]]:
        request, reply = self._told.method("cluster.v1.Replication", "Subscribe")
        call = self.channel.unary_stream("/cluster.v1.Replication/Subscribe")(request(node_id=name).SerializeToString())
        return call, ((m.topic, m.data, m.seq) for m in map(reply.FromString, call))


class Json:
    """Calls as a Go node does: JSON bodies."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.channel = channel

    def call(self, service: str, name: str, **fields: Any) -> Reply:
        body = json.dumps(
            {NAMES.get(k, k): base64.b64encode(v).decode() if isinstance(v, bytes) else v for k, v in fields.items()}
        ).encode()
        got = json.loads(self.channel.unary_unary(f"/{service}/{name}")(body, timeout=PATIENCE))
        return {key: base64.b64decode(value) if key in ("data", "result") else value for key, value in got.items()}

    def subscribe(self, name: str) -> tuple[Any, Iterator[tuple[str, bytes, int]]]:
        call = self.channel.unary_stream("/cluster.v1.Replication/Subscribe")(json.dumps({"nodeId": name}).encode())
        return call, ((m["topic"], base64.b64decode(m["data"]), m["seq"]) for m in map(json.loads, call))


def metrics(node: Cluster) -> dict[tuple[str, tuple[str, ...]], float]:
    """(name, label values) -> value, by the official parser."""
    with urllib.request.urlopen(f"http://{node.ref.addresses()['http']}/metrics", timeout=PATIENCE) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    return {(s.name, tuple(value for _, value in sorted(s.labels.items()))): s.value for family in families for s in family.samples}


# -- reflection and health ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", REFLECTION)
def test_reflection_tells_every_service_with_its_messages(channel: grpc.Channel, version: str) -> None:
    client = Reflected(channel, version)
    services = client.services()
    assert services == sorted(
        ["cluster.v1.Management", "cluster.v1.Replication", "coterie.v1.Client", "coterie.v1.Node", HEALTH, *REFLECTION]
    )
    for service in services:
        client.learn(service)
        assert client.pool.FindServiceByName(service).methods
    by_name = client.ask(file_by_filename="coterie/proto/cluster.proto")
    assert by_name.file_descriptor_response.file_descriptor_proto
    of_method = client.ask(file_containing_symbol="cluster.v1.Management.Join")
    assert of_method.file_descriptor_response == by_name.file_descriptor_response
    assert client.ask(all_extension_numbers_of_type="cluster.v1.JoinRequest").all_extension_numbers_response.extension_number == []
    for question in (
        {"file_by_filename": "x"},
        {"file_containing_symbol": "no.Thing"},
        {"all_extension_numbers_of_type": "no.Thing"},
        {"host": "h"},
    ):
        assert client.ask(**question).error_response.error_code in (5, 12)


def health(channel: grpc.Channel, service: str) -> int:
    request = message("grpc.health.v1.HealthCheckRequest")(service=service).SerializeToString()
    return int(
        message("grpc.health.v1.HealthCheckResponse").FromString(channel.unary_unary(f"/{HEALTH}/Check")(request, timeout=PATIENCE)).status
    )


def test_health_by_service_of_a_leader(node: Cluster, channel: grpc.Channel) -> None:
    for service in ("", "cluster.v1.Management", "cluster.v1.Replication", "coterie.v1.Client", "coterie.v1.Node"):
        assert health(channel, service) == 1, service
    with pytest.raises(grpc.RpcError) as refused:
        health(channel, "other.Service")
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


# -- both codecs --------------------------------------------------------------------------------------------------------------------


def test_both_codecs_get_the_same_answers_from_every_method(channel: grpc.Channel) -> None:
    answers = []
    for client in (Protobuf(channel), Json(channel)):
        ask = client.call
        status = json.loads(ask("cluster.v1.Management", "GetStatus")["data"])
        answers.append(
            [
                (status["LeaderID"], status["Term"], status["Healthy"], [m["ID"] for m in status["Members"]]),
                ask("cluster.v1.Management", "AppWrite", op="o", data=b"\x00\xff"),
                ask("cluster.v1.Management", "AppWrite", op="fail", data=b""),
                ask("cluster.v1.Management", "AppSync", topic="both", data=b"\x00\xff"),
                ask("cluster.v1.Management", "AppSync", topic="", data=b""),
                ask("cluster.v1.Management", "Join", id="", raft_addr="h:1"),
                ask("cluster.v1.Management", "Join", id="n9", raft_addr="nowhere"),
                ask("cluster.v1.Management", "Leave", id="n9"),
                ask("cluster.v1.Replication", "Ack", topic="both", seq=1, node_id="x"),
            ]
        )
    protobuf, as_json = answers
    assert protobuf[0] == as_json[0] == ("n1", protobuf[0][1], True, ["n1"])
    for ours, theirs in zip(protobuf[1:], as_json[1:], strict=True):
        assert {k: v for k, v in ours.items() if v} == {k: v for k, v in theirs.items() if v}
    assert as_json[1] == {"data": b"o:\x00\xff"}
    assert as_json[2].keys() == {"error"}
    assert "on purpose" in as_json[2]["error"]
    assert as_json[3] == as_json[8] == {}
    assert as_json[7]["accepted"] is False


def test_what_cannot_be_read_is_refused_in_the_codec_it_came_in(channel: grpc.Channel) -> None:
    write = channel.unary_unary("/cluster.v1.Management/AppWrite")
    assert "no JSON" in json.loads(write(b'{"op":', timeout=PATIENCE))["error"]
    assert "data" in json.loads(write(b'{"op":"o","data":"*"}', timeout=PATIENCE))["error"]
    assert b"cluster.v1.AppWriteRequest" in write(b"\xff", timeout=PATIENCE)
    with pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary("/cluster.v1.Replication/Ack")(b'{"topic":"t","seq":"1","nodeId":"x"}', timeout=PATIENCE)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(grpc.RpcError) as refused:
        next(channel.unary_stream("/cluster.v1.Replication/Subscribe")(b'{"nodeId":"n1"}', timeout=PATIENCE))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "node of the cluster" in refused.value.details()


def refused(client: Protobuf | Json, name: str, **fields: Any) -> tuple[str, str, Any]:
    """The status code, the kind and the text of a refusal of coterie.v1.Client."""
    with pytest.raises(grpc.RpcError) as raised:
        client.call("coterie.v1.Client", name, **fields)
    error: Any = raised.value
    return error.code().name, dict(error.trailing_metadata())["coterie-kind"], error.details()


def test_clients_of_coterie_publish_apply_and_read_in_both_codecs(channel: grpc.Channel) -> None:
    for client, session in ((Protobuf(channel, "coterie.v1.Client"), "by protobuf"), (Json(channel), "by json")):

        def ask(name: str, client: Protobuf | Json = client, **fields: Any) -> Reply:
            return client.call("coterie.v1.Client", name, **fields)

        first = ask("Publish", topic="named", data=b"\x00\xff", message_id=session, headers={"a": "b"})
        assert first["seq"] > 0
        assert ask("Publish", topic="named", data=b"again", message_id=session) == first
        assert ask("Publish", topic="named", data=b"x", acks="leader")["topic"] == "named"
        assert ask("Publish", topic="named", data=b"x", acks="all")["seq"] > first["seq"]
        command = ask("Apply", op="add", data=b"x", session=session, number=1)
        assert command["result"] == b"%d x" % command["index"]
        assert ask("Apply", op="add", data=b"y", session=session, number=1) == command
        assert ask("Apply", op="add", data=b"z")["index"] > command["index"]
        for consistency in ("", "linearizable", "lease", "local"):
            assert ask("Read", op="o", data=b"x", consistency=consistency) == {"data": b"read o:x"}

        for name, fields, code, kind, says in (
            ("Apply", {"op": "add", "session": f"another {session}", "number": 7}, "FAILED_PRECONDITION", "SessionExpired", "number 7"),
            ("Apply", {"op": "add", "session": session}, "INVALID_ARGUMENT", "InvalidRequest", "give both"),
            ("Apply", {"op": "fail"}, "INTERNAL", "HandlerFailed", "on purpose"),
            ("Read", {"op": "o", "consistency": "some"}, "INVALID_ARGUMENT", "InvalidRequest", "linearizable"),
            ("Publish", {"topic": ""}, "INVALID_ARGUMENT", "InvalidRequest", "topic"),
            ("Publish", {"topic": "t", "acks": "some"}, "INVALID_ARGUMENT", "InvalidRequest", "quorum"),
        ):
            told = refused(client, name, **fields)
            assert told[:2] == (code, kind), told
            assert says in told[2]
    for body in (b'{"headers":{"a":1}}', b'{"headers":[]}', b'{"topic":1}', b'{"topic":', b"\xff", b'{"acks":"\\ud800"}'):
        with pytest.raises(grpc.RpcError) as raised:
            channel.unary_unary("/coterie.v1.Client/Publish")(body, timeout=PATIENCE)
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT


# -- subscriptions ------------------------------------------------------------------------------------------------------------------


def test_both_codecs_subscribe_and_their_acknowledgements_show(node: Cluster, channel: grpc.Channel) -> None:
    last = node.publish("orders", b"before").seq
    names = ("by protobuf", "by json")
    clients: tuple[Any, ...] = (Protobuf(channel), Json(channel))
    subscribed = [client.subscribe(name) for client, name in zip(clients, names, strict=True)]
    for call, _ in subscribed:
        call.initial_metadata()
    assert metrics(node)["go_cluster_repl_subs", ()] == len(names)
    for number in range(300):
        last = node.publish("orders", b"%d" % number).seq
    got: dict[str, list[tuple[bytes, int]]] = {name: [] for name in names}
    for client, name, (_, records) in zip(clients, names, subscribed, strict=True):
        for topic, data, seq in records:
            if topic != "orders":
                continue
            if not got[name] or seq > got[name][-1][1]:  # on a slow machine one may come again before its acknowledgement did
                got[name].append((data, seq))
            if seq == last:
                break
            if seq % 50 == 0:
                client.call("cluster.v1.Replication", "Ack", topic=topic, seq=seq, node_id=name)
        client.call("cluster.v1.Replication", "Ack", topic="orders", seq=last, node_id=name)
    expected = [(b"before", last - 300), *((b"%d" % number, last - 299 + number) for number in range(300))]
    assert got == dict.fromkeys(names, expected)
    shown = metrics(node)
    for name in names:
        assert shown["go_cluster_repl_ack_seq_per_node", (name, "orders")] == last
        assert shown["go_cluster_repl_acks_per_node_total", (name, "orders")] == last
        assert shown["go_cluster_repl_lag_per_node", (name, "orders")] == 0
    for call, _ in subscribed:
        call.cancel()
    wait_until(lambda: metrics(node)["go_cluster_repl_subs", ()] == 0)
    assert metrics(node)["go_cluster_repl_ack_seq_per_node", (names[0], "orders")] == last  # for a minute more


def test_a_record_without_an_acknowledgement_comes_again_and_a_known_subscriber_goes_on(node: Cluster, channel: grpc.Channel) -> None:
    client = Json(channel)
    call, records = client.subscribe("again")
    mine = ((seq, data) for topic, data, seq in records if topic == "again")
    seqs = [node.publish("again", b"%d" % n).seq for n in range(3)]
    assert [next(mine)[0] for _ in range(6)] == seqs * 2
    client.call("cluster.v1.Replication", "Ack", topic="again", seq=seqs[1], node_id="again")
    call.cancel()
    call, records = client.subscribe("again")
    assert next(seq for topic, _, seq in records if topic == "again") == seqs[2]
    call.cancel()


def test_a_subscriber_that_reads_nothing_holds_nobody_up(node: Cluster, channel: grpc.Channel) -> None:
    call, records = Json(channel).subscribe("asleep")
    call.initial_metadata()
    other, heard = Protobuf(channel).subscribe("")
    other.initial_metadata()
    data = b"x" * 10_000
    for _ in itertools.repeat(None, 50):
        node.publish("much", data)
    futures = [node.ref.ask(Publish("much", data), block=False) for _ in range(3000)]
    last = max(future.get(timeout=60).seq for future in futures)
    assert next(seq for topic, _, seq in heard if topic == "much" and seq == last) == last
    assert metrics(node)["go_cluster_repl_lag_per_node", ("asleep", "much")] == last
    for open_call in (call, other):
        open_call.cancel()
    assert records is not None


# -- a node that does not lead ------------------------------------------------------------------------------------------------------


def test_a_node_without_a_leader_says_so_by_service_and_watchers_hear_of_the_leader() -> None:
    config = Config(node_id="n7", raft_addr="127.0.0.1:0", mem_bind="127.0.0.1:0", mgmt_addr="127.0.0.1:0")
    with Cluster(config) as alone, grpc.insecure_channel(alone.ref.addresses()["grpc"]) as channel:
        assert [health(channel, s) for s in ("", "cluster.v1.Management", "cluster.v1.Replication", "coterie.v1.Node")] == [1, 2, 2, 1]
        with pytest.raises(grpc.RpcError) as refused:
            next(channel.unary_stream("/cluster.v1.Replication/Subscribe")(b'{"nodeId":"g1"}', timeout=PATIENCE))
        assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        heard: queue.SimpleQueue[int] = queue.SimpleQueue()
        response = message("grpc.health.v1.HealthCheckResponse")
        call = channel.unary_stream(f"/{HEALTH}/Watch")(b"\x0a\x15cluster.v1.Management")

        def listen(each: Callable[[int], None]) -> None:
            try:
                for body in call:
                    each(response.FromString(body).status)
            except grpc.RpcError:
                each(-1)

        listener = threading.Thread(target=listen, args=(heard.put,))
        listener.start()
        assert heard.get(timeout=PATIENCE) == 2
        leader = Config(
            node_id="n8",
            bootstrap=True,
            raft_addr="127.0.0.1:0",
            mem_bind="127.0.0.1:0",
            mgmt_addr="127.0.0.1:0",
            seeds_csv=alone.ref.addresses()["gossip"],
        )
        with Cluster(leader):
            assert heard.get(timeout=PATIENCE) == 1
            assert alone.ref.ask(Status(local=True)).leader_id == "n8"
        call.cancel()
        listener.join(PATIENCE)
        unknown = channel.unary_stream(f"/{HEALTH}/Watch")(b"\x0a\x01x")
        assert response.FromString(next(unknown)).status == 3
        unknown.cancel()


# -- a cluster whose management speaks gRPC -----------------------------------------------------------------------------------------------


def test_three_nodes_with_grpc_on_the_management_address() -> None:
    """The tutorial over gRPC: join at the leader whose address a follower names; both protocols in the metadata; followers pass on what is asked of them."""
    with contextlib.ExitStack() as stack:

        def start(name: str, **options: Any) -> Cluster:
            config = Config(node_id=name, mgmt_proto="grpc", app_handlers=Echo, **ANYWHERE, **options)
            return stack.enter_context(Cluster(config))

        def client(node: Cluster) -> Json:
            return Json(stack.enter_context(grpc.insecure_channel(node.ref.addresses()["mgmt"])))

        first = start("n1", bootstrap=True)
        second, third = (start(name, seeds_csv=first.ref.addresses()["gossip"]) for name in ("n2", "n3"))
        leader = first.ref.addresses()["mgmt"]
        wait_until(lambda: all(node.status(local=True).leader_id == "n1" for node in (first, second, third)))
        for name, node in (("n2", second), ("n3", third)):
            join = {"id": name, "raft_addr": node.ref.addresses()["raft"]}
            refused = client(third).call("cluster.v1.Management", "Join", **join)
            assert refused == {"accepted": False, "leader": leader, "error": "not leader"}
            with grpc.insecure_channel(refused["leader"]) as named:
                assert Json(named).call("cluster.v1.Management", "Join", **join) == {"accepted": True}
        follower = client(second)
        wait_until(lambda: second.status().leader_id == "n1")
        status = json.loads(follower.call("cluster.v1.Management", "GetStatus")["data"])
        assert (status["LeaderID"], status["LeaderAddr"], status["AnsweredBy"]) == ("n1", leader, "n1")
        for member in status["Members"]:
            addresses = {"n1": first, "n2": second, "n3": third}[member["ID"]].ref.addresses()
            assert {key: member["Meta"][key] for key in ("mgmt", "grpc", "http")} == {
                "mgmt": addresses["grpc"], "grpc": addresses["grpc"], "http": addresses["http"]
            }  # fmt: skip
        assert follower.call("cluster.v1.Management", "AppWrite", op="o", data=b"x") == {"data": b"o:x"}
        assert follower.call("cluster.v1.Management", "AppSync", topic="t", data=b"x") == {}
        assert third.publish("t", b"y").seq == 2
        assert [health(follower.channel, s) for s in ("", "cluster.v1.Management", "cluster.v1.Replication")] == [1, 1, 2]
        dials = metrics(second)["go_cluster_grpc_conn_dials_total", ()]
        assert follower.call("cluster.v1.Management", "AppWrite", op="o", data=b"x") == {"data": b"o:x"}
        after = metrics(second)
        assert after["go_cluster_grpc_conn_dials_total", ()] == dials == after["go_cluster_grpc_conn_active", ()] == 1
        assert after["go_cluster_grpc_conn_reuse_total", ()] > 0
        assert after["go_cluster_grpc_conn_evictions_total", ()] == 0
        assert client(first).call("cluster.v1.Management", "Leave", id="n3") == {"accepted": True}
