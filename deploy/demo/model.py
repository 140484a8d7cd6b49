"""Stable Diffusion 1 with narrow widths, its modules named as published checkpoints name their tensors.

Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models" (2022). What the widths here follow from is in README.md.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

LATENT_CHANNELS, LATENT_SCALE = 4, 0.18215
TRAINED_TIMESTEPS = 1000


class GroupNorm(nn.GroupNorm):
    """Of channels-last maps, by way of the other layout where PyTorch's kernels for it are many times as fast on a CPU."""

    def __init__(self, width, eps=1e-5):
        super().__init__(32, width, eps)

    def forward(self, x):
        if not torch.is_grad_enabled() and x.shape[2] * x.shape[3] > 2048:
            return super().forward(x)
        return super().forward(x.contiguous()).contiguous(memory_format=torch.channels_last)


def attention(q, k, v, heads, causal=False):
    """softmax(q kᵀ / sqrt(d)) v of (N, T, heads·d), in float32: with so narrow heads bfloat16 is slower."""
    q, k, v = (x.float().unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    with torch.autocast("cpu", enabled=False):
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal).transpose(1, 2).flatten(2)


def to_tokens(x):
    return x.flatten(2).transpose(1, 2)


def to_map(tokens, like):
    return tokens.transpose(1, 2).unflatten(2, like.shape[2:])


def named(**modules):
    return nn.ModuleDict(modules)


# The text encoder: CLIP's, whose last hidden states are the UNet's context.


class TextLayer(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.heads = width // 64
        self.self_attn = named(**{name: nn.Linear(width, width) for name in ("k_proj", "v_proj", "q_proj", "out_proj")})
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = named(fc1=nn.Linear(width, 4 * width), fc2=nn.Linear(4 * width, width))

    def forward(self, x):
        h = self.layer_norm1(x)
        q, k, v = (self.self_attn[name](h) for name in ("q_proj", "k_proj", "v_proj"))
        x = x + self.self_attn.out_proj(attention(q, k, v, self.heads, causal=True))
        h = self.mlp.fc1(self.layer_norm2(x))
        return x + self.mlp.fc2(h * torch.sigmoid(1.702 * h))


class TextModel(nn.Module):
    def __init__(self, vocabulary=49408, length=77, width=64, layers=3):
        super().__init__()
        self.embeddings = named(token_embedding=nn.Embedding(vocabulary, width), position_embedding=nn.Embedding(length, width))
        self.encoder = named(layers=nn.ModuleList(TextLayer(width) for _ in range(layers)))
        self.final_layer_norm = nn.LayerNorm(width)
        for embedding in self.embeddings.values():
            nn.init.normal_(embedding.weight, std=0.02)

    def forward(self, ids):
        """(N, length) tokens -> (N, length, width)."""
        x = self.embeddings.token_embedding(ids) + self.embeddings.position_embedding.weight
        for layer in self.encoder.layers:
            x = layer(x)
        return self.final_layer_norm(x)


# The UNet.


def time_embedding(timesteps, width):
    frequencies = torch.exp(torch.arange(width // 2) * (-math.log(10000) / (width // 2)))
    angles = timesteps.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], -1)


class ResBlock(nn.Module):
    def __init__(self, into, out, embedding):
        super().__init__()
        self.in_layers = nn.Sequential(GroupNorm(into), nn.SiLU(), nn.Conv2d(into, out, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedding, out))
        self.out_layers = nn.Sequential(GroupNorm(out), nn.SiLU(), nn.Dropout(0), nn.Conv2d(out, out, 3, padding=1))
        self.skip_connection = nn.Conv2d(into, out, 1) if into != out else nn.Identity()
        nn.init.zeros_(self.out_layers[3].weight)

    def forward(self, x, embedding, context):
        h = self.in_layers(x) + self.emb_layers(embedding)[:, :, None, None]
        return self.skip_connection(x) + self.out_layers(h)


class CrossAttention(nn.Module):
    def __init__(self, width, context_width, heads):
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(context_width, width, bias=False)
        self.to_v = nn.Linear(context_width, width, bias=False)
        self.to_out = nn.Sequential(nn.Linear(width, width))

    def forward(self, x, context):
        return self.to_out(attention(self.to_q(x), self.to_k(context), self.to_v(context), self.heads))


class GatedLinear(nn.Module):
    def __init__(self, into, out):
        super().__init__()
        self.proj = nn.Linear(into, 2 * out)

    def forward(self, x):
        value, gate = self.proj(x).chunk(2, -1)
        return value * F.gelu(gate)


class TransformerBlock(nn.Module):
    def __init__(self, width, context_width, heads):
        super().__init__()
        self.attn1 = CrossAttention(width, width, heads)
        self.ff = named(net=nn.Sequential(GatedLinear(width, 4 * width), nn.Dropout(0), nn.Linear(4 * width, width)))
        self.attn2 = CrossAttention(width, context_width, heads)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))

    def forward(self, x, context):
        h = self.norm1(x)
        x = x + self.attn1(h, h)
        x = x + self.attn2(self.norm2(x), context)
        return x + self.ff.net(self.norm3(x))


