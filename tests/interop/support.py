"""Go peers for the tests: how they are built, driven and waited for.

The programs (`go/gossip`, a hashicorp/memberlist node; `go/quorum`, a hashicorp/raft server; `go/roster`, both in one, in the manner of go-cluster; `go/asker`
and `go/leader`, the two ends of go-cluster's gRPC) speak JSON lines, see `go/lines`. A `LinePeer` holds one such process, or one of ours that speaks in the same
manner. Its reader thread collects everything the process says, and whoever waits for an event does so on one condition, with a deadline. Events stay, so
nothing is missed between two waits; `since=peer.mark()` looks only at what came later.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from coterie.proto.gossip_messages import PushPull
from coterie.proto.gossip_stream import StreamDecoder, encode_stream
from coterie.proto.raft_messages import Entry

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SOURCES = HERE / "go"
PROGRAMS = HERE / "bin"
BUILD_TIMEOUT = 280.0

Said = dict[str, Any]


def build_programs() -> Path:
    """Builds the Go programs, one builder at a time; skips the test where there is no Go or its modules cannot be had.

    In CI (CI=true) modules that cannot be had fail the test: there the other implementation is not optional.
    """
    if shutil.which("go") is None:
        pytest.skip("needs a Go toolchain: no `go` on the PATH")
    PROGRAMS.mkdir(exist_ok=True)
    with (PROGRAMS / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        download = _go("mod", "download")
        if download.returncode:
            reason = f"the Go modules cannot be downloaded: {download.stderr.strip()[-500:]}"
            if os.environ.get("CI") == "true":
                pytest.fail(reason)
            pytest.skip(reason)
        build = _go("build", "-o", f"{PROGRAMS}{os.sep}", "./gossip", "./quorum", "./roster", "./asker", "./leader", "./dump")
    assert build.returncode == 0, build.stderr
    return PROGRAMS


def _go(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"CGO_ENABLED": "0", "GOWORK": "off"}
    return subprocess.run(
        ["go", *arguments], cwd=SOURCES, env=environment, capture_output=True, text=True, timeout=BUILD_TIMEOUT, check=False
    )


class PeerError(Exception):
    """A peer answered a command with an error."""


class LinePeer:
    """One process that speaks lines. `address` is where it listens, `host:port`."""

    def __init__(self, name: str, program: Path | str, *arguments: str) -> None:
        self.name = name
        self._said: list[Said] = []
        self._ended = False
        self._news = threading.Condition()
        self._numbers = itertools.count(1)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as the process
        self._process = subprocess.Popen(
            [program, *arguments], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True, bufsize=1
        )
        self._reader = threading.Thread(target=self._read, name=f"{name}/lines", daemon=True)
        self._reader.start()
        self.address: str = self.wait_for("started")["addr"]

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._news:
                self._said.append(json.loads(line))
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def said(self, event: str, since: int = 0) -> list[Said]:
        with self._news:
            return [line for line in self._said[since:] if line["event"] == event]

    def mark(self) -> int:
        with self._news:
            return len(self._said)

    def wait_for(self, event: str, matches: Callable[[Said], bool] = lambda _: True, *, within: float = 10.0, since: int = 0) -> Said:
        """The first `event` for which `matches` holds. AssertionError, with the end of its log, when it does not come in time."""
        deadline = time.monotonic() + within
        seen = since
        with self._news:
            while True:
                for line in self._said[seen:]:
                    if line["event"] == event and matches(line):
                        return line
                seen = max(seen, len(self._said))
                left = deadline - time.monotonic()
                if self._ended or left <= 0:
                    why = "it ended" if self._ended else f"not within {within} s"
                    raise AssertionError(f"{self.name}: no {event!r} as wanted: {why}\n{self.log_text()[-4000:]}")
                self._news.wait(left)

    def begin(self, do: str, **fields: object) -> int:
        """Sends a command; its number goes to `answer`."""
        number = next(self._numbers)
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, "id": number, **fields}) + "\n")
        return number

    def answer(self, number: int, within: float = 10.0) -> Said:
        """The answer to a command. Raises PeerError."""
        answer = self.wait_for("answer", lambda line: line["id"] == number, within=within)
        if answer["error"]:
            raise PeerError(f"{self.name}: {answer['error']}")
        return answer

    def ask(self, do: str, *, within: float = 10.0, **fields: object) -> Said:
        return self.answer(self.begin(do, **fields), within)

    def pause(self) -> None:
        """Freezes the process (SIGSTOP): its sockets stay, it says nothing."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL: no good-bye of any kind."""
        self._process.kill()
        self._process.wait()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def log_text(self) -> str:
        """What it wrote to standard error; read without moving the offset, which the process shares."""
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0).decode(errors="replace")

    def close(self) -> None:
        """Ends the process and gives everything back. AssertionError when it had died on its own: a peer must survive the others."""
        died = self._process.poll() not in (None, -signal.SIGKILL)
        log = self.log_text()[-8000:] if died else ""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            with contextlib.suppress(BrokenPipeError):  # what it did not read any more when it was killed
                stream.close()
        assert not died, f"{self.name} died:\n{log}"


class LogEntry(NamedTuple):
    """An entry as both sides can show it. `data` is None where Go has nil."""

    index: int
    term: int
    kind: int
    data: bytes | None


def from_go(lines: Iterable[Said]) -> list[LogEntry]:
    return [
        LogEntry(line["index"], line["term"], line["type"], None if line["data"] is None else base64.b64decode(line["data"]))
        for line in lines
    ]


def from_ours(entries: Iterable[Entry]) -> list[LogEntry]:
    return [LogEntry(entry.index, entry.term, entry.kind, entry.data) for entry in entries]


def believes(peer: LinePeer) -> dict[str, int]:
    """The state of each member (ALIVE, SUSPECT, DEAD, LEFT), as a push/pull with the Go node tells it."""
    host, _, port = peer.address.rpartition(":")
    decoder = StreamDecoder(None, answer=True)
    with socket.create_connection((host, int(port)), timeout=5) as stream:
        stream.sendall(encode_stream(PushPull(join=False, nodes=()), None))
        while (answer := decoder.feed(stream.recv(65536))) is None:
            pass
    assert isinstance(answer, PushPull)
    return {node.name: node.state for node in answer.nodes}
