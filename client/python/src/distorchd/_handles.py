"""What the blocking client's and the asyncio client's checkpoints share: all that makes no call."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from distorchd import distorch_pb2 as pb

if TYPE_CHECKING:
    from typing_extensions import Self

AnyClient = TypeVar("AnyClient")


class Handles(Generic[AnyClient]):
    """`own`: the handles that are this object's to unload; by default all. `response`: by default `loaded`."""

    def __init__(self, client: AnyClient, model: str, clip: str, vae: str, loaded: pb.LoadCheckpointResponse,
                 ckpt_name: str = "", own: Iterable[str] | None = None, response: Any = None) -> None:
        self.client = client
        self.model, self.clip, self.vae = model, clip, vae
        self.ckpt_name = ckpt_name
        self.loaded = loaded
        """What the load returned: placement with planned and measured bytes, times, family."""
        self.response = loaded if response is None else response
        """What made these handles returned: the load's, or ApplyLora's with its unmatched_keys."""
        self._own = [model, clip, vae] if own is None else list(own)

    @property
    def family(self) -> str:
        return self.loaded.family

    @property
    def placement(self) -> pb.Placement:
        return self.loaded.placement

    def __repr__(self) -> str:
        return f"Checkpoint({self.family}, model={self.model!r}, clip={self.clip!r}, vae={self.vae!r})"

    def empty_latent(self, width: int = 512, height: int = 512, batch_size: int = 1) -> Any:
        """Zeros of the model's latent channels, as a numpy array."""
        import numpy as np

        return np.zeros((batch_size, self.loaded.denoiser.latent_channels or 4, height // 8, width // 8), np.float32)

    def _derive(self, model: str, clip: str, response: Any) -> Self:
        own = [handle for handle in (model, clip) if handle not in (self.model, self.clip)]
        return type(self)(self.client, model, clip, self.vae, self.loaded, self.ckpt_name, own, response)
