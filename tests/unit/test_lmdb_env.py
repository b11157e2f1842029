"""The file format is LMDB 0.9's, whichever py-lmdb is installed and whatever its environment variable asks for."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import lmdb
import pytest

from coterie.actors.disk.lmdb_env import Identity
from coterie.actors.errors import StorageError
from coterie.actors.raft.lmdb_log import LmdbLog

ME = Identity("n1", "a" * 32)


def data_format(directory: Path) -> int:
    head = (directory / "data.mdb").read_bytes()[:64]
    magic = head.index(struct.pack("=I", 0xBEEFC0DE))
    version: int = struct.unpack_from("=I", head, magic + 4)[0]
    return version


def test_new_files_are_of_data_format_1_even_when_the_environment_asks_for_the_newer_engine(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from coterie.actors.disk.lmdb_env import Identity; from coterie.actors.raft.lmdb_log import LmdbLog\n"
        "LmdbLog.open(Path(sys.argv[1]), Identity('n1', 'a' * 32)).close()\n"
    )
    environment = {**os.environ, "LMDB_DEFAULT_LIB_VERSION": "1"}
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "raft")], env=environment, check=True)
    assert data_format(tmp_path / "raft") == 1
    LmdbLog.open(tmp_path / "raft", ME).close()


def test_a_file_of_the_newer_engine_is_refused(tmp_path: Path) -> None:
    if not hasattr(lmdb.Environment, "lib_version"):
        pytest.skip("this py-lmdb has one engine only")
    try:
        lmdb.open(str(tmp_path / "raft"), lib_version=1).close()
    except lmdb.Error:
        pytest.skip("this build of py-lmdb lacks the newer engine")
    with pytest.raises(StorageError, match=r"cannot be opened.*remedy"):
        LmdbLog.open(tmp_path / "raft", ME)


class _OldEnvironment:
    """Stands for `lmdb.Environment` of a py-lmdb before 3, which has no `lib_version`."""


def test_a_py_lmdb_without_the_parameter_is_opened_without_it_and_only_if_it_is_0_9(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lmdb, "Environment", _OldEnvironment)
    LmdbLog.open(tmp_path / "raft", ME).close()
    assert data_format(tmp_path / "raft") == 1
    monkeypatch.setattr(lmdb, "version", lambda: (1, 0, 2))
    with pytest.raises(StorageError, match=r"LMDB \(1, 0, 2\)"):
        LmdbLog.open(tmp_path / "raft", ME)


def test_the_files_are_the_users_alone(tmp_path: Path) -> None:
    LmdbLog.open(tmp_path / "raft", ME).close()
    assert (tmp_path / "raft").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "raft" / "data.mdb").stat().st_mode & 0o777 == 0o600


def test_a_closed_log_says_so(tmp_path: Path) -> None:
    log = LmdbLog.open(tmp_path / "raft", ME)
    log.close()
    log.close()
    with pytest.raises(StorageError, match="closed"):
        log.configuration()
    with pytest.raises(StorageError, match="closed"):
        log.append([], truncate_from=None, hard_state=log.hard_state())
