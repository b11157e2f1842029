"""The messages of cluster.proto and client.proto in both codecs: what is told apart, what Go would write and read, and that nothing is lost on the way."""

from __future__ import annotations

import json

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given
from hypothesis import strategies as st

from coterie.proto import cluster_json
from coterie.proto.errors import WireError
from coterie.proto.generated import client_pb2 as client
from coterie.proto.generated import cluster_pb2 as cluster

KINDS = [GetMessageClass(descriptor) for file in (client, cluster) for descriptor in file.DESCRIPTOR.message_types_by_name.values()]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)

VALUES = {
    FieldDescriptor.TYPE_STRING: TEXT,
    FieldDescriptor.TYPE_MESSAGE: st.dictionaries(TEXT, TEXT, max_size=3),  # the only ones there are: maps of texts
    FieldDescriptor.TYPE_BYTES: st.binary(max_size=40),
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_UINT64: st.integers(0, (1 << 64) - 1),
}


@st.composite
def messages(draw: st.DrawFn) -> Message:
    kind = draw(st.sampled_from(KINDS))
    return kind(**{field.name: draw(VALUES[field.type]) for field in kind.DESCRIPTOR.fields})


@given(messages())
def test_both_codecs_give_the_message_back_and_are_told_apart(message: Message) -> None:
    for as_json in (True, False):
        body = cluster_json.write(message, as_json)
        assert cluster_json.is_json(body) is as_json
        assert cluster_json.read(type(message), body) == message


@given(messages())
def test_any_json_encoder_may_have_written_it(message: Message) -> None:
    document = json.loads(cluster_json.write_json(message))
    other = json.dumps({key.upper(): value for key, value in document.items()} | {"more": [1, {"data": None}]}, indent=1)
    assert cluster_json.read(type(message), other.encode()) == message


@pytest.mark.parametrize(
    "message,text",
    [
        (cluster.GetStatusRequest(), "{}"),
        (cluster.GetStatusResponse(data=b"{}"), '{"data":"e30="}'),
        (cluster.JoinRequest(id="n2", raft_addr="h:1"), '{"id":"n2","raftAddr":"h:1"}'),
        (cluster.JoinResponse(accepted=True), '{"accepted":true}'),
        (cluster.JoinResponse(leader="h:2", error="not leader"), '{"accepted":false,"leader":"h:2","error":"not leader"}'),
        (cluster.LeaveResponse(error="no"), '{"accepted":false,"error":"no"}'),
        (cluster.AppWriteResponse(data=b"\x00\xff"), '{"data":"AP8="}'),
        (cluster.AppWriteResponse(), '{"data":""}'),
        (cluster.AppWriteResponse(error="no"), '{"error":"no"}'),
        (cluster.AppSyncResponse(), "{}"),
        (cluster.SubscribeMessage(topic="سفارش", data=b"x", seq=(1 << 64) - 1), '{"topic":"سفارش","data":"eA==","seq":18446744073709551615}'),
        (cluster.AckRequest(topic="t", seq=0, node_id="g1"), '{"topic":"t","seq":0,"nodeId":"g1"}'),
        (cluster.AckResponse(), "{}"),
        (client.PublishReply(topic="t", seq=1, index=2), '{"topic":"t","seq":1,"index":2}'),
        (client.ApplyRequest(op="up"), '{"op":"up","data":"","session":""}'),
        (client.ApplyRequest(op="up", number=0), '{"op":"up","data":"","session":"","number":0}'),
        (client.PublishRequest(headers={"a": "b"}), '{"topic":"","data":"","messageId":"","headers":{"a":"b"},"acks":""}'),
    ],
)  # fmt: skip
def test_the_text_is_that_of_the_model(message: Message, text: str) -> None:
    assert cluster_json.write_json(message).decode() == text


def test_absent_null_and_empty_are_zero() -> None:
    for body in (b"", b"{}", b'{"op":null,"data":null}', b'{"data":"","unknown":{"deep":[1]}}'):
        assert cluster_json.read(cluster.AppWriteRequest, body) == cluster.AppWriteRequest()
    assert cluster_json.read(cluster.AppWriteRequest, b'{"data":"YW\\r\\nJj"}').data == b"abc"


@pytest.mark.parametrize(
    "body,says",
    [
        (b"{", "no JSON"),
        (b"{} x", "no JSON"),
        (b'{"topic":' + b"[" * 100_000, "no JSON"),
        (b'{"topic":1}', "topic=1: this is a JSON number; give a string"),
        (b'{"topic":"\\ud800"}', "surrogate"),
        (b'{"seq":"7"}', 'seq="7": give a whole number from 0'),
        (b'{"seq":-1}', "seq=-1"),
        (b'{"seq":1.5}', "seq=1.5"),
        (b'{"seq":true}', "seq=true"),
        (b'{"seq":18446744073709551616}', "seq=18446744073709551616"),
        (b'{"seq":NaN}', "no JSON"),
        (b"\xff\xff", "no cluster.v1.AckRequest"),
        (b"\n", "no cluster.v1.AckRequest"),
    ],
)
def test_what_is_neither_is_refused_with_the_reason(body: bytes, says: str) -> None:
    with pytest.raises(WireError, match=says.replace(".", r"\.")):
        cluster_json.read(cluster.AckRequest, body)
    with pytest.raises(WireError, match="data"):
        cluster_json.read(cluster.AppSyncRequest, b'{"data":"***"}')


@given(st.binary(max_size=60))
def test_no_bytes_do_harm(body: bytes) -> None:
    for kind in KINDS:
        try:
            cluster_json.read(kind, body)
        except WireError:
            continue


def test_no_message_has_a_field_that_protobuf_would_begin_with_a_brace() -> None:
    for kind in KINDS:
        assert all(field.number != 15 for field in kind.DESCRIPTOR.fields)
