"""Every command and every program of README and the guides runs as it is written."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.guides.page import Block, blocks, runs
from tests.guides.shell import ROOT, SERVERS, Shell, may_unshare
from tests.product.test_tutorial import taken_port

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "examples").glob("*.md"))]
RUNNING = [page for page in PAGES if any(map(runs, blocks(page)))]
FIRST = ("README.md", "docs/tutorial.md")  # what a newcomer runs first is tried at each `make test`, the other pages by `make long`
LEFT_BEHIND = [Path(f"/tmp/cluster-n{number}") for number in (1, 2, 3)]  # by the tutorial, which names these directories


def carry_out(shell: Shell, block: Block) -> None:
    if block.title:
        path = shell.directory / block.title
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text)
    elif block.kind == "python":
        script = shell.directory / f"program-{block.line}.py"
        script.write_text(block.text)
        code, printed = shell.run(f"python -W error::ResourceWarning {script.name}")
        assert code == block.exit_code, "\n".join(printed)
    else:
        commands = block.commands
        for number, (command, sample) in enumerate(commands, 1):
            if SERVERS.match(command) or "stays" in block.said:
                shell.serve(command)
                continue
            code, printed = shell.run(command)
            wanted = block.exit_code if number == len(commands) else 0
            assert code == wanted, f"$ {command}\nended with {code}, not {wanted}:\n" + "\n".join(printed)
            if "output" in block.said:
                assert like(sample, printed), f"$ {command}\nprinted\n" + "\n".join(printed) + "\nnot\n" + "\n".join(sample)


def like(sample: list[str], printed: list[str]) -> bool:
    """Whether what was printed is the sample, in which `…` stands for anything."""
    pattern = ".*".join(map(re.escape, "\n".join(line.rstrip() for line in sample).strip().split("…")))
    return re.fullmatch(pattern, "\n".join(line.rstrip() for line in printed).strip(), re.S) is not None


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    "page", [pytest.param(page, id=named(page), marks=() if named(page) in FIRST else pytest.mark.long) for page in RUNNING]
)
def test_every_command_runs_as_written(tmp_path: Path, page: Path) -> None:
    if not may_unshare() and (port := taken_port()) is not None:
        pytest.skip(f"port {port} of the tutorial is taken on this machine, and a network of its own needs root")
    for directory in LEFT_BEHIND:
        shutil.rmtree(directory, ignore_errors=True)
    shell = Shell(tmp_path)
    try:
        for block in filter(runs, blocks(page)):
            try:
                carry_out(shell, block)
            except AssertionError as error:
                raise AssertionError(f"{named(page)}, line {block.line}:\n{error}\n{shell.logs()}") from None
    finally:
        shell.close()
        for directory in LEFT_BEHIND:
            shutil.rmtree(directory, ignore_errors=True)


def test_the_pages_have_commands_to_run() -> None:
    assert ROOT / "README.md" in RUNNING


def test_a_sample_may_leave_things_out() -> None:
    assert like(["a … c", "…"], ["a b c", "d"])
    assert not like(["a"], ["b"])


def test_blocks_are_read_with_what_is_said_of_them(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        '<!-- exit: 2 -->\n```console\n$ one \\\n  more\nsample\n$ two\n```\n\n<!-- part -->\n```python\nx\n```\n```yaml title="a.yaml"\nb: 1\n```\n'
    )
    console, python, file = blocks(page)
    assert (console.commands, console.exit_code, console.line) == ([("one \\\n  more", ["sample"]), ("two", [])], 2, 2)
    assert (runs(console), runs(python), runs(file), file.text) == (True, False, True, "b: 1\n")


def test_the_persian_tutorial_has_the_same_programs_commands_and_sections() -> None:
    english, persian = ROOT / "docs/tutorial.md", ROOT / "docs/fa/tutorial.md"
    bare = [(b.kind, b.title, b.said, b.text) for b in blocks(english)]
    assert bare == [(b.kind, b.title, b.said, b.text) for b in blocks(persian)]
    headings = [re.findall(r"^#+", page.read_text(), re.M) for page in (english, persian)]
    assert headings[0] == headings[1]
    assert '<div dir="rtl" lang="fa" markdown="1">' in persian.read_text()
