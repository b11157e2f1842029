"""Seeds from files and from the environment: what is read, what a bad line costs, and that good seeds are not lost with a file."""

from __future__ import annotations

import os

import pytest

from coterie.actors.membership.discovery import Found
from coterie.actors.membership.file_seeds import MOST_BYTES, FileSeeds


@pytest.fixture
def path(tmp_path):
    return tmp_path / "seeds"


def seeds_of(path, variable="", environ=None):
    return FileSeeds(str(path), variable, 5.0, environ or {})


def test_one_a_line_or_several_with_commas_and_comments(path):
    path.write_text("# ours\n10.0.0.1:7946\n\n  10.0.0.2:7946 , db-3:8946,  # two of them\n[::1]:7946\r\n10.0.0.1:7946\n")
    assert seeds_of(path).find() == Found(("10.0.0.1:7946", "10.0.0.2:7946", "db-3:8946", "[::1]:7946"))


def test_the_mark_that_some_editors_put_first_is_no_part_of_a_seed(path):
    path.write_bytes(b"\xef\xbb\xbf10.0.0.1:7946\n")
    assert seeds_of(path).find() == Found(("10.0.0.1:7946",))


def test_a_bad_line_is_named_and_costs_no_other(path):
    path.write_text("10.0.0.1:7946\n10.0.0.2\n:7946, 10.0.0.3:7946, 10.0.0.4:0\n")
    found = seeds_of(path).find()
    assert found.seeds == ("10.0.0.1:7946", "10.0.0.3:7946")
    assert [problem.split(": ")[0] for problem in found.problems] == [f"{path}, line 2", f"{path}, line 3", f"{path}, line 3"]


def test_many_bad_lines_are_a_number(path):
    path.write_text("nonsense\n" * 100)
    problems = seeds_of(path).find().problems
    assert len(problems) == 6
    assert "95 more" in problems[-1]


def test_a_change_is_seen_at_the_next_look(path):
    path.write_text("a:1\nb:2")
    seeds = seeds_of(path)
    assert seeds.find().seeds == ("a:1", "b:2")
    path.write_text("b:2\nc:3")
    assert seeds.find() == Found(("b:2", "c:3"))


def make_nothing(path):
    path.unlink()


def make_empty(path):
    path.write_text("# moved\n")


def make_binary(path):
    path.write_bytes(b"\xff\xfe\x00")


def make_directory(path):
    path.unlink()
    path.mkdir()


def make_pipe(path):
    path.unlink()
    os.mkfifo(path)


def make_huge(path):
    path.write_bytes(b"#" * (MOST_BYTES + 1))


def make_nonsense(path):
    path.write_text("<html>503</html>")


@pytest.mark.parametrize("harm", [make_nothing, make_empty, make_binary, make_directory, make_pipe, make_huge, make_nonsense])
def test_a_file_that_is_spoilt_keeps_the_seeds_it_had_and_says_so(path, harm):
    path.write_text("a:1")
    seeds = seeds_of(path)
    assert seeds.find() == Found(("a:1",))
    harm(path)
    for _ in range(2):
        found = seeds.find()
        assert found.seeds == ("a:1",)
        assert str(path) in found.problems[0]
        assert "stay in use" in found.problems[-1]


@pytest.mark.parametrize("harm", [make_nothing, make_empty, make_binary, make_directory, make_pipe, make_huge, make_nonsense])
def test_a_file_that_is_bad_from_the_start_is_a_problem_and_later_a_seed(tmp_path, path, harm):
    path.write_text("")
    harm(path)
    seeds = seeds_of(path)
    found = seeds.find()
    assert found.seeds == ()
    assert str(path) in found.problems[0]
    if path.is_dir():
        path.rmdir()
    path.unlink(missing_ok=True)
    path.write_text("a:1")
    assert seeds.find() == Found(("a:1",))


def test_a_pattern_takes_files_as_they_come_and_go(tmp_path):
    seeds = seeds_of(tmp_path / "*.seeds")
    assert "no file matches" in seeds.find().problems[0]
    (tmp_path / "b.seeds").write_text("b:2")
    (tmp_path / "a.seeds").write_text("a:1, b:2")
    (tmp_path / "c.txt").write_text("c:3")
    assert seeds.find() == Found(("a:1", "b:2"))
    (tmp_path / "a.seeds").unlink()
    assert seeds.find() == Found(("b:2",))
    (tmp_path / "b.seeds").unlink()
    found = seeds.find()
    assert found.seeds == ("b:2",)
    assert "stay in use" in found.problems[0]


def test_the_variable_wins_while_it_is_set(path):
    path.write_text("a:1")
    environ = {"SEEDS": "b:2,c:3\nd:4"}
    seeds = seeds_of(path, "SEEDS", environ)
    assert seeds.find() == Found(("b:2", "c:3", "d:4"))
    environ["SEEDS"] = "b:2,nonsense"
    assert seeds.find().seeds == ("b:2",)
    assert "SEEDS, line 1" in seeds.find().problems[0]
    environ["SEEDS"] = "  "
    assert seeds.find() == Found(("a:1",))
    del environ["SEEDS"]
    assert seeds.find() == Found(("a:1",))


def test_a_variable_alone_that_is_not_set_is_a_problem(path):
    found = FileSeeds("", "SEEDS", 5.0, {}).find()
    assert found.seeds == ()
    assert "SEEDS is not set" in found.problems[0]
