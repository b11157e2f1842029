"""A data directory that a used node left behind: a later version goes on from it, and has forgotten nothing.

tests/data/data_dir_used was written by tools/make_data_dir_used.py on a little-endian machine with 64 bits. It is never made anew to please this test.
"""

from __future__ import annotations

import shutil
import struct
import sys
from pathlib import Path

import pytest

from coterie.actors.disk.findings import Finding
from coterie.actors.stores.inspection import inspect
from tests.product.wait import wait_for
from tools.make_data_dir_used import COMMANDS, HERE, MESSAGE_ID, RECORDS, SESSION, Sum, make, open_node

TOTAL = sum(map(int, COMMANDS)) + 100


@pytest.fixture(params=["as it was left", "as it is left now"])
def directory(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "as it is left now":
        make(tmp_path / "n1")
    elif sys.byteorder != "little" or struct.calcsize("P") != 8:
        pytest.skip("LMDB's files are those of a little-endian machine with 64 bits")
    else:
        shutil.copytree(HERE, tmp_path / "n1")
    return tmp_path / "n1"


def test_a_node_goes_on_from_what_an_earlier_one_left(directory: Path) -> None:
    assert [found for found in inspect(directory) if isinstance(found, Finding)] == []
    handler = Sum.start()
    try:
        with open_node(directory, handler) as cluster:
            assert cluster.read("total", consistency="linearizable") == b"%d" % TOTAL, "the snapshot, and the commands behind it"
            again = cluster.apply("add", COMMANDS[-1], session=SESSION, number=len(COMMANDS))
            assert again.result == b"%d" % sum(map(int, COMMANDS)), "its first outcome"
            assert cluster.apply("add", b"1").result == b"%d" % (TOTAL + 1)
            assert cluster.publish("orders", b"twice", message_id=MESSAGE_ID).seq == len(RECORDS) + 1
            assert cluster.publish("orders", b"later").seq == len(RECORDS) + 2
            assert cluster.publish_many("many", [b"later"]).first_seq == len(RECORDS) + 1
            (letter,) = cluster.dead_letters().letters
            assert (letter.topic, letter.seq, letter.data, letter.attempts) == ("سفارش", 1, b"bad", 2)
            assert "a bad record" in letter.reason
            had = handler._actor_weakref().had
            wait_for(lambda: len(had) == 2, 10, "what is new is delivered")
            assert sorted(had) == [("many", b"later"), ("orders", b"later")], "and nothing again"
    finally:
        handler.stop()
