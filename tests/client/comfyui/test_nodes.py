"""Our ComfyUI nodes against the recorded interfaces of ComfyUI, and a daemon of the test's own."""

import gc
import importlib.util
import inspect
import json
import os
import subprocess
import sys
import threading

import grpc
import numpy as np
import pytest

import distorchd
import record_interfaces
import stand_in
from distorchd import distorch_pb2 as pb
from distorchd.tensors import Tensor, to_wire

sys.path.append(str(stand_in.FOLDER.parents[1] / "tests" / "client" / "python"))
from fake_server import FakeServer  # noqa: E402

DISCRETE = pb.DenoiserInfo(sigma_min=0.0291675, sigma_max=14.6146, latent_channels=4, latent_scale=0.18215)
FIELDS = {"ckpt_name": "a.safetensors", "unet_compute_device": "cuda:0", "unet_virtual_vram_gb": 1.0, "unet_donor_device": "cpu",
          "clip_compute_device": "cpu", "clip_virtual_vram_gb": 0.0, "clip_donor_device": "cpu", "vae_device": "cuda:0"}


class Daemon(FakeServer):
    """Remembers what is loaded, and refuses other handles as the real one does."""

    def __init__(self, family="sd1", denoiser=DISCRETE):
        self.loaded, self.loads, self.unloaded = set(), 0, threading.Event()
        self.family, self.denoiser = family, denoiser
        super().__init__({"LoadCheckpointStream": self.load, "ApplyLora": self.lora, "SetClipSkip": self.skip,
                          "Unload": self.unload, "Denoise": self.denoise, "EncodeText": self.encode, "Sample": self.sample,
                          "ListDevices": self.devices, "ListCheckpoints": self.checkpoints})

    def need(self, handle, context):
        if handle not in self.loaded:
            context.abort(grpc.StatusCode.NOT_FOUND, f"handle: {handle} is not loaded")

    def load(self, request, context):
        self.loads += 1
        self.loaded |= {"model-1", "clip-1", "vae-1"}
        yield pb.LoadCheckpointEvent(done=pb.LoadCheckpointResponse(model="model-1", clip="clip-1", vae="vae-1", family=self.family,
                                                                    denoiser=self.denoiser))

    def lora(self, request, context):
        self.need(request.model or request.clip, context)
        if request.lora_name != "ink":
            context.abort(grpc.StatusCode.NOT_FOUND, f"lora_name: {request.lora_name} is not there")
        made = pb.ApplyLoraResponse(model=request.model and request.model + "+ink", clip=request.clip and request.clip + "+ink")
        self.loaded |= {made.model, made.clip} - {""}
        return made

    def skip(self, request, context):
        self.need(request.clip, context)
        self.loaded.add(f"{request.clip}{request.stop_at_layer}")
        return pb.SetClipSkipResponse(clip=f"{request.clip}{request.stop_at_layer}")

    def unload(self, request, context):
        for handle in request.handles:
            self.need(handle, context)
        self.loaded -= set(request.handles)
        self.unloaded.set()
        return pb.UnloadResponse()

    def denoise(self, request, context):
        self.need(request.model, context)
        x = Tensor(request.x).numpy()
        sigma = np.array(request.sigma, np.float32).reshape(-1, 1, 1, 1)
        return pb.DenoiseResponse(denoised=to_wire(x * 0.5 + sigma + request.conditioning.guidance))

    def encode(self, request, context):
        self.need(request.clip, context)
        conditioning = pb.Conditioning(cross_attention=to_wire(np.full((1, 2, 3), len(request.text), np.float32)))
        return pb.EncodeTextResponse(conditioning=conditioning)

    def sample(self, request, context):
        self.need(request.model, context)
        yield pb.SampleEvent(queue=pb.QueueProgress(position=1))
        yield pb.SampleEvent(progress=pb.StepProgress(step=1, steps=1))
        yield pb.SampleEvent(latent=request.noise)

    def devices(self, request, context):
        return pb.ListDevicesResponse(devices=[pb.DeviceInfo(name=name) for name in ("cuda:0", "cpu")])

    def checkpoints(self, request, context):
        return pb.ListCheckpointsResponse(checkpoints=[pb.CheckpointInfo(ckpt_name="a.safetensors"),
                                                       pb.CheckpointInfo(ckpt_name="b.safetensors", error="cut short")])

    def of(self, method):
        return [request for name, request, _ in self.requests if name == method]

    def wait_until_unloaded(self, handle):
        while handle in self.loaded:
            assert self.unloaded.wait(10)
            self.unloaded.clear()


