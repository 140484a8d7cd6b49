"""ComfyUI nodes for checkpoints that a distorchd daemon holds."""

try:
    import distorchd  # noqa: F401
except ImportError as error:
    raise ImportError("distorchd's Python client is not installed where ComfyUI runs: in a clone of distorchd, "
                      "`pip install ./client/python` with ComfyUI's own Python") from error

from . import hooks, loader, sampler

hooks.install()

NODE_CLASS_MAPPINGS = {
    "CheckpointLoaderAdvancedDisTorch2MultiGPU_distorchd": loader.CheckpointLoader,
    "KSampler_distorchd": sampler.KSampler,
}
NODE_DISPLAY_NAME_MAPPINGS = {name: node.TITLE for name, node in NODE_CLASS_MAPPINGS.items()}

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
