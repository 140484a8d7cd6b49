"""Several pictures at once with asyncio; they queue in the daemon."""

import asyncio

from distorchd.aio import AsyncClient


async def main() -> None:
    async with AsyncClient() as client:
        async with await client.load("shapes-sd1.safetensors") as checkpoint:
            results = await asyncio.gather(*[
                checkpoint.infer("a green triangle", width=64, height=64, steps=2, seed=seed) for seed in range(3)])
    for result in results:
        result.images[0].save(f"triangle-{result.seed}.png")


asyncio.run(main())
