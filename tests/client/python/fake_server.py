"""A gRPC server in the test's process whose methods are the test's functions."""

from concurrent import futures

import grpc

from distorchd._methods import METHODS
from distorchd import distorch_pb2 as pb


def _request_class(method):
    service, name = method.path[1:].split("/")
    descriptor = pb.DESCRIPTOR.services_by_name[service.rsplit(".", 1)[1]].methods_by_name[name]
    return getattr(pb, descriptor.input_type.name)


class FakeServer:
    """`answers`: by method name, a function of (request, context); of a stream, a generator function."""

    def __init__(self, answers, credentials=None):
        self.requests = []  # (method, request, metadata)
        self._server = grpc.server(futures.ThreadPoolExecutor(4))
        handlers = {}
        for name, answer in answers.items():
            method = METHODS[name]
            make = grpc.unary_stream_rpc_method_handler if method.streams else grpc.unary_unary_rpc_method_handler
            handlers.setdefault(method.path[1:].split("/")[0], {})[name] = make(
                self._recorded(name, answer), request_deserializer=_request_class(method).FromString,
                response_serializer=lambda message: message.SerializeToString())
        for service, methods in handlers.items():
            self._server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, methods)])
        if credentials is None:
            self.port = self._server.add_insecure_port("127.0.0.1:0")
        else:
            self.port = self._server.add_secure_port("127.0.0.1:0", credentials)
        self.address = f"127.0.0.1:{self.port}"

    def _recorded(self, name, answer):
        def run(request, context):
            self.requests.append((name, request, dict(context.invocation_metadata())))
            return answer(request, context)
        return run

    def __enter__(self):
        self._server.start()
        return self

    def __exit__(self, *error):
        self._server.stop(None).wait()
