"""Arrays of numpy, torch and PIL on the wire and back, bit for bit."""

import io

import numpy as np
import pytest
from PIL import Image

import distorchd
from distorchd import distorch_pb2 as pb
from distorchd.fields import encode_image_request
from distorchd.tensors import Tensor, to_file, to_pixels, to_wire


@pytest.mark.parametrize(("dtype", "wire"), [(np.float32, pb.FLOAT32), (np.float16, pb.FLOAT16), (np.uint8, pb.UINT8),
                                             (np.int64, pb.INT64)])
def test_numpy_travels_as_it_is(dtype, wire):
    array = np.arange(6).reshape(2, 3).astype(dtype)
    tensor = Tensor(to_wire(array))
    assert tensor.message.dtype == wire and tensor.shape == (2, 3) and tensor.dtype == np.dtype(dtype).name
    assert np.array_equal(np.asarray(tensor), array) and tensor.numpy().dtype == dtype


def test_numpy_of_other_types_and_layouts_is_brought_to_the_wires():
    transposed = np.arange(6, dtype=">f8").reshape(2, 3).T
    assert np.array_equal(Tensor(to_wire(transposed)).numpy(), transposed)
    assert to_wire(transposed).dtype == pb.FLOAT32
    assert to_wire(np.array([True, False])).data == b"\x01\x00"
    assert to_wire(np.array([-1], np.int16)).dtype == pb.INT64
    assert to_wire([[1.5, 2.5]]).dtype == pb.FLOAT32
    with pytest.raises(TypeError, match="complex128"):
        to_wire(np.array([1j]))


def test_bfloat16_is_widened_for_numpy():
    tensor = Tensor(pb.Tensor(dtype=pb.BFLOAT16, shape=[2], data=np.array([0x3FC0, 0xC000], "<u2").tobytes()))
    assert tensor.numpy().tolist() == [1.5, -2.0] and tensor.dtype == "bfloat16"


def test_torch_in_and_out():
    torch = pytest.importorskip("torch")
    values = torch.tensor([[1.5, -2.0, 0.0625]])
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        back = Tensor(to_wire(values.to(dtype).requires_grad_())).torch()
        assert back.dtype == dtype and torch.equal(back, values.to(dtype))
    every_byte = torch.arange(256, dtype=torch.uint8)
    for fp8 in (torch.float8_e4m3fn, torch.float8_e5m2):
        numbers = every_byte.view(fp8)
        numbers = numbers[torch.isfinite(numbers.float())]
        wire = to_wire(numbers)
        assert wire.dtype == pb.FLOAT16
        assert torch.equal(Tensor(wire).torch().to(fp8).view(torch.uint8), numbers.view(torch.uint8))


def picture():
    return Image.fromarray(np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3))


def test_pictures_become_pixels_and_come_back():
    tensor = Tensor(to_pixels([picture(), picture()]))
    assert tensor.shape == (2, 4, 6, 3) and tensor.numpy().max() <= 1
    assert np.array_equal(np.asarray(tensor.pil()[1]), np.asarray(picture()))
    assert Tensor(to_pixels(picture())).shape == (1, 4, 6, 3)
    assert Tensor(to_pixels(np.zeros((4, 6, 3), np.float32))).shape == (1, 4, 6, 3)
    with pytest.raises(ValueError, match="shape"):
        Tensor(to_wire(np.zeros((1, 3, 4, 4)))).pil()


def test_files_come_from_bytes_paths_and_pictures(tmp_path):
    path = tmp_path / "a.png"
    picture().save(path)
    assert to_file(path) == to_file(str(path)) == path.read_bytes() == to_file(path.read_bytes())
    assert Image.open(io.BytesIO(to_file(picture()))).size == (6, 4)
    assert encode_image_request("v", path, 0).encoded == path.read_bytes()
    assert list(encode_image_request("v", picture(), 0).pixels.shape) == [1, 4, 6, 3]
    with pytest.raises(TypeError, match="int is no image"):
        to_file(3)


def test_a_conditioning_is_made_of_arrays():
    made = distorchd.Conditioning.of(np.zeros((1, 77, 8)), pooled=np.ones((1, 4)), guidance=3.5,
                                     size={"width": 512.0, "height": 512, "aesthetic_score": 6})
    assert made.cross_attention.shape == (1, 77, 8) and made.pooled.shape == (1, 4) and made.attention_mask is None
    assert made.message.size.width == 512 and made.message.guidance == 3.5 and not made.id
