"""The small examples as a user runs them, with ports of their own. (The guide's service has its own file; the pytest example runs with `coterie.testing`.)"""

from __future__ import annotations

import concurrent.futures
import json
import signal
import sys
import threading
from pathlib import Path

import httpx
import pytest

from examples.leader_job import Ledger, Refused
from tests.product.commands import Program, clusterctl
from tests.product.nodes import free_port
from tests.product.wait import wait_for

PATIENCE = 60.0
NAMES = ("n1", "n2", "n3")


def test_hello() -> None:
    program = Program(sys.executable, "-m", "examples.hello")
    assert program.process.wait(60) == 0, program.text
    program.kill()
    assert program.lines[0] == "hello world"
    assert sorted(program.lines[1:]) == ["greetings: hello, cluster", "published as number 1 of greetings"]


# -- FastAPI ----------------------------------------------------------------------------------------------------------------------


def test_fastapi_application_is_a_member_and_answers_while_it_publishes(monkeypatch: pytest.MonkeyPatch) -> None:
    http, gossip = [free_port(), free_port()], [free_port(), free_port()]
    raft, mgmt = [free_port(), free_port()], [free_port(), free_port()]
    programs = []
    try:
        for number in (0, 1):
            for name, value in {
                "ID": f"app{number}",
                "RAFT_ADDR": f"127.0.0.1:{raft[number]}",
                "MEM_BIND": f"127.0.0.1:{gossip[number]}",
                "MGMT_ADDR": f"127.0.0.1:{mgmt[number]}",
                "BOOTSTRAP": "1" if number == 0 else "",
                "JOIN": f"127.0.0.1:{gossip[0]}" if number else "",
            }.items():
                monkeypatch.setenv(f"COTERIE_{name}", value)
            programs.append(Program(sys.executable, "-m", "uvicorn", "examples.fastapi_app:app", "--port", str(http[number])))
            programs[-1].wait_line("Application startup complete", PATIENCE)
        ran = clusterctl("join", "--id", "app1", "--raft-addr", f"127.0.0.1:{raft[1]}", "--addr", f"127.0.0.1:{mgmt[0]}")
        assert ran.returncode == 0, ran
        with httpx.Client(trust_env=False, timeout=PATIENCE, limits=httpx.Limits(max_connections=20)) as client:
            first, second = (f"http://127.0.0.1:{port}" for port in http)
            with concurrent.futures.ThreadPoolExecutor(20) as pool:
                created = list(pool.map(lambda n: client.post(f"{(first, second)[n % 2]}/orders/o{n}").json(), range(60)))
                assert client.get(f"{first}/status").json()["leader"] == "app0"
            assert sorted(one["seq"] for one in created) == list(range(1, 61))
            assert client.post(f"{first}/orders/o7").json() == created[7], "a retry is not published twice"
            in_order = [one["order"] for one in sorted(created, key=lambda one: one["seq"])]
            for url in (first, second):
                wait_for(lambda url=url: client.get(f"{url}/orders").json() == in_order, PATIENCE, f"{url} has had all, in one order")
            assert client.post(f"{second}/reserve/7").json() == {"answer": "reserve 7"}
            assert set(client.get(f"{second}/status").json()["members"]) == {"app0", "app1"}
        for program in reversed(programs):
            assert program.stop(signal.SIGINT, PATIENCE) in (0, -signal.SIGINT), program.text
            assert "Traceback" not in program.text, program.text
    finally:
        for program in programs:
            program.kill()


# -- a job on the leader ----------------------------------------------------------------------------------------------------------


