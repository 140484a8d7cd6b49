"""The Open Inference Protocol, through Triton's own client, unmodified."""

import io
import json

import grpc
import numpy as np
import pytest
from google.protobuf import descriptor_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from PIL import Image
from tritonclient.grpc import (InferenceServerClient, InferInput, InferRequestedOutput, model_config_pb2, service_pb2,
                               service_pb2_grpc)
from tritonclient.utils import InferenceServerException

DEMO = "shapes-sd1.safetensors"
FIELDS = {"unet_compute_device": "cuda:0", "unet_expert_mode_allocations": "cuda:0,50%;cuda:1,30%;cpu,20%",
          "vae_device": "cuda:1"}
SMALL = {"width": 64, "height": 64, "steps": 2, "cfg": 4.0, "seed": 7}


@pytest.fixture
def client(daemon):
    with InferenceServerClient(daemon.address) as connected:
        yield connected


def tensor(name, datatype, values):
    array = np.array(values, dtype={"BYTES": np.object_, "INT32": np.int32, "UINT64": np.uint64,
                                    "FP32": np.float32}[datatype])
    made = InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array)
    return made


def draw(client, prompts=("a red circle",), inputs=(), outputs=None, **parameters):
    return client.infer(DEMO, [tensor("prompt", "BYTES", list(prompts)), *inputs],
                        outputs=outputs and [InferRequestedOutput(name) for name in outputs],
                        parameters={**SMALL, **parameters})


def refused(call, *args, **kwargs):
    with pytest.raises(InferenceServerException) as error:
        call(*args, **kwargs)
    return error.value.status().removeprefix("StatusCode."), error.value.message()


def png_pixels(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def test_contract_is_the_published_one(daemon):
    """Each field of ours has the number, type and label of Triton's."""
    with grpc.insecure_channel(daemon.address) as channel:
        request = reflection_pb2.ServerReflectionRequest(file_containing_symbol="inference.GRPCInferenceService")
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        answer = next(stub.ServerReflectionInfo(iter([request]), timeout=10))
    ours = descriptor_pb2.FileDescriptorProto.FromString(answer.file_descriptor_response.file_descriptor_proto[0])

    def fields(messages, prefix=""):
        for message in messages:
            name = prefix + message.name
            for field in message.field:
                yield (name, field.name), (field.number, field.type, field.label, field.type_name)
            yield from fields(message.nested_type, name + ".")

    published, methods = {}, {}
    for module in (service_pb2, model_config_pb2):
        file = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(file)
        published |= dict(fields(file.message_type))
        methods |= {m.name: (m.input_type, m.output_type) for s in file.service for m in s.method}
    for field, wire in fields(ours.message_type):
        assert published[field] == wire, field
    for method in ours.service[0].method:
        assert methods[method.name] == (method.input_type, method.output_type)


def test_a_model_from_load_to_unload(daemon, client):
    assert client.is_server_live() and client.is_server_ready()
    metadata = client.get_server_metadata()
    assert metadata.name == "distorchd" and "model_repository" in metadata.extensions
    index = {model.name: model for model in client.get_model_repository_index().models}
    assert (index[DEMO].state, index[DEMO].reason) == ("UNAVAILABLE", "not loaded")
    assert not client.is_model_ready(DEMO)
    assert refused(draw, client)[0] == "FAILED_PRECONDITION"

    client.load_model(DEMO, config=json.dumps({"parameters": {k: {"string_value": v} for k, v in FIELDS.items()}}))
    assert client.is_model_ready(DEMO) and client.is_model_ready(DEMO, "1")
    models = daemon.ctl_json("models")["models"]
    unet = next(model for model in models if model["kind"] == "model")
    assert {device["device"] for device in unet["devices"]} == {"cuda:0", "cuda:1", "cpu"}
    index = {model.name: model for model in client.get_model_repository_index().models}
    assert (index[DEMO].version, index[DEMO].state) == ("1", "READY")

    metadata = client.get_model_metadata(DEMO, as_json=True)
    assert metadata["platform"] == "distorch_sd1" and metadata["versions"] == ["1"]
    assert {"name": "prompt", "datatype": "BYTES", "shape": ["-1"]} in metadata["inputs"]
    assert {"name": "steps", "datatype": "INT32", "shape": ["1"]} in metadata["inputs"]
    assert {"name": "image", "datatype": "UINT8", "shape": ["-1", "-1", "-1", "3"]} in metadata["outputs"]
    config = client.get_model_config(DEMO, as_json=True)["config"]
    assert config["parameters"]["vae_device"] == {"string_value": "cuda:1"}
    # What the server says may be sent back: nothing is loaded anew.
    client.load_model(DEMO, config=json.dumps(config))
    assert daemon.ctl_json("models")["models"] == models

    result = draw(client, outputs=["image", "image_file", "latent", "seed"])
    assert result.as_numpy("image").shape == (1, 64, 64, 3) and result.as_numpy("image").dtype == np.uint8
    assert result.as_numpy("latent").shape == (1, 4, 8, 8)
    assert result.as_numpy("seed").tolist() == [7]
    assert np.array_equal(png_pixels(result.as_numpy("image_file")[0]), result.as_numpy("image")[0])

    statistics = client.get_inference_statistics(DEMO, as_json=True)["model_stats"][0]
    assert statistics["inference_count"] == "1" and statistics["inference_stats"]["success"]["count"] == "1"
    assert int(statistics["inference_stats"]["compute_infer"]["ns"]) > 0
    assert {(usage["type"], usage.get("id", "0")) for usage in statistics["memory_usage"]} == {
        ("CPU", "0"), ("GPU", "0"), ("GPU", "1")}

    client.unload_model(DEMO)
    assert not client.is_model_ready(DEMO) and daemon.ctl_json("models")["models"] == []
    assert refused(client.unload_model, DEMO)[0] == "FAILED_PRECONDITION"


def test_draws_what_the_other_protocol_draws(daemon, client, tmp_path):
    daemon.ctl_json("load", DEMO, "--unet_compute_device=cuda:0")
    image = tmp_path / "image.png"
    daemon.ctl_json("infer", "--prompt=a red circle", "--width=64", "--height=64", "--steps=2", "--cfg=4", "--seed=7",
                    f"--output={image}")
    drawn = draw(client).as_numpy("image")
    assert np.array_equal(drawn[0], png_pixels(image.read_bytes()))

    # Several prompts are as many requests of one, whether options are inputs or parameters.
    both = client.infer(DEMO, [tensor("prompt", "BYTES", ["a blue square", "a red circle"]),
                               tensor("seed", "UINT64", [3, 7]), tensor("steps", "INT32", [2]),
                               tensor("width", "INT32", [64]), tensor("height", "INT32", [64]),
                               tensor("cfg", "FP32", [4])])
    assert both.as_numpy("seed").tolist() == [3, 7]
    assert np.array_equal(both.as_numpy("image")[1], drawn[0])
    assert not np.array_equal(both.as_numpy("image")[0], drawn[0])

    jpeg = draw(client, image_format="jpeg").as_numpy("image_file")
    assert jpeg.shape == (1,) and jpeg[0].startswith(b"\xff\xd8")
    onward = draw(client, inputs=[tensor("init_image", "BYTES", [image.read_bytes()])], denoise=0.5)
    assert onward.as_numpy("image").shape == (1, 64, 64, 3)


def test_typed_contents(daemon, client):
    """As clients send that know the published protocol only."""
    client.load_model(DEMO)
    request = service_pb2.ModelInferRequest(model_name=DEMO, id="42")
    request.inputs.add(name="prompt", datatype="BYTES", shape=[1]).contents.bytes_contents.append(b"a red circle")
    for name, value in (("width", 64), ("height", 64), ("steps", 2)):
        request.inputs.add(name=name, datatype="INT32", shape=[1]).contents.int_contents.append(value)
    request.inputs.add(name="cfg", datatype="FP32", shape=[1]).contents.fp32_contents.append(4)
    request.inputs.add(name="seed", datatype="UINT64", shape=[1]).contents.uint64_contents.append(7)
    with grpc.insecure_channel(daemon.address) as channel:
        response = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=60)
    assert response.id == "42" and response.model_version == "1"
    assert response.raw_output_contents[0] == draw(client).as_numpy("image").tobytes()


