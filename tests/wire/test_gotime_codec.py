"""Go's time as bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.proto.errors import WireError
from coterie.proto.gotime import from_payload, from_unix, to_unix


@given(st.integers(-(2**62), 2**62))
def test_nanoseconds_come_back(nanoseconds):
    written = from_unix(nanoseconds)
    assert len(written) == 15
    assert to_unix(written) == nanoseconds
    assert from_payload(written) == written


@pytest.mark.parametrize(
    ("written", "nanoseconds"),
    [
        ("010000000e7791f70000000000ffff", 0),
        ("010000000ee0e92ca5287735f2ffff", 1767323045678901234),
        ("010000000ee0e92ca5287735f200d2", 1767323045678901234),
        ("020000000ee0e92ca5287735f2003c07", 1767323045678901234),
        ("010000000e7791f6ff00000005ffff", -999999995),
        ("01000000000000000000000000ffff", None),
        ("", None),
    ],
)
def test_what_go_wrote_is_read(written, nanoseconds):
    assert to_unix(bytes.fromhex(written)) == nanoseconds


@pytest.mark.parametrize(
    "payload",
    ["", "00" * 15, "01" + "00" * 13, "01" + "00" * 15, "02" + "00" * 14, "ff" * 8, "ff" * 4 + "00" * 8, "00" * 4 + "7f" + "ff" * 7],
)
def test_what_is_no_time_is_refused(payload):
    with pytest.raises(WireError, match="AppendedAt"):
        from_payload(bytes.fromhex(payload))
