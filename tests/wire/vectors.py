"""The golden vectors of tests/data, and what they decode to as our messages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import msgpack

from coterie.proto import gossip_messages as gossip
from coterie.proto import raft_messages as raft
from coterie.proto.gotime import from_unix, is_binary

DATA = Path(__file__).parent.parent / "data"


class Vector(NamedTuple):
    name: str
    direction: str
    transport: str
    raw: bytes
    decoded: Any
    note: str


def load(protocol: str) -> dict[str, Vector]:
    objects = json.loads((DATA / f"{protocol}.json").read_text())
    vectors = [Vector(o["name"], o["direction"], o["transport"], bytes.fromhex(o["hex"]), o["decoded"], o["note"]) for o in objects]
    return {vector.name: vector for vector in vectors}


RAFT = load("raft")
MEMBERLIST = load("memberlist")


def blob(value: Any) -> bytes | None:
    if isinstance(value, list):
        return bytes(value)
    if isinstance(value, str):
        return bytes.fromhex(value[4:]) if value.startswith("hex:") else value.encode()
    return None


# --- raft ---------------------------------------------------------------------------------------------------------------------------------

RPC_TYPES = (raft.AppendRequest, raft.VoteRequest, raft.SnapshotRequest, raft.TimeoutNowRequest, raft.PreVoteRequest)


def header(body: dict[str, Any], *deprecated: str) -> raft.Header:
    address = next((body[key] for key in ("Addr", *deprecated) if body.get(key)), "")
    return raft.Header(body.get("ID") or "", address, body.get("ProtocolVersion") or 0)


def appended_at(value: Any) -> bytes:
    if not value:
        return b""
    if value.startswith("timestamp:"):
        seconds, nanoseconds = value[len("timestamp:") :].split(".")
        return from_unix(int(seconds) * 10**9 + int(nanoseconds))
    raw = blob(value) or b""
    return raw if is_binary(raw) else from_unix(msgpack.Timestamp.from_bytes(raw).to_unix_nano())


def entry(body: dict[str, Any]) -> raft.Entry:
    data, extensions = blob(body.get("Data")), blob(body.get("Extensions"))
    return raft.Entry(
        body.get("Index") or 0, body.get("Term") or 0, body.get("Type") or 0, data, extensions, appended_at(body.get("AppendedAt"))
    )


def request(decoded: dict[str, Any]) -> raft.Request:
    kind, body = RPC_TYPES[decoded["rpc"]], decoded["body"] or {}
    term, last = body.get("Term", 0), (body.get("LastLogIndex", 0), body.get("LastLogTerm", 0))
    if kind is raft.AppendRequest:
        entries = body.get("Entries")
        return raft.AppendRequest(
            header(body, "Leader"),
            term,
            body.get("PrevLogEntry", 0),
            body.get("PrevLogTerm", 0),
            body.get("LeaderCommitIndex", 0),
            None if entries is None else tuple(map(entry, entries)),
        )
    if kind is raft.VoteRequest:
        return raft.VoteRequest(header(body, "Candidate"), term, *last, body["LeadershipTransfer"])
    if kind is raft.PreVoteRequest:
        return raft.PreVoteRequest(header(body), term, *last)
    if kind is raft.TimeoutNowRequest:
        return raft.TimeoutNowRequest(header(body))
    configuration = blob(body["Configuration"]) or b""
    packed = blob(body["Peers"])
    peers = None if packed is None else tuple(msgpack.unpackb(packed, raw=True))
    index, size, version = body["ConfigurationIndex"], body["Size"], body["SnapshotVersion"]
    return raft.SnapshotRequest(header(body, "Leader"), term, *last, configuration, index, size, peers, version)


def response(kind: type[raft.Request], decoded: dict[str, Any]) -> raft.Response | raft.RpcError:
    body = decoded["body"]
    found = None if body is None else response_body(kind, body)
    if decoded["error"]:
        return raft.RpcError(decoded["error"], found)
    assert found is not None
    return found


def response_body(kind: type[raft.Request], body: dict[str, Any]) -> raft.Response:
    if kind is raft.AppendRequest:
        return raft.AppendResponse(header(body), body["Term"], body["LastLog"], body["Success"], body["NoRetryBackoff"])
    if kind is raft.VoteRequest:
        return raft.VoteResponse(header(body), body["Term"], body["Granted"])
    if kind is raft.PreVoteRequest:
        return raft.PreVoteResponse(header(body), body["Term"], body["Granted"])
    if kind is raft.TimeoutNowRequest:
        return raft.TimeoutNowResponse(header(body))
    return raft.SnapshotResponse(header(body), body["Term"], body["Success"])


def asked(vector: Vector) -> type[raft.Request]:
    """The request that an answer's vector belongs to: by its name, or by what only that answer holds."""
    names = {"ae": 0, "rv": 1, "is": 2, "tn": 3, "rpv": 4}
    prefix = vector.name.split("_")[0]
    if prefix in names:
        return RPC_TYPES[names[prefix]]
    body = vector.decoded["body"] or {"LastLog": 0}
    marks = {"LastLog": 0, "Peers": 1, "Granted": 4, "Success": 2}
    return RPC_TYPES[next((number for mark, number in marks.items() if mark in body), 3)]


