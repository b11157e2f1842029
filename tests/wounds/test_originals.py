"""What hashicorp/raft and hashicorp/memberlist themselves do where docs/wounds.md says that they were hurt: their newest releases, in the situation of the row.

The program (`tests/interop/go/originals`) runs all nodes in one process. A test that fails here says that the original has changed, and that its row wants
other words; how a node of ours behaves is in the tests that the row names first.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from tests.interop.support import BUILD_TIMEOUT, SOURCES, build_programs

pytestmark = [pytest.mark.go, pytest.mark.long, pytest.mark.timeout(400)]

Original = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Original:
    """Runs a situation and gives what was found."""
    build_programs()  # skips, with the reason, where there is no Go
    program = tmp_path_factory.mktemp("originals") / "originals"
    environment = os.environ | {"CGO_ENABLED": "0", "GOWORK": "off"}
    command = ["go", "build", "-o", str(program), "./originals"]
    built = subprocess.run(command, cwd=SOURCES, env=environment, capture_output=True, text=True, timeout=BUILD_TIMEOUT, check=False)
    assert built.returncode == 0, built.stderr

    def run(situation: str) -> dict[str, Any]:
        ran = subprocess.run([program, situation], capture_output=True, text=True, timeout=300, check=False)
        assert ran.returncode == 0, ran.stderr[-4000:]
        found: dict[str, Any] = json.loads(ran.stdout)
        print(f"{situation}: {found}")
        return found

    return run


def test_a_leader_of_hashicorp_raft_whose_disk_hangs_stays_leader_and_commits_nothing(original: Original) -> None:
    """hashicorp/raft 503, 612, 614, 666: its heartbeats reach both followers all the time, so nobody campaigns, and who waits for a command waits for ever."""
    found = original("hang")
    assert found["election_timeouts"] == 5
    assert found["deposed"] is False, "it leads, and all three say so, whenever they are asked"
    assert found["terms_passed"] == 0
    assert found["silence"] < 1, "no follower went without a heartbeat for an election time-out"
    assert found["committed"] is False
    assert found["answered"] is False, "the time-out that Apply takes is for the queue, not for the outcome"


def test_a_follower_of_hashicorp_raft_with_another_log_at_the_end_of_the_snapshot_takes_it_again_and_again(original: Original) -> None:
    """hashicorp/raft 697: it keeps its own entry where the snapshot ends, refuses what follows, and is sent the same snapshot without a pause."""
    found = original("diverged")
    assert found["first_six"] == [found["snapshot"]] * 6
    assert found["installed"] > 6
    assert found["caught_up"] is False


def test_hashicorp_raft_compacts_what_follows_a_snapshot_under_way_and_the_follower_needs_the_next(original: Original) -> None:
    """hashicorp/raft 212; consul 9609: with few trailing logs, each install ends behind the log's beginning, as long as the leader writes and compacts."""
    found = original("slow")
    first, *later = found["first_six"]
    assert first == found["snapshot"]
    assert later == [first + 20 * round_ for round_ in range(1, 6)], "one more snapshot for each that was taken meanwhile"
    assert found["caught_up"] is True, "once the leader rests"


def test_a_member_of_hashicorp_memberlist_that_restarts_at_incarnation_1_stays_dead_to_who_remembers_more(original: Original) -> None:
    """memberlist 311, 345: it hears nothing of what is said of it, until one of its push/pulls happens to go to one who says it."""
    found = original("restart")
    assert found["a_sees_b"] is True and found["b_sees_c"] is True
    assert found["b_stays_dead_to_c"] is True
    assert found["back_after_push_pull"] is True


def test_one_message_with_the_highest_incarnation_takes_a_member_of_hashicorp_memberlist_out(original: Original) -> None:
    """memberlist 358: the incarnation with which it refutes wraps around to 0. It is out until the others forget it (GossipToTheDeadTime), not for ever."""
    found = original("highest")
    assert found["evicted"] is True
    assert found["b_sees_both"] is True, "it is well, and does not know"
    assert found["back_after_push_pulls"] is False
    assert found["back_after_it_was_forgotten"] is True
