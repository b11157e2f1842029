"""The messages of `cluster.proto` as go-cluster's nodes write them, and those of `client.proto`: JSON objects on the same gRPC methods that take protobuf. Pure.

**How the two are told apart.** A JSON request of theirs begins with `{`, the byte 0x7b. A protobuf message begins with a tag: 0x7b would be field 15 with wire
type 3, the begin of a *group*. proto3 has no groups and no message of the two files a field 15, so no encoder of these messages writes it. An empty body
is the protobuf of an empty message. JSON may begin with white space, too, but a line feed (0x0a) is also the tag of field 1, so only `{` counts; Go's encoder
writes nothing before it.

**What is written.** Every field under its JSON name, `raftAddr` and `nodeId`; bytes in base64 with padding; numbers as numbers (protobuf's own JSON mapping, which
was considered, writes 64-bit integers as strings, and Go's decoder refuses those). As Go's `omitempty` has it, an empty `leader` or `error` is left out, and so is
an empty `data` beside an error.

**What is read.** As Go's decoder reads it: a field under another case of its name too, unknown fields skipped, `null` or a missing field as zero, line breaks in
base64 skipped.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any, Final, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from coterie.proto.errors import WireError

__all__ = ["is_json", "read", "read_json", "write", "write_json"]

M = TypeVar("M", bound=Message)

_OMITTED: Final = ("leader", "error")  # when empty
_MAX_UINT64: Final = (1 << 64) - 1


def is_json(body: bytes) -> bool:
    """Whether a request is JSON; what it is not, is protobuf."""
    return body[:1] == b"{"


def read(kind: type[M], body: bytes) -> M:
    """The message in `body`, in whichever of the two it is. Raises WireError."""
    if is_json(body):
        return read_json(kind, body)
    try:
        return kind.FromString(body)
    except DecodeError as error:
        raise WireError(f"this is no {kind.DESCRIPTOR.full_name}: {error}") from None


def write(message: Message, as_json: bool) -> bytes:
    return write_json(message) if as_json else message.SerializeToString()


def write_json(message: Message) -> bytes:
    """As compact as Go's encoder."""
    document: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if value or not (field.json_name in _OMITTED or (field.has_presence and not message.HasField(field.name))):
            document[field.json_name] = _document(field, value)
    if "error" in document and not document.get("data", True):
        del document["data"]
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _document(field: Any, value: Any) -> Any:
    if field.type == FieldDescriptor.TYPE_BYTES:
        return base64.b64encode(value).decode()
    return dict(value) if _is_map(field) else value


def read_json(kind: type[M], body: bytes) -> M:
    """Raises WireError, which names the field and what would be valid."""
    try:
        document = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise WireError(f"this is no JSON: {error}") from None
    if not isinstance(document, dict):
        raise WireError(f"this is a JSON {_type_of(document)}; give an object")
    message = kind()
    for field in kind.DESCRIPTOR.fields:
        value = _find(document, field.json_name)
        if value is None:
            continue
        if _is_map(field):
            getattr(message, field.name).update(_texts(field.json_name, value))
        else:
            setattr(message, field.name, _value(field, value))
    return message


def _find(document: dict[str, Any], name: str) -> Any:
    value = document.get(name)
    if value is None:
        value = next((v for key, v in document.items() if key.lower() == name.lower() and v is not None), None)
    return value


def _value(field: Any, value: Any) -> Any:
    """field: its descriptor."""
    name = field.json_name
    match field.type:
        case FieldDescriptor.TYPE_STRING:
            return _text(name, value)
        case FieldDescriptor.TYPE_BYTES:
            return _bytes(name, value)
        case FieldDescriptor.TYPE_BOOL:
            if not isinstance(value, bool):
                raise WireError(f"{name}={_shown(value)}: this is a JSON {_type_of(value)}; give true or false")
            return value
        case FieldDescriptor.TYPE_UINT64:
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MAX_UINT64:
                raise WireError(f"{name}={_shown(value)}: give a whole number from 0 to {_MAX_UINT64}")
            return value
    raise TypeError(f"{field.full_name}: fields of this type are in no message of cluster.proto and client.proto")


def _is_map(field: Any) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def _texts(name: str, value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise WireError(f"{name}={_shown(value)}: this is a JSON {_type_of(value)}; give an object of strings")
    return {_text(name, key): _text(f"{name}.{key}", text) for key, text in value.items()}


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise WireError(f"{name}={_shown(value)}: this is a JSON {_type_of(value)}; give a string")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise WireError(f"{name}={_shown(value)}: it holds half of a surrogate pair; give text") from None
    return value


def _bytes(name: str, value: Any) -> bytes:
    text = _text(name, value)
    try:
        return base64.b64decode(text.replace("\n", "").replace("\r", ""), validate=True)
    except (binascii.Error, ValueError) as error:
        raise WireError(f"{name}={_shown(text)}: this is no base64: {error}; give the standard alphabet with padding") from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "…"


def _type_of(value: object) -> str:
    if value is None:
        return "null"
    names: dict[type, str] = {bool: "boolean", int: "number", float: "number", str: "string", list: "array", dict: "object"}
    return names[type(value)]
