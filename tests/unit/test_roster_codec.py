"""The roster commands of go-cluster: the bytes that Go writes, what is read, and what is refused whatever the interpreter allows."""

from __future__ import annotations

import base64
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.proto.errors import WireError
from coterie.proto.record_batch import kind_of
from coterie.proto.roster import (
    MAX_BYTES,
    MAX_DEPTH,
    RosterCommand,
    RosterRow,
    UnknownOp,
    decode_command,
    decode_document,
    encode_command,
    encode_document,
)

# Written by Go 1.26's encoding/json from struct{Op string; Payload []byte} and the member's struct.
ODD = RosterRow("n<1>\u2028é\b\f\x00\x7f/", "a:1", {"b": "&", "a": '"\\', "é": "x"})
ODD_COMMAND = (
    b'{"Op":"AddNode","Payload":"eyJJRCI6Im5cdTAwM2MxXHUwMDNlXHUyMDI4w6lcYlxmXHUwMDAwfy8iLCJBZGRyIjoiYToxIiwi'
    b'TWV0YSI6eyJhIjoiXCJcXCIsImIiOiJcdTAwMjYiLCLDqSI6IngifX0="}'
)
ODD_ROW = '{"ID":"n\\u003c1\\u003e\\u2028é\\b\\f\\u0000\x7f/","Addr":"a:1","Meta":{"a":"\\"\\\\","b":"\\u0026","é":"x"}}'
N = RosterCommand("add", RosterRow("n", "", None))

texts = st.text(max_size=20)
ids = st.text(min_size=1, max_size=20)
members = st.builds(RosterRow.told, ids, texts, st.dictionaries(texts, texts, max_size=4))
commands = st.one_of(
    st.builds(lambda m: RosterCommand("add", m), members),
    st.builds(lambda m: RosterCommand("remove", RosterRow(m.id, "", None)), members),
)


def entry(op: str, payload: object) -> bytes:
    return json.dumps({"Op": op, "Payload": payload}).encode()


def b64(text: str | bytes) -> str:
    return base64.b64encode(text if isinstance(text, bytes) else text.encode()).decode()


def test_the_bytes_are_those_of_go() -> None:
    assert encode_command(RosterCommand("add", ODD)) == ODD_COMMAND
    assert decode_command(ODD_COMMAND) == RosterCommand("add", ODD)
    assert encode_command(RosterCommand("remove", RosterRow("n2", "", None))) == b'{"Op":"RemoveNode","Payload":"eyJpZCI6Im4yIn0="}'
    document = ('{"version":1,"members":[{"ID":"n2","Addr":"","Meta":null},' + ODD_ROW + "]}").encode()
    assert encode_document([ODD, RosterRow("n2", "", None)]) == document
    assert decode_document(document) == [RosterRow("n2", "", None), ODD]


@given(commands)
def test_a_command_reads_back_as_it_was_written(command: RosterCommand) -> None:
    data = encode_command(command)
    assert kind_of(data) == "roster"
    assert decode_command(data) == command


@given(st.lists(members, unique_by=lambda member: member.id, max_size=5))
def test_a_document_reads_back_in_the_order_of_the_ids(rows: list[RosterRow]) -> None:
    assert decode_document(encode_document(rows)) == sorted(rows, key=lambda row: row.id.encode())
    assert encode_document(rows) == encode_document(reversed(rows))


@given(st.binary(max_size=200) | st.builds(lambda data: b'{"Op":"AddNode","Payload":' + data + b"}", st.binary(max_size=60)))
def test_any_bytes_are_a_command_or_an_error_of_the_codec(data: bytes) -> None:
    try:
        decode_command(data)
    except WireError:
        return


@pytest.mark.parametrize(
    "data",
    [
        entry("AddNode", {"ID": "n"}),
        b'{"op":"AddNode","OP":null,"payload":"' + b64('{"id":"n"}').encode() + b'"}',
        b'{"Op":"RemoveNode","Op":"AddNode","More":[1e999,{"a":null}],"Payload":"' + b64('{"ID":"x","iD":"n"}').encode() + b'"}',
        entry("AddNode", "\n".join(b64('{"ID":"n"}'))),
        b'{"Op":"AddNode","x":' + b"[" * (MAX_DEPTH - 1) + b"]" * (MAX_DEPTH - 1) + b',"Payload":{"ID":"n"}}',
        b'{"Op":"AddNode","x":' + b"9" * 10_000 + b',"Payload":{"ID":"n"}}',
    ],
    ids=["the object itself", "any case", "the last of a key", "lines in base64", "as deep as may be", "a number without end"],
)
def test_what_go_reads_is_read(data: bytes) -> None:
    assert decode_command(data) == N


def test_half_a_surrogate_pair_is_what_go_makes_of_it() -> None:
    assert decode_command(entry("AddNode", b64('{"ID":"n","Meta":{"a":"\\ud800"}}'))).row.meta == {"a": "\ufffd"}
    told = RosterRow.told("n", "\udc00", {"a": "\ud800"})
    assert decode_command(encode_command(RosterCommand("add", told))).row == told


@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b"{}x",
        b'{"Op":1}',
        b'{"Op":"AddNode"}',
        entry("AddNode", ""),
        entry("AddNode", [1, 2]),
        entry("AddNode", "e30"),
        entry("AddNode", "AAAA=="),
        entry("AddNode", b64("{}")),
        entry("AddNode", b64('{"ID":""}')),
        entry("AddNode", b64('{"ID":1}')),
        entry("AddNode", b64('{"ID":"n","Addr":{}}')),
        entry("AddNode", b64('{"ID":"n","Meta":{"a":1}}')),
        entry("AddNode", b64('{"ID":"n","Meta":[]}')),
        entry("AddNode", b64(b'{"ID":"\xff"}')),
        entry("RemoveNode", b64('{"name":"n"}')),
        entry("AddNode", {"ID": "n", "x": float("nan")}),
        b'{"Op":"AddNode","x":' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b',"Payload":{"ID":"n"}}',
        entry("AddNode", {"ID": "n", "Addr": "x" * MAX_BYTES}),
        b"[" * 60_000,
    ],
)
def test_what_is_no_command_is_refused(data: bytes) -> None:
    with pytest.raises(WireError) as refused:
        decode_command(data)
    assert not isinstance(refused.value, UnknownOp)


@pytest.mark.parametrize("op", ["", "addnode", "Renamed"])
def test_another_op_is_told_apart_from_garbage(op: str) -> None:
    with pytest.raises(UnknownOp):
        decode_command(entry(op, b64('{"ID":"n"}')))


def test_quotes_without_end_take_one_pass() -> None:
    begun = time.monotonic()
    with pytest.raises(WireError):
        decode_command(b'{"' + b'\\"' * 32_000)
    assert time.monotonic() - begun < 2.0


@pytest.mark.parametrize(
    "data", [b'{"version":2,"members":[]}', b'{"members":[]}', b'{"version":1,"members":{}}', b'{"version":1,"members":[1]}', b"[]"]
)
def test_another_document_is_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        decode_document(data)
