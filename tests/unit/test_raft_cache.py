"""The log cache against the obvious definition: a plain list, and a disk that gets everything a little later."""

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.actors.raft.cache import ENTRY_OVERHEAD, LogCache
from coterie.proto.raft_messages import COMMAND, Entry
from tests.sim.disk import SimDisk

steps = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 8)),
        st.tuples(st.just("truncate"), st.integers(1, 40)),
        st.tuples(st.just("hand over"), st.just(0)),
        st.tuples(st.just("store"), st.just(0)),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(steps, st.sampled_from([200, 1000, 1 << 20]))
def test_the_cache_is_the_list_whatever_is_stored_when(series: list[tuple[str, int]], max_bytes: int) -> None:
    disk, model, term = SimDisk(), [], 1
    cache = LogCache(disk, max_bytes)
    under_way: deque[tuple[int | None, list[Entry], int, int]] = deque()
    for step, number in series:
        if step == "append":
            new = [Entry(len(model) + 1 + n, term, COMMAND, b"x" * ((7 * n) % 40)) for n in range(number)]
            model += new
            cache.append(new)
        elif step == "truncate" and number <= len(model):
            del model[number - 1 :]
            cache.truncate(number)
            term += 1
        elif step == "hand over":
            truncate_from, entries = cache.take_unsaved()
            under_way.append((truncate_from, entries, cache.last_index, cache.generation))
        elif step == "store" and under_way:
            truncate_from, entries, last, generation = under_way.popleft()
            disk.write(entries, None, truncate_from)
            cache.stored(last, generation)
        assert (cache.last_index, cache.last_term) == (len(model), model[-1].term if model else 0)
        assert cache.stored_index <= len(model)
        assert disk.log[: cache.stored_index] == model[: cache.stored_index]
        assert [cache.term(index) for index in range(1, len(model) + 1)] == [entry.term for entry in model]
        compare_reading(cache, model)


def compare_reading(cache: LogCache, model: list[Entry]) -> None:
    position = 1
    while position <= len(model):
        read = cache.entries(position, len(model), 100)
        assert read
        assert read == model[position - 1 : position - 1 + len(read)]
        assert cache.size(read) == sum(len(entry.data or b"") + ENTRY_OVERHEAD for entry in read)
        position += len(read)
    for index, entry in enumerate(model, 1):
        assert cache.first_of_term(index) == next(i for i, other in enumerate(model, 1) if other.term == entry.term)
        for term in (entry.term - 1, entry.term):
            below = [i for i in range(1, index + 1) if model[i - 1].term <= term]
            assert cache.last_not_above(index, term) == max(below, default=0)


def test_memory_is_bounded_once_entries_are_stored() -> None:
    disk = SimDisk()
    cache = LogCache(disk, 10_000)
    for first in range(1, 2000, 10):
        cache.append([Entry(index, 1, COMMAND, b"x" * 36) for index in range(first, first + 10)])
        truncate_from, entries = cache.take_unsaved()
        disk.write(entries, None, truncate_from)
        cache.stored(cache.last_index, cache.generation)
        assert cache.cached_bytes <= 10_000
    assert cache.entries(1, 3, 1 << 20) == disk.log[:3]


def test_what_is_not_stored_stays_in_memory_whatever_it_takes() -> None:
    cache = LogCache(SimDisk(), 10)
    cache.append([Entry(index, 1, COMMAND, b"x" * 100) for index in range(1, 50)])
    assert len(cache.entries(1, 49, 1 << 20)) == 49


def test_the_byte_limit_cuts_after_the_entry_that_reaches_it() -> None:
    cache = LogCache(SimDisk(), 1 << 20)
    cache.append([Entry(index, 1, COMMAND, b"x" * 36) for index in range(1, 10)])
    assert len(cache.entries(1, 9, 1)) == 1
    assert len(cache.entries(1, 9, 100)) == 1
    assert len(cache.entries(1, 9, 101)) == 2
    with pytest.raises(KeyError):
        cache.term(10)