@pytest.fixture
def daemon(monkeypatch):
    with Daemon() as running:
        monkeypatch.setenv("DISTORCHD_ADDRESS", running.address)
        yield running


@pytest.fixture
def ours(daemon):
    with stand_in.comfyui() as package:
        yield package


def load(ours, **changed):
    loader = ours.NODE_CLASS_MAPPINGS["CheckpointLoaderAdvancedDisTorch2MultiGPU_distorchd"]()
    return loader.load(**{**FIELDS, **changed})


def evaluate(model, **inputs):
    given = {"c_crossattn": stand_in.tensor(np.zeros((2, 1, 3))), **inputs}
    return model._apply_model(stand_in.tensor(np.ones((2, 4, 2, 2))), stand_in.tensor([3.0, 3.0]), **given)


@pytest.mark.skipif(not os.environ.get("COMFYUI_DIR") or importlib.util.find_spec("torch") is None,
                    reason="COMFYUI_DIR is not set, or this is no Python that runs ComfyUI")
def test_the_record_is_of_this_comfyui():
    script = "import json, record_interfaces; print(json.dumps(record_interfaces.record()))"
    run = subprocess.run([sys.executable, "-c", script], cwd=record_interfaces.RECORD.parent, capture_output=True, text=True,
                         check=True)
    assert json.loads(run.stdout.splitlines()[-1]) == stand_in.recorded()


def test_what_stands_in_for_comfyuis_methods_takes_what_they_take(ours):
    for ours_, name, module in ((ours.clip.RemoteClip, "CLIP", "comfy.sd"), (ours.vae.RemoteVae, "VAE", "comfy.sd"),
                                (ours.model.RemoteModel, "BaseModel", "comfy.model_base"),
                                (ours.model.RemoteModelPatcher, "ModelPatcher", "comfy.model_patcher")):
        for method, parameters in stand_in.recorded()[module][name]["methods"].items():
            if method not in vars(ours_) or method == "__init__":
                continue
            theirs = list(stand_in.signature(parameters).parameters.values())
            named = {parameter.name: object() for parameter in theirs if parameter.kind == parameter.POSITIONAL_OR_KEYWORD}
            inspect.signature(getattr(ours_, method)).bind(**named)  # a TypeError says which is missing


def test_inputs_are_the_nodes_and_a_server(ours):
    inputs = ours.loader.CheckpointLoader.INPUT_TYPES()
    names = [*inputs["required"], *inputs["optional"]]
    assert names == [*FIELDS, "unet_expert_mode_allocations", "clip_expert_mode_allocations", "high_precision_loras",
                     "eject_models", "server", "token"]
    assert inputs["required"]["ckpt_name"][0] == ["a.safetensors"]
    assert inputs["required"]["unet_compute_device"][0] == ["cuda:0", "cpu"]
    defaults = {name: entry[1].get("default") for name, entry in (inputs["required"] | inputs["optional"]).items()}
    assert defaults == {
        "ckpt_name": None, "unet_compute_device": "cuda:0", "unet_virtual_vram_gb": 4.0, "unet_donor_device": "cpu",
        "clip_compute_device": "cpu", "clip_virtual_vram_gb": 2.0, "clip_donor_device": "cpu", "vae_device": "cuda:0",
        "unet_expert_mode_allocations": "", "clip_expert_mode_allocations": "", "high_precision_loras": True,
        "eject_models": True, "server": "", "token": ""}
    assert all((entry[1]["min"], entry[1]["max"]) == (0.0, 128.0) for name, entry in inputs["required"].items() if "vram" in name)
    assert all(entry[1]["tooltip"] for entry in (inputs["required"] | inputs["optional"]).values())
    accepted = inspect.signature(ours.loader.CheckpointLoader.VALIDATE_INPUTS).parameters
    assert set(accepted) == {name for name, entry in inputs["required"].items() if isinstance(entry[0], list)}


