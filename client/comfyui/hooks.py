"""The two places where ComfyUI does not tell a MODEL what it is about to do with it."""

from __future__ import annotations

import functools
from typing import Any

import comfy.model_management
import nodes

from .clip import RemoteClip
from .model import RemoteModelPatcher
from .remote import Server


def _wrap(owner: Any, name: str, make: Any) -> None:
    original = getattr(owner, name)
    if not getattr(original, "distorchd", False):  # ComfyUI may import custom nodes twice
        wrapped = functools.wraps(original)(make(original))
        wrapped.distorchd = True
        setattr(owner, name, wrapped)


def _load_lora(original: Any) -> Any:
    """LoraLoader reads the file and hands its tensors on: only here is its name known, which is all a daemon needs."""
    def load_lora(self: Any, model: Any, clip: Any, lora_name: str, strength_model: float, strength_clip: float) -> Any:
        remote_model, remote_clip = isinstance(model, RemoteModelPatcher), isinstance(clip, RemoteClip)
        if remote_model and strength_model != 0:
            model = model.with_part(model.model.part.with_lora(lora_name, strength_model))
            model.model.part.handle()  # a file that the daemon does not have is this node's error
        if remote_clip and strength_clip != 0:
            clip = clip.with_part(clip.part.with_lora(lora_name, strength_clip))
            clip.part.handle()
        local_model, local_clip = (None if remote_model else model), (None if remote_clip else clip)
        if local_model is not None or local_clip is not None:
            local_model, local_clip = original(self, local_model, local_clip, lora_name, strength_model, strength_clip)
        return (model if remote_model else local_model, clip if remote_clip else local_clip)

    return load_lora


def _unload_all_models(original: Any) -> Any:
    def unload_all_models(*args: Any, **kwargs: Any) -> Any:
        try:
            return original(*args, **kwargs)
        finally:
            for server in Server.all():
                server.unload_idle()

    return unload_all_models


def install() -> None:
    _wrap(nodes.LoraLoader, "load_lora", _load_lora)
    _wrap(comfy.model_management, "unload_all_models", _unload_all_models)
