"""A microservice that is a member of a cluster: the guide's example, in Python.

Run it three times, in three terminals (it knows the ports of n1, n2 and n3):

    python -m examples.three_node_service n1
    python -m examples.three_node_service n2
    python -m examples.three_node_service n3

then make n2 and n3 voters, and use any of them:

    clusterctl join --id n2 --raft-addr 127.0.0.1:9522 --addr 127.0.0.1:17946
    clusterctl join --id n3 --raft-addr 127.0.0.1:9523 --addr 127.0.0.1:17946
    curl -sS http://127.0.0.1:8082/status        # leader=n1 term=2 members=3
    curl -sS http://127.0.0.1:8082/publish       # every terminal prints SYNC
"""

from __future__ import annotations

import argparse
import signal
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from coterie import Cluster, Config, CoterieError, HandlerActor, LeaderInfo

PORTS = {  # id: (raft, gossip, management, http)
    "n1": (9521, 7946, 17946, 8081),
    "n2": (9522, 8946, 18946, 8082),
    "n3": (9523, 9946, 19946, 8083),
}


class Service(HandlerActor):
    """The application: an actor with a thread of its own."""

    def handle_write(self, op: str, request: bytes) -> bytes:
        """Runs on the leader only, whichever node was asked."""
        return f"op={op} at={int(time.time())} payload={request.decode(errors='replace')}".encode()

    def handle_read(self, op: str, request: bytes) -> bytes:
        return b"read-ok"

    def handle_sync(self, topic: str, data: bytes) -> None:
        """Runs on every node for every publish."""
        print(f"SYNC topic={topic} data={data.decode(errors='replace')}", flush=True)


def http_server(cluster: Cluster, address: tuple[str, int]) -> ThreadingHTTPServer:
    """GET /healthz, /status, /write, /publish."""

    def healthz() -> bytes:
        return b"ok"

    def status() -> bytes:
        seen = cluster.status()
        return f"leader={seen.leader_id} term={seen.term} members={len(seen.members)}\n".encode()

    def write() -> bytes:
        return cluster.write("demo", b"hello")

    def publish() -> bytes:
        cluster.publish("demo.topic", b"sync-data")
        return b"ok"

    routes = {"/healthz": healthz, "/status": status, "/write": write, "/publish": publish}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            route = routes.get(self.path)
            try:
                code, body = (200, route()) if route else (404, b"not found\n")
            except CoterieError as error:
                code, body = 500, f"{error}\n".encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    return ThreadingHTTPServer(address, Handler)


def show_events(cluster: Cluster) -> None:
    """What happens in the cluster, until the node stops; first what is so."""
    for event in cluster.events():
        print(f"EVENT type={type(event).__name__} term={event.term}", flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The guide's microservice.")
    parser.add_argument("id", choices=sorted(PORTS))
    parser.add_argument("--data", default="", help="data directory (default /tmp/cluster-<id>)")
    parser.add_argument("--ports", default="", help="raft,gossip,management,http instead of the guide's")
    parser.add_argument("--seed", default="127.0.0.1:7946", help="gossip address of the first node")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    raft, gossip, mgmt, http = map(int, options.ports.split(",")) if options.ports else PORTS[options.id]

    def on_leader_change(info: LeaderInfo) -> None:
        print(f"LEADER {info.id or '(none)'} term={info.term}", flush=True)

    def on_election_start() -> None:
        print("election started", flush=True)

    def on_election_end(info: LeaderInfo) -> None:
        print(f"election ended leader={info.id}", flush=True)

    data_dir = options.data or f"/tmp/cluster-{options.id}"
    config = Config(
        node_id=options.id,
        raft_addr=f"127.0.0.1:{raft}",
        mem_bind=f"127.0.0.1:{gossip}",
        mgmt_addr=f"127.0.0.1:{mgmt}",
        seeds_csv="" if options.id == "n1" else options.seed,
        data_dir=data_dir,
        repl_window=1024,
        repl_retry=1.5,
        repl_buffer_dir=f"{data_dir}/replbuf",
        bootstrap=options.id == "n1",
        on_leader_change=on_leader_change,
        on_election_start=on_election_start,
        on_election_end=on_election_end,
    )
    done = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: done.set())
    with Cluster(config, handler=Service.start()) as cluster:
        server = http_server(cluster, ("127.0.0.1", http))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        threading.Thread(target=show_events, args=(cluster,), daemon=True).start()
        print(f"READY {options.id} listening at :{http} — endpoints: /healthz /status /write /publish", flush=True)
        done.wait()
        server.shutdown()
        server.server_close()


if __name__ == "__main__":
    main()
