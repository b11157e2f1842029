"""The smallest cluster: one node, in memory, on free ports.

python -m examples.hello
"""

from __future__ import annotations

from coterie import Cluster, Config

ANY = "127.0.0.1:0"


class Greeter:
    """Any object with some of the three methods can be a node's handler."""

    def handle_write(self, op: str, request: bytes) -> bytes:  # on the leader
        return b"hello " + request

    def handle_sync(self, topic: str, data: bytes) -> None:  # on every node, for every publish, in order
        print(f"{topic}: {data.decode()}", flush=True)


def main() -> None:
    config = Config(node_id="n1", bootstrap=True, raft_addr=ANY, mem_bind=ANY, mgmt_addr=ANY, app_handlers=Greeter())
    with Cluster(config) as cluster:
        print(cluster.write("greet", b"world").decode())
        published = cluster.publish("greetings", b"hello, cluster")
        print(f"published as number {published.seq} of {published.topic}")


if __name__ == "__main__":
    main()
