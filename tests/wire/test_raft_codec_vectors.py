"""Raft's codec against the bytes of running Go nodes."""

from __future__ import annotations

import pytest

from coterie.proto.errors import WireError
from coterie.proto.raft_codec import decode_configuration, encode_configuration, encode_request, encode_response
from coterie.proto.raft_messages import AppendRequest
from coterie.proto.raft_stream import RequestDecoder, ResponseDecoder, SnapshotData
from tests.wire.vectors import RAFT, Vector, asked, configuration, request, response

CONFIGURATIONS = [v for v in RAFT.values() if v.name.startswith("configuration")]
RESPONSES = [v for v in RAFT.values() if v.direction == "response"]
REQUESTS = [v for v in RAFT.values() if v.direction.startswith("request")]

# A Go decoder takes a nil entry, and the node behind it dies; so ours does not take it.
NIL_ENTRY = {"ae_nil_entry_request", "tolerance_entry_nil", "CRASH_nil_entry"}
REFUSED = [v for v in REQUESTS if "connection closed" in v.note or v.name in NIL_ENTRY]
TAKEN = [v for v in REQUESTS if v not in REFUSED]
# Bytes that we write as Go does: all but what Go only reads, and a form of the time that it writes when asked to.
WRITTEN = [v for v in TAKEN if not v.name.startswith("tolerance") and not ("newtimeformat" in v.name and "zero" not in v.name)]


def by_name(vector: Vector) -> str:
    return vector.name


def whole(vector: Vector) -> list[object]:
    decoded = vector.decoded if isinstance(vector.decoded, list) else [vector.decoded]
    expected: list[object] = [request(one) for one in decoded]
    if "stream" in decoded[0]:
        expected.append(SnapshotData(bytes.fromhex(decoded[0]["stream"][4:]), last=True))
    return expected


def test_the_vectors_are_all_here():
    assert (len(REFUSED), len(TAKEN), len(RESPONSES), len(CONFIGURATIONS)) == (18, 100, 33, 10)


@pytest.mark.parametrize("vector", TAKEN, ids=by_name)
def test_what_go_takes_is_read_as_go_reads_it(vector):
    assert RequestDecoder().feed(vector.raw) == whole(vector)


@pytest.mark.parametrize("vector", REFUSED, ids=by_name)
def test_what_go_refuses_or_dies_of_is_refused(vector):
    decoder = RequestDecoder()
    with pytest.raises(WireError) as refusal:
        decoder.feed(vector.raw)
    with pytest.raises(WireError, match="^" + str(refusal.value).split("(")[0].split("[")[0]):
        decoder.feed(RAFT["ae_heartbeat_request"].raw)


@pytest.mark.parametrize("vector", WRITTEN, ids=by_name)
def test_requests_are_written_to_the_byte(vector):
    messages = RequestDecoder().feed(vector.raw)
    assert b"".join(m.chunk if isinstance(m, SnapshotData) else encode_request(m) for m in messages) == vector.raw


@pytest.mark.parametrize("vector", RESPONSES, ids=by_name)
def test_answers_are_read_and_written_to_the_byte(vector):
    kind = asked(vector)
    decoded = vector.decoded if isinstance(vector.decoded, list) else [vector.decoded]
    decoder = ResponseDecoder()
    for _ in decoded:
        decoder.expect(kind)
    answers = decoder.feed(vector.raw)
    assert answers == [response(kind, one) for one in decoded]
    assert b"".join(map(encode_response, answers)) == vector.raw


@pytest.mark.parametrize("vector", CONFIGURATIONS, ids=by_name)
def test_configurations_both_ways(vector):
    found = decode_configuration(vector.raw)
    assert found == configuration(vector.decoded)
    if vector.name != "configuration_empty_slice":  # an empty slice and a nil one say the same; we write the nil one
        assert encode_configuration(found) == vector.raw


@pytest.mark.parametrize("name", ["CRASH_configuration_garbage", "CRASH_configuration_nil_data"])
def test_a_configuration_that_kills_a_go_follower_is_named(name):
    (append,) = RequestDecoder().feed(RAFT[name].raw)
    assert isinstance(append, AppendRequest)
    assert append.entries is not None
    with pytest.raises(WireError, match="configuration"):
        decode_configuration(append.entries[0].data or b"")


@pytest.mark.parametrize("rpc", [5, 6, 127, 244, 255])
def test_an_unknown_rpc_closes_the_connection(rpc):
    with pytest.raises(WireError, match=f"RPC byte {rpc}"):
        RequestDecoder().feed(bytes((rpc,)))
