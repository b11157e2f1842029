"""Small disks that fill up, hang or fail, in a mount namespace of their own: what is mounted there nobody else sees, and it goes with the namespace.

A process that shall see a disk is started with `Mounts.prefix` in front of its command. `Tmpfs` fills up soon and can be made larger. `Ext4` is a real file
system on a loop device: it can be frozen (every write waits in the kernel until it is thawed, as on a disk that does not answer) and be made to fail (an error
of the file system makes it read-only, as the kernel does with a disk that loses sectors).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

TOOLS: Final = ("unshare", "nsenter", "mount", "umount", "mkfs.ext4", "fsfreeze", "findmnt", "e2fsck")


def reason_not_to() -> str:
    """Why there can be none here; "" when there can."""
    if os.geteuid() != 0:
        return "disks of its own need root"
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"{missing[0]} is not installed"
    tried = subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, text=True, check=False)
    return f"nothing can be mounted here: {tried.stderr.strip()}" if tried.returncode else ""


def _run(*words: str) -> str:
    ran = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 0, f"{' '.join(words)}: {ran.stderr}"
    return ran.stdout.strip()


class Mounts:
    """A mount namespace, as a context manager; its disks thaw at the end, since a process that writes to a frozen one cannot even be killed."""

    def __enter__(self) -> Mounts:
        command = ["unshare", "-m", "--propagation", "private", sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()"]
        self._holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._holder.stdout is not None and self._holder.stdout.readline(), "the namespace is not there"
        # The working directory is the namespace's root after the entry: back to where the command was started.
        self.prefix = ("nsenter", "-t", str(self._holder.pid), "-m", "sh", "-c", f'cd {Path.cwd()} && exec "$@"', "sh")
        self._frozen: list[Ext4] = []
        return self

    def __exit__(self, *_: object) -> None:
        for disk in list(self._frozen):
            disk.thaw()
        for pipe in (self._holder.stdin, self._holder.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()
        self._holder.wait(20)

    def run(self, *words: str) -> str:
        return _run(*self.prefix, *words)


class Tmpfs:
    """`size`: as mount takes it."""

    def __init__(self, mounts: Mounts, path: Path, size: str) -> None:
        self._mounts, self.path = mounts, path
        path.mkdir(parents=True)
        mounts.run("mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "none", str(path))

    def enlarge(self, size: str) -> None:
        self._mounts.run("mount", "-o", f"remount,size={size}", str(self.path))


class Ext4:
    """The file system's image is the file beside `path`."""

    def __init__(self, mounts: Mounts, path: Path, megabytes: int = 96) -> None:
        self._mounts, self.path = mounts, path
        self._image = path.with_name(path.name + ".image")
        path.mkdir(parents=True)
        with self._image.open("wb") as image:
            image.truncate(megabytes << 20)
        _run("mkfs.ext4", "-q", str(self._image))
        self._mount()

    def _mount(self) -> None:
        self._mounts.run("mount", "-o", "loop,errors=remount-ro", str(self._image), str(self.path))

    def freeze(self) -> None:
        self._mounts.run("fsfreeze", "-f", str(self.path))
        self._mounts._frozen.append(self)

    def thaw(self) -> None:
        self._mounts._frozen.remove(self)
        self._mounts.run("fsfreeze", "-u", str(self.path))

    def fail(self) -> None:
        """The file system finds an error in itself: from now on nothing can be written."""
        device = Path(self._mounts.run("findmnt", "-no", "SOURCE", str(self.path))).name
        Path(f"/sys/fs/ext4/{device}/trigger_fs_error").write_text("1")

    def mend(self) -> None:
        """Nobody uses it: unmount it, repair it, mount it again."""
        self._mounts.run("umount", str(self.path))
        subprocess.run(["e2fsck", "-p", str(self._image)], capture_output=True, check=False, timeout=60)
        self._mount()
