"""A page of the documentation as a program: its commands and its Python, in the order in which a reader meets them.

What a fenced block says about itself:

- ```` ```console ````: lines that begin with `$ ` are commands (one that ends in a backslash goes on in the next line); the others are sample output;
- ```` ```python ````: a complete program;
- any block with `title="NAME"`: a file of that name, which is written and not run.

and what an HTML comment in the lines before it says: `not run: REASON` (cannot be run by a test), `part` (of a program, not a whole one), `exit: N` (the last
command ends with this code, else 0), `stays` (its commands are servers, and stay in the background),
`output` (the sample is compared with what was printed; `…` in it stands for anything).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import attrs

FENCE: Final = re.compile(r"^( *)```(\w*)(.*)$")
COMMENT: Final = re.compile(r"^ *<!-- (.*?) -->$")
TITLE: Final = re.compile(r'title="([^"]+)"')


@attrs.frozen
class Block:
    line: int  # of its first fence, from 1
    kind: str
    title: str
    said: tuple[str, ...]  # the comments before it
    text: str

    @property
    def not_run(self) -> bool:
        return any(comment.startswith("not run: ") or comment == "part" for comment in self.said)

    @property
    def exit_code(self) -> int:
        return next((int(comment.removeprefix("exit: ")) for comment in self.said if comment.startswith("exit: ")), 0)

    @property
    def commands(self) -> list[tuple[str, list[str]]]:
        """Of a console block: each command, and the sample of its output."""
        found: list[tuple[str, list[str]]] = []
        for line in self.text.splitlines():
            if line.startswith("$ "):
                found.append((line.removeprefix("$ "), []))
            elif found and found[-1][0].endswith("\\") and not found[-1][1]:
                found[-1] = (found[-1][0] + "\n" + line, [])
            elif found:
                found[-1][1].append(line)
        return found


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found: list[Block] = []
    said: list[str] = []
    lines = iter(enumerate(page.read_text().splitlines(), 1))
    for number, line in lines:
        if comment := COMMENT.match(line):
            said.append(comment[1])
        elif fence := FENCE.match(line):
            body: list[str] = []
            for _, inner in lines:
                if inner.strip() == "```":
                    break
                body.append(inner.removeprefix(fence[1]))
            title = TITLE.search(fence[3])
            found.append(Block(number, fence[2], title[1] if title else "", tuple(said), "".join(f"{text}\n" for text in body)))
            said = []
        elif line.strip():
            said = []
    return found


def runs(block: Block) -> bool:
    """Whether the block does something when its page is run."""
    return bool(block.title) or (not block.not_run and (block.kind == "python" or bool(block.kind == "console" and block.commands)))