def configuration(decoded: dict[str, Any]) -> raft.Configuration:
    return raft.Configuration(tuple(raft.Server(s["ID"], s["Address"], s["Suffrage"]) for s in decoded["Servers"] or ()))


# --- memberlist ---------------------------------------------------------------------------------------------------------------------------


def ip(value: str | None) -> str:
    raw = blob(value) or b""
    if len(raw) == 16 and raw.startswith(bytes(10) + b"\xff\xff"):
        raw = raw[12:]
    assert len(raw) in (0, 4)
    return ".".join(map(str, raw))


def messages(decoded: dict[str, Any]) -> list[Any]:
    """Our messages in a vector, through all of its layers."""
    if "inner" in decoded:
        return messages(decoded["inner"])
    if decoded["type"] == "compound":
        return [message for part in decoded["parts"] for message in messages(part)]
    if decoded["type"] == "user":
        return [gossip.User(blob(decoded["payload"]) or b"")]
    if decoded["type"] == "pushPull":
        nodes = tuple(map(node_state, decoded["nodes"]))
        return [gossip.PushPull(decoded["header"]["Join"], nodes, decoded["user_state"].encode())]
    return [message(decoded["type"], decoded["body"])]


def node_state(body: dict[str, Any]) -> gossip.NodeState:
    meta, vsn = blob(body["Meta"]) or b"", blob(body["Vsn"]) or b""
    return gossip.NodeState(body["Name"], ip(body["Addr"]), body["Port"], meta, body["Incarnation"], body["State"], vsn)


def message(kind: str, body: dict[str, Any]) -> gossip.Message:
    source = (ip(body.get("SourceAddr")), body.get("SourcePort", 0), body.get("SourceNode", ""))
    if kind == "ping":
        return gossip.Ping(body["SeqNo"], body["Node"], *source)
    if kind == "indirectPing":
        return gossip.IndirectPing(body["SeqNo"], ip(body["Target"]), body["Port"], body["Node"], body["Nack"], *source)
    if kind == "ack":
        return gossip.Ack(body["SeqNo"], blob(body["Payload"]) or b"")
    if kind == "nack":
        return gossip.Nack(body["SeqNo"])
    if kind == "alive":
        meta, vsn = blob(body["Meta"]) or b"", blob(body["Vsn"]) or b""
        return gossip.Alive(body["Incarnation"], body["Node"], ip(body["Addr"]), body["Port"], meta, vsn)
    accusation = {"suspect": gossip.Suspect, "dead": gossip.Dead}[kind]
    return accusation(body["Incarnation"], body["Node"], body["From"])
