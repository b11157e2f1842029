"""A replicated key-value store: every node has all of it, any node takes a change, and what was answered survives the death of a minority.

The store is a state machine. `set`, `cas` and `delete` are commands, so every node's handler applies them in one order; the answer is what this node's handler
said. A `get` through the log is linearizable: it comes at one place among the changes. `?local` reads what this node has, which may be a moment behind.

    python -m examples.kv n1 --data /tmp/kv
    python -m examples.kv n2 --data /tmp/kv
    python -m examples.kv n3 --data /tmp/kv
    clusterctl join --id n2 --raft-addr 127.0.0.1:9522 --addr 127.0.0.1:17946
    clusterctl join --id n3 --raft-addr 127.0.0.1:9523 --addr 127.0.0.1:17946

    curl -X PUT -d blue http://127.0.0.1:8081/colour              each answer is JSON
    curl http://127.0.0.1:8082/colour
    curl -X PUT -d green 'http://127.0.0.1:8083/colour?if=blue'   compare and set: 409 when it is another
    curl -X DELETE http://127.0.0.1:8081/colour

A client that may have to try again names itself: `?client=NAME&number=N` with N from 1. The change is made once, and each try has the first one's answer.

Nothing is written to a file here: the state is in memory, the cluster keeps the commands, and a snapshot of the state from time to time, from which a node begins.
"""

from __future__ import annotations

import argparse
import json
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from coterie import AlreadyApplied, Cluster, Config, CoterieError, HandlerActor, Indeterminate, SessionExpired
from examples.three_node_service import PORTS


class Store(HandlerActor):
    """Deterministic: no clock, no random number, nothing of this node alone."""

    def __init__(self, values: dict[str, str]) -> None:
        super().__init__()
        self.values = values

    def handle_apply(self, index: int, op: str, data: bytes) -> bytes:
        asked = json.loads(data)
        key, held = asked["key"], self.values.get(asked["key"])
        done = True
        if op == "set":
            self.values[key] = asked["value"]
        elif op == "cas":
            done = held == asked["if"]
            if done:
                self.values[key] = asked["value"]
        elif op == "delete":
            done = self.values.pop(key, None) is not None
        elif op != "get":
            raise ValueError(f"op={op!r}: give set, cas, delete or get")
        return json.dumps({"done": done, "value": self.values.get(key), "before": held}).encode()

    def handle_snapshot(self) -> Iterator[bytes]:
        for item in self.values.items():
            yield json.dumps(item).encode()

    def handle_restore(self, chunks: Iterator[bytes]) -> None:
        self.values.clear()
        self.values.update(json.loads(chunk) for chunk in chunks)


class Api(BaseHTTPRequestHandler):
    """GET, PUT and DELETE of /KEY."""

    cluster: Cluster
    values: dict[str, str]  # the store's, in which nothing but one key at a time is read here
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        key, asked = self._asked()
        if "local" in asked:
            self._answer(200, {"value": self.values.get(key)})
        else:
            self._apply("get", {"key": key}, asked)

    def do_PUT(self) -> None:
        key, asked = self._asked()
        value = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        if "if" in asked:
            self._apply("cas", {"key": key, "value": value, "if": asked["if"]}, asked)
        else:
            self._apply("set", {"key": key, "value": value}, asked)

    def do_DELETE(self) -> None:
        key, asked = self._asked()
        self._apply("delete", {"key": key}, asked)

    def _asked(self) -> tuple[str, dict[str, str]]:
        url = urlsplit(self.path)
        return unquote(url.path.lstrip("/")), {name: given[0] for name, given in parse_qs(url.query, keep_blank_values=True).items()}

    def _apply(self, op: str, request: dict[str, str], asked: dict[str, str]) -> None:
        client = asked.get("client")
        try:
            number = int(asked.get("number", "")) if client is not None else None
            applied = self.cluster.apply(op, json.dumps(request).encode(), session=client, number=number)
        except (Indeterminate, SessionExpired, AlreadyApplied) as error:
            self._answer(500, {"error": f"{type(error).__name__}: {error}"})  # it may have been done
        except (CoterieError, ValueError) as error:
            self._answer(503, {"error": f"{type(error).__name__}: {error}"})  # it was not done
        else:
            result = json.loads(applied.result)
            self._answer(200 if result["done"] else 409, {"index": applied.index, **result})

    def _answer(self, code: int, document: dict[str, Any]) -> None:
        body = json.dumps(document).encode() + b"\n"
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the standard library
        """The answers say enough."""


def main() -> None:
    parser = argparse.ArgumentParser(description="A replicated key-value store.")
    parser.add_argument("id", choices=sorted(PORTS))
    parser.add_argument(
        "--data", default="", help="directory for the nodes' state; each has one of its own below it. Without it all is in memory"
    )
    parser.add_argument("--ports", default="", help="raft,gossip,management,http instead of the guide's")
    parser.add_argument("--seed", default="127.0.0.1:7946", help="gossip address of the first node")
    parser.add_argument("--snapshot-every", type=int, default=10_000, help="commands between two snapshots of the store")
    options = parser.parse_args()
    raft, gossip, mgmt, http = map(int, options.ports.split(",")) if options.ports else PORTS[options.id]
    config = Config(
        node_id=options.id,
        raft_addr=f"127.0.0.1:{raft}",
        mem_bind=f"127.0.0.1:{gossip}",
        mgmt_addr=f"127.0.0.1:{mgmt}",
        seeds_csv="" if options.id == "n1" else options.seed,
        bootstrap=options.id == "n1",
        data_dir=f"{options.data}/{options.id}" if options.data else "",
        command_snapshot_every=options.snapshot_every,
    )
    done = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: done.set())
    values: dict[str, str] = {}
    handler = Store.start(values)
    with Cluster(config, handler) as cluster:
        Api.cluster, Api.values = cluster, values
        server = ThreadingHTTPServer(("127.0.0.1", http), Api)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(f"READY {options.id}", flush=True)
        done.wait()
        server.shutdown()
    handler.stop()


if __name__ == "__main__":
    main()
