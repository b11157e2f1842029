"""Network namespaces as machines: each has an address of its own on one bridge, and a hosts file with the names of all."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from pathlib import Path
from typing import Final

SUBNET: Final = "10.98.0"
HOSTS: Final = Path("/etc/netns")


def reason_not_to() -> str:
    """Why there can be none here; "" when there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "ip (iproute2) is not installed"
    name = f"coterie-{uuid.uuid4().hex[:6]}"
    tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if tried.returncode:
        return f"a network namespace cannot be made here: {tried.stderr.strip()}"
    tried = subprocess.run(["ip", "netns", "exec", name, "true"], capture_output=True, text=True, check=False)
    subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    return f"a network namespace cannot be entered here: {tried.stderr.strip()}" if tried.returncode else ""


def ip(*words: str) -> None:
    ran = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, f"ip {' '.join(words)}: {ran.stderr}"


class Machines:
    """Machines by their names; a context manager that takes them away. The bridge stands in a namespace of its own, so the host's network is as it was."""

    def __init__(self, *names: str) -> None:
        self.prefix = f"coterie-{uuid.uuid4().hex[:6]}"
        self.addresses = {name: f"{SUBNET}.{11 + number}" for number, name in enumerate(names)}
        self._made: list[str] = []

    def __enter__(self) -> Machines:
        try:
            self._add("switch")
            self._inside("switch", "link", "add", "bridge", "type", "bridge")
            self._inside("switch", "addr", "add", f"{SUBNET}.254/24", "dev", "bridge")
            self._inside("switch", "link", "set", "bridge", "up")
            for number, name in enumerate(self.addresses):
                self._add(name)
                self._inside(
                    "switch", "link", "add", f"port{number}", "type", "veth", "peer", "name", "eth0", "netns", self.namespace(name)
                )
                self._inside("switch", "link", "set", f"port{number}", "master", "bridge", "up")
                self._plug(name)
            self._write_hosts()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for name in self._made:
            subprocess.run(["ip", "netns", "del", self.namespace(name)], capture_output=True, check=False)
            shutil.rmtree(HOSTS / self.namespace(name), ignore_errors=True)

    def namespace(self, name: str) -> str:
        return f"{self.prefix}-{name}"

    def at(self, name: str, *words: str, **environment: str) -> tuple[str, ...]:
        """The command that runs `words` on that machine."""
        return ("ip", "netns", "exec", self.namespace(name), "env", *(f"{key}={value}" for key, value in environment.items()), *words)

    def move(self, name: str, address: str) -> None:
        """Give it another address, which all learn."""
        self.addresses[name] = address
        self._inside(name, "addr", "flush", "dev", "eth0")
        self._plug(name)
        self._write_hosts()

    def _add(self, name: str) -> None:
        ip("netns", "add", self.namespace(name))
        self._made.append(name)
        self._inside(name, "link", "set", "lo", "up")

    def _plug(self, name: str) -> None:
        self._inside(name, "addr", "add", f"{self.addresses[name]}/24", "dev", "eth0")
        self._inside(name, "link", "set", "eth0", "up")
        self._inside(name, "route", "replace", "default", "via", f"{SUBNET}.254")

    def _inside(self, name: str, *words: str) -> None:
        ip("-n", self.namespace(name), *words)

    def _write_hosts(self) -> None:
        """`ip netns exec` puts this file in the place of /etc/hosts."""
        lines = ["127.0.0.1 localhost", *(f"{address} {name}" for name, address in self.addresses.items())]
        for name in self.addresses:
            directory = HOSTS / self.namespace(name)
            directory.mkdir(parents=True, exist_ok=True)
            (directory / "hosts").write_text("\n".join(lines) + "\n")
