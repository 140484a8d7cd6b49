"""A whole ComfyUI with our nodes in its custom_nodes, driven over HTTP, without a browser."""

import json
import os
import pathlib
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import numpy as np
import pytest

import distorchd
from comfyui_driver import COMFYUI, needs_comfyui
from conftest import ROOT, Daemon

pytestmark = needs_comfyui

DEMO = "shapes-sd1.safetensors"
PROMPT = {
    "load": {"class_type": "CheckpointLoaderAdvancedDisTorch2MultiGPU_distorchd", "inputs": {
        "ckpt_name": DEMO, "unet_compute_device": "cuda:0", "unet_virtual_vram_gb": 0.0, "unet_donor_device": "cpu",
        "clip_compute_device": "cpu", "clip_virtual_vram_gb": 0.0, "clip_donor_device": "cpu", "vae_device": "cuda:0",
        "unet_expert_mode_allocations": "cuda:0,50%;cuda:1,50%"}},
    "yes": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["load", 1], "text": "a red circle"}},
    "no": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["load", 1], "text": ""}},
    "empty": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 2}},
    "sample": {"class_type": "KSampler", "inputs": {
        "model": ["load", 0], "positive": ["yes", 0], "negative": ["no", 0], "latent_image": ["empty", 0], "seed": 7, "steps": 3,
        "cfg": 4.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}},
    "decode": {"class_type": "VAEDecode", "inputs": {"vae": ["load", 2], "samples": ["sample", 0]}},
    "save": {"class_type": "SaveImage", "inputs": {"images": ["decode", 0], "filename_prefix": "shapes"}},
}


class ComfyServer:
    def __init__(self, folder, daemon):
        (folder / "custom_nodes").mkdir(parents=True)
        (folder / "custom_nodes" / "distorchd").symlink_to(ROOT / "client" / "comfyui")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.output, self.log = folder / "output", folder / "comfyui.log"
        environment = {**os.environ, "DISTORCHD_ADDRESS": daemon.address,
                       "PYTHONPATH": str(pathlib.Path(distorchd.__file__).parents[1])}
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "main.py", "--cpu", f"--port={self.port}", f"--base-directory={folder}", "--disable-api-nodes",
                 f"--database-url=sqlite:///{folder / 'comfyui.db'}"], cwd=COMFYUI, env=environment, stdout=log, stderr=log)
        deadline = time.monotonic() + 120
        while True:
            try:
                self.get("/system_stats")
                return
            except urllib.error.URLError:
                assert self.process.poll() is None and time.monotonic() < deadline, self.log.read_text()[-3000:]
                time.sleep(0.1)  # nothing else says that it listens

    def get(self, path):
        return json.load(urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30))

    def post(self, path, body):
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", json.dumps(body).encode())
        answer = urllib.request.urlopen(request, timeout=30).read()
        return json.loads(answer) if answer else None

    def run(self, prompt):
        """The history entry of the finished prompt."""
        queued = self.post("/prompt", {"prompt": prompt})["prompt_id"]
        deadline = time.monotonic() + 120
        while queued not in (history := self.get(f"/history/{queued}")):
            assert time.monotonic() < deadline, self.log.read_text()[-3000:]
            time.sleep(0.05)  # the HTTP interface is asked, it does not tell
        return history[queued]

    def stop(self):
        self.process.terminate()
        self.process.wait(30)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    running = Daemon(tmp_path_factory.mktemp("daemon"))
    yield running
    running.stop()


@pytest.fixture(scope="module")
def server(tmp_path_factory, daemon):
    running = ComfyServer(tmp_path_factory.mktemp("comfyui"), daemon)
    yield running
    running.stop()


def changed(node, **inputs):
    return {**PROMPT, node: {**PROMPT[node], "inputs": {**PROMPT[node]["inputs"], **inputs}}}


def message(entry):
    return next(body for kind, body in entry["status"]["messages"] if kind in ("execution_error", "execution_interrupted"))


def test_a_workflow_gives_what_the_daemon_gives(server, daemon):
    from PIL import Image

    nodes = server.get("/object_info")
    loader = nodes["CheckpointLoaderAdvancedDisTorch2MultiGPU_distorchd"]
    assert loader["display_name"] == "CheckpointLoaderAdvancedDisTorch2MultiGPU (distorchd)"
    assert DEMO in loader["input"]["required"]["ckpt_name"][0]
    assert loader["input"]["required"]["unet_virtual_vram_gb"][1]["default"] == 4.0

    entry = server.run(PROMPT)
    assert entry["status"]["status_str"] == "success", entry["status"]
    names = [image["filename"] for image in entry["outputs"]["save"]["images"]]
    with distorchd.Client(daemon.address) as client, client.load(DEMO, eject_models=False) as checkpoint:
        images = checkpoint.infer("a red circle", width=64, height=64, steps=3, cfg=4.0, seed=7, batch_size=2).images
    for name, expected in zip(names, images, strict=True):
        drawn = np.asarray(Image.open(server.output / name).convert("RGB"), int)
        assert np.abs(drawn - np.asarray(expected.convert("RGB"), int)).max() <= 1


def test_the_daemons_errors_are_the_nodes(server):
    entry = server.run(changed("load", unet_expert_mode_allocations="cuda:0,7x"))
    assert entry["status"]["status_str"] == "error"
    assert message(entry)["node_id"] == "load" and "unet_expert_mode_allocations" in message(entry)["exception_message"]


def test_interrupts_a_sampling_on_the_daemon(server, daemon):
    long = changed("sample", steps=5000)
    long["sample"] = {**long["sample"], "class_type": "KSampler_distorchd"}
    queued = server.post("/prompt", {"prompt": long})["prompt_id"]
    with distorchd.Client(daemon.address) as client:
        deadline = time.monotonic() + 60
        while not any(model.kind == "model" and model.in_use for model in client.list_models()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        server.post("/interrupt", {})
        while queued not in (history := server.get(f"/history/{queued}")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert any(kind == "execution_interrupted" for kind, _ in history[queued]["status"]["messages"])


def test_freeing_models_unloads_them_there(server, daemon):
    assert server.run(changed("sample", seed=8))["status"]["status_str"] == "success"
    with distorchd.Client(daemon.address) as client:
        assert client.list_models()
        server.post("/free", {"unload_models": True, "free_memory": True})
        deadline = time.monotonic() + 30
        while client.list_models():
            assert time.monotonic() < deadline, client.list_models()
            time.sleep(0.05)
    assert server.run(changed("sample", seed=9))["status"]["status_str"] == "success"
