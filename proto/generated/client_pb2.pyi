from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Mapping as _Mapping, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class PublishRequest(_message.Message):
    __slots__ = ("topic", "data", "message_id", "headers", "acks")
    class HeadersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    ACKS_FIELD_NUMBER: _ClassVar[int]
    topic: str
    data: bytes
    message_id: str
    headers: _containers.ScalarMap[str, str]
    acks: str
    def __init__(self, topic: _Optional[str] = ..., data: _Optional[bytes] = ..., message_id: _Optional[str] = ..., headers: _Optional[_Mapping[str, str]] = ..., acks: _Optional[str] = ...) -> None: ...

class PublishReply(_message.Message):
    __slots__ = ("topic", "seq", "index")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    topic: str
    seq: int
    index: int
    def __init__(self, topic: _Optional[str] = ..., seq: _Optional[int] = ..., index: _Optional[int] = ...) -> None: ...

class ApplyRequest(_message.Message):
    __slots__ = ("op", "data", "session", "number")
    OP_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    op: str
    data: bytes
    session: str
    number: int
    def __init__(self, op: _Optional[str] = ..., data: _Optional[bytes] = ..., session: _Optional[str] = ..., number: _Optional[int] = ...) -> None: ...

class ApplyReply(_message.Message):
    __slots__ = ("index", "result")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    index: int
    result: bytes
    def __init__(self, index: _Optional[int] = ..., result: _Optional[bytes] = ...) -> None: ...

class ClientReadRequest(_message.Message):
    __slots__ = ("op", "data", "consistency")
    OP_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    op: str
    data: bytes
    consistency: str
    def __init__(self, op: _Optional[str] = ..., data: _Optional[bytes] = ..., consistency: _Optional[str] = ...) -> None: ...

class ClientReadReply(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...
