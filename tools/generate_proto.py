"""`make proto`: message classes from the .proto files, with the oldest generator whose output the oldest supported runtime reads.

Generated code demands a protobuf runtime at least as new as its generator, so the generator is held at the one that belongs to the lower bound in pyproject.toml
(protobuf 5.28, in grpcio-tools 1.68), in an environment of its own under `build/`. Messages only, no service stubs: the servers use generic
handlers and the clients call methods by name, so that another codec can be spoken on the same methods.

The files are known to the generator under their full name (`coterie/proto/node.proto`): names of files are global in a process, and the host
application may well have a `node.proto` of its own.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GENERATOR = "grpcio-tools==1.68.1"
ENVIRONMENT = ROOT / "build" / "proto-venv"
FILES = ("client.proto", "cluster.proto", "node.proto")
HERE = ROOT / "proto" / "generated"


def generator() -> Path:
    """The interpreter that has the generator; made on first use. Raises CalledProcessError when it cannot be installed."""
    python = ENVIRONMENT / "bin" / "python"
    if python.exists() and _run([str(python), "-c", "import grpc_tools"], check=False).returncode == 0:
        return python
    _run([sys.executable, "-m", "venv", "--clear", str(ENVIRONMENT)])
    _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", GENERATOR, "setuptools<81"])
    return python


def generate(into: Path) -> list[Path]:
    """Generate every module into `into`; the files written."""
    python = generator()
    with tempfile.TemporaryDirectory() as temporary:
        tree = Path(temporary)
        (tree / "in" / "coterie").mkdir(parents=True)
        (tree / "in" / "coterie" / "proto").symlink_to(ROOT / "proto")
        (tree / "out").mkdir()
        names = [f"coterie/proto/{name}" for name in FILES]
        out = tree / "out"
        _run([str(python), "-m", "grpc_tools.protoc", "-I", str(tree / "in"), f"--python_out={out}", f"--pyi_out={out}", *names])
        written = [into / path.name for path in sorted((out / "coterie" / "proto").iterdir())]
        for path in written:
            shutil.copyfile(out / "coterie" / "proto" / path.name, path)
    return written


def _run(command: list[str], check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, check=check, capture_output=True, text=True)


if __name__ == "__main__":
    try:
        for path in generate(HERE):
            print(path.relative_to(ROOT))
    except subprocess.CalledProcessError as error:
        sys.exit(f"{error}\n{error.stderr}")
