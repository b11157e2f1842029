"""Server reflection (`grpc.reflection.v1` and `v1alpha`): a client that knows nothing of a node learns its services, methods and messages from the node itself.

    grpcurl -plaintext 127.0.0.1:17947 describe cluster.v1.Management

A question that has no answer is answered with an `error_response`, and the stream goes on. A client that sends no question keeps a stream, of which there is a
bounded number (`StreamPlaces`), and no memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.message import DecodeError

from coterie.proto.grpc_standard import POOL, message
from coterie.transport.grpc_server import Call, Method, Refused

__all__ = ["reflection_service"]

_NOT_FOUND: Final = 5  # of google.rpc.Code
_UNIMPLEMENTED: Final = 12


def reflection_service(name: str, services: Iterable[str]) -> Mapping[str, Method]:
    """name: the full name of the service itself, which says the version; services: all that the server serves. For `GrpcServer`."""
    package = name.rpartition(".")[0]
    request_class, response_class = message(f"{package}.ServerReflectionRequest"), message(f"{package}.ServerReflectionResponse")
    listed = sorted(services)

    def info(requests: Iterator[bytes], call: Call) -> Iterator[bytes]:
        for body in requests:
            try:
                request = request_class.FromString(body)
            except DecodeError as error:
                raise Refused("INVALID_ARGUMENT", f"the request is no ServerReflectionRequest: {error}") from None
            response = response_class(valid_host=request.host, original_request=request)
            _answer(request, response, listed)
            yield response.SerializeToString()

    return {"ServerReflectionInfo": Method("bidi", info)}


def _answer(request: Any, response: Any, services: list[str]) -> None:
    what = request.WhichOneof("message_request")
    try:
        match what:
            case "list_services":
                for service in services:
                    response.list_services_response.service.add(name=service)
            case "file_by_filename":
                _file(response, POOL.FindFileByName(request.file_by_filename))
            case "file_containing_symbol":
                _file(response, _containing(request.file_containing_symbol))
            case "all_extension_numbers_of_type":  # proto3 messages have no extensions: a type that is known has none
                POOL.FindMessageTypeByName(request.all_extension_numbers_of_type)
                response.all_extension_numbers_response.base_type_name = request.all_extension_numbers_of_type
            case "file_containing_extension":
                raise KeyError("no message here has extensions")
            case _:
                response.error_response.error_code = _UNIMPLEMENTED
                response.error_response.error_message = "this question of reflection is not known here"
    except KeyError as error:
        response.error_response.error_code = _NOT_FOUND
        response.error_response.error_message = str(error.args[0] if error.args else error)


def _containing(symbol: str) -> FileDescriptor:
    """Also of a method, which the pool does not find by name. Raises KeyError."""
    try:
        return POOL.FindFileContainingSymbol(symbol)
    except KeyError:
        service, _, method = symbol.rpartition(".")
        if service and method in POOL.FindServiceByName(service).methods_by_name:
            return POOL.FindFileContainingSymbol(service)
        raise


def _file(response: Any, file: FileDescriptor) -> None:
    """The file with all that it imports (ours import nothing), itself first."""
    response.file_descriptor_response.file_descriptor_proto.append(file.serialized_pb)
