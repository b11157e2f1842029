"""The standard services that every gRPC server should have, as message classes and descriptors: health checking and server reflection (v1 and v1alpha).

The tables below are the fields of `grpc.health.v1` and of `grpc.reflection.v1` (v1alpha has the same under its own package), which the gRPC project fixes for good.
They live in a descriptor pool of their own, `POOL`, with the files of our own services beside them: a pool holds a message name once only, and the host application
may well bring `grpc.health.v1` itself. Why not the libraries grpcio-health-checking and grpcio-reflection: they serve through generated stubs and grpc's own
context, where the methods of this project take and give bytes; there is no reflection v1 in them, which grpcurl and the Go tools ask for first; and each
release of theirs demands a grpcio and a protobuf as new as itself.
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from coterie.proto.generated import client_pb2, cluster_pb2, node_pb2

__all__ = ["HEALTH", "POOL", "REFLECTION", "message"]

HEALTH: Final = "grpc.health.v1.Health"
REFLECTION: Final = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")

_STRING, _BYTES, _INT32 = Field.TYPE_STRING, Field.TYPE_BYTES, Field.TYPE_INT32

# message -> its fields (name, number, type; a text is a message of the file, "*" before it: repeated), and those in a oneof
_REFLECTION_MESSAGES: Final[dict[str, tuple[str, list[tuple[str, int, Any]], str]]] = {
    "ServerReflectionRequest": (
        "message_request",
        [
            ("host", 1, _STRING),
            ("file_by_filename", 3, _STRING),
            ("file_containing_symbol", 4, _STRING),
            ("file_containing_extension", 5, "ExtensionRequest"),
            ("all_extension_numbers_of_type", 6, _STRING),
            ("list_services", 7, _STRING),
        ],
        "host",
    ),
    "ExtensionRequest": ("", [("containing_type", 1, _STRING), ("extension_number", 2, _INT32)], ""),
    "ServerReflectionResponse": (
        "message_response",
        [
            ("valid_host", 1, _STRING),
            ("original_request", 2, "ServerReflectionRequest"),
            ("file_descriptor_response", 4, "FileDescriptorResponse"),
            ("all_extension_numbers_response", 5, "ExtensionNumberResponse"),
            ("list_services_response", 6, "ListServiceResponse"),
            ("error_response", 7, "ErrorResponse"),
        ],
        "valid_host original_request",
    ),
    "FileDescriptorResponse": ("", [("file_descriptor_proto", 1, ("*", _BYTES))], ""),
    "ExtensionNumberResponse": ("", [("base_type_name", 1, _STRING), ("extension_number", 2, ("*", _INT32))], ""),
    "ListServiceResponse": ("", [("service", 1, ("*", "ServiceResponse"))], ""),
    "ServiceResponse": ("", [("name", 1, _STRING)], ""),
    "ErrorResponse": ("", [("error_code", 1, _INT32), ("error_message", 2, _STRING)], ""),
}


def _reflection_file(package: str) -> FileDescriptorProto:
    file = FileDescriptorProto(name=f"{package.replace('.', '/')}/reflection.proto", package=package, syntax="proto3")
    for name, (oneof, fields, outside) in _REFLECTION_MESSAGES.items():
        made = file.message_type.add(name=name)
        if oneof:
            made.oneof_decl.add(name=oneof)
        for field_name, number, kind in fields:
            repeated, kind = (True, kind[1]) if isinstance(kind, tuple) else (False, kind)
            field = made.field.add(name=field_name, number=number, label=Field.LABEL_REPEATED if repeated else Field.LABEL_OPTIONAL)
            if isinstance(kind, str):
                field.type, field.type_name = Field.TYPE_MESSAGE, f".{package}.{kind}"
            else:
                field.type = kind
            if oneof and field_name not in outside.split():
                field.oneof_index = 0
    service = file.service.add(name="ServerReflection")
    service.method.add(
        name="ServerReflectionInfo",
        input_type=f".{package}.ServerReflectionRequest",
        output_type=f".{package}.ServerReflectionResponse",
        client_streaming=True,
        server_streaming=True,
    )
    return file


def _health_file() -> FileDescriptorProto:
    file = FileDescriptorProto(name="grpc/health/v1/health.proto", package="grpc.health.v1", syntax="proto3")
    file.message_type.add(name="HealthCheckRequest").field.add(name="service", number=1, type=_STRING, label=Field.LABEL_OPTIONAL)
    response = file.message_type.add(name="HealthCheckResponse")
    status = response.enum_type.add(name="ServingStatus")
    for number, name in enumerate(("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")):
        status.value.add(name=name, number=number)
    kind = ".grpc.health.v1.HealthCheckResponse.ServingStatus"
    response.field.add(name="status", number=1, type=Field.TYPE_ENUM, type_name=kind, label=Field.LABEL_OPTIONAL)
    service = file.service.add(name="Health")
    for name, stream in (("Check", False), ("Watch", True)):
        service.method.add(
            name=name,
            input_type=".grpc.health.v1.HealthCheckRequest",
            output_type=".grpc.health.v1.HealthCheckResponse",
            server_streaming=stream,
        )
    return file


def _pool() -> DescriptorPool:
    pool = DescriptorPool()
    for file in (client_pb2, cluster_pb2, node_pb2):
        pool.AddSerializedFile(file.DESCRIPTOR.serialized_pb)
    for made in (_health_file(), *(_reflection_file(service.rpartition(".")[0]) for service in REFLECTION)):
        pool.AddSerializedFile(made.SerializeToString())
    return pool


POOL: Final = _pool()


def message(full_name: str) -> Any:
    """The class of a message in `POOL`."""
    return GetMessageClass(POOL.FindMessageTypeByName(full_name))