class SpatialTransformer(nn.Module):
    def __init__(self, width, context_width, heads):
        super().__init__()
        self.norm = GroupNorm(width, eps=1e-6)
        self.proj_in = nn.Conv2d(width, width, 1)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(width, context_width, heads)])
        self.proj_out = nn.Conv2d(width, width, 1)
        nn.init.zeros_(self.proj_out.weight)

    def forward(self, x, embedding, context):
        h = to_tokens(self.proj_in(self.norm(x)))
        for block in self.transformer_blocks:
            h = block(h, context)
        return x + self.proj_out(to_map(h, x))


class Plain(nn.Module):
    """A module of x alone, where the others take the embedding and the context, too."""

    def forward(self, x, embedding, context):
        return super().forward(x)


class ConvIn(Plain, nn.Conv2d):
    pass


class Downsample(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.op = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, x, embedding, context):
        return self.op(x)


class Upsample(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x, embedding=None, context=None):
        return self.conv(F.interpolate(x, scale_factor=2))


class UNet(nn.Module):
    """Predicts the noise. One residual block a level, and one more on the way up; attention at the first two levels and in the middle."""

    def __init__(self, width=64, multipliers=(1, 2, 2), attended=(True, True, False), context_width=64, heads=8):
        super().__init__()
        embedding = 4 * width
        self.width = width
        self.time_embed = nn.Sequential(nn.Linear(width, embedding), nn.SiLU(), nn.Linear(embedding, embedding))

        def block(into, out, has_attention):
            attention_after = [SpatialTransformer(out, context_width, heads)] if has_attention else []
            return nn.ModuleList([ResBlock(into, out, embedding), *attention_after])

        self.input_blocks = nn.ModuleList([nn.ModuleList([ConvIn(LATENT_CHANNELS, width, 3, padding=1)])])
        channels, skips = width, [width]
        for level, multiplier in enumerate(multipliers):
            if level:
                self.input_blocks.append(nn.ModuleList([Downsample(channels)]))
                skips.append(channels)
            self.input_blocks.append(block(channels, multiplier * width, attended[level]))
            channels = multiplier * width
            skips.append(channels)
        self.middle_block = nn.ModuleList([*block(channels, channels, True), ResBlock(channels, channels, embedding)])
        self.output_blocks = nn.ModuleList()
        for level in reversed(range(len(multipliers))):
            out = multipliers[level] * width
            for last in (False, True):
                self.output_blocks.append(block(channels + skips.pop(), out, attended[level]))
                channels = out
                if last and level:
                    self.output_blocks[-1].append(Upsample(out))
        self.out = nn.Sequential(GroupNorm(width), nn.SiLU(), nn.Conv2d(width, LATENT_CHANNELS, 3, padding=1))
        nn.init.zeros_(self.out[2].weight)

    def forward(self, x, timesteps, context):
        """(N, 4, H, W) scaled latents with noise, (N) timesteps, (N, T, width) -> the noise in them, as x."""
        embedding = self.time_embed(time_embedding(timesteps, self.width))
        skips = []
        for block in self.input_blocks:
            for module in block:
                x = module(x, embedding, context)
            skips.append(x)
        for module in self.middle_block:
            x = module(x, embedding, context)
        for block in self.output_blocks:
            x = torch.cat([x, skips.pop()], 1)
            for module in block:
                x = module(x, embedding, context)
        return self.out(x)


# The VAE, between pictures in -1…1 and latents.


class VaeBlock(nn.Module):
    def __init__(self, into, out):
        super().__init__()
        self.norm1, self.norm2 = GroupNorm(into, eps=1e-6), GroupNorm(out, eps=1e-6)
        self.conv1, self.conv2 = nn.Conv2d(into, out, 3, padding=1), nn.Conv2d(out, out, 3, padding=1)
        if into != out:
            self.nin_shortcut = nn.Conv2d(into, out, 1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x):
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class VaeAttention(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = GroupNorm(width, eps=1e-6)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(width, width, 1) for _ in range(4))
        nn.init.zeros_(self.proj_out.weight)

    def forward(self, x):
        h = self.norm(x)
        h = attention(*(to_tokens(conv(h)) for conv in (self.q, self.k, self.v)), heads=1)
        return x + self.proj_out(to_map(h, x))


