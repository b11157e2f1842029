"""The benchmarks run, and their summary says what the figures say. (What the figures are worth is not a test's business.)"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as bench
from benchmarks import common, trials
from benchmarks.rows import Row, number, ratio
from benchmarks.summary import summarize

ROOT = Path(__file__).parents[2]


def benchmark(*arguments: str, timeout: float = 90) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False)


@pytest.mark.parametrize(
    "command",
    [
        ("benchmarks.ceiling",),
        ("benchmarks.ceiling", "--packed"),
        ("benchmarks.raft_alone",),
        ("benchmarks.publish",),
        ("benchmarks.publish", "--from-follower", "--acks", "leader"),
        ("benchmarks.pysyncobj_peer",),
    ],
    ids=" ".join,
)
def test_a_system_measures_the_levels_that_it_is_asked_for(command: tuple[str, ...]) -> None:
    done = benchmark(*command, "--scale", "0.001", "--levels", "1,16")
    assert done.returncode == 0, done.stderr
    levels = json.loads(done.stdout.splitlines()[-1])
    assert list(levels) == ["1", "16"]
    for figures in levels.values():
        assert figures["rate"] > 0
        assert 0 < figures["p50_ms"] <= figures["p99_ms"]


@pytest.mark.long
@pytest.mark.parametrize("name", ["publish-many", "payload", "frozen", "restart", "catchup", "memory", "steady"])
def test_each_trial_gives_its_rows(name: str, tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    done = benchmark("benchmarks", name, "--rounds", "1", "--scale", "0.01", "--json", str(file))
    assert done.returncode == 0, done.stderr
    rows = json.loads(file.read_text())["targets"]
    assert rows
    assert all(row["figure"] >= 0 for row in rows)


@pytest.mark.go
def test_the_go_peer_is_measured_or_says_why_not() -> None:
    done = benchmark("benchmarks.go_peer", "--scale", "0.001", "--levels", "1,256")
    assert done.returncode == 0, done.stderr
    levels = json.loads(done.stdout.splitlines()[-1])
    if "skipped" in levels:
        pytest.skip(levels["skipped"])
    assert list(levels) == ["1", "256"]
    assert all(figures["rate"] > 0 for figures in levels.values())


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_idle_nodes_are_weighed() -> None:
    done = benchmark("benchmarks.idle", "--scale", "0.01")
    assert done.returncode == 0, done.stderr
    nodes = json.loads(done.stdout.splitlines()[-1])
    assert list(nodes) == ["n1", "n2", "n3"]
    assert all(node["cpu_percent"] >= 0 and node["rss_mb"] > 1 for node in nodes.values())


def test_who_is_still_busy_at_its_end_is_waited_for_and_otherwise_missed_aloud(capfd: pytest.CaptureFixture[str]) -> None:
    program = "import sys, time; print('there', flush=True); sys.stdin.read(); time.sleep(float(sys.argv[1])); print('the profile', file=sys.stderr)"
    for seconds, patience in (("0.2", common.PATIENCE), ("60", 0.05)):
        process = common.Process("n3", [sys.executable, "-c", program, seconds])
        assert process.hear() == "there"
        process.end(patience)
        assert process.process.poll() is not None
        process.kill()  # closes its pipes
    said = capfd.readouterr().err
    assert said == "the profile\nthe process 'n3' did not end within 0.05 s and was killed: what it would have said is missing\n"


@pytest.mark.timeout(300)
def test_the_profile_names_the_threads() -> None:
    done = benchmark("benchmarks.profile", "raft", "--scale", "0.01", "--levels", "1024", "--how", "threads", timeout=280)
    assert done.returncode == 0, done.stderr
    assert "== leader n1" in done.stderr
    assert "n1/raft" in done.stderr


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="since Python 3.12 cProfile watches one thread of a process only")
@pytest.mark.timeout(300)
def test_the_profile_names_the_functions_of_each_thread() -> None:
    done = benchmark("benchmarks.profile", "raft", "--scale", "0.01", "--levels", "1024", "--how", "wall", timeout=280)
    assert done.returncode == 0, done.stderr
    assert "== leader n1" in done.stderr
    assert "== follower n3" in done.stderr
    assert "-- n1/raft\n" in done.stderr


def test_the_command_writes_json_with_machine_figures_and_targets(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    done = benchmark("benchmarks", "--rounds", "1", "bare", "raft", "--scale", "0.001", "--json", str(file))
    assert done.returncode == 0, done.stderr
    assert "Raft alone" in done.stdout
    result = json.loads(file.read_text())
    assert result["machine"]["processors"] == os.cpu_count()
    assert result["ratios"]["raft"].keys() == {"1", "16", "256", "1024"}
    assert [row["what"] for row in result["targets"]] == ["Raft alone, 1024 in flight"]
    assert result["targets"][0]["beside"] == "bare"


def test_a_system_that_fails_is_an_error_with_what_it_said() -> None:
    figures = trials.run(trials.System("broken", ("benchmarks.no_such_module",)), scale=0.001)
    assert "No module named benchmarks.no_such_module" in figures["error"]


def test_an_unknown_system_is_refused_with_the_names_of_the_known(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench.parse(["bare", "rift"])
    assert "['rift']: give some of bare,packed,raft" in capsys.readouterr().err


def one(rate: float, p50: float) -> dict[str, Any]:
    return {level: {"rate": rate, "p50_ms": p50, "p99_ms": p50} for level in ("1", "1024")}


def test_ratios_are_made_within_a_round_and_a_failed_run_takes_no_part() -> None:
    fast, slow = {"bare": one(100.0, 1.0), "raft": one(80.0, 1.5)}, {"bare": one(10.0, 10.0), "raft": one(9.0, 15.0)}
    failed = {"bare": one(1000.0, 1.0), "raft": {"error": "it fell over"}}
    summary = summarize({"rounds": [fast, slow, failed], "trials": {}})
    assert summary["ratios"]["raft"]["1024"] == pytest.approx(0.85)
    assert summary["medians"]["bare"]["1024"]["rate"] == 100.0
    assert summary["errors"] == {"raft, round 3": "it fell over"}
    (row,) = summary["targets"]
    assert row["what"] == "Raft alone, 1024 in flight"
    assert (row["value"], row["bound"], row["at_least"], row["ok"]) == (pytest.approx(0.85), 0.75, True, True)
    assert (row["figure"], row["beside"], row["baseline"]) == (pytest.approx(44.5), "bare", 100.0)


def test_a_missed_target_is_said() -> None:
    nodes = {"n1": {"cpu_percent": 1.0, "rss_mb": 60.0}, "n2": {"cpu_percent": 2.5, "rss_mb": 70.0}}
    rows = summarize({"rounds": [], "trials": {"idle": nodes}})["targets"]
    assert [(row["what"], row["value"], row["ok"]) for row in rows] == [
        ("idle node, of a core", 2.5, False),
        ("idle node, resident", 70.0, True),
    ]


def test_the_rows_of_a_trial_stand_among_the_targets_and_what_was_skipped_is_said() -> None:
    row = ratio("catch-up", 60_000.0, "/s", "healthy", 120_000.0, 0.8)
    summary = summarize({"rounds": [{"hashicorp": {"skipped": "no Go"}}], "trials": {"catchup": {"rows": [row._asdict()]}}})
    assert summary["targets"] == [row._asdict() | {"ok": False}]
    assert summary["skipped"] == {"hashicorp": "no Go"}
    assert summary["errors"] == {}


def test_a_row_is_met_by_its_bound_and_one_without_a_bound_by_nothing() -> None:
    assert Row("", 1.0, "s", 1.0, 1.0, at_least=False).met is True
    assert Row("", 1.1, "s", 1.1, 1.0, at_least=False).met is False
    assert Row("", 1.1, "s", 1.1).met is None
    assert [number(value) for value in (123456.7, 12.34, 1.234, 0.01234)] == ["123,457", "12.3", "1.23", "0.0123"]


def test_the_driver_keeps_as_many_requests_open_as_it_is_told() -> None:
    most = 0
    open_now: list[object] = []

    class Request:
        def get(self, timeout: float) -> None:
            open_now.remove(self)

    def send() -> Request:
        nonlocal most
        request = Request()
        open_now.append(request)
        most = max(most, len(open_now))
        return request

    figures = common.drive(send, in_flight=7, count=50)
    assert most == 7
    assert not open_now
    assert figures["rate"] > 0
