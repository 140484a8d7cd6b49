"""Our nodes in the real ComfyUI (COMFYUI_DIR): a workflow gives the same with a local checkpoint and with a daemon's."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import comfyui_driver
import distorchd
from conftest import ROOT, Daemon
from test_python_client import write_lora
from waiting import wait_until

pytestmark = comfyui_driver.needs_comfyui

DEMO = "shapes-sd1.safetensors"
LOADER, SAMPLER = "CheckpointLoaderAdvancedDisTorch2MultiGPU_distorchd", "KSampler_distorchd"
FIELDS = {"unet_compute_device": "cuda:0", "unet_virtual_vram_gb": 0.004, "unet_donor_device": "cuda:1",
          "clip_compute_device": "cpu", "clip_virtual_vram_gb": 0.0, "clip_donor_device": "cpu", "vae_device": "cuda:1"}
RELATIVE = 1e-3  # of the largest magnitude


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    loras, checkpoints = tmp_path_factory.mktemp("loras"), tmp_path_factory.mktemp("checkpoints")
    write_lora(loras / "ink.safetensors")
    running = Daemon(tmp_path_factory.mktemp("daemon"), f"--lora_dirs={loras}",
                     f"--checkpoint_dirs={ROOT / 'deploy' / 'demo'},{checkpoints}")
    running.loras, running.checkpoints = loras, checkpoints
    yield running
    running.stop()


class Comfy:
    def __init__(self, daemon):
        os.environ["DISTORCHD_ADDRESS"] = daemon.address
        self.nodes = comfyui_driver.start()
        self.ours = comfyui_driver.our_nodes(self.nodes)
        import folder_paths
        folder_paths.add_model_folder_path("loras", str(daemon.loras))
        self.daemon = daemon

    def run(self, node, **inputs):
        """The first output, or all where there are several."""
        import torch
        made = self.nodes.NODE_CLASS_MAPPINGS[node]()
        with torch.inference_mode():
            outputs = getattr(made, made.FUNCTION)(**inputs)
        return outputs if len(outputs) > 1 else outputs[0]


@pytest.fixture(scope="module")
def comfy(daemon):
    return Comfy(daemon)


@pytest.fixture(scope="module")
def local(comfy):
    return comfyui_driver.local_demo()


@pytest.fixture(scope="module")
def remote(comfy):
    return comfy.run(LOADER, ckpt_name=DEMO, **FIELDS)


@pytest.fixture
def both(local, remote):
    """(local, remote) of what `make` makes of (model, clip, vae)."""
    return lambda make: (make(*local), make(*remote))


def difference(pair):
    local, remote = (value["samples"] if isinstance(value, dict) else value for value in pair)
    assert local.shape == remote.shape
    relative = float((local - remote).abs().max() / local.abs().max())
    print(f"largest relative difference {relative:.1e}")
    return relative


def text(comfy, clip, prompt="a (red:1.3) circle [above] a blue square"):
    return comfy.run("CLIPTextEncode", clip=clip, text=prompt)


def sample(comfy, model, clip, node="KSampler", latent=None, **options):
    inputs = {"seed": 5, "steps": 4, "cfg": 4.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0,
              "positive": text(comfy, clip), "negative": text(comfy, clip, "green"),
              "latent_image": latent or comfy.run("EmptyLatentImage", width=128, height=64, batch_size=1), **options}
    return comfy.run(node, model=model, **inputs)


def picture():
    import torch
    return torch.from_numpy(np.random.default_rng(0).random((1, 8, 16, 3), np.float32)).repeat_interleave(8, 1).repeat_interleave(8, 2)


def test_text_with_weights_and_skipped_layers(comfy, both):
    assert difference(both(lambda model, clip, vae: text(comfy, clip)[0][0])) < RELATIVE
    for layer in (-1, -2):
        assert difference(both(lambda model, clip, vae: text(
            comfy, comfy.run("CLIPSetLastLayer", clip=clip, stop_at_clip_layer=layer))[0][0])) < RELATIVE
    long = "a red circle " * 40
    assert difference(both(lambda model, clip, vae: text(comfy, clip, long)[0][0])) < RELATIVE


@pytest.mark.parametrize("options", [
    {"sampler_name": "euler"}, {"sampler_name": "dpmpp_2m", "scheduler": "karras"},
    {"sampler_name": "euler_ancestral"}, {"sampler_name": "dpmpp_2m_sde", "scheduler": "karras"},
    {"sampler_name": "dpmpp_sde", "scheduler": "exponential"}, {"sampler_name": "uni_pc", "scheduler": "simple"},
    {"cfg": 1.0}, {"denoise": 0.6}, {"steps": 1},
], ids=lambda options: "-".join(map(str, options.values())))
@pytest.mark.parametrize("node", ["KSampler", SAMPLER])
def test_samplers(comfy, both, node, options):
    assert difference(both(lambda model, clip, vae: sample(
        comfy, model, clip, node if model is not None and hasattr(model.model, "part") else "KSampler", **options))) < RELATIVE


@pytest.mark.parametrize("node", ["KSampler", SAMPLER])
def test_batches_masks_and_images(comfy, both, node):
    import torch

    def run(model, clip, vae):
        latent = comfy.run("VAEEncode", vae=vae, pixels=picture().repeat(2, 1, 1, 1))
        mask = torch.zeros(1, 64, 128)
        mask[:, :32] = 1
        latent = comfy.run("SetLatentNoiseMask", samples=latent, mask=mask)
        return sample(comfy, model, clip, node if hasattr(model.model, "part") else "KSampler", latent, denoise=0.8)

    assert difference(both(run)) < RELATIVE


def test_ksampler_advanced_in_two_parts(comfy, both):
    def run(model, clip, vae):
        def part(latent, **options):
            inputs = {"positive": text(comfy, clip), "negative": text(comfy, clip, ""), "steps": 4, "cfg": 4.0,
                      "sampler_name": "dpmpp_2m", "scheduler": "normal", "noise_seed": 3, **options}
            return comfy.run("KSamplerAdvanced", model=model, latent_image=latent, **inputs)

        first = part(comfy.run("EmptyLatentImage", width=64, height=64, batch_size=2), add_noise="enable", start_at_step=0,
                     end_at_step=2, return_with_leftover_noise="enable")
        return part(first, add_noise="disable", start_at_step=2, end_at_step=10000, return_with_leftover_noise="disable")

    assert difference(both(run)) < RELATIVE


def test_combined_conditionings_areas_and_ranges(comfy, both):
    def run(model, clip, vae):
        area = comfy.run("ConditioningSetArea", conditioning=text(comfy, clip, "a yellow star"), width=64, height=64, x=64, y=0,
                         strength=0.8)
        early = comfy.run("ConditioningSetTimestepRange", conditioning=text(comfy, clip, "a heart"), start=0.0, end=0.5)
        positive = comfy.run("ConditioningCombine", conditioning_1=comfy.run(
            "ConditioningCombine", conditioning_1=text(comfy, clip), conditioning_2=area), conditioning_2=early)
        return sample(comfy, model, clip, positive=positive)

    assert difference(both(run)) < RELATIVE


def test_vae_whole_and_by_tiles(comfy, both):
    latent = comfy.run("VAEEncode", vae=both(lambda *parts: parts[2])[0], pixels=picture())
    assert difference(both(lambda model, clip, vae: comfy.run("VAEEncode", vae=vae, pixels=picture()))) < RELATIVE
    assert difference(both(lambda model, clip, vae: comfy.run("VAEDecode", vae=vae, samples=latent))) < RELATIVE
    for tiles in ({"tile_size": 512, "overlap": 64}, {"tile_size": 64, "overlap": 16}):
        assert difference(both(lambda model, clip, vae: comfy.run("VAEDecodeTiled", vae=vae, samples=latent, **tiles))) < RELATIVE
        assert difference(both(lambda model, clip, vae: comfy.run("VAEEncodeTiled", vae=vae, pixels=picture(), **tiles))) < RELATIVE
    # Tiles of other overlaps are blended here, after each was clamped there.
    assert difference(both(lambda model, clip, vae: comfy.run(
        "VAEDecodeTiled", vae=vae, samples=latent, tile_size=64, overlap=0))) < 0.05


@pytest.mark.parametrize("node", ["KSampler", SAMPLER])
def test_adapters(comfy, both, node):
    def run(model, clip, vae):
        node_ = node if hasattr(model.model, "part") else "KSampler"
        plain = sample(comfy, model, clip, node_)["samples"]
        model, clip = comfy.run("LoraLoader", model=model, clip=clip, lora_name="ink.safetensors", strength_model=0.8, strength_clip=0.5)
        model = comfy.run("LoraLoaderModelOnly", model=model, lora_name="ink.safetensors", strength_model=-0.3)
        inked = sample(comfy, model, clip, node_)["samples"]
        assert float((plain - inked).abs().max()) > 0.1
        return inked

    assert difference(both(run)) < RELATIVE


FAMILIES = ["sd1_inpaint", "sd2", "sd2_v", "sdxl", "sdxl_v", "sdxl_refiner", "sd3", "sd35", "flux", "flux_schnell"]
KEYS = {"seed": "seed", "steps": "steps", "cfg": "cfg", "sampler": "sampler_name", "scheduler": "scheduler", "denoise": "denoise"}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_samples_as_comfyui_did(comfy, daemon, family):
    """Against latents that ComfyUI drew with these checkpoints (tests/golden)."""
    import safetensors.torch
    import torch
    golden = ROOT / "tests" / "golden" / family
    name = f"{family}.safetensors"
    subprocess.run([sys.executable, golden.parent / "weights.py", golden / "manifest.json", daemon.checkpoints / name], check=True)
    cases, expected = json.loads((golden / "cases.json").read_text()), safetensors.torch.load_file(golden / "expected.safetensors")
    model, clip, vae = comfy.run(LOADER, ckpt_name=name, **FIELDS)
    prompts = [text(comfy, clip, prompt["text"]) for prompt in cases["prompts"][:3]]
    context = expected["cond.1"]
    assert difference((context, prompts[1][0][0][..., :context.shape[2]])) < RELATIVE  # SD3's is padded with zeros
    samples = {case["name"]: case for case in cases["sample"]}
    for case in map(samples.get, ("euler.normal", "dpmpp_2m_sde.normal", "euler_ancestral.normal", "batch", "cfg1")):
        for node in ("KSampler", SAMPLER):
            drawn = comfy.run(node, model=model, positive=prompts[case["pos"]], negative=prompts[case["neg"]],
                              latent_image={"samples": torch.zeros(case["shape"])}, **{KEYS[key]: case[key] for key in KEYS})
            assert difference((expected[f"sample.{case['name']}"], drawn["samples"])) < RELATIVE, (node, case["name"])
    assert difference((expected["vae.decoded"], comfy.run("VAEDecode", vae=vae, samples={"samples": expected["vae.latent"]}))) < RELATIVE
    assert difference((expected["vae.encoded"], comfy.run("VAEEncode", vae=vae, pixels=expected["vae.image"])["samples"])) < RELATIVE


def test_what_cannot_be_remote_says_so(comfy, remote, tmp_path):
    model, clip, vae = remote
    with pytest.raises(distorchd.NotFoundError, match="nowhere.safetensors"):
        comfy.run("LoraLoader", model=model, clip=clip, lora_name="nowhere.safetensors", strength_model=1.0, strength_clip=1.0)
    with pytest.raises(distorchd.InvalidArgumentError, match="unet_compute_device.*cuda:7"):
        comfy.run(LOADER, ckpt_name=DEMO, **{**FIELDS, "unet_compute_device": "cuda:7"})
    with pytest.raises(distorchd.InvalidArgumentError, match="sampler_name"):
        sample(comfy, model, clip, SAMPLER, sampler_name="no_such")
    patched = model.clone()
    patched.set_model_attn1_patch(lambda q, k, v, extra: (q, k, v))
    with pytest.raises(RuntimeError, match="attn1_patch"):
        sample(comfy, patched, clip)
    with pytest.raises(RuntimeError, match="transformer_options"):
        sample(comfy, patched, clip, SAMPLER)
    predicting = comfy.run("ModelSamplingDiscrete", model=model, sampling="v_prediction", zsnr=False)
    with pytest.raises(RuntimeError, match="prediction type"):
        sample(comfy, predicting, clip)
    combined = text(comfy, clip) + text(comfy, clip)
    with pytest.raises(RuntimeError, match="positive: 2 conditionings"):
        sample(comfy, model, clip, SAMPLER, positive=combined)


def test_previews_progress_and_interrupt(comfy, remote):
    import comfy.model_management as management
    import comfy.utils as utils
    model, clip, vae = remote
    seen = []

    def hook(value, total, preview, node_id=None):
        seen.append((value, total, preview))
        if total == 5000:
            management.interrupt_current_processing()

    utils.set_progress_bar_global_hook(hook)
    try:
        sample(comfy, model, clip, SAMPLER)
        assert [(value, total) for value, total, _ in seen] == [(1, 4), (2, 4), (3, 4), (4, 4)]
        assert seen[0][2][0] == "JPEG" and seen[0][2][1].size[0] > 0
        for node in (SAMPLER, "KSampler"):
            with pytest.raises(management.InterruptProcessingException):
                sample(comfy, model, clip, node, steps=5000)
    finally:
        utils.set_progress_bar_global_hook(None)


def test_handles_follow_comfyuis_models(comfy, daemon):
    import gc

    import comfy.model_management as management
    with distorchd.Client(daemon.address) as client:
        before = {model.handle for model in client.list_models()}
        model, clip, vae = comfy.run(LOADER, ckpt_name=DEMO, **{**FIELDS, "vae_device": "cuda:0", "clip_compute_device": "cuda:1",
                                                                 "unet_virtual_vram_gb": 0.002, "eject_models": False})
        latent = sample(comfy, model, clip)
        image = comfy.run("VAEDecode", vae=vae, samples=latent)
        own = {handle.handle for handle in client.list_models()} - before
        assert len(own) == 3
        management.unload_all_models()
        assert own.isdisjoint(handle.handle for handle in client.list_models())
        assert float((sample(comfy, model, clip)["samples"] - latent["samples"]).abs().max()) == 0  # loaded again by itself
        client.unload(all=True)  # as another client may, or a restart
        assert float((comfy.run("VAEDecode", vae=vae, samples=latent) - image).abs().max()) == 0
        sample(comfy, model, clip)
        assert own <= {handle.handle for handle in client.list_models()}
        del model, clip, vae
        management.cleanup_models_gc()
        gc.collect()
        wait_until(lambda: own.isdisjoint(handle.handle for handle in client.list_models()), "let go in the background", seconds=20)


def test_lists_come_from_the_daemon_when_it_is_there(comfy, monkeypatch):
    loader = comfy.nodes.NODE_CLASS_MAPPINGS[LOADER]
    inputs = loader.INPUT_TYPES()["required"]
    assert DEMO in inputs["ckpt_name"][0] and inputs["unet_compute_device"][0] == ["cuda:0", "cuda:1", "cpu"]
    monkeypatch.setenv("DISTORCHD_ADDRESS", "127.0.0.1:1")
    monkeypatch.setattr(comfy.ours.loader.choices, "_seen", None)
    inputs = loader.INPUT_TYPES()["required"]
    assert "127.0.0.1:1" in inputs["ckpt_name"][0][0] and inputs["unet_compute_device"][0] == ["cpu"]
    monkeypatch.setattr(comfy.ours.loader.choices, "_seen", None)
    with pytest.raises(distorchd.UnavailableError):
        comfy.run(LOADER, ckpt_name=DEMO, server="127.0.0.1:1", **FIELDS)
