"""Window, queue and retention against slow, obvious models."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.actors.errors import InvalidRequest, Overloaded, PayloadTooLarge
from coterie.actors.future import LightFuture
from coterie.actors.messages import Publish
from coterie.actors.replication.delivery_queue import TopicQueue
from coterie.actors.replication.messages import NewBatch
from coterie.actors.replication.retention import TIDY, TopicRetention
from coterie.actors.replication.waiting import Waiting
from coterie.actors.replication.window import Window

MANY = 1 << 30


def waiting(max_payload=1000, records=MANY, size=MANY):
    return Waiting(max_payload, 10.0, records, size)


# -- window ---------------------------------------------------------------------------------------------------------------


class TestWindow:
    def make(self, last, limit=10):
        return Window(limit, lambda topic: last.get(topic, 0))

    def test_who_is_silent_does_not_count_and_catches_up_beside_the_others_when_it_speaks_again(self):
        last = {"t": 0}
        window = self.make(last)
        window.set_live(frozenset("ab"))
        for node in "ab":
            window.acknowledge(node, {"t": 0}, True)
        last["t"] = 10
        window.acknowledge("a", {"t": 10}, False)
        assert (window.room("t"), window.slowest("t")) == (0, ("b", 0))
        window.set_silent(frozenset("b"))
        assert (window.room("t"), window.slowest("t")) == (10, ("a", 10))
        last["t"] = 40
        window.acknowledge("a", {"t": 40}, False)
        window.set_silent(frozenset())
        assert window.room("t") == 10, "it is far behind, and stops nobody"
        window.acknowledge("b", {"t": 35}, False)
        assert window.room("t") == 5, "it is near the end again, and counts"

    def test_heard_is_who_lives_announced_itself_and_is_not_silent(self):
        window = self.make({})
        window.set_live(frozenset("abc"))
        for node in "abd":
            window.acknowledge(node, {}, True)
        window.acknowledge("c", {"t": 1}, False)
        assert window.heard() == frozenset("ab"), "c has not announced itself, d does not live"
        window.set_silent(frozenset("b"))
        assert window.heard() == frozenset("a")
        window.new_leadership()
        assert window.heard() == frozenset()

    def test_it_shuts_at_the_slowest_and_opens_by_its_acknowledgement(self):
        last = {"t": 0}
        window = self.make(last)
        window.set_live(frozenset("ab"))
        window.acknowledge("a", {}, True)
        window.acknowledge("b", {}, True)
        last["t"] = 8
        window.acknowledge("a", {"t": 8}, False)
        assert window.room("t") == 2 and window.room("t", in_flight=2) == 0 and window.slowest("t") == ("b", 0)
        assert window.acknowledge("b", {"t": 5}, False) == {"t": 5}
        assert window.room("t") == 7

    def test_what_was_acknowledged_before_this_leadership_is_not_counted_again(self):
        window = self.make({"t": 1000, "u": 5})
        window.set_live(frozenset("ab"))
        assert window.acknowledge("b", {"t": 990, "u": 5}, True) == {"t": 0, "u": 0}
        assert window.acknowledge("b", {"t": 995}, False) == {"t": 5}
        assert window.acknowledge("b", {"t": 997, "u": 5}, True) == {"t": 2}, "announced again, from time to time"
        assert window.acknowledge("b", {"t": 10}, True) == {"t": 0, "u": 0}, "it has lost its disk: shown is what it says now"
        window.new_leadership()
        assert window.acknowledge("b", {"t": 1000}, True) == {"t": 0}

    def test_a_departed_member_never_pins_it(self):
        last = {"t": 10}
        window = self.make(last)
        window.set_live(frozenset("ab"))
        window.acknowledge("a", {"t": 10}, True)
        window.acknowledge("b", {}, True)
        assert window.room("t") == 0
        assert window.set_live(frozenset("a")) == ["b"]
        assert window.room("t") == 10

    def test_who_never_announced_itself_does_not_count(self):
        last = {"t": 5}
        window = self.make(last)
        window.set_live(frozenset("ab"))
        assert window.acknowledge("b", {"t": 1}, False) == {}
        assert window.room("t") == 10 and window.slowest("t") is None

    def test_an_announcement_may_come_before_gossip_knows_the_member(self):
        window = self.make({"t": 5})
        window.acknowledge("b", {"t": 1}, True)
        assert window.room("t") == 10
        window.set_live(frozenset("b"))
        assert window.room("t") == 6

    def test_one_with_a_long_way_to_go_counts_once_it_has_caught_up_and_then_for_good(self):
        last = {"t": 1000}
        window = self.make(last)
        window.set_live(frozenset("b"))
        window.acknowledge("b", {"t": 1}, True)
        assert window.room("t") == 10
        window.acknowledge("b", {"t": 995}, False)
        assert window.room("t") == 5
        last["t"] = 2000
        assert window.room("t") == 0

    def test_a_member_that_lost_its_disk_begins_again(self):
        window = self.make({"t": 1000})
        window.set_live(frozenset("b"))
        window.acknowledge("b", {"t": 1000}, True)
        window.acknowledge("b", {}, True)
        assert window.acked("t") == {"b": 0} and window.room("t") == 10

    @given(
        st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 30), st.booleans()), max_size=30),
        st.sets(st.sampled_from("abc")),
        st.integers(0, 30),
    )
    def test_room_is_the_limit_less_what_the_least_counting_member_lacks(self, steps, live, last):
        limit = 20
        window = self.make({"t": last}, limit)
        window.set_live(frozenset(live))
        acked = {}
        for node, seq, announce in steps:
            window.acknowledge(node, {"t": seq}, announce)
            if announce:
                acked[node] = seq
            elif node in acked:
                acked[node] = max(acked[node], seq)
        least = min([seq for node, seq in acked.items() if node in live] + [last])  # everybody is within two windows of 30
        assert window.room("t") == max(0, limit - (last - least))


# -- the queue ------------------------------------------------------------------------------------------------------------


class TestWaiting:
    @pytest.mark.parametrize(
        ("message", "error", "says"),
        [
            (Publish("", b""), InvalidRequest, "topic=''"),
            (Publish("x" * 256, b""), InvalidRequest, "256 bytes"),
            (Publish("ü" * 128, b""), InvalidRequest, "256 bytes"),
            (Publish(b"t", b""), InvalidRequest, "topic=b't'"),
            (Publish(["t"], b""), InvalidRequest, "topic=['t']"),
            (Publish("\ud800", b""), InvalidRequest, "UTF-8"),
            (Publish("t", "text"), InvalidRequest, "data='text'"),
            (Publish("t", None), InvalidRequest, "data=None"),
            (Publish("t", b"x" * 1001), PayloadTooLarge, "max_payload=1000"),
            (Publish("t", b"", acks="some"), InvalidRequest, "acks='some'"),
            (Publish("t", b"", acks=[]), InvalidRequest, "acks=[]"),
            (Publish("t", b"", message_id=""), InvalidRequest, "message_id=''"),
            (Publish("t", b"", message_id=7), InvalidRequest, "message_id=7"),
            (Publish("t", b"", message_id="i" * 256), InvalidRequest, "256 bytes"),
            (Publish("t", b"", headers=[1]), InvalidRequest, "headers=[1]"),
            (Publish("t", b"", headers={"a": 1}), InvalidRequest, "headers['a']=1"),
            (Publish("t", b"", headers={"a": "v" * 1001}), PayloadTooLarge, "max_payload=1000"),
            (Publish("t", b"", timeout=0), InvalidRequest, "timeout=0"),
            (Publish("t", b"", timeout=float("nan")), InvalidRequest, "timeout=nan"),
            (Publish("t", b"", timeout="1"), InvalidRequest, "timeout='1'"),
        ],
    )
    def test_a_bad_publish_is_refused_by_name_and_leaves_nothing(self, message, error, says):
        queue = waiting()
        queue.add(Publish("t", b"before"), None)
        with pytest.raises(error) as caught:
            queue.add(message, None)
        assert says in str(caught.value)
        queue.add(Publish("t", b"after"), None)
        queue.close_open()
        assert queue.records == 2 and [r for c in queue.active["t"].chunks for r in c.records] == [b"before", b"after"]

    def test_what_could_change_later_is_copied(self):
        queue, data = waiting(), bytearray(b"ab")
        queue.add(Publish("t", data), None)
        queue.add(Publish("t", memoryview(b"cd")), None)
        data[0] = 0
        assert queue.active["t"].chunks[0].records == [b"ab", b"cd"]

    def test_the_bound_is_on_count_and_on_bytes(self):
        queue = waiting(records=2)
        queue.add(Publish("t", b""), None)
        queue.add(Publish("u", b""), None)
        with pytest.raises(Overloaded):
            queue.add(Publish("t", b""), None)
        queue = waiting(size=10)
        queue.add(Publish("t", b"x" * 8), None)
        with pytest.raises(Overloaded):
            queue.add(Publish("t", b"x" * 3), None)

    def test_a_record_larger_than_an_entry_goes_alone(self):
        queue = waiting(max_payload=5000)
        for size in (10, 4000, 10):
            queue.add(Publish("t", b"x" * size), None)
        queue.close_open()
        lane = queue.active["t"]
        assert [sum(len(c.records) for c in queue.take(lane, 100, 100, 1000)[0]) for _ in range(3)] == [1, 1, 1]
        assert (queue.records, queue.bytes, queue.active) == (0, 0, {})

    def test_a_forwarded_batch_is_whole_or_not_at_all(self):
        queue = waiting()
        queue.add_forwarded("t", [b"x"] * 5, 5, 99.0, False, object())
        lane = queue.active["t"]
        assert queue.take(lane, 4, 10, 1000)[0] == []
        assert len(queue.take(lane, 5, 10, 1000)[0][0].records) == 5
        queue.add_forwarded("t", [b"x"] * 50, 50, 99.0, False, object())
        assert queue.take(lane, 9, 10, 1000)[0] == []
        assert len(queue.take(lane, 10, 10, 1000)[0][0].records) == 50

    @given(st.integers(0, 2**32))
    def test_refusals_in_any_order_never_change_the_order_of_the_records(self, seed):
        random_ = random.Random(seed)
        queue, taken, sent, n = waiting(), [], [], 0
        for _ in range(60):
            step = random_.randrange(5)
            if step < 2:
                for _ in range(random_.randrange(1, 5)):
                    queue.add(Publish("t", n.to_bytes(2, "big"), timeout=random_.choice([None, None, 5.0])), LightFuture())
                    n += 1
                queue.close_open()
            elif step == 2 and "t" in queue.active:
                chunks, _ = queue.take(
                    queue.active["t"], random_.randrange(1, 6), 10, random_.choice([5, 40, 1000]), uniform=random_.random() < 0.5
                )
                taken.append(chunks)
            elif step == 3 and taken:  # a suffix of what is out comes back, its parts in any order
                at = random_.randrange(len(taken))
                back, taken = taken[at:], taken[:at]
                random_.shuffle(back)
                for chunks in back:
                    queue.put_back(chunks)
            elif taken:
                sent += [r for chunk in taken.pop(0) for r in chunk.records]
        sent += [r for chunks in taken for chunk in chunks for r in chunk.records]
        queue.close_open()
        sent += [r for lane in queue.active.values() for chunk in lane.chunks for r in chunk.records]
        assert [int.from_bytes(r, "big") for r in sent] == list(range(n))
        left = [chunk for lane in queue.active.values() for chunk in lane.chunks]
        assert queue.records == sum(len(c.records) for c in left) and queue.bytes == 2 * queue.records == sum(c.size for c in left)


# -- delivery's queue -----------------------------------------------------------------------------------------------------


class TestTopicQueue:
    def batch(self, first, count):
        return NewBatch("t", first, 1, 0.0, [str(first + n).encode() for n in range(count)], count)

    @given(st.lists(st.tuples(st.integers(1, 4), st.booleans()), max_size=20), st.integers(1, 5), st.integers(1, 10))
    def test_memory_and_disk_together_are_the_whole_topic(self, arrivals, most, start):
        queue, disk, seen = TopicQueue("t", start, 0), [], []
        for count, keep in arrivals:
            batch = self.batch((disk[-1].last_seq if disk else 0) + 1, count)
            disk.append(batch)
            queue.arrived(batch, keep)
        while queue.cursor <= queue.last:
            if not queue.batches:
                for batch in disk:
                    if batch.last_seq >= queue.cursor:
                        queue.refilled(batch)
            assert queue.hole() is None
            _, records = queue.front(most)
            seen += [seq for seq, data, _ in records if data == str(seq).encode()]
            queue.advance(len(records))
        assert seen == list(range(start, (disk[-1].last_seq if disk else 0) + 1)) and queue.held == 0

    def test_what_came_by_stream_before_is_not_taken_again(self):
        queue = TopicQueue("t", 1, 0)
        assert queue.arrived(self.batch(1, 5), True) and not queue.arrived(self.batch(1, 5), True)
        assert queue.arrived(self.batch(6, 1), True) and queue.last == 6 and not queue.behind

    def test_a_hole_is_seen(self):
        queue = TopicQueue("t", 1, 0)
        queue.arrived(self.batch(8, 2), True)
        assert queue.hole() == (1, 7)


# -- retention ------------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.integers(1, 20), st.integers(1, 100)), min_size=1, max_size=40),
    st.integers(1, 100),
    st.integers(1, 1000),
    st.integers(1, 500),
)
def test_retention_leaves_no_more_than_the_bound_and_takes_nothing_above_the_ceiling(batches, records, size, ceiling):
    topic, held = TopicRetention(1, 1, 0), []
    for count, nbytes in batches:
        topic.added(topic.next + count, nbytes)
        held.append((topic.next, count, nbytes))
        below = topic.surplus(records, size, ceiling)
        if below is None:
            continue
        assert below <= ceiling
        topic.trimmed(below)
        held = [batch for batch in held if batch[0] > below]
        if below < ceiling:
            whole = held[1:] if held and held[0][0] - held[0][1] < below else held  # the batch that straddles the limit stays
            assert sum(count for _, count, _ in whole) <= records
            assert sum(nbytes for _, _, nbytes in held) <= size


def test_what_was_there_before_the_start_is_trimmed_by_its_average():
    topic = TopicRetention(1, 101, 1000)
    assert topic.surplus(1000, 500, 200) == 51
    topic.trimmed(51)
    assert topic.surplus(1000, 500, 200) is None
    assert topic.surplus(20, 500, 200) == 81


def test_a_topic_that_goes_on_for_ever_takes_a_few_bytes_for_each_batch_that_is_kept():
    topic = TopicRetention(1, 1, 0)
    for seq in range(1, 20_001):
        topic.added(seq + 1, 10)
        below = topic.surplus(3000, 20_000, seq + 1)
        if below is not None:
            topic.trimmed(below)
            assert topic.first == below == max(1, seq - 1999), "the last 20,000 bytes"
    assert len(topic._after) == len(topic._sizes) <= 2 * 2000 + TIDY
