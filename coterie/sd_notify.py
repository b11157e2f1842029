"""What `clusterctl run` tells the service manager: that the node runs, how it is, that it still answers, that it stops.

The protocol is systemd's sd_notify(3): datagrams of `NAME=value` lines to the socket that `NOTIFY_SOCKET` names, absent outside of a unit with `Type=notify`.
With `WatchdogSec` the manager also says in `WATCHDOG_USEC` how long it waits for a sign of life; one goes out when the node's supervisor has just answered,
so a process whose node hangs is killed and started anew. (A thread that pings on its own would only prove that the interpreter runs.)
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping
from typing import Final

from coterie.transport.logs import Log

LOG: Final = Log("coterie.node")


class ServiceManager:
    """Says nothing where no manager listens. environment: of the process."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        path = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path
        self._broken = False
        self.look_every = self._pause(environment)
        """Seconds between signs of life: a third of the manager's patience; 0 when it wants none."""

    @staticmethod
    def _pause(environment: Mapping[str, str]) -> float:
        usec, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
        return int(usec) / 3e6 if usec.isdigit() and pid in ("", str(os.getpid())) else 0.0

    def ready(self, status: str) -> None:
        self._say("READY=1", f"STATUS={status}")

    def status(self, text: str) -> None:
        self._say("STATUS=" + " ".join(text.split()))

    def alive(self) -> None:
        if self.look_every:
            self._say("WATCHDOG=1")

    def stopping(self, why: str) -> None:
        self._say("STOPPING=1", f"STATUS={why}")

    def _say(self, *lines: str) -> None:
        if not self._address:
            return
        try:
            with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)) as sock:
                sock.settimeout(1.0)
                sock.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            if not self._broken:
                LOG.warning("the service manager cannot be told: NOTIFY_SOCKET=%s: %s", self._address, error)
            self._broken = True