def test_lists_say_so_when_nobody_answers(ours, monkeypatch):
    monkeypatch.setenv("DISTORCHD_ADDRESS", "127.0.0.1:1")
    required = ours.loader.CheckpointLoader.INPUT_TYPES()["required"]
    assert "127.0.0.1:1" in required["ckpt_name"][0][0] and required["vae_device"][0] == ["cpu"]
    with pytest.raises(distorchd.UnavailableError):
        load(ours)


def test_lists_say_so_when_the_clients_certificate_is_not_there(ours, monkeypatch):
    monkeypatch.setenv("DISTORCHD_TLS_CA", "/nowhere/ca.pem")
    monkeypatch.setenv("DISTORCH_TOKEN", "another")  # another server, whose client is not made yet
    assert "/nowhere/ca.pem" in ours.loader.CheckpointLoader.INPUT_TYPES()["required"]["ckpt_name"][0][0]


def test_sends_the_fields_and_the_token(ours, daemon):
    load(ours, token="s3cret", unet_expert_mode_allocations="cuda:0,1gb", eject_models=False)
    method, request, metadata = daemon.requests[-1]
    assert request.unet_virtual_vram_gb == 1.0 and request.unet_expert_mode_allocations == "cuda:0,1gb"
    assert request.HasField("eject_models") and not request.eject_models and metadata["authorization"] == "Bearer s3cret"


def test_evaluates_on_the_daemon(ours, daemon):
    model = load(ours)[0].model
    assert float(evaluate(model).max()) == 3.5
    assert list(daemon.of("Denoise")[0].sigma) == [3.0]
    differing = evaluate(model, guidance=stand_in.tensor([1.0, 2.0]))
    assert [float(item.max()) for item in differing] == [4.5, 5.5]
    assert [list(request.x.shape) for request in daemon.of("Denoise")[1:]] == [[1, 4, 2, 2]] * 2


def test_waits_for_its_turn_without_telling_of_steps(ours, daemon):
    model = load(ours)[0]
    request = pb.SampleRequest(model=model.model.part.handle(), noise=to_wire(np.ones((1, 4, 2, 2), np.float32)))
    assert float(ours.sampler._run(model, request, steps=1).max()) == 1.0


def test_refuses_what_would_be_dropped(ours):
    model = load(ours)[0].model
    for inputs, named in (({"control": {}}, "ControlNet"), ({"ref_latents": []}, "ref_latents"),
                          ({"transformer_options": {"patches": {"attn1_patch": [1]}}}, "attn1_patch"),
                          ({"transformer_options": {"patches_replace": {"attn2": {1: 2}}}}, "attn2")):
        with pytest.raises(RuntimeError, match=named):
            evaluate(model, **inputs)
    evaluate(model, transformer_options={"patches": {"attn1_patch": []}, "sigmas": 1})


def test_refuses_another_meaning_of_noise_levels(ours):
    class Levels:
        calculate_denoised = calculate_input = timestep = None

        def __init__(self, multiplier):
            self.multiplier = multiplier

    class Predicting(Levels):
        calculate_denoised = 1

    model = load(ours)[0].model
    model.own_sampling = Levels(1000)
    model.model_sampling = Levels(1000)  # as when a node shifts the noise levels of a flow
    evaluate(model)
    for other in (Levels(1), Predicting(1000)):
        model.model_sampling = other
        with pytest.raises(RuntimeError, match="noise schedule"):
            evaluate(model)


