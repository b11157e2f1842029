"""What is asked of a publisher, checked: each error names the field, the value and what would be valid, and harms nobody else."""

from __future__ import annotations

from typing import Any, Final

from coterie.actors.durations import LONGEST
from coterie.actors.errors import InvalidRequest, PayloadTooLarge
from coterie.actors.messages import Acks, Apply, Publish
from coterie.actors.replication.packing import record_size
from coterie.actors.room_messages import COMMANDS_TOPIC
from coterie.proto.command import MAX_NUMBER
from coterie.proto.record_batch import MAX_NAME, MAX_RECORDS, Record

MAX_HEADERS: Final = 64


def check_topic(topic: Any) -> str:
    """1..255 bytes of UTF-8, and not reserved."""
    if topic == COMMANDS_TOPIC:
        raise InvalidRequest(f"topic={topic!r}: it is reserved for commands; publish on another one, or use Apply")
    return _name("topic", topic)


def check_command(message: Apply) -> bytes:
    """The data of a command whose op, session and number are as they must be."""
    _name("op", message.op)
    session, number = message.session, message.number
    if session is None and number is None:
        return check_data(message.data)
    if session is None or number is None:
        raise InvalidRequest(f"session={session!r:.80}, number={number!r:.80}: give both, or none of them")
    _name("session", session)
    if number.__class__ is not int or not 1 <= number <= MAX_NUMBER:
        raise InvalidRequest(f"number={number!r:.80}: give which command of its session this is, a whole number from 1 on")
    return check_data(message.data)


def check_data(data: Any) -> bytes:
    """The bytes of anything bytes-like; a copy when it could change later."""
    if isinstance(data, (bytearray, memoryview, bytes)):
        return bytes(data)
    raise InvalidRequest(f"data={data!r:.80}: give bytes, not {type(data).__name__}")


def check_records(topic: str, data: Any, limit: int, most_bytes: int) -> tuple[list[bytes], int]:
    """The records of a `PublishMany`, and their bytes. limit: of one; most_bytes: of all."""
    if not isinstance(data, list) or not 1 <= len(data) <= MAX_RECORDS:
        given = f"{len(data)} records" if isinstance(data, list) else f"{data!r:.80}"
        raise InvalidRequest(f"data={given}: give 1 to {MAX_RECORDS} records in a list")
    records: list[bytes] = data if set(map(type, data)) == {bytes} else [check_data(record) for record in data]
    largest, size = max(map(len, records)), sum(map(len, records))
    if largest > limit:
        raise too_large(topic, largest, limit)
    if size > most_bytes:
        raise PayloadTooLarge(
            f"{len(records)} records of {size} bytes together for {topic!r}: one call takes up to {most_bytes} bytes; make several of it"
        )
    return records, size


def check_timeout(timeout: Any, default: float) -> float:
    """Seconds above zero, and what a timer can be set to."""
    if timeout is None:
        return default
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 < timeout <= LONGEST:
        raise InvalidRequest(f"timeout={timeout!r:.80}: give seconds above zero, or None for the default of {default} s")
    return float(timeout)


def check_acks(acks: Any) -> Acks:
    if acks in ("quorum", "leader", "all"):
        level: Acks = acks
        return level
    raise InvalidRequest(f"acks={acks!r:.80}: give 'quorum', 'leader' or 'all'")


def enriched(message: Publish, data: bytes, most_headers: int = MAX_HEADERS) -> tuple[Record, int]:
    """The record of a publish with a message id or headers, and its size."""
    message_id, headers = message.message_id, message.headers
    if message_id is not None:
        _name("message_id", message_id)
    if headers is not None:
        _check_headers(headers, most_headers)
        headers = dict(headers)
    record = [data, message_id, headers or None] if message_id is not None or headers else data
    return record, record_size(record)


def too_large(topic: str, size: int, limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(
        f"a record of {size} bytes for {topic!r}: the limit is max_payload={limit}; split it, or raise max_payload on every node"
    )


def _name(field: str, value: Any) -> str:
    if value.__class__ is not str:
        raise InvalidRequest(f"{field}={value!r:.80}: give a string, not {type(value).__name__}")
    try:
        length = len(value.encode())
    except UnicodeEncodeError:
        raise InvalidRequest(f"{field}={value!r:.80}: it cannot be written as UTF-8") from None
    if not 1 <= length <= MAX_NAME:
        raise InvalidRequest(f"{field}={value!r:.80}: it has {length} bytes of UTF-8; give 1 to {MAX_NAME}")
    return str(value)


def _check_headers(headers: Any, most: int) -> None:
    if not isinstance(headers, dict) or len(headers) > most:
        raise InvalidRequest(f"headers={headers!r:.80}: give a dict of at most {most} strings")
    for key, value in headers.items():
        try:
            if key.__class__ is not str or value.__class__ is not str:
                raise InvalidRequest(f"headers[{key!r:.80}]={value!r:.80}: give strings")
            key.encode(), value.encode()
        except UnicodeEncodeError:
            raise InvalidRequest(f"headers[{key!r:.80}]={value!r:.80}: it cannot be written as UTF-8") from None
