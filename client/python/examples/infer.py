"""Text to image, with a bar and the last preview."""

import distorchd

FIELDS = {"unet_virtual_vram_gb": 0.01, "unet_donor_device": "cpu"}  # the node's: 10 MB of the UNet in the host's memory

with distorchd.Client() as client, client.load("shapes-sd1.safetensors", **FIELDS) as checkpoint:
    for component in checkpoint.placement.components:
        for device in component.devices:
            print(f"{component.component}: {device.measured_bytes / 1e6:.1f} MB on {device.device}")

    def show(progress: distorchd.Progress) -> None:
        print(f"{progress.phase} {progress.done}/{progress.total}")
        if progress.preview is not None:
            progress.preview.save("preview.png")

    result = checkpoint.infer("a red circle above a blue square", width=128, height=128, steps=4, cfg=4.0, seed=1,
                              preview_every=2, progress=show)
    result.images[0].save("circle.png")
