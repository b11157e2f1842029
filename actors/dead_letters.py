"""Dead letters: what a record becomes when a node's handler has failed on it too often.

A dead letter is a record of the dead-letter topic. Its data are the original's, to the byte; what is known about the failure stands in headers of its own
(`dead-letter-…`, a prefix that is reserved on records of that topic) beside the original's headers. It is published through the log like any other record,
so it is ordered, replicated and kept as they are, and every node holds all of them.

Its message id is made of topic, seq and node: a node that crashes after the letter was committed and before its cursor passed the record publishes the same letter
again, and the log takes it once. Two nodes that fail on one record write two letters, since what they could not do is two different things.

Pure: a record and a failure become a `Publish`, a record of the topic becomes a `DeadLetter`. `OWN_BYTES` and `OWN_HEADERS` bound what a letter has beyond its
original, so that the letter of the largest record that may be published can be published too.
"""

from __future__ import annotations

import hashlib
from typing import Final

from coterie.actors.messages import DeadLetter, Publish

__all__ = ["OWN_BYTES", "OWN_HEADERS", "PREFIX", "describe", "letter_id", "read_letter", "requeued", "write_letter"]

PREFIX: Final = "dead-letter-"
FIELDS: Final = ("topic", "seq", "index", "time", "node", "attempts", "reason")
REQUEUED: Final = PREFIX + "requeued"
MOST_REASON: Final = 1000  # characters
OWN_HEADERS: Final = len(FIELDS) + 1  # a record that was requeued has one already
OWN_BYTES: Final = 8 << 10  # four bytes a character at most, and names, numbers, message id


def describe(error: BaseException) -> str:
    """The exception's type and text, cut to `MOST_REASON` characters and always writable as UTF-8, whatever the exception's own `str` does."""
    try:
        text = f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - the application's exception; its type must do
        text = f"{type(error).__name__}: (its text cannot be had: str() of it raises)"
    if len(text) > MOST_REASON:
        text = text[: MOST_REASON - 1] + "…"
    return text.encode(errors="replace").decode()


def letter_id(topic: str, seq: int, node: str) -> str:
    """The message id of the letter that `node` writes about record `seq` of `topic`; the same after a crash, and within the length of a message id."""
    name = b"\0".join((topic.encode(), b"%d" % seq, node.encode()))
    return PREFIX + hashlib.sha256(name).hexdigest()


def write_letter(
    letters: str,
    topic: str,
    record: tuple[int, bytes, dict[str, str] | None],
    index: int,
    time: float,
    node: str,
    attempts: int,
    reason: str,
) -> Publish:
    """The publish of the letter about `record` (seq, data, headers), to the topic `letters`. index, time: of the record's batch."""
    seq, data, headers = record
    values = (topic, str(seq), str(index), repr(time), node, str(attempts), reason)
    own = {PREFIX + name: value for name, value in zip(FIELDS, values, strict=True)}
    return Publish(letters, data, message_id=letter_id(topic, seq, node), headers={**(headers or {}), **own})


def read_letter(seq: int, time: float, data: bytes, headers: dict[str, str] | None) -> DeadLetter | None:
    """The dead letter in record `seq` of the dead-letter topic; None when it is none (an application has published it there itself)."""
    if headers is None:
        return None
    try:
        topic, number, index, published, node, attempts, reason = (headers[PREFIX + name] for name in FIELDS)
        return DeadLetter(
            letter=seq,
            time=time,
            topic=topic,
            seq=int(number),
            index=int(index),
            published=float(published),
            node=node,
            attempts=int(attempts),
            reason=reason,
            data=data,
            headers={name: value for name, value in headers.items() if not name.startswith(PREFIX)},
        )
    except (KeyError, ValueError):
        return None


def requeued(letter: DeadLetter) -> Publish:
    """The letter's record, to be published to its topic once more; asking twice publishes it once (within the window of message ids)."""
    message_id = f"{PREFIX}requeued-{letter.letter}"
    return Publish(letter.topic, letter.data, message_id=message_id, headers={**letter.headers, REQUEUED: str(letter.letter)})
