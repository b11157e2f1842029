"""Who stands behind which id, and where it is by what gossip says."""

from __future__ import annotations

import json
import threading

import pytest

from coterie.actors.errors import StorageError
from coterie.actors.node import quorum_file
from coterie.actors.node.identities import Identities, strangers
from coterie.actors.node.quorum_file import QuorumFile, Remembered
from coterie.actors.node.topology import META_CLUSTER, META_DIRECTORY, META_RAFT, NO_CLUSTER, SOME_CLUSTER
from coterie.actors.room_messages import Member, PeerView

SERVERS = [PeerView(name, f"{name}:9520", "voter") for name in ("n1", "n2", "n3")]


def member(name: str, directory: str, raft: str = "", state: str = "alive") -> Member:
    return Member(name, f"{name}:7946", {META_RAFT: raft or f"{name}:9520", META_DIRECTORY: directory}, state)


def test_a_server_that_moved_is_found_where_it_says() -> None:
    known = Identities("n1", {})
    assert known.look(SERVERS, [member("n2", "d2"), member("n3", "d3")])
    assert known.known == {"n2": "d2", "n3": "d3"}
    moved = [member("n2", "d2", "elsewhere:9520"), member("n3", "d3")]
    assert not known.look(SERVERS, moved)
    assert known.elsewhere(SERVERS, moved) == {"n2": "elsewhere:9520"}
    assert known.warnings(SERVERS, moved) == []


def test_a_node_that_started_anew_knows_them_from_its_file() -> None:
    known = Identities("n1", {"n2": "d2"})
    moved = [member("n2", "d2", "elsewhere:9520"), member("n3", "d3", "there:9520")]
    known.look(SERVERS, moved)
    assert known.elsewhere(SERVERS, moved) == {"n2": "elsewhere:9520", "n3": "there:9520"}, "of n3 nothing else was ever known"


def test_another_directory_under_the_same_id_is_another_server() -> None:
    known = Identities("n1", {"n2": "d2"})
    stranger = [member("n2", "dX", "elsewhere:9520")]
    assert not known.look(SERVERS, stranger)
    assert known.elsewhere(SERVERS, stranger) == {}
    (warning,) = known.warnings(SERVERS, stranger)
    assert "n2 at n2:7946" in warning
    assert "let n2 leave and join again" in warning
    silent = [Member("n2", "n2:7946", {META_RAFT: "elsewhere:9520"})]
    assert known.elsewhere(SERVERS, silent) == {}, "one that does not say which directory it has, either"


def test_who_left_and_joined_again_may_be_another_one() -> None:
    known = Identities("n1", {"n2": "d2", "n3": "d3"})
    assert known.look([SERVERS[0], SERVERS[2]], [])
    assert known.known == {"n3": "d3"}
    known.look(SERVERS, [member("n2", "dX")])
    assert known.known["n2"] == "dX"
    assert Identities("n1", {"n2": "d2"}).known == {"n2": "d2"}
    back = Identities("n1", {"n2": "d2"})
    back.look(SERVERS, [member("n2", "dX")])
    assert back.known["n2"] == "dX", "whoever joined it at this address vouches for it"
    assert not back.look([], []), "a node in no quorum yet keeps what it knows"


def test_an_emptied_server_at_its_old_address_is_warned_of_until_it_has_left_or_is_the_old_one_again() -> None:
    known = Identities("n1", {"n2": "d2", "n3": "d3"})
    emptied = [member("n2", "dX"), member("n3", "d3")]
    assert known.look(SERVERS, emptied)
    (warning,) = known.warnings(SERVERS, emptied)
    assert warning.startswith("n2 has another data directory than before")
    assert "let n2 leave and join again" in warning
    known.look(SERVERS, [member("n2", "dY")])
    assert known.warnings(SERVERS, []) == [warning], "emptied once more, and down"
    known.look(SERVERS, [member("n2", "d2")])
    assert known.warnings(SERVERS, []) == []
    known.look(SERVERS, emptied)
    known.look([SERVERS[0], SERVERS[2]], emptied)
    known.look(SERVERS, emptied)
    assert known.warnings(SERVERS, emptied) == [], "it left, and joined as it is"


