"""Certificates on disk: what is refused and with which words, what is warned of, and how changes come into force."""

from __future__ import annotations

import datetime
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from coterie.transport.errors import TlsFileError
from coterie.transport.tls import Tls
from coterie.transport.tls_files import TlsSettings, read_files
from tests.authority import CLIENT, HOUR, SERVER, Authority, Files, Pair, key_pem, now


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def refused(settings: TlsSettings, role: str = "node") -> TlsFileError:
    with pytest.raises(TlsFileError) as raised:
        read_files(settings, now(), role)  # type: ignore[arg-type]
    return raised.value


# -- at the start -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", ["ca", "cert", "key"])
@pytest.mark.parametrize(
    ("content", "says"), [(None, "cannot be read"), (b"", "PEM"), (b"no certificate\n", "PEM"), (b"x" * (5 << 20), "bytes")]
)
def test_a_file_that_is_missing_or_no_pem_is_named(
    tmp_path: Path, authority: Authority, setting: str, content: bytes | None, says: str
) -> None:
    files = Files(tmp_path, authority.pem, authority.issue())
    path = getattr(files, setting)
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    error = refused(files.settings)
    assert (error.setting, error.path) == (setting, str(path))
    assert says in error.remedy


def test_a_directory_and_a_file_of_others_are_named(tmp_path: Path, authority: Authority) -> None:
    files = Files(tmp_path, authority.pem, authority.issue())
    files.ca.unlink()
    files.ca.mkdir()
    assert "cannot be read: Is a directory" in refused(files.settings).remedy
    if os.geteuid():
        files.key.chmod(0)
        assert "Permission denied" in refused(TlsSettings("", str(files.cert), str(files.key))).remedy


def test_expired_and_not_yet_valid_certificates_are_refused_with_the_moment(tmp_path: Path, authority: Authority) -> None:
    old, early = authority.issue(begins=-3 * HOUR, ends=-HOUR), authority.issue(begins=HOUR, ends=2 * HOUR)
    assert "expired at 20" in refused(Files(tmp_path / "old", authority.pem, old).settings).remedy
    assert "is not valid before 20" in refused(Files(tmp_path / "early", authority.pem, early).settings).remedy
    dead = Authority("dead", -3 * HOUR, -HOUR)
    error = refused(Files(tmp_path / "ca", dead.pem, authority.issue()).settings)
    assert (error.setting, error.remedy[:10]) == ("ca", "expired at")
    read_files(Files(tmp_path / "overlap", dead.pem + authority.pem, authority.issue()).settings, now())  # one of them lives


def test_a_key_must_be_the_certificates_own_and_open(tmp_path: Path, authority: Authority) -> None:
    mine, other = authority.issue(), authority.issue()
    error = refused(Files(tmp_path / "other", authority.pem, Pair(mine.cert, other.key)).settings)
    assert (error.setting, "does not fit" in error.remedy) == ("key", True)
    sealed = refused(Files(tmp_path / "sealed", authority.pem, Pair(mine.cert, key_pem(authority.key, b"secret"))).settings)
    assert (sealed.setting, "encrypted" in sealed.remedy) == ("key", True)
    assert mine.key.decode() not in repr(read_files(Files(tmp_path / "good", authority.pem, mine).settings, now()))


def test_a_certificate_must_be_for_what_it_is_shown_as(tmp_path: Path, authority: Authority) -> None:
    servers, clients = authority.issue(uses=(SERVER,)), authority.issue(uses=(CLIENT,))
    assert "lacks clientAuth" in refused(Files(tmp_path / "s", authority.pem, servers).settings).remedy
    assert "lacks serverAuth" in refused(Files(tmp_path / "c", authority.pem, clients).settings).remedy
    assert "lacks clientAuth" in refused(Files(tmp_path / "s2", authority.pem, servers).settings, "client").remedy
    read_files(Files(tmp_path / "one-way", None, servers).settings, now())
    read_files(Files(tmp_path / "client", authority.pem, clients).settings, now(), "client")
    read_files(Files(tmp_path / "any", authority.pem, authority.issue(uses=())).settings, now())


# -- while it runs ----------------------------------------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.ahead = datetime.timedelta()

    def __call__(self) -> datetime.datetime:
        return now() + self.ahead


def watched(files: Files, clock: Clock | None = None) -> Tls:
    return Tls(files.settings, "n1", watch=False, clock=clock or Clock())


def test_a_change_comes_into_force_as_a_whole(tmp_path: Path, authority: Authority) -> None:
    files = Files(tmp_path, authority.pem, authority.issue("first"))
    tls = watched(files)
    before = tls.state
    assert not tls.look()
    second, other = authority.issue("second"), Authority("second CA")
    files.cert.write_bytes(second.cert)  # its key is not there yet
    assert not tls.look()
    assert tls.state is before
    assert "does not fit" in tls.warnings()[0]
    assert tls.counters.snapshot() == {"reloads failed": 1}
    files.key.write_bytes(second.key)
    assert tls.look()
    assert (tls.state.files.subject, tls.warnings()) == ("CN=second", ())
    assert tls.state.server is not before.server
    files.ca.write_bytes(authority.pem + other.pem)
    assert tls.look()
    assert tls.state.files.ca == authority.pem + other.pem
    assert tls.counters.snapshot() == {"reloads failed": 1, "reloads": 2}


