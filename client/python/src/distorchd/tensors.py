"""Arrays on the wire: numpy, torch and PIL in, and out again."""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING, Any, Union

import numpy as np

from distorchd import distorch_pb2 as pb

if TYPE_CHECKING:
    import PIL.Image
    import torch

ArrayLike = Any
"""A numpy array, a torch tensor on any device, a Tensor, or what np.asarray takes."""
ImageLike = Any
"""A PIL image or a list of them, or an array N,H,W,3 or H,W,3: floats in 0..1, or uint8."""
FileLike = Union[bytes, bytearray, memoryview, "os.PathLike[str]", str, "PIL.Image.Image"]
"""An image file's content, its path, or a PIL image."""

_TO_NUMPY = {pb.FLOAT32: "<f4", pb.FLOAT16: "<f2", pb.UINT8: "u1", pb.INT64: "<i8"}


class Tensor:
    """An array that came from the server. np.asarray(t), t.numpy() and t.torch() give it to those libraries."""

    def __init__(self, message: pb.Tensor) -> None:
        self.message = message

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.message.shape)

    @property
    def dtype(self) -> str:
        """"float32", "float16", "bfloat16", "uint8" or "int64": as it is on the wire."""
        return pb.DESCRIPTOR.enum_types_by_name["DataType"].values_by_number[self.message.dtype].name.lower()

    def numpy(self) -> np.ndarray:
        """Read-only where no copy is needed. bfloat16, which numpy lacks, comes as float32 of the same values."""
        if self.message.dtype == pb.BFLOAT16:
            bits = np.frombuffer(self.message.data, "<u2").astype(np.uint32) << 16
            return bits.view(np.float32).reshape(self.shape)
        return np.frombuffer(self.message.data, _TO_NUMPY[self.message.dtype]).reshape(self.shape)

    def torch(self, device: Any = None) -> torch.Tensor:
        import torch

        dtype = getattr(torch, self.dtype)
        if not self.message.data:
            return torch.empty(self.shape, dtype=dtype, device=device)
        return torch.frombuffer(bytearray(self.message.data), dtype=dtype).reshape(self.shape).to(device)

    def pil(self) -> list[PIL.Image.Image]:
        """One image for each item of N,H,W,3 in 0..1."""
        from PIL import Image

        if len(self.shape) != 4 or self.shape[3] != 3:
            raise ValueError(f"shape {list(self.shape)} is not one of images, [N, H, W, 3]")
        levels = np.clip(self.numpy().astype(np.float32) * 255 + 0.5, 0, 255).astype(np.uint8)
        return [Image.fromarray(image) for image in levels]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = self.numpy()
        if dtype is not None:
            array = array.astype(dtype, copy=False)
        return array.copy() if copy else array

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"Tensor({self.dtype}, shape={list(self.shape)})"


def to_wire(array: ArrayLike) -> pb.Tensor:
    """float64 goes as float32, which is what is computed in; fp8 as float16, which holds all its values; other integers
    as int64, booleans as uint8. bfloat16 (torch's, or ml_dtypes' in numpy) stays."""
    if isinstance(array, pb.Tensor):
        return array
    if isinstance(array, Tensor):
        return array.message
    torch = sys.modules.get("torch")  # whoever has such a tensor has imported it
    if torch is not None and isinstance(array, torch.Tensor):
        return _torch_to_wire(torch, array.detach().cpu())
    return _numpy_to_wire(np.asarray(array))


def _torch_to_wire(torch: Any, tensor: Any) -> pb.Tensor:
    if "float8" in str(tensor.dtype):
        tensor = tensor.to(torch.float16)
    if tensor.dtype == torch.bfloat16:
        data = tensor.contiguous().view(torch.int16).numpy().tobytes()
        return pb.Tensor(dtype=pb.BFLOAT16, shape=tensor.shape, data=data)
    return _numpy_to_wire(tensor.numpy())


def _numpy_to_wire(array: np.ndarray) -> pb.Tensor:
    name = array.dtype.name
    if name == "bfloat16":
        return pb.Tensor(dtype=pb.BFLOAT16, shape=array.shape, data=array.tobytes())
    if name.startswith("float8"):
        array = array.astype(np.float16)
    elif array.dtype == np.bool_:
        array = array.astype(np.uint8)
    elif array.dtype.kind in "iu" and array.dtype != np.uint8:
        array = array.astype(np.int64)
    elif array.dtype.kind == "f" and array.dtype.itemsize > 4:
        array = array.astype(np.float32)
    for wire, dtype in _TO_NUMPY.items():
        if array.dtype == np.dtype(dtype).newbyteorder("="):
            return pb.Tensor(dtype=wire, shape=array.shape, data=array.astype(dtype, copy=False).tobytes())
    raise TypeError(f"arrays of {name} cannot be sent; floats, integers and booleans can")


def _is_pil(value: Any) -> bool:
    module = sys.modules.get("PIL.Image")
    return module is not None and isinstance(value, module.Image)


def to_file(image: FileLike) -> bytes:
    """An image file's content."""
    if isinstance(image, (bytes, bytearray, memoryview)):
        return bytes(image)
    if isinstance(image, (str, os.PathLike)):
        with open(image, "rb") as file:
            return file.read()
    if _is_pil(image):
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        return buffer.getvalue()
    raise TypeError(f"{type(image).__name__} is no image: give a file's bytes or path, or a PIL image")


def to_pixels(images: ImageLike) -> pb.Tensor:
    """N,H,W,3 in 0..1, from anything but files."""
    if _is_pil(images):
        images = [images]
    if isinstance(images, (list, tuple)) and images and all(map(_is_pil, images)):
        images = np.stack([np.asarray(image.convert("RGB")) for image in images])
    tensor = Tensor(to_wire(images))
    array = tensor.numpy()
    if array.ndim == 3:
        array = array[np.newaxis]
    if array.dtype == np.uint8:
        array = array.astype(np.float32) / 255
    elif array.shape == tensor.shape:
        return tensor.message
    return to_wire(array)