def test_members_of_another_cluster_are_named() -> None:
    def of(name: str, cluster: str, state: str = "alive") -> Member:
        return Member(name, f"{name}:7946", {META_CLUSTER: cluster}, state)

    members = [
        of("n2", "c2"),
        of("m1", "c1"),
        of("m2", "c2"),
        of("m3", NO_CLUSTER),
        of("m4", SOME_CLUSTER),
        of("m5", "c2", "failed"),
        of("m6", ""),
    ]
    (warning,) = strangers("c1", SERVERS, members)
    assert warning.startswith("m2 at m2:7946 is of another cluster (c2, this one is c1)")
    assert strangers("", SERVERS, members) == [], "a node that does not know its own"


@pytest.mark.parametrize(
    ("raft", "state"),
    [("elsewhere:9520", "failed"), ("elsewhere:9520", "left"), ("nonsense", "alive"), (":9520", "alive"), ("h:0", "alive")],
)
def test_the_dead_and_what_cannot_be_dialled_lead_nowhere(raft: str, state: str) -> None:
    assert Identities("n1", {}).elsewhere(SERVERS, [member("n2", "d2", raft, state)]) == {}


def test_this_node_itself_is_looked_for_by_nobody() -> None:
    assert Identities("n1", {}).elsewhere(SERVERS, [member("n1", "d1", "elsewhere:9520")]) == {}


# -- what is kept ----------------------------------------------------------------------------------------------------------------------


def test_what_is_kept_is_there_after_a_restart(tmp_path) -> None:
    path = tmp_path / "quorum.json"
    file = QuorumFile(path)
    assert file.now == Remembered()
    file.promise("n1#a")
    assert QuorumFile(path).now == Remembered(founder="n1#a"), "on the disk at once"
    file.keep(cluster="c1", directories={"n2": "d2"})
    file.close()
    assert QuorumFile(path).now == Remembered("c1", {"n2": "d2"}, "n1#a")
    before, again = path.stat().st_mtime_ns, QuorumFile(path)
    again.keep(cluster="c1")
    again.promise("n1#a")
    again.close()
    assert path.stat().st_mtime_ns == before, "no news"


def test_whoever_keeps_something_never_waits_for_a_disk_that_hangs(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    hangs, written = threading.Event(), []

    def write(path, data: bytes) -> None:
        assert hangs.wait(10)
        written.append(json.loads(data)["cluster"])

    monkeypatch.setattr(quorum_file, "write_durably", write)
    file = QuorumFile(tmp_path / "quorum.json")
    for number in range(100):
        file.keep(cluster=f"c{number}")
    assert (file.now.cluster, written) == ("c99", [])
    hangs.set()
    file.close()
    assert written[-1] == "c99", "the latest"


def test_what_cannot_be_written_is_told(tmp_path) -> None:
    told: list[StorageError] = []
    file = QuorumFile(tmp_path / "gone" / "quorum.json", failed=told.append)
    file.keep(cluster="c1")
    file.close()
    assert "cannot be written: No such file or directory; remedy" in str(told[0])


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 2}', '{"format": 1, "cluster": 1, "directories": {}, "founder": ""}'])
def test_a_file_that_cannot_be_read_is_refused_with_a_remedy(tmp_path, text: str) -> None:
    path = tmp_path / "quorum.json"
    path.write_text(text)
    with pytest.raises(StorageError, match="remedy"):
        QuorumFile(path)


def test_a_node_without_a_directory_keeps_it_while_it_lives() -> None:
    file = QuorumFile(None)
    file.keep(cluster="c1")
    assert file.now.cluster == "c1"
