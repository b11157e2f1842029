"""The check of histories finds what is wrong: for each promise, a history that breaks it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.chaos.clients import History, left_open
from tests.chaos.histories import FOREVER, Operation, check_lists, read_operations
from tests.product.checks import Place


def append(name: str, began: int, ended: int = FOREVER, outcome: str = "ok", seq: int = 0, target: str = "l") -> Operation:
    return Operation(name, name.split(".")[0], "append", target, None, began, ended, outcome, [seq, seq + 10] if outcome == "ok" else None)


def stands(*names: str) -> dict[str, list[Place]]:
    return {"l": [Place(seq + 10, "", name) for seq, name in enumerate(names, start=1)]}


def test_what_overlaps_may_stand_either_way() -> None:
    operations = [append("a", 1, 5, seq=2), append("b", 2, 4, seq=1), append("c", 6, 7, seq=3)]
    assert check_lists(stands("b", "a", "c"), operations) == {"ok": 3}


def test_what_began_after_another_had_ended_stands_behind_it() -> None:
    with pytest.raises(AssertionError, match=r"not linearizable: a stands in 'l' at seq 2, behind b, which began"):
        check_lists(stands("b", "a"), [append("a", 1, 2, seq=2), append("b", 3, 4, seq=1)])


def test_the_order_holds_also_past_what_stands_between() -> None:
    """a ended before c began; b overlaps both."""
    operations = [append("a", 1, 2, seq=3), append("b", 1, 9, seq=2), append("c", 3, 4, seq=1)]
    with pytest.raises(AssertionError, match="not linearizable: a stands"):
        check_lists(stands("c", "b", "a"), operations)


def test_an_unknown_outcome_may_take_effect_late_or_never_but_not_before_it_began() -> None:
    late, never, done = append("a", 1, outcome="unknown"), append("b", 1, outcome="unknown"), append("c", 5, 6, seq=1)
    assert check_lists(stands("c", "a"), [late, never, done]) == {"ok": 1, "unknown, there": 1, "unknown, not there": 1}
    early = append("a", 7, outcome="unknown")
    with pytest.raises(AssertionError, match="not linearizable: c stands in 'l' at seq 2, behind a"):
        check_lists(stands("a", "c"), [early, append("c", 5, 6, seq=2)])


@pytest.mark.parametrize(
    ("names", "operations", "finding"),
    [
        ((), [append("a", 1, 2, seq=1)], "acknowledged and lost"),
        (("a",), [append("a", 1, 2, "no")], "refused, and yet carried out"),
        (("a", "a"), [append("a", 1, 2, seq=1)], "stands at seq 1 and at 2"),
        (("b", "a"), [append("a", 1, 9, seq=1), append("b", 1, 9, seq=2)], r"acknowledged with seq and index \[1, 11\] and stands at"),
        (("x",), [append("a", 1, 2, seq=1)], "nobody appended 'x'"),
        (("a",), [append("b", 1, target="l"), append("a", 1, 2, seq=1, target="other")], "was appended to 'other'"),
    ],
)
def test_each_broken_promise_is_found(names: tuple[str, ...], operations: list[Operation], finding: str) -> None:
    with pytest.raises(AssertionError, match=finding):
        check_lists(stands(*names), operations)


def test_what_is_written_down_is_read_back_and_a_process_that_died_leaves_its_appends_open(tmp_path: Path) -> None:
    path = tmp_path / "n1.history"
    history = History(str(path))
    history.begin("n1.p0.1.0", "n1.p0.1", "append", "l", None)
    history.end("n1.p0.1.0", "ok", [1, 11])
    history.begin("n1.r0.1.0", "n1.r0.1", "append", "l", "id")
    history.begin("n1.r0.1.1", "n1.r0.1", "append", "m", "id")
    history.end("n1.r0.1.0", "ok", [2, 12])
    history.begin("n1.p0.1.1", "n1.p0.1", "append", "l", None)
    assert left_open(str(path)) == [("n1.r0.1.1", "m")]
    operations = read_operations([path])
    assert [(operation.name, operation.outcome) for operation in operations] == [
        ("n1.p0.1.0", "ok"),
        ("n1.r0.1.0", "ok"),
        ("n1.r0.1.1", "unknown"),
        ("n1.p0.1.1", "unknown"),
    ]
    assert all(operation.ended == FOREVER for operation in operations if operation.outcome == "unknown")
    assert len(path.read_text().splitlines()) == len([json.loads(line) for line in path.read_text().splitlines()]) == 6


def test_nothing_is_left_open_where_there_was_no_life_before(tmp_path: Path) -> None:
    assert left_open(str(tmp_path / "none")) == []
