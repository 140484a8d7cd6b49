"""The Python client against the real daemon, with the demo checkpoint."""

import asyncio
import json
import os
import pathlib
import subprocess
import sys
import venv

import numpy as np
import pytest
import safetensors
import safetensors.numpy

import distorchd
from conftest import ROOT
from distorchd import aio

DEMO = "shapes-sd1.safetensors"
FIELDS = {"unet_compute_device": "cuda:0", "unet_expert_mode_allocations": "cuda:0,60%;cuda:1,40%", "vae_device": "cuda:1"}
SMALL = {"width": 64, "height": 64, "steps": 2, "seed": 7}


@pytest.fixture
def client(daemon):
    with distorchd.Client(daemon.address) as client:
        yield client


def test_loads_draws_and_unloads(client):
    phases, steps = [], []
    plan = client.plan(DEMO, **FIELDS)
    assert plan.fits and plan.family == "sd1"
    with client.load(DEMO, progress=lambda progress: phases.append(progress.phase), **FIELDS) as checkpoint:
        for component in checkpoint.placement.components:
            assert all(device.planned_bytes == device.measured_bytes > 0 for device in component.devices)
        result = checkpoint.infer("a red circle", batch_size=2, preview_every=1, progress=steps.append, **SMALL)
        assert {model.kind for model in client.list_models()} == {"model", "clip", "vae"}
        assert any((link.to, link.bytes > 0) == ("cuda:0", True) for link in client.list_links())
    assert client.list_models() == []
    assert "weights" in phases
    assert [image.size for image in result.images] == [(64, 64)] * 2 and result.seed == 7
    assert [(step.done, step.total) for step in steps if step.phase == "sample" and step.done] == [(1, 2), (2, 2)]
    assert any(step.preview is not None for step in steps)


def test_the_steps_between_are_what_infer_does(client):
    with client.load(DEMO, **FIELDS) as checkpoint:
        whole = checkpoint.infer("a red circle", negative_prompt="blue", cfg=4, **SMALL).images[0]
        positive, negative = checkpoint.encode_text("a red circle"), checkpoint.encode_text("blue")
        latent = checkpoint.sample(positive, negative, checkpoint.empty_latent(64, 64), steps=2, seed=7, cfg=4)
        image = checkpoint.decode(latent)
        assert image.shape == (1, 64, 64, 3) and latent.shape == (1, 4, 8, 8)
        assert np.abs(np.asarray(image.pil()[0], int) - np.asarray(whole, int)).max() <= 1
        assert checkpoint.encode(whole).shape == checkpoint.encode(image).shape == (1, 4, 8, 8)

        info = checkpoint.loaded.denoiser
        x = np.random.default_rng(0).normal(size=(2, 4, 8, 8)).astype(np.float32) * info.sigma_max
        denoised = checkpoint.denoise(x, info.sigma_max, positive)
        assert denoised.shape == x.shape and np.abs(denoised.numpy()).max() < info.sigma_max
        assert (info.flow, info.latent_channels, info.concat_channels) == (False, 4, 0)
        assert 14.6 < info.sigma_max < 14.7 and 0.029 < info.sigma_min < 0.03 and info.latent_scale == 0.18215


def write_lora(path):
    names = ("lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q", "lora_te_text_model_encoder_layers_0_mlp_fc1")
    tensors = {}
    with safetensors.safe_open(ROOT / "deploy" / "demo" / DEMO, "np") as file:
        shapes = {key: file.get_slice(key).get_shape() for key in file.keys()}
    blocks = (next(key for key in shapes if key.endswith("middle_block.1.transformer_blocks.0.attn1.to_q.weight")),
              next(key for key in shapes if key.endswith("encoder.layers.0.mlp.fc1.weight")))
    random = np.random.default_rng(0)
    for name, block in zip(names, blocks):
        rows, columns = shapes[block]
        tensors[f"{name}.lora_up.weight"] = random.normal(0, 0.2, (rows, 4)).astype(np.float32)
        tensors[f"{name}.lora_down.weight"] = random.normal(0, 0.2, (4, columns)).astype(np.float32)
    tensors["lora_unet_nowhere.lora_up.weight"] = np.zeros((4, 4), np.float32)
    safetensors.numpy.save_file(tensors, path)


