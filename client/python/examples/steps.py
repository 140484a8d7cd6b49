"""What Infer does, step by step; and a sampler of one's own over Denoise."""

import numpy as np

import distorchd

with distorchd.Client() as client, client.load("shapes-sd1.safetensors") as checkpoint:
    positive, negative = checkpoint.encode_text("a yellow star"), checkpoint.encode_text("")
    latent = checkpoint.sample(positive, negative, checkpoint.empty_latent(64, 64), steps=4, sampler_name="dpmpp_2m",
                               scheduler="karras", cfg=4.0, seed=1)
    checkpoint.decode(latent).pil()[0].save("star.png")

    # Euler's method, from noise to a latent.
    model = checkpoint.loaded.denoiser
    sigmas = np.append(np.geomspace(model.sigma_max, model.sigma_min, 4), 0.0)
    x = np.random.default_rng(0).normal(size=(1, model.latent_channels, 8, 8)).astype(np.float32) * sigmas[0]
    for sigma, after in zip(sigmas, sigmas[1:]):
        denoised = checkpoint.denoise(x, sigma, positive).numpy()
        x = denoised + (x - denoised) * (after / sigma)
    checkpoint.decode(x.astype(np.float32) / model.latent_scale).pil()[0].save("own.png")
