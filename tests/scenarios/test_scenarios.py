"""Each text under `raft/` is played, and what the servers said is what it says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.scenarios.runner import Scenario, play, rewritten, steps

FILES = sorted((Path(__file__).parent / "raft").glob("*.txt"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_scenario(path: Path) -> None:
    played = play(path)
    if os.environ.get("SCENARIOS_REWRITE"):
        path.write_text(rewritten(path, played))
        return
    for step, said in played:
        assert said == list(step.wanted), f"{path.name}, line {step.line}: {step.text}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_says_what_it_is_about_and_checks_something(path: Path) -> None:
    assert path.read_text().startswith("# ")
    assert any(step.wanted for step in steps(path))


def test_each_number_is_given_once() -> None:
    assert [path.name[:2] for path in FILES] == [f"{number:02}" for number in range(1, len(FILES) + 1)]


def test_a_step_that_is_none_is_an_error() -> None:
    with pytest.raises(ValueError, match="no step is called 'dance'"):
        Scenario().do("dance n1")
