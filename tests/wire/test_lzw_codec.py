"""LZW: Go's bytes, and what no writer of Go's would send. (Outputs of the Go module itself stand among the memberlist vectors.)"""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.proto.errors import WireError
from coterie.proto.lzw import compress, decompress


def codes(*numbers: int) -> bytes:
    """Codes of nine bits each, least significant bit first."""
    bits = sum(number << 9 * place for place, number in enumerate(numbers))
    return bits.to_bytes((9 * len(numbers) + 7) // 8, "little")


@settings(deadline=None)
@given(st.binary(max_size=3000))
def test_any_bytes_come_back(plain):
    assert decompress(compress(plain), len(plain)) == plain


@pytest.mark.parametrize("size", [3835, 3836, 3837, 3838, 3839, 3840, 7675, 7677, 30_000])
@pytest.mark.parametrize("letters", [2, 256])
def test_texts_that_fill_the_table_come_back(size, letters):
    plain = bytes(random.Random(size).randrange(letters) for _ in range(size))
    assert decompress(compress(plain), size) == plain


def test_a_full_table_may_be_used_on_without_a_clear():
    """Go's writer clears before the table is full, but other writers need not."""
    literals = [random.Random(7).randrange(256) for _ in range(6000)]
    bits = held = 0
    width, following = 9, 257
    for literal in literals:
        bits |= literal << held
        held += width
        following = min(following + 1, 4096)
        if following == 1 << width and width < 12:
            width += 1
    bits |= 257 << held
    assert decompress(bits.to_bytes((held + width + 7) // 8, "little"), 6000) == bytes(literals)


@pytest.mark.parametrize(
    "data",
    [b"", b"\x00", codes(256), codes(256, 97), codes(256, 258), codes(256, 97, 259), codes(258, 257), codes(256, 97, 256, 258)],
    ids=lambda data: data.hex() or "nothing",
)
def test_cut_or_impossible_codes_are_refused(data):
    with pytest.raises(WireError, match="LZW"):
        decompress(data, 1000)


def test_the_limit_is_exact():
    bomb = compress(bytes(100_000))
    assert len(bomb) < 1000
    assert decompress(bomb, 100_000) == bytes(100_000)
    with pytest.raises(WireError, match="more than 99999"):
        decompress(bomb, 99_999)


def test_a_bomb_is_refused_in_time():
    bomb = compress(bytes(8 << 20))
    started = time.perf_counter()
    with pytest.raises(WireError, match="more than"):
        decompress(bomb, (8 << 20) - 1)
    assert time.perf_counter() - started < 5
