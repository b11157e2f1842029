"""A web server that loads the application and then forks its workers: each of them starts a node of its own."""

from __future__ import annotations

import subprocess
import sys

WORKERS = """
import os, sys
from coterie import Cluster, Config, HandlerActor

ANY = "127.0.0.1:0"

class Handler(HandlerActor):
    def handle_write(self, op, request):
        return request

def node(name):
    return Cluster(Config(node_id=name, bootstrap=True, raft_addr=ANY, mem_bind=ANY, mgmt_addr=ANY), Handler.start())

parent = node("parent") if sys.argv[1] == "runs" else None
if parent is not None:
    parent.publish("t", b"before")
workers = []
for name in ("w1", "w2"):
    worker = os.fork()
    if worker == 0:
        code = 1
        try:
            if parent is not None:
                try:
                    parent.publish("t", b"from a worker")
                except RuntimeError as error:
                    assert "before this process forked" in str(error), error
            with node(name) as cluster:
                assert cluster.publish("t", b"1").seq == 1
                assert cluster.write("w", b"2") == b"2"
                assert cluster.status().leader_id == name
            code = 0
        finally:
            os._exit(code)
    workers.append(worker)
assert [os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) for worker in workers] == [0, 0]
if parent is not None:
    assert parent.publish("t", b"after").seq == 2
    parent.stop()
print("well")
"""


def workers_of(parent: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", WORKERS, parent], capture_output=True, text=True, timeout=60, check=False)


def test_workers_of_a_process_that_only_loaded_the_application_have_nodes_of_their_own() -> None:
    done = workers_of("loaded it")
    assert done.stdout == "well\n", done.stderr


def test_a_node_that_runs_before_the_fork_stays_the_parents() -> None:
    done = workers_of("runs")
    assert done.stdout == "well\n", done.stderr
