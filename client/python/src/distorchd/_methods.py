"""The contract's methods, from its descriptors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf import message_factory

from distorchd import distorch_pb2 as pb
from distorchd.errors import DistorchdError, UnavailableError

# They change nothing on the server and answer once, or give the same when asked twice.
_IDEMPOTENT = {"ListDevices", "ListCheckpoints", "ListModels", "ListLinks", "PlanCheckpoint", "SetClipSkip", "EncodeText",
               "Denoise", "DecodeLatent", "EncodeImage"}


@dataclass(frozen=True)
class Method:
    name: str
    path: str
    response: Any
    streams: bool
    idempotent: bool

    def callable(self, channel: Any) -> Any:
        """Of a grpc.Channel or a grpc.aio.Channel."""
        kind = channel.unary_stream if self.streams else channel.unary_unary
        return kind(self.path, request_serializer=lambda message: message.SerializeToString(),
                    response_deserializer=self.response.FromString)


METHODS = {
    method.name: Method(method.name, f"/{service.full_name}/{method.name}",
                        message_factory.GetMessageClass(method.output_type), method.server_streaming,
                        method.name in _IDEMPOTENT)
    for service in pb.DESCRIPTOR.services_by_name.values() for method in service.methods
}


def may_retry(method: Method, error: DistorchdError, began: bool) -> bool:
    """`began`: whether a part of the answer has come."""
    if began:
        return False
    if error.retry_after is not None and error.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED):
        return True  # turned away before it was begun
    return method.idempotent and isinstance(error, UnavailableError)
