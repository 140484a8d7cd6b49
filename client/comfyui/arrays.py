"""Between torch and the wire."""

from __future__ import annotations

import torch

from distorchd import distorch_pb2 as pb
from distorchd.tensors import Tensor, to_wire


def send(tensor: torch.Tensor) -> pb.Tensor:
    """Floats as float32, which is what the daemon's samplers and VAEs take."""
    return to_wire(tensor.float() if tensor.is_floating_point() else tensor)


def receive(message: pb.Tensor, device: torch.device | None = None) -> torch.Tensor:
    return Tensor(message).torch(device).float()