def test_tls_tokens_and_certificates(start_daemon, certificate, tmp_path):
    cert, key = certificate
    tokens = tmp_path / "tokens.json"
    tokens.write_text(json.dumps({"tokens": [{"name": "alice", "role": "admin", "token": "a" * 64},
                                             {"name": "web", "role": "user", "token": "b" * 64}]}))
    daemon = start_daemon(f"--tls_cert={cert}", f"--tls_key={key}", f"--tls_client_ca={cert}", f"--auth_tokens_file={tokens}")
    tls = distorchd.Tls(ca=cert, cert=cert, key=key)
    with distorchd.Client(daemon.address, tls=tls, token="a" * 64) as admin, \
            distorchd.Client(daemon.address, tls=tls, token="b" * 64) as user, admin.load(DEMO) as loaded:
        checkpoint = user.attach(loaded.model, loaded.clip, loaded.vae)
        assert checkpoint.infer("a", **SMALL).files
        with pytest.raises(distorchd.PermissionDeniedError) as denied:
            user.load(DEMO)
        assert denied.value.request_id
    for wrong, error in (({"tls": tls}, distorchd.UnauthenticatedError), ({"tls": tls, "token": "c" * 64}, distorchd.UnauthenticatedError),
                         ({"tls": distorchd.Tls(ca=cert), "token": "a" * 64}, distorchd.UnavailableError)):
        with distorchd.Client(daemon.address, **wrong) as client, pytest.raises(error):
            client.list_models()


def test_applies_adapters_and_skips_layers(start_daemon, tmp_path):
    write_lora(tmp_path / "ink.safetensors")
    daemon = start_daemon(f"--lora_dirs={tmp_path}")
    with distorchd.Client(daemon.address) as client, client.load(DEMO) as base:
        with base.apply_lora("ink.safetensors", 0.8) as inked:
            assert inked.response.patched == 2 and "lora_unet_nowhere.lora_up.weight" in inked.response.unmatched_keys
            assert inked.vae == base.vae and inked.model != base.model
            pictures = [checkpoint.infer("a red circle", **SMALL).images[0].tobytes() for checkpoint in (base, inked)]
            assert pictures[0] != pictures[1]
            with inked.clip_skip(-2) as skipping:
                assert skipping.model == inked.model
                texts = [np.asarray(checkpoint.encode_text("a").cross_attention) for checkpoint in (base, inked, skipping)]
                assert not np.array_equal(texts[0], texts[1]) and not np.array_equal(texts[1], texts[2])
        assert [model.handle for model in client.list_models()] == sorted([base.model, base.clip, base.vae])
        with pytest.raises(distorchd.NotFoundError, match="paper.safetensors"):
            base.apply_lora("paper.safetensors")


def test_attaches_to_what_others_loaded(client, daemon):
    loaded = client.load(DEMO)
    with distorchd.Client(daemon.address) as other:
        handles = {model.kind: model.handle for model in other.list_models()}
        with other.attach(**handles) as checkpoint:
            assert checkpoint.infer("a", **SMALL).seed == 7
            latent = checkpoint.sample(checkpoint.encode_text("a"), checkpoint.encode_text(""), checkpoint.empty_latent(64, 64), steps=1)
            assert latent.shape == (1, 4, 8, 8)
        assert len(other.list_models()) == 3
    assert loaded.unload().handles_closed == 3
    assert loaded.unload().handles_closed == 0


