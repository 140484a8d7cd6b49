"""The wire contract as Python sees it, and calls that most tests make."""

import pathlib
import sys

import grpc

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))  # for scripts; pytest has it

from conftest import ROOT, Daemon  # noqa: E402, F401

sys.path.append(str(ROOT))
pb, services = grpc.protos_and_services("proto/distorch.proto")

DEMO = "shapes-sd1.safetensors"
PATIENCE = 120  # seconds: a call that takes longer is stuck


class Client:
    def __init__(self, address, name="test"):
        self.channel = grpc.insecure_channel(address)
        self.models = services.ModelServiceStub(self.channel)
        self.inference = services.InferenceServiceStub(self.channel)
        self.metadata = [("x-client-id", name)]

    def load(self, allocation="cuda:0,50%;cuda:1,30%;cpu,20%", eject=True):
        return self.models.LoadCheckpoint(self.load_request(allocation, eject), timeout=PATIENCE)

    @staticmethod
    def load_request(allocation="cuda:0,50%;cuda:1,30%;cpu,20%", eject=True):
        return pb.LoadCheckpointRequest(ckpt_name=DEMO, unet_compute_device="cuda:0", vae_device="cuda:1",
                                        unet_expert_mode_allocations=allocation, eject_models=eject)

    def infer(self, loaded, steps=1, size=64, timeout=PATIENCE, priority=0):
        """The stream of an Infer's events."""
        request = pb.InferRequest(model=loaded.model, clip=loaded.clip, vae=loaded.vae, prompt="a red circle",
                                  width=size, height=size,
                                  options=pb.SamplingOptions(steps=steps, seed=1, priority=priority))
        return self.inference.Infer(request, timeout=timeout, metadata=self.metadata)

    def picture(self, loaded, **options):
        return list(self.infer(loaded, **options))[-1].result.png[0]

    def encode(self, clip):
        return self.inference.EncodeText(pb.EncodeTextRequest(clip=clip, text="a red circle"), timeout=PATIENCE,
                                         metadata=self.metadata)

    def unload(self, handles=(), force=False):
        return self.models.Unload(pb.UnloadRequest(handles=handles, all=not handles, force=force), timeout=PATIENCE)

    def states(self):
        models = self.models.ListModels(pb.ListModelsRequest(), timeout=PATIENCE).models
        return {model.handle: model.state for model in models}

    def accelerator_bytes(self):
        """What the accelerators hold, and what is promised of them."""
        devices = self.models.ListDevices(pb.ListDevicesRequest(), timeout=PATIENCE).devices
        return sum(d.total_bytes - d.free_bytes + d.weights_bytes + d.reserved_bytes + d.staging_bytes
                   for d in devices if d.name != "cpu")
