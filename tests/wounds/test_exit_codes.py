"""Wounds of others at the operator's prompt."""

from __future__ import annotations

import contextlib
import json

import pytest

from coterie import Cluster, Config, cli
from tests.product.wait import wait_for

WAIT = 10.0
FREE = {"raft_addr": "127.0.0.1:0", "mem_bind": "127.0.0.1:0", "mgmt_addr": "127.0.0.1:0"}


def ask(capsys, addr):
    with pytest.raises(SystemExit) as ended:
        cli.main(("status", "--addr", addr, "--timeout", "5s"))
    out = capsys.readouterr().out
    return ended.value.code or 0, json.loads(out) if out else None


def test_exit_codes_tell_a_dead_node_and_dead_nodes_are_rows_of_the_json(capsys):
    """etcd #8295, #3624, #9531: exit code 0 on a dead node; dead nodes missing from the JSON."""
    with contextlib.ExitStack() as stack:
        nodes = {"n1": stack.enter_context(Cluster(Config(node_id="n1", bootstrap=True, **FREE)))}
        addresses = nodes["n1"].ref.addresses()
        for name in ("n2", "n3"):
            nodes[name] = stack.enter_context(Cluster(Config(node_id=name, seeds_csv=addresses["gossip"], **FREE)))
            nodes["n1"].join(name, nodes[name].ref.addresses()["raft"])
        wait_for(lambda: ask(capsys, addresses["mgmt"])[0] == 0, WAIT, "all is well")
        nodes["n3"].stop()
        wait_for(lambda: ask(capsys, addresses["mgmt"])[0] == 1, WAIT, "degraded")
        code, document = ask(capsys, addresses["mgmt"])
        assert [row["ID"] for row in document["Members"]] == ["n1", "n2", "n3"]
        assert "voters not heard: n3" in document["Warnings"][0]
        nodes["n2"].stop()
        wait_for(lambda: ask(capsys, addresses["mgmt"])[0] == 2, WAIT, "no quorum")
        code, document = ask(capsys, addresses["mgmt"])
        assert (code, document["Healthy"]) == (2, False)
        assert [row["ID"] for row in document["Members"]] == ["n1", "n2", "n3"]
        dead = addresses["mgmt"]
        nodes["n1"].stop()
        assert ask(capsys, dead) == (2, None), "nobody answers: a line on standard error, and code 2"
