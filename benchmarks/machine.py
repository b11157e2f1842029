"""On what it was measured: a figure without its machine says nothing."""

from __future__ import annotations

import os
import platform
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("coterie", "pykka", "lmdb", "msgpack", "grpcio", "attrs", "pysyncobj")
GO_MODULES = Path(__file__).parent / "peers" / "go.mod"


def machine() -> dict[str, Any]:
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "processors": os.cpu_count(),
        "processor": processor(),
        "memory_mb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_average": os.getloadavg()[0],
        "fdatasync_ms": fdatasync(),
        "versions": {name: found(name) for name in PACKAGES} | go_versions(),
    }


def go_versions() -> dict[str, str]:
    """Of the two modules that `benchmarks/peers` is made of, from its go.mod."""
    words = (line.split() for line in GO_MODULES.read_text().splitlines())
    return {line[0].rpartition("hashicorp/")[2]: line[1] for line in words if line and line[0].startswith("github.com/hashicorp/raft")}


def processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        return platform.processor()  # no /proc: not Linux
    return platform.processor()


def found(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def fdatasync(times: int = 50) -> float:
    """Median milliseconds of 4 KiB written and synced where the benchmarks keep their files."""
    sync = getattr(os, "fdatasync", os.fsync)
    took = []
    with tempfile.TemporaryFile() as file:
        for _ in range(times):
            file.write(b"x" * 4096)
            file.flush()
            began = time.perf_counter()
            sync(file.fileno())
            took.append(time.perf_counter() - began)
    return sorted(took)[times // 2] * 1e3