def test_finds_its_handles_again(ours, daemon):
    patcher, clip, vae = load(ours)
    evaluate(patcher.model)
    daemon.loaded.clear()  # a restart
    assert float(evaluate(patcher.model).max()) == 3.5
    assert daemon.loads == 2
    clip.clip_layer(-2)
    clip.encode_from_tokens_scheduled(clip.tokenize("abc"))
    daemon.loaded.clear()
    cond, entries = clip.encode_from_tokens_scheduled(clip.tokenize("abc"))[0]
    assert float(cond.max()) == 3 and entries == {"pooled_output": None}
    assert daemon.of("EncodeText")[-1].clip == "clip-1-2"


def test_lora_loader_asks_the_daemon_by_name(ours, daemon):
    import nodes
    patcher, clip, vae = load(ours)
    model, inked = nodes.LoraLoader().load_lora(patcher, clip, "ink", 0.5, -1.0)
    assert {request.model or request.clip: request.strength_model for request in daemon.of("ApplyLora")} == {"model-1": 0.5, "clip-1": -1.0}
    evaluate(model.model)
    assert daemon.of("Denoise")[-1].model == "model-1+ink" and patcher.model is not model.model
    same, unchanged = nodes.LoraLoader().load_lora(patcher, None, "ink", 0.0, 1.0)
    assert same is patcher and unchanged is None
    assert nodes.LoraLoader().load_lora("local", clip, "ink", 1.0, 0.0) == ("local+ink", clip)
    with pytest.raises(distorchd.NotFoundError, match="paper"):
        nodes.LoraLoader().load_lora(patcher, clip, "paper", 1.0, 1.0)
    with pytest.raises(RuntimeError, match="LoraLoader works"):
        patcher.add_patches({"weight": 1})


def test_lets_go_of_handles_that_nobody_has(ours, daemon):
    import comfy.model_management
    first, second = load(ours), load(ours)
    for parts in (first, second):
        evaluate(parts[0].model)
    del first, parts
    gc.collect()
    evaluate(second[0].model)
    assert "model-1" in daemon.loaded  # equal loads share it
    assert comfy.model_management.unload_all_models() == "unloaded"
    assert "model-1" not in daemon.loaded
    evaluate(second[0].model)
    assert "model-1" in daemon.loaded
    daemon.unloaded.clear()
    del second
    gc.collect()
    daemon.wait_until_unloaded("model-1")


def test_one_text_goes_to_all_text_encoders(ours):
    clip = load(ours)[1]
    tokens = clip.tokenize("abc")
    tokens["l"] = clip.tokenize("abc")["l"]
    assert len(tokens["l"]) == len(tokens["g"]) == 1
    clip.encode_from_tokens(tokens)
    tokens["l"] = clip.tokenize("abcd")["l"]
    with pytest.raises(RuntimeError, match="one text"):
        clip.encode_from_tokens(tokens)


@pytest.mark.parametrize(("family", "info", "settings", "kind"), [
    ("sdxl_v", {"sigma_min": 0.029167, "sigma_max": 4518.7}, {"zsnr": True}, "V_PREDICTION"),
    ("sdxl_v", {"sigma_min": 0.029167, "sigma_max": 14.61}, {}, "V_PREDICTION"),
    ("sdxl_edm", {"sigma_min": 0.002, "sigma_max": 120.0}, {"sigma_min": 0.002, "sigma_max": 120.0, "sigma_data": 1.0},
     "V_PREDICTION_EDM"),
    ("sdxl_instruct", {"sigma_min": 0.029167, "sigma_max": 14.61, "concat_channels": 4}, {}, "EPS"),
    ("sd35", {"flow": True, "sigma_min": 0.003, "sigma_max": 1.0}, {}, "FLOW"),
])
def test_noise_levels_follow_the_checkpoint(ours, family, info, settings, kind):
    class Mixin:
        def __init__(self, config, model_type):
            self.config, self.type = config, model_type

    model = ours.families.build(family, pb.DenoiserInfo(latent_channels=4, **info), Mixin)
    assert model.config.sampling_settings == settings and model.type.name == kind
    assert model.config.unet_config["in_channels"] == 4 + info.get("concat_channels", 0)


def test_an_unknown_family_is_named(ours):
    with pytest.raises(RuntimeError, match="'sd9'.*sdxl"):
        ours.families.find("sd9")
