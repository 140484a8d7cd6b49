"""The messages of distorch.proto, as `protoc --python_out` would make them, whatever protobuf is installed.

They come from the contract's descriptors rather than from generated code, which would demand a protobuf of the version
that generated it; distorch_pb2.pyi has their types.
"""

import pathlib as _pathlib

from google.protobuf import descriptor_pb2 as _descriptor_pb2
from google.protobuf import descriptor_pool as _descriptor_pool
from google.protobuf import message_factory as _message_factory


def _load():
    path = _pathlib.Path(__file__).with_name("distorch.binpb")
    if not path.exists():
        raise ImportError(f"{path} is missing: it is generated when distorchd is installed (pip install ./client/python)")
    files = _descriptor_pb2.FileDescriptorSet.FromString(path.read_bytes())
    pool = _descriptor_pool.DescriptorPool()  # of its own: other packages may have a distorch.proto in the default one
    for file in files.file:
        pool.Add(file)
    return pool.FindFileByName("distorch.proto")


DESCRIPTOR = _load()
for _name, _descriptor in DESCRIPTOR.message_types_by_name.items():
    globals()[_name] = _message_factory.GetMessageClass(_descriptor)
for _enum in DESCRIPTOR.enum_types_by_name.values():
    for _value in _enum.values:
        globals()[_value.name] = _value.number
