"""distorchd's client: diffusion checkpoints that are spread over devices, and served.

    with distorchd.Client() as client, client.load("sd15.safetensors", unet_compute_device="cuda:0") as checkpoint:
        checkpoint.infer("a red circle", steps=20).images[0].save("circle.png")

distorchd.aio has the same for asyncio; distorchd.distorch_pb2 the contract's messages.
"""

from distorchd import aio, distorch_pb2
from distorchd.client import Checkpoint, Client
from distorchd.errors import (AbortedError, CancelledError, DeadlineExceededError, DistorchdError, FailedPreconditionError,
                              InvalidArgumentError, NotFoundError, PermissionDeniedError, ResourceExhaustedError,
                              UnauthenticatedError, UnavailableError)
from distorchd.fields import LoadFields, SamplingFields
from distorchd.options import Canceller, RetryPolicy, Tls
from distorchd.results import Conditioning, InferResult, Progress
from distorchd.tensors import Tensor

__version__ = "1.0.0"

__all__ = ["AbortedError", "CancelledError", "Canceller", "Checkpoint", "Client", "Conditioning", "DeadlineExceededError",
           "DistorchdError", "FailedPreconditionError", "InferResult", "InvalidArgumentError", "LoadFields", "NotFoundError",
           "PermissionDeniedError", "Progress", "ResourceExhaustedError", "RetryPolicy", "SamplingFields", "Tensor", "Tls",
           "UnauthenticatedError", "UnavailableError", "aio", "distorch_pb2"]
