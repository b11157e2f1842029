from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Failure(_message.Message):
    __slots__ = ("kind", "text", "leader_id", "leader_addr", "topic", "first_seq", "last_seq", "index", "missing")
    KIND_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    LEADER_ID_FIELD_NUMBER: _ClassVar[int]
    LEADER_ADDR_FIELD_NUMBER: _ClassVar[int]
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    FIRST_SEQ_FIELD_NUMBER: _ClassVar[int]
    LAST_SEQ_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    kind: str
    text: str
    leader_id: str
    leader_addr: str
    topic: str
    first_seq: int
    last_seq: int
    index: int
    missing: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, kind: _Optional[str] = ..., text: _Optional[str] = ..., leader_id: _Optional[str] = ..., leader_addr: _Optional[str] = ..., topic: _Optional[str] = ..., first_seq: _Optional[int] = ..., last_seq: _Optional[int] = ..., index: _Optional[int] = ..., missing: _Optional[_Iterable[str]] = ...) -> None: ...

class ReadRequest(_message.Message):
    __slots__ = ("op", "data")
    OP_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    op: str
    data: bytes
    def __init__(self, op: _Optional[str] = ..., data: _Optional[bytes] = ...) -> None: ...

class ReadReply(_message.Message):
    __slots__ = ("data", "failure")
    DATA_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    failure: Failure
    def __init__(self, data: _Optional[bytes] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ...) -> None: ...

class ReadIndexRequest(_message.Message):
    __slots__ = ("lease",)
    LEASE_FIELD_NUMBER: _ClassVar[int]
    lease: bool
    def __init__(self, lease: bool = ...) -> None: ...

class ReadIndexReply(_message.Message):
    __slots__ = ("commands", "by_lease", "failure")
    COMMANDS_FIELD_NUMBER: _ClassVar[int]
    BY_LEASE_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    commands: int
    by_lease: bool
    failure: Failure
    def __init__(self, commands: _Optional[int] = ..., by_lease: bool = ..., failure: _Optional[_Union[Failure, _Mapping]] = ...) -> None: ...

class TransferRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class TransferReply(_message.Message):
    __slots__ = ("failure",)
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    failure: Failure
    def __init__(self, failure: _Optional[_Union[Failure, _Mapping]] = ...) -> None: ...

class ForwardRequest(_message.Message):
    __slots__ = ("id", "batch", "trace")
    ID_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    TRACE_FIELD_NUMBER: _ClassVar[int]
    id: int
    batch: bytes
    trace: str
    def __init__(self, id: _Optional[int] = ..., batch: _Optional[bytes] = ..., trace: _Optional[str] = ...) -> None: ...

class ForwardReply(_message.Message):
    __slots__ = ("id", "ok", "payload", "failure")
    ID_FIELD_NUMBER: _ClassVar[int]
    OK_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    id: int
    ok: bool
    payload: bytes
    failure: Failure
    def __init__(self, id: _Optional[int] = ..., ok: bool = ..., payload: _Optional[bytes] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ...) -> None: ...

class TopicAck(_message.Message):
    __slots__ = ("topic", "seq")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    topic: str
    seq: int
    def __init__(self, topic: _Optional[str] = ..., seq: _Optional[int] = ...) -> None: ...

class AckBatch(_message.Message):
    __slots__ = ("node_id", "announce", "acks")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    ANNOUNCE_FIELD_NUMBER: _ClassVar[int]
    ACKS_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    announce: bool
    acks: _containers.RepeatedCompositeFieldContainer[TopicAck]
    def __init__(self, node_id: _Optional[str] = ..., announce: bool = ..., acks: _Optional[_Iterable[_Union[TopicAck, _Mapping]]] = ...) -> None: ...

class AcksDone(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class TopicCursor(_message.Message):
    __slots__ = ("topic", "next_seq")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    NEXT_SEQ_FIELD_NUMBER: _ClassVar[int]
    topic: str
    next_seq: int
    def __init__(self, topic: _Optional[str] = ..., next_seq: _Optional[int] = ...) -> None: ...

class FollowRequest(_message.Message):
    __slots__ = ("node_id", "cursors")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    CURSORS_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    cursors: _containers.RepeatedCompositeFieldContainer[TopicCursor]
    def __init__(self, node_id: _Optional[str] = ..., cursors: _Optional[_Iterable[_Union[TopicCursor, _Mapping]]] = ...) -> None: ...

class FollowBatch(_message.Message):
    __slots__ = ("topic", "first_seq", "count", "index", "data")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    FIRST_SEQ_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    topic: str
    first_seq: int
    count: int
    index: int
    data: bytes
    def __init__(self, topic: _Optional[str] = ..., first_seq: _Optional[int] = ..., count: _Optional[int] = ..., index: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class FollowBatches(_message.Message):
    __slots__ = ("batches",)
    BATCHES_FIELD_NUMBER: _ClassVar[int]
    batches: _containers.RepeatedCompositeFieldContainer[FollowBatch]
    def __init__(self, batches: _Optional[_Iterable[_Union[FollowBatch, _Mapping]]] = ...) -> None: ...

class HandlerStateRequest(_message.Message):
    __slots__ = ("at_least",)
    AT_LEAST_FIELD_NUMBER: _ClassVar[int]
    at_least: int
    def __init__(self, at_least: _Optional[int] = ...) -> None: ...

class HandlerStatePart(_message.Message):
    __slots__ = ("index", "log_index", "blocks", "size", "block")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    LOG_INDEX_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    BLOCK_FIELD_NUMBER: _ClassVar[int]
    index: int
    log_index: int
    blocks: int
    size: int
    block: bytes
    def __init__(self, index: _Optional[int] = ..., log_index: _Optional[int] = ..., blocks: _Optional[int] = ..., size: _Optional[int] = ..., block: _Optional[bytes] = ...) -> None: ...

class StateRequest(_message.Message):
    __slots__ = ("node_id", "at_least")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    AT_LEAST_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    at_least: int
    def __init__(self, node_id: _Optional[str] = ..., at_least: _Optional[int] = ...) -> None: ...

class StatePart(_message.Message):
    __slots__ = ("reach", "end", "piece")
    REACH_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    PIECE_FIELD_NUMBER: _ClassVar[int]
    reach: StateReach
    end: StateEnd
    piece: bytes
    def __init__(self, reach: _Optional[_Union[StateReach, _Mapping]] = ..., end: _Optional[_Union[StateEnd, _Mapping]] = ..., piece: _Optional[bytes] = ...) -> None: ...

class StateReach(_message.Message):
    __slots__ = ("applied", "empty")
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    EMPTY_FIELD_NUMBER: _ClassVar[int]
    applied: int
    empty: bool
    def __init__(self, applied: _Optional[int] = ..., empty: bool = ...) -> None: ...

class StateEnd(_message.Message):
    __slots__ = ("index", "term", "configuration_index", "configuration", "size")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    CONFIGURATION_INDEX_FIELD_NUMBER: _ClassVar[int]
    CONFIGURATION_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    index: int
    term: int
    configuration_index: int
    configuration: bytes
    size: int
    def __init__(self, index: _Optional[int] = ..., term: _Optional[int] = ..., configuration_index: _Optional[int] = ..., configuration: _Optional[bytes] = ..., size: _Optional[int] = ...) -> None: ...