def test_errors_are_the_servers(client):
    with pytest.raises(distorchd.NotFoundError, match=DEMO):
        client.load("shapes-sd2.safetensors")
    with pytest.raises(distorchd.InvalidArgumentError, match="unet_donor_device"):
        client.load(DEMO, unet_donor_device="cuda:9")
    with client.load(DEMO) as checkpoint, pytest.raises(distorchd.InvalidArgumentError, match="sampler_name"):
        checkpoint.infer("a", sampler_name="eula", **SMALL)


def test_cancels_within_a_sampling(client):
    with client.load(DEMO) as checkpoint:
        cancel = distorchd.Canceller()
        with pytest.raises(distorchd.CancelledError):
            checkpoint.infer("a", width=128, height=128, steps=5000, cancel=cancel,
                             progress=lambda progress: progress.done and cancel.cancel())
        with pytest.raises(distorchd.DeadlineExceededError):
            checkpoint.infer("a", width=128, height=128, steps=5000, timeout=0.5)
        assert checkpoint.infer("a", **SMALL).files


def test_lists_and_says_when_nobody_is_there(client, daemon):
    device = client.list_devices()[0]
    assert device.name == "cuda:0" and device.total_bytes == 1 << 30
    assert DEMO in [checkpoint.ckpt_name for checkpoint in client.list_checkpoints()]
    receipt = client.load(DEMO, **FIELDS).unload()
    assert receipt.handles_closed == 3 and all(freed.bytes > 0 for freed in receipt.freed)
    daemon.stop()
    with pytest.raises(distorchd.UnavailableError):
        client.list_devices()


def test_asyncio_runs_many_at_once(daemon):
    async def run():
        async with aio.AsyncClient(daemon.address) as client:
            async with await client.load(DEMO, **FIELDS) as checkpoint:
                results = await asyncio.gather(*[checkpoint.infer("a red circle", **{**SMALL, "seed": seed}) for seed in (1, 2, 1)])
                assert results[0].images[0].tobytes() == results[2].images[0].tobytes() != results[1].images[0].tobytes()
                positive = await checkpoint.encode_text("a red circle")
                latent = await checkpoint.sample(positive, positive, checkpoint.empty_latent(64, 64), steps=2)
                assert (await checkpoint.decode(latent)).shape == (1, 64, 64, 3)
                stopped = asyncio.ensure_future(checkpoint.infer(
                    "a", width=128, height=128, steps=5000, progress=lambda progress: progress.done and stopped.cancel()))
                with pytest.raises(asyncio.CancelledError):
                    await stopped
            assert list(await client.list_models()) == []
    asyncio.run(run())


@pytest.mark.parametrize("example", sorted((ROOT / "client" / "python" / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_examples_run(daemon, tmp_path, example):
    environment = {**os.environ, "PYTHONPATH": str(pathlib.Path(distorchd.__file__).parents[1]),
                   "DISTORCHD_ADDRESS": daemon.address}
    run = subprocess.run([sys.executable, example], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr


def test_the_wheel_works_where_nothing_else_of_ours_is(daemon, tmp_path, request):
    venv.create(tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    site = next((tmp_path / "venv" / "lib").glob("python3*/site-packages"))
    subprocess.run([sys.executable, "-m", "pip", "--quiet", "install", "--no-deps", "--no-index", f"--target={site}",
                    request.config.client_wheel], check=True)
    (site / "dependencies.pth").write_text(str(pathlib.Path(np.__file__).parents[1]))
    script = f"""
import distorchd, json
with distorchd.Client("{daemon.address}") as client:
    print(json.dumps([distorchd.__file__, [device.name for device in client.list_devices()]]))
"""
    run = subprocess.run([python, "-c", script], cwd=tmp_path, env={}, capture_output=True, text=True, check=True)
    origin, devices = json.loads(run.stdout)
    assert origin.startswith(str(tmp_path)) and "cuda:0" in devices
    assert {"py.typed", "distorch.binpb", "distorch_pb2.pyi"} <= {path.name for path in (site / "distorchd").iterdir()}
