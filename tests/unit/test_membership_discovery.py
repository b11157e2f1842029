"""Seeds: what is dialled when; what is remembered on disk; the words other rooms hear."""

from __future__ import annotations

import json
import random
import threading

import pytest

from coterie.actors.errors import InvalidRequest
from coterie.actors.membership import views
from coterie.actors.membership.discovery import LAST_PAUSE, Found, SeedBook, StaticSeeds
from coterie.actors.membership.member_store import MemberStore, Remembered
from coterie.actors.membership.workers import Workers

ME = ("10.0.0.1", 7946)
A, B = ("10.0.0.2", 7946), ("10.0.0.3", 7946)


def book(*seeds):
    made = SeedBook(ME, random.Random(1))
    made.offer(seeds, 0.0)
    return made


def test_a_static_list_forgives_spaces_commas_and_repetition():
    assert StaticSeeds(" a:1, b:2,,a:1 ").find().seeds == ("a:1", "b:2")
    assert StaticSeeds("").find() == Found()


def test_seeds_are_dialled_at_once_and_only_once_at_a_time():
    seeds = book("a:1", "b:2")
    assert seeds.due(0.0, set(), set()) == ["a:1", "b:2"]
    assert seeds.due(99.0, set(), set()) == []


def test_a_silent_seed_is_dialled_for_ever_with_growing_pauses_up_to_30_s():
    seeds, now, pauses = book("a:1"), 0.0, []
    for _ in range(12):
        assert seeds.due(now, set(), set()) == ["a:1"]
        seeds.failed("a:1", None, "refused", now)
        pauses.append(seeds.deadline() - now)
        now = seeds.deadline()
    assert 0.8 <= pauses[0] <= 1.2
    assert pauses[-1] <= LAST_PAUSE * 1.2
    assert pauses[-1] >= LAST_PAUSE * 0.8
    assert seeds.states() == {"a:1": "refused"}


def test_a_seed_that_is_a_living_member_is_not_dialled_and_again_when_it_is_gone():
    seeds = book("a:1")
    seeds.due(0.0, set(), set())
    seeds.answered("a:1", A, 0.0)
    assert seeds.due(seeds.deadline(), {A}, {A}) == []
    assert seeds.states() == {"a:1": "reached"}
    assert seeds.due(seeds.deadline(), set(), {A}) == ["a:1"]


def test_a_seed_that_is_this_node_is_not_dialled_again():
    seeds = book("a:1")
    seeds.due(0.0, set(), set())
    seeds.resolved_to_me("a:1", 0.0)
    assert seeds.due(1000.0, set(), set()) == []
    assert seeds.states() == {"a:1": "this node"}


def test_remembered_members_come_after_seeds_until_they_are_known_or_a_day_old():
    seeds = book("a:1", "b:2")
    seeds.remember([f"m{i}:7" for i in range(5)], 0.0)
    first = seeds.due(0.0, set(), set())
    assert first == ["a:1", "b:2", "m0:7", "m1:7"]
    for text in first:
        seeds.failed(text, B, "refused", 0.0)
    assert "m0:7" not in seeds.due(100.0, set(), {B})
    assert set(seeds.states()) == {"a:1", "b:2"}
    seeds = book()
    seeds.remember(["m0:7"], 0.0)
    assert seeds.due(25 * 3600.0, set(), set()) == []


def test_discovery_that_changes_its_mind_drops_and_adds():
    seeds = book("a:1", "b:2")
    seeds.offer(["b:2", "c:3"], 5.0)
    assert set(seeds.due(5.0, set(), set())) == {"b:2", "c:3"}
    seeds.failed("a:1", None, "late news of a dropped seed", 6.0)


def test_the_order_of_discovery_is_the_order_of_dialling_also_when_it_changes():
    seeds = book("a:1", "b:2", "c:3", "d:4", "e:5")
    seeds.offer(["e:5", "a:1", "b:2", "c:3", "d:4"], 0.0)
    assert seeds.due(0.0, set(), set()) == ["e:5", "a:1", "b:2", "c:3"]