def test_a_job_runs_on_the_leader_alone_and_its_token_only_grows(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    ledger = Ledger(path)
    ports = {name: [free_port() for _ in range(3)] for name in NAMES}
    running: dict[str, Program] = {}
    try:
        for name in NAMES:
            running[name] = Program(
                *(sys.executable, "-m", "examples.leader_job", name, "--ledger", str(path)),
                *("--ports", ",".join(map(str, ports[name])), "--seed", f"127.0.0.1:{ports['n1'][1]}"),
            )
            running[name].wait_line(f"READY {name}", PATIENCE)
        for name in NAMES[1:]:
            ran = clusterctl("join", "--id", name, "--raft-addr", f"127.0.0.1:{ports[name][0]}", "--addr", f"127.0.0.1:{ports['n1'][2]}")
            assert ran.returncode == 0, ran
        running["n1"].wait_line("JOB n1 token=2 count=3", PATIENCE)
        assert not any("JOB" in line for name in NAMES[1:] for line in running[name].lines)

        running["n1"].process.kill()
        left = NAMES[1:]
        wait_for(lambda: any("JOB starts" in running[name].text for name in left), PATIENCE, "another has taken over")
        wait_for(lambda: ledger.read().get("by") in left, PATIENCE, "and works")
        leader = ledger.read()["by"]
        other = next(name for name in left if name != leader)
        assert ledger.read()["token"] > 2
        assert "JOB" not in running[other].text

        assert running[leader].stop(signal.SIGTERM, PATIENCE) == 0
        assert running[leader].lines[-1] == f"JOB stops on {leader}"
    finally:
        for program in running.values():
            program.kill()


def test_the_ledger_refuses_an_old_token_and_counts_for_all_at_once(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.json")
    assert [ledger.add(2, "n1"), ledger.add(3, "n2"), ledger.add(3, "n2")] == [1, 2, 3]
    with pytest.raises(Refused, match="token 2 of n1 is older than 3"):
        ledger.add(2, "n1")
    threads = [threading.Thread(target=lambda: [ledger.add(4, "n3") for _ in range(20)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ledger.add(4, "n3") == 84


# -- a replicated key-value store -------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_the_key_value_store_keeps_what_it_answered_when_nodes_are_killed(tmp_path: Path) -> None:
    ports = {name: [free_port() for _ in range(4)] for name in NAMES}
    urls = {name: f"http://127.0.0.1:{ports[name][3]}" for name in NAMES}
    running: dict[str, Program] = {}

    def start(name: str) -> None:
        running[name] = Program(
            *(sys.executable, "-m", "examples.kv", name, "--data", str(tmp_path), "--snapshot-every", "20"),
            *("--ports", ",".join(map(str, ports[name])), "--seed", f"127.0.0.1:{ports['n1'][1]}"),
        )
        running[name].wait_line(f"READY {name}", PATIENCE)

    def local(name: str, key: str) -> str | None:
        value: str | None = client.get(f"{urls[name]}/{key}?local").json()["value"]
        return value

    with httpx.Client(trust_env=False, timeout=PATIENCE) as client:
        try:
            for name in NAMES:
                start(name)
            for name in NAMES[1:]:
                ran = clusterctl(
                    "join", "--id", name, "--raft-addr", f"127.0.0.1:{ports[name][0]}", "--addr", f"127.0.0.1:{ports['n1'][2]}"
                )
                assert ran.returncode == 0, ran
            assert client.put(f"{urls['n1']}/colour", content="blue").json()["done"]
            assert client.get(f"{urls['n2']}/colour").json()["value"] == "blue"
            retry = f"{urls['n3']}/colour?if=blue&client=me&number=1"
            first = client.put(retry, content="green").json()
            assert first == {"index": 3, "done": True, "value": "green", "before": "blue"}
            assert client.put(retry, content="green").json() == first, "a retry changes nothing and has the first answer"
            refused = client.put(f"{urls['n1']}/colour?if=blue", content="red")
            assert (refused.status_code, refused.json()["value"]) == (409, "green")
            for n in range(50):
                assert client.put(f"{urls[NAMES[n % 3]]}/k{n % 7}", content=str(n)).status_code == 200
            answer = json.loads(clusterctl("apply", "get", '{"key":"colour"}', "--addr", f"127.0.0.1:{ports['n2'][2]}").stdout)
            assert json.loads(answer["text"])["value"] == "green"

            running["n1"].kill()
            wait_for(lambda: client.put(f"{urls['n2']}/after", content="kill").status_code == 200, PATIENCE, "the others go on")
            assert client.delete(f"{urls['n3']}/k1").json()["before"] == "43"
            start("n1")
            wait_for(lambda: local("n1", "after") == "kill" and local("n1", "k1") is None, PATIENCE, "n1 has caught up")
            assert local("n1", "k2") == "44"

            for name in NAMES:
                running[name].kill()
            for name in NAMES:
                start(name)
            wait_for(lambda: client.get(f"{urls['n3']}/colour").status_code == 200, PATIENCE, "there is a leader")
            assert client.get(f"{urls['n1']}/colour").json()["value"] == "green"
            assert client.put(retry, content="green").json() == first, "the retry is known after all have started again"
            for name in NAMES:
                wait_for(lambda name=name: local(name, "k0") == "49", PATIENCE, f"{name} has the store")
        finally:
            for program in running.values():
                program.kill()
