"""A CLIP whose encoding is a call."""

from __future__ import annotations

import logging
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.sd
import torch

from distorchd import distorch_pb2 as pb

from .arrays import receive
from .remote import Part


class Prompt(list):
    """What stands for a text encoder's tokens: the text. The daemon has the tokenizers."""

    def __init__(self, text: str) -> None:
        super().__init__([text])


class Tokens(dict):
    """The tokens for each of the text encoders ("l", "g", "t5xxl", …), which all get the same text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def __missing__(self, encoder: str) -> Prompt:
        return self.setdefault(encoder, Prompt(self._text))

    def text(self) -> str:
        texts = {prompt[0] for prompt in self.values() if isinstance(prompt, Prompt)} or {self._text}
        if len(texts) > 1 or any(not isinstance(prompt, Prompt) or len(prompt) != 1 for prompt in self.values()):
            raise RuntimeError("distorchd encodes one text for all of a model's text encoders; give them the same text")
        return texts.pop()


class RemoteClip(comfy.sd.CLIP):
    def __init__(self, part: Part) -> None:
        super().__init__(no_init=True)
        self.part = part
        self._skipping: dict[int, Part] = {}
        self.cond_stage_model = torch.nn.Module()
        self.tokenizer = None
        self.layer_idx: int | None = None
        self.tokenizer_options: dict[str, Any] = {}
        self.use_clip_schedule = False
        self.apply_hooks_to_conds = None
        self.patcher = comfy.model_patcher.ModelPatcher(
            self.cond_stage_model, load_device=comfy.model_management.text_encoder_device(),
            offload_device=comfy.model_management.text_encoder_offload_device())
        self.patcher.is_clip = True

    def with_part(self, part: Part) -> RemoteClip:
        other = RemoteClip(part)
        other.layer_idx = self.layer_idx
        other.tokenizer_options = dict(self.tokenizer_options)
        return other

    def clone(self, *_: Any, **__: Any) -> RemoteClip:
        other = self.with_part(self.part)
        other._skipping = self._skipping
        return other

    def clip_layer(self, layer_idx: int) -> None:
        self.layer_idx = layer_idx

    def tokenize(self, text: str, return_word_ids: bool = False, **_: Any) -> Tokens:
        return Tokens(text)

    def encode_from_tokens(self, tokens: Tokens, return_pooled: Any = False, return_dict: bool = False) -> Any:
        if not isinstance(tokens, Tokens):
            raise RuntimeError("tokens of another CLIP cannot be encoded on a distorchd daemon")
        if return_pooled == "unprojected":
            raise RuntimeError("distorchd has no unprojected pooled output")
        response = self._encode(tokens.text())
        for warning in response.warnings:
            logging.warning("distorchd: %s", warning)
        encoded = response.conditioning
        cond = receive(encoded.cross_attention)
        pooled = receive(encoded.pooled) if encoded.HasField("pooled") else None
        if return_dict:
            return {"cond": cond, "pooled_output": pooled}
        return (cond, pooled) if return_pooled else cond

    def _encode(self, text: str) -> pb.EncodeTextResponse:
        part = self._at_layer()
        return part.use(lambda handle: part.call("EncodeText", pb.EncodeTextRequest(clip=handle, text=text)))

    def _at_layer(self) -> Part:
        """-1 is not the same as None: a family may stop earlier by itself."""
        if self.layer_idx is None:
            return self.part
        if self.layer_idx not in self._skipping:
            self._skipping[self.layer_idx] = self.part.with_clip_skip(self.layer_idx)
        return self._skipping[self.layer_idx]

    def load_model(self, *_: Any, **__: Any) -> Any:
        return self.patcher

    def add_patches(self, patches: Any, strength_patch: float = 1.0, strength_model: float = 1.0) -> Any:
        if not patches:
            return []
        raise RuntimeError("distorchd cannot patch weights from here; LoraLoader works: the daemon applies the file of "
                           "that name in its --lora_dirs")

    def get_sd(self) -> Any:
        raise RuntimeError("the weights are on the daemon, and cannot be saved here")