def test_the_revision_moves_when_a_state_does_and_at_no_other_time():
    seeds = book("a:1")
    before = seeds.revision
    seeds.offer(["a:1"], 1.0)
    seeds.due(1.0, set(), set())
    assert seeds.revision == before
    seeds.failed("a:1", None, "refused", 1.0)
    assert seeds.revision == before + 1
    seeds.due(9.0, set(), set())
    seeds.failed("a:1", None, "refused", 9.0)
    assert seeds.revision == before + 1
    seeds.offer(["a:1", "b:2"], 9.0)
    assert seeds.revision == before + 2


def test_no_seed_answers_when_the_last_attempt_at_each_failed():
    seeds = book()
    assert not seeds.none_answers()
    seeds.offer(["a:1", "b:2"], 0.0)
    seeds.failed("a:1", None, "refused", 0.0)
    assert not seeds.none_answers()
    seeds.failed("b:2", None, "refused", 0.0)
    assert seeds.none_answers()
    seeds.answered("a:1", A, 1.0)
    assert not seeds.none_answers()


def test_what_was_stored_is_loaded_by_the_same_node_only(tmp_path):
    path = tmp_path / "members.json"
    MemberStore(path, "n1").save(7, [("n2", "10.0.0.2:7946")])
    assert MemberStore(path, "n1").load() == Remembered(7, (("n2", "10.0.0.2:7946"),))
    assert "n1" in MemberStore(path, "n9").load().problem
    assert MemberStore(None, "n1").load() == Remembered()
    assert MemberStore(tmp_path / "none", "n1").load() == Remembered()


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff", b"{}", b'{"format":2,"node_id":"n1","incarnation":1,"members":[]}']
    + [json.dumps({"format": 1, "node_id": "n1", "incarnation": i, "members": []}).encode() for i in (-1, 2**32, "x", None)]
    + [json.dumps({"format": 1, "node_id": "n1", "incarnation": 1, "members": m}).encode() for m in (1, [1], [{}], [{"id": 1, "addr": 2}])],
)
def test_a_damaged_file_is_said_aloud_and_costs_nothing_but_its_hints(tmp_path, content):
    path = tmp_path / "members.json"
    path.write_bytes(content)
    store = MemberStore(path, "n1")
    assert store.load().problem
    store.save(1, [])
    assert store.load() == Remembered(1)


@pytest.mark.parametrize("meta", [{"a": "x" * 512}, {"a": 1}, {1: "a"}])
def test_metadata_that_cannot_be_gossiped_is_refused(meta):
    with pytest.raises(InvalidRequest, match="meta"):
        views.encode_meta(meta)


@pytest.mark.parametrize("data", [b"", b"\xff", b"[]", b"7", b"[" * 9999, b'{"a":'])
def test_metadata_of_others_may_be_anything(data):
    assert views.decode_meta(data) == {}
    assert views.decode_meta('{"mgmt":"ü:1","n":1}'.encode()) == {"mgmt": "ü:1"}


def test_workers_are_bounded_and_end():
    gate, done = threading.Event(), threading.Semaphore(0)
    workers = Workers("test/pool", 1, 1)

    def job():
        gate.wait(10)
        done.release()

    assert workers.submit(job)
    assert workers.submit(job)
    assert not workers.submit(job)
    gate.set()
    assert done.acquire(timeout=10)
    assert done.acquire(timeout=10)
    workers.close()
    assert not workers.submit(job)
    assert "test/pool" not in {thread.name for thread in threading.enumerate()}


def test_a_job_that_raises_is_logged_and_the_worker_goes_on(caplog):
    workers, done = Workers("test/pool", 1, 4), threading.Event()
    workers.submit(lambda: 1 / 0)
    workers.submit(done.set)
    assert done.wait(10)
    workers.close()
    assert "ZeroDivisionError" in caplog.text