def test_loading_again_replaces(daemon, client):
    client.load_model(DEMO, config=json.dumps({"unet_compute_device": "cuda:0"}))
    client.load_model(DEMO, config=json.dumps({"unet_compute_device": "cuda:1"}))
    models = daemon.ctl_json("models")["models"]
    assert sorted(model["kind"] for model in models) == ["clip", "model", "vae"]
    assert next(m for m in models if m["kind"] == "model")["devices"][0]["device"] == "cuda:1"


def test_errors_name_the_input_and_leave_the_daemon_serving(client):
    assert refused(client.load_model, "nothing.safetensors")[0] == "NOT_FOUND"
    assert refused(client.get_model_metadata, "nothing.safetensors")[0] == "NOT_FOUND"
    assert refused(client.get_model_metadata, DEMO, "2")[0] == "NOT_FOUND"
    code, message = refused(client.load_model, DEMO, config=json.dumps({"unet_virtual_vram_gb": "lots"}))
    assert code == "INVALID_ARGUMENT" and "unet_virtual_vram_gb" in message
    code, message = refused(client.load_model, DEMO, config="{}", files={"file:1/model.bin": b"x"})
    assert code == "INVALID_ARGUMENT" and "file:1/model.bin" in message

    client.load_model(DEMO)
    for wrong, said in (({"steps": 0.5}, "steps"), ({"width": 63}, "width"), ({"sampler_name": "none"}, "sampler_name"),
                        ({"step": 2}, "is not one of"), ({"image_format": "gif"}, "image_format")):
        code, message = refused(draw, client, **wrong)
        assert code == "INVALID_ARGUMENT" and said in message
    assert "is not one of" in refused(draw, client, outputs=["picture"])[1]
    assert "init_image" in refused(draw, client, inputs=[tensor("init_image", "BYTES", [b"no picture"])])[1]
    assert draw(client).as_numpy("image").shape == (1, 64, 64, 3)