@pytest.mark.parametrize("half", [b"", b"-----BEGIN CERTIFICATE-----\nMIIB", None])
def test_a_half_written_file_keeps_the_old_one_in_force_until_it_is_whole(tmp_path: Path, authority: Authority, half: bytes | None) -> None:
    files = Files(tmp_path, authority.pem, authority.issue())
    tls = watched(files)
    before, whole = tls.state, files.ca.read_bytes()
    files.ca.unlink()
    if half is not None:
        files.ca.write_bytes(half)
    for again in (False, True):
        assert not tls.look(again)
    assert tls.state is before
    assert "stays in force" in tls.warnings()[0] and str(files.ca) in tls.warnings()[0]
    assert tls.counters.snapshot()["reloads failed"] == 2
    files.ca.write_bytes(whole)
    assert not tls.look()  # what is in force is what is there
    assert (tls.warnings(), tls.state) == ((), before)


def test_a_link_that_is_turned_is_a_change(tmp_path: Path, authority: Authority) -> None:
    """As a mounted secret is replaced: one link, behind it another directory."""
    for number in ("one", "two"):
        Files(tmp_path / number, authority.pem, authority.issue(number))
    link = tmp_path / "now"
    link.symlink_to("one")
    tls = Tls(TlsSettings(str(link / "ca.pem"), str(link / "cert.pem"), str(link / "key.pem")), "n1", watch=False)
    link.unlink()
    link.symlink_to("two")
    assert tls.look()
    assert tls.state.files.subject == "CN=two"


def test_the_watching_thread_sees_a_change_by_itself(tmp_path: Path, authority: Authority) -> None:
    from tests.wire.transport_support import eventually

    files = Files(tmp_path, authority.pem, authority.issue("first"))
    tls = Tls(files.settings, "n1", every=0.02)
    try:
        authority.issue("second").write(files.cert, files.key)
        eventually(lambda: tls.state.files.subject == "CN=second", "it is read again")
    finally:
        tls.close()


def test_the_watch_outlives_what_a_parser_raises_and_a_disk_that_hangs(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    from coterie.transport import tls as module
    from tests.wire.transport_support import eventually

    files = Files(tmp_path, authority.pem, authority.issue("first"))
    monkeypatch.setattr(module, "JOIN_TIMEOUT", 0.1)
    tls = Tls(files.settings, "n1", every=0.02)
    hangs, stands = threading.Event(), threading.Event()

    def odd(*more: Any) -> Any:
        raise RuntimeError("an extension that nobody knows")

    def hanging(*more: Any) -> Any:
        hangs.set()
        stands.wait(10.0)
        return read_files(*more)

    try:
        monkeypatch.setattr(module, "read_files", odd)
        authority.issue("second").write(files.cert, files.key)
        eventually(lambda: any("an extension that nobody knows" in text for text in tls.warnings()), "it is told")
        monkeypatch.setattr(module, "read_files", hanging)
        authority.issue("third").write(files.cert, files.key)
        assert hangs.wait(10.0), "the thread looks again"
        tls.close()
        assert not stands.is_set()
    finally:
        stands.set()
        tls.close()


def test_a_certificate_of_none_of_the_authorities_is_warned_of(tmp_path: Path, authority: Authority) -> None:
    other = Authority("other")
    assert "is issued by no authority in" in watched(Files(tmp_path / "1", other.pem, authority.issue())).warnings()[0]
    same_name = Authority()
    assert len(watched(Files(tmp_path / "2", same_name.pem, authority.issue())).warnings()) == 1
    assert watched(Files(tmp_path / "3", other.pem + authority.pem, authority.issue())).warnings() == ()
    leaf = authority.issue()
    assert watched(Files(tmp_path / "4", authority.pem, Pair(leaf.cert + authority.pem, leaf.key))).warnings() == ()
    assert watched(Files(tmp_path / "5", None, leaf)).warnings() == ()


def test_an_expiring_certificate_is_warned_of_and_an_expired_one_too(tmp_path: Path) -> None:
    clock = Clock()
    lasting = Authority(ends=300 * 24 * HOUR)
    tls = watched(Files(tmp_path, lasting.pem, lasting.issue(begins=-HOUR, ends=99 * HOUR)), clock)
    assert tls.warnings() == ()
    clock.ahead = 85 * HOUR  # in its last fifth
    (text,) = tls.warnings()
    assert "TLS of n1: the certificate in" in text and "expires at" in text
    clock.ahead = 100 * HOUR
    assert "expired at" in tls.warnings()[0]
    clock.ahead = 290 * 24 * HOUR
    assert "the CA in" in tls.warnings()[1]
    assert set(tls.expiries()) == {"node", "ca"}
    assert tls.expiries()["node"] == pytest.approx((now() + 99 * HOUR).timestamp(), abs=60)