class VaeDownsample(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x):
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class VaeMiddle(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.block_1, self.attn_1, self.block_2 = VaeBlock(width, width), VaeAttention(width), VaeBlock(width, width)

    def forward(self, x):
        return self.block_2(self.attn_1(self.block_1(x)))


class VaeEncoder(nn.Module):
    def __init__(self, widths):
        super().__init__()
        self.conv_in = nn.Conv2d(3, widths[0], 3, padding=1)
        self.down = nn.ModuleList()
        for level, (into, out) in enumerate(zip((widths[0], *widths), widths)):
            modules = {"block": nn.ModuleList([VaeBlock(into, out)])}
            if level + 1 < len(widths):
                modules["downsample"] = VaeDownsample(out)
            self.down.append(nn.ModuleDict(modules))
        self.mid = VaeMiddle(widths[-1])
        self.norm_out = GroupNorm(widths[-1], eps=1e-6)
        self.conv_out = nn.Conv2d(widths[-1], 2 * LATENT_CHANNELS, 3, padding=1)

    def forward(self, x):
        x = self.conv_in(x)
        for level in self.down:
            for module in (*level.block, *([level.downsample] if "downsample" in level else [])):
                x = module(x)
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class VaeDecoder(nn.Module):
    def __init__(self, widths):
        super().__init__()
        self.conv_in = nn.Conv2d(LATENT_CHANNELS, widths[-1], 3, padding=1)
        self.mid = VaeMiddle(widths[-1])
        levels = []
        for level, (into, out) in enumerate(zip((*widths[1:], widths[-1]), widths)):
            modules = {"block": nn.ModuleList([VaeBlock(into, out), VaeBlock(out, out)])}
            if level:
                modules["upsample"] = Upsample(out)
            levels.append(nn.ModuleDict(modules))
        self.up = nn.ModuleList(levels)
        self.norm_out = GroupNorm(widths[0], eps=1e-6)
        self.conv_out = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, z):
        x = self.mid(self.conv_in(z))
        for level in reversed(self.up):
            for module in (*level.block, *([level.upsample] if "upsample" in level else [])):
                x = module(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class Vae(nn.Module):
    def __init__(self, widths=(64, 64, 128, 128)):
        super().__init__()
        self.encoder, self.decoder = VaeEncoder(widths), VaeDecoder(widths)
        self.quant_conv = nn.Conv2d(2 * LATENT_CHANNELS, 2 * LATENT_CHANNELS, 1)
        self.post_quant_conv = nn.Conv2d(LATENT_CHANNELS, LATENT_CHANNELS, 1)

    def encode(self, x):
        """(N, 3, H, W) -> the mean and the logarithm of the variance of (N, 4, H/8, W/8)."""
        return self.quant_conv(self.encoder(x)).chunk(2, 1)

    def decode(self, z):
        return self.decoder(self.post_quant_conv(z))


class Checkpoint(nn.Module):
    """All three; `state_dict` has the published names."""

    def __init__(self):
        super().__init__()
        self.cond_stage_model = named(transformer=named(text_model=TextModel()))
        self.first_stage_model = Vae()
        self.model = named(diffusion_model=UNet())

    @property
    def text(self):
        return self.cond_stage_model.transformer.text_model

    @property
    def vae(self):
        return self.first_stage_model

    @property
    def unet(self):
        return self.model.diffusion_model


# Diffusion.


def alphas_cumprod():
    """The share of the picture's variance at each timestep."""
    betas = torch.linspace(0.00085 ** 0.5, 0.012 ** 0.5, TRAINED_TIMESTEPS, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, 0).float()


@torch.no_grad()
def sample(checkpoint, positive, negative, noise, steps=20, cfg=4.0):
    """Euler's method at evenly spaced timesteps, with classifier-free guidance. Token ids (N, 77), noise (N, 4, H, W) -> latents."""
    alphas = alphas_cumprod()
    sigmas = ((1 - alphas) / alphas).sqrt()
    timesteps = torch.linspace(TRAINED_TIMESTEPS - 1, 0, steps).round().long()
    context = checkpoint.text(torch.cat([positive, negative]))
    x = noise * (1 + sigmas[-1] ** 2).sqrt()
    for at, to in zip(timesteps, [*timesteps[1:], None]):
        sigma, next_sigma = sigmas[at], sigmas[to] if to is not None else torch.tensor(0.0)
        scaled = (x / (1 + sigma ** 2).sqrt()).repeat(2, 1, 1, 1)
        wanted, unwanted = checkpoint.unet(scaled, at.repeat(len(scaled)), context).float().chunk(2)
        x = x + (next_sigma - sigma) * (unwanted + cfg * (wanted - unwanted))
    return x
