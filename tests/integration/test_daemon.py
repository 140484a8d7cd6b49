"""From a checkpoint and the node's fields to an image, through the real programs."""

import signal
import urllib.request

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

SPLIT = ["--unet_compute_device=cuda:0", "--unet_expert_mode_allocations=cuda:0,50%;cuda:1,30%;cpu,20%",
         "--vae_device=cuda:1"]
DEMO = "shapes-sd1.safetensors"


def metric(daemon, name):
    url = f"http://127.0.0.1:{daemon.ports['metrics']}/metrics"
    lines = urllib.request.urlopen(url, timeout=10).read().decode().splitlines()
    return [line for line in lines if line.startswith(name)]


def test_loads_draws_and_unloads(daemon, tmp_path):
    loaded = daemon.ctl_json("load", DEMO, *SPLIT)
    assert loaded["family"] == "sd1"
    for component in loaded["placement"]["components"]:
        for device in component["devices"]:
            assert device["planned_bytes"] == device["measured_bytes"] > 0
    assert any('component="unet"' in line and 'device="cuda:1"' in line
               for line in metric(daemon, "distorchd_component_bytes"))

    image = tmp_path / "image.png"
    daemon.ctl_json("infer", "--prompt=a red circle", "--width=64", "--height=64", "--steps=2", "--seed=1",
                    f"--output={image}")
    data = image.read_bytes()
    assert data.startswith(b"\x89PNG\r\n") and b"Steps: 2, Sampler: Euler" in data
    assert any('phase="step"' in line for line in metric(daemon, "distorchd_phase_seconds_count"))
    assert any('from="cpu"' in line for line in metric(daemon, "distorchd_transfer_bytes_total"))

    receipt = daemon.ctl_json("unload", "--all")
    assert receipt["handles_closed"] == 3
    assert daemon.ctl_json("models")["models"] == []
    assert metric(daemon, "distorchd_component_bytes{") == []


def test_errors_name_the_field_and_leave_the_daemon_serving(daemon):
    unknown = daemon.ctl("load", "shapes-sd2.safetensors")
    assert unknown.returncode == 1 and "NOT_FOUND" in unknown.stderr and DEMO in unknown.stderr
    wrong = daemon.ctl("load", DEMO, "--unet_expert_mode_allocations=cuda:0,7x")
    assert "INVALID_ARGUMENT" in wrong.stderr and "unet_expert_mode_allocations" in wrong.stderr
    assert daemon.ctl_json("models")["models"] == []
    assert daemon.ctl_json("plan", DEMO, *SPLIT)["fits"]


def test_serves_health_and_reflection(daemon):
    with grpc.insecure_channel(daemon.address) as channel:
        status = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10).status
        assert status == health_pb2.HealthCheckResponse.SERVING
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        answer = next(reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([request]), timeout=10))
        names = {service.name for service in answer.list_services_response.service}
        assert {"distorch.v1.ModelService", "distorch.v1.InferenceService"} <= names


def test_stops_cleanly_on_sigterm(daemon):
    daemon.ctl_json("load", DEMO, *SPLIT)
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.process.wait(timeout=60) == 0
