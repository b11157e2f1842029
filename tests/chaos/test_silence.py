"""Connections over a link that is cut: given up before the kernel's next try would be seconds off, so that a peer is found soon after the link is mended."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from coterie.transport.raft_client import ANSWER_TIMEOUT
from tests.chaos.network import Network
from tests.deploy.networks import reason_not_to

PORT = 9520

# Takes connections and what comes on them, and says nothing.
SILENT = """
import socket, sys
listener = socket.create_server(("", int(sys.argv[1])))
print("listens", flush=True)
kept = []
while True:
    kept.append(listener.accept()[0])
"""

# Connects, says so, sends when it is told to, and says after how many seconds the connection was given up.
RAFT = """
import sys, threading, time
from coterie.proto.raft_codec import encode_request
from coterie.proto.raft_messages import Header, VoteRequest
from coterie.transport.raft_client import RaftPeer
connected, ended = threading.Event(), threading.Event()
peer = RaftPeer(sys.argv[1], lambda token, response: None, connected.set, ended.set)
assert connected.wait(20)
print("connected", flush=True)
sys.stdin.readline()
request = VoteRequest(Header("n1", "n1:1"), 2, 7, 1)
began = time.monotonic()
assert peer.send(encode_request(request), VoteRequest, "token")
assert ended.wait(20)
print(time.monotonic() - began, flush=True)
"""

# A server that answers to a method, and never to another.
SILENT_GRPC = """
import concurrent.futures, grpc, sys, threading

class Handler(grpc.GenericRpcHandler):
    def service(self, details):
        answer = details.method == "/a/first"
        return grpc.unary_unary_rpc_method_handler(lambda request, context: b"" if answer else threading.Event().wait())

server = grpc.server(concurrent.futures.ThreadPoolExecutor(2), handlers=[Handler()])
server.add_insecure_port("0.0.0.0:" + sys.argv[1])
server.start()
print("listens", flush=True)
threading.Event().wait()
"""

GRPC = """
import os, queue, sys, time
from coterie.transport.grpc_client import ChannelPool
pool, answers = ChannelPool(), queue.SimpleQueue()
pool.call(sys.argv[1], "/a/first", b"", 20, answers.put)
assert answers.get().code == "OK"
print("connected", flush=True)
sys.stdin.readline()
began = time.monotonic()
pool.call(sys.argv[1], "/a/second", b"", 20, answers.put)
answer = answers.get()
assert answer.code == "UNAVAILABLE" and answer.sent, answer
print(time.monotonic() - began, flush=True)
"""


@pytest.fixture
def network() -> Iterator[Network]:
    if reason := reason_not_to():
        pytest.skip(reason)
    with Network("n1", "n2") as network:
        yield network


@pytest.mark.parametrize(("server", "client"), [(SILENT, RAFT), (SILENT_GRPC, GRPC)], ids=["raft", "grpc"])
def test_a_connection_over_a_link_that_is_cut_is_given_up_long_before_one_whose_peer_does_not_answer(
    network: Network, server: str, client: str
) -> None:
    silent = subprocess.Popen(network.at("n2", sys.executable, "-c", server, str(PORT)), stdout=subprocess.PIPE, text=True)
    where = f"{network.addresses['n2']}:{PORT}"
    try:
        assert silent.stdout is not None
        assert silent.stdout.readline() == "listens\n"
        caller = subprocess.Popen(
            network.at("n1", sys.executable, "-c", client, where), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        with caller:
            assert caller.stdin is not None
            assert caller.stdout is not None
            assert caller.stdout.readline() == "connected\n"
            network.cut([("n2", "n1")])
            caller.stdin.write("now\n")
            caller.stdin.flush()
            took = float(caller.stdout.readline())
            caller.kill()
        assert took < ANSWER_TIMEOUT - 1.0
    finally:
        silent.kill()
        silent.communicate()
