"""Seeds from files, or from an environment variable that wins over them.

One seed a line or several with commas between; `#` begins a comment. The path may be a pattern (`/etc/cluster/*.seeds`, `**` for any depth); the files are read
in the order of their names at every refresh, which is how a change is noticed: watching for events lost, since it tells nothing on network file systems.

Whoever rewrites a file in place makes it empty for a moment, and a mount may be away for longer. So a file that cannot be read or names no seed keeps the
seeds it had, with a problem shown, and so do files of which a pattern suddenly finds none. A file that is gone while others match the pattern takes its seeds
along: that is how one is removed.
"""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from coterie.actors.membership.discovery import Found, seed_problem

MOST_BYTES: Final = 1 << 20
PROBLEMS_SHOWN: Final = 5  # bad lines of one source


class Read(NamedTuple):
    seeds: tuple[str, ...]
    problems: tuple[str, ...]


class FileSeeds:
    """path: a file or a pattern, "" for none. variable: the name of an environment variable, "" for none; when it is set and not blank, only it counts."""

    def __init__(self, path: str, variable: str, refresh: float, environ: Mapping[str, str] = os.environ) -> None:
        self.refresh: float | None = refresh
        self._path, self._variable, self._environ = path, variable, environ
        self._kept: dict[str, tuple[str, ...]] = {}  # by file, what it last named

    def find(self) -> Found:
        told = self._environ.get(self._variable, "") if self._variable else ""
        if told.strip():
            return Found(*read_seeds(told, self._variable))
        if self._path:
            return self._find_in_files()
        return Found((), (f"the environment variable {self._variable} is not set, and there is no file_path; nobody can be found",))

    def _find_in_files(self) -> Found:
        names = [self._path]
        if glob.has_magic(self._path):
            names = sorted(glob.glob(self._path, recursive=True))  # noqa: PTH207 - pathlib takes no absolute pattern
        if not names:
            stay = ", and the seeds last found stay in use" if any(self._kept.values()) else ""
            return Found(self._seeds(), (f"no file matches {self._path}{stay}",))
        problems: list[str] = []
        now: dict[str, tuple[str, ...]] = {}
        for name in names:
            before = self._kept.get(name, ())
            try:
                seeds, bad = read_seeds(_text(name), name)
            except (OSError, UnicodeDecodeError) as error:
                seeds, bad = (), (f"{name} cannot be read: {getattr(error, 'strerror', None) or error}",)
            if not seeds and not bad:
                bad = (f"{name} names no seed",)
            if not seeds and before:
                seeds, bad = before, (*bad, f"the seeds that {name} last named stay in use")
            now[name] = seeds
            problems += bad
        self._kept = now
        return Found(self._seeds(), tuple(problems))

    def _seeds(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(seed for seeds in self._kept.values() for seed in seeds))


def read_seeds(text: str, source: str) -> Read:
    """The seeds in `text`; a part that is none becomes a problem, with its line."""
    seeds: dict[str, None] = {}
    problems: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        for part in filter(None, (part.strip() for part in line.partition("#")[0].split(","))):
            problem = seed_problem(part)
            if problem:
                problems.append(f"{source}, line {number}: {problem}")
            else:
                seeds[part] = None
    more = len(problems) - PROBLEMS_SHOWN
    return Read(tuple(seeds), (*problems[:PROBLEMS_SHOWN], *([f"{source}: {more} more lines are no seeds"] if more > 0 else [])))


def _text(name: str) -> str:
    """Raises OSError, UnicodeDecodeError. Only of what is a file: reading a pipe would never end."""
    path = Path(name)
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError("it is no regular file")
    if found.st_size > MOST_BYTES:
        raise OSError(f"it has {found.st_size} bytes, and at most {MOST_BYTES} are read")
    with path.open("rb") as file:
        return file.read(MOST_BYTES).decode("utf-8-sig")
