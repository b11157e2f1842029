"""A shell for one page: commands in their order, servers in the background, in namespaces of its own where that is allowed.

As root the page has its own network and its own processes: the ports of the tutorial are always free, a `pkill` of the page hits nobody else, and what the page
leaves running ends with it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Final

from tests.product.wait import wait_for

ROOT: Final = Path(__file__).parents[2]
END: Final = "\x01end of command"
COMMAND_TIME: Final = 90.0
START_TIME: Final = 30.0

# Commands that stay, and what they say when they are up.
SERVERS: Final = re.compile(
    r"^(?:\w+=\S+ )*(?:clusterctl run|uvicorn|python -m uvicorn|python -m examples\.(?:three_node_service|fastapi_app|leader_job))\b"
)
IS_UP: Final = re.compile(r"; SIGTERM or Ctrl|READY|[Rr]unning on|listening")


def may_unshare() -> bool:
    return os.geteuid() == 0 and shutil.which("unshare") is not None and shutil.which("ip") is not None


class Shell:
    """bash in `directory`, with the commands of this environment and nothing of the caller's."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._servers = 0
        self._lines: list[str] = []
        self._changed = threading.Condition()
        inside = "exec bash --norc --noprofile"
        words = ["bash", "-c", inside]
        if may_unshare():
            words = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-c", f"ip link set lo up; {inside}"]
        environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(directory),
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "LANG": "C.UTF-8",
        }
        self._bash = subprocess.Popen(
            words, cwd=directory, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def run(self, command: str) -> tuple[int, list[str]]:
        """Run it to its end; its exit code, and the lines it printed."""
        with self._changed:
            self._lines.clear()
        self._say(f"{{ {command}\n}} </dev/null; ended=$?; echo; echo '{END}' $ended")
        with self._changed:
            ended = self._changed.wait_for(lambda: self._last().startswith(END) or self._bash.poll() is not None, COMMAND_TIME)
            lines = list(self._lines)
        assert ended, f"$ {command}\ndid not end within {COMMAND_TIME} s, but said:\n" + "\n".join(lines)
        assert lines, f"$ {command}\nended the shell"
        printed = lines[:-1]
        while printed and not printed[-1].strip():
            printed.pop()
        return int(lines[-1].rpartition(" ")[2]), printed

    def serve(self, command: str) -> None:
        """Start it in the background; returns when it says that it is up."""
        self._servers += 1
        log = self.directory / f"server-{self._servers}.log"
        log.touch()
        mark = f"ended-{self._servers}"
        self._say(f"({command}\necho '{mark}' $?) >{log} 2>&1 </dev/null &")
        wait_for(lambda: IS_UP.search(log.read_text()) or mark in log.read_text(), START_TIME, f"{command} says that it is up", every=0.05)
        assert IS_UP.search(log.read_text()), f"$ {command}\n{log.read_text()}"

    def logs(self) -> str:
        """What the servers said, each at most its last lines."""
        return "\n".join(
            f"-- {log.name}\n" + "\n".join(log.read_text().splitlines()[-25:]) for log in sorted(self.directory.glob("server-*.log"))
        )

    def close(self) -> None:
        if not may_unshare():
            self._say("kill -9 $(jobs -p); exit")
        self._bash.kill()
        self._bash.wait(10)
        self._reader.join(10)
        for stream in (self._bash.stdin, self._bash.stdout):
            assert stream is not None
            stream.close()

    def _say(self, line: str) -> None:
        assert self._bash.stdin is not None
        self._bash.stdin.write(line + "\n")
        self._bash.stdin.flush()

    def _last(self) -> str:
        return self._lines[-1] if self._lines else ""

    def _read(self) -> None:
        assert self._bash.stdout is not None
        for line in self._bash.stdout:
            with self._changed:
                self._lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()
