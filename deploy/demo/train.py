"""Trains the shapes checkpoint from drawn pictures, and evaluates it: see README.md."""

import argparse
import datetime
import math
import os
import pathlib
import random
import time

import numpy
import torch
import torch.distributed
import torch.multiprocessing
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

import clip_tokenizer
import model
import shapes

ROOT = pathlib.Path(__file__).resolve().parents[2]
SINGLES = 0.3  # of the pictures show one item
UNPROMPTED = 0.1  # of the prompts are left out, for classifier-free guidance
EVALUATED = 100  # prompts


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--out", type=pathlib.Path, default=ROOT / "build" / "demo" / "shapes-sd1.safetensors", help="the checkpoint to write")
    add("--work", type=pathlib.Path, default=ROOT / "build" / "demo", help="where progress is kept; a run goes on from there")
    add("--evaluate", type=pathlib.Path, metavar="FILE", help="only evaluate this checkpoint")
    add("--processes", type=int, default=os.cpu_count(), help="of one thread each; a batch is divided among them")
    add("--seed", type=int, default=0)
    add("--text_steps", type=int, default=500)
    add("--vae_steps", type=int, default=1000)
    add("--pictures", type=int, default=8192, help="drawn for the diffusion model")
    add("--steps", type=int, default=4000, help="of the diffusion model")
    return parser.parse_args()


class Team:
    """The processes that train together. Each computes on its share of a batch, and all take the same step."""

    def __init__(self, rank, size, meeting_point):
        self.rank, self.size = rank, size
        torch.distributed.init_process_group("gloo", init_method=f"file://{meeting_point}", rank=rank, world_size=size,
                                             timeout=datetime.timedelta(days=1))

    def say(self, *text):
        if self.rank == 0:
            print(time.strftime("%H:%M:%S"), *text, flush=True)

    def average(self, tensors):
        """Makes each the mean of all processes'."""
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        torch.distributed.all_reduce(flat)
        flat /= self.size
        for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors])):
            tensor.copy_(mean.view_as(tensor))

    def share(self, count):
        """Of 0 … count - 1: this process's."""
        return range(self.rank, count, self.size)

    def gather(self, items):
        """What every process has, in the order of `share`."""
        lists = [None] * self.size
        torch.distributed.all_gather_object(lists, items)
        return [lists[i % self.size][i // self.size] for i in range(sum(map(len, lists)))]

    def wait(self):
        torch.distributed.barrier()


def save(value, path):
    """A reader, and a run that goes on after a kill, finds the old file or the new one, whole."""
    new = path.with_suffix(".new")
    torch.save(value, new)
    os.replace(new, path)


def random_generators(*key):
    """Python's and PyTorch's, the same for the same key."""
    rng = random.Random("/".join(map(str, key)))
    return rng, torch.Generator().manual_seed(rng.getrandbits(60))


class Training:
    """Steps of Adam with a warm-up, a constant rate and a decay to 0, and an average of the weights over the last steps."""

    SAVE_SECONDS, REPORT_SECONDS = 120, 20
    WARM_UP, DECAY = 150, 0.3  # steps; share of all steps
    AVERAGED_STEPS = 300

    def __init__(self, team, arguments, name, module, rate, steps, sparse=None):
        """`sparse`: an embedding's weight, and the only rows of it that ever have gradients."""
        self.team, self.name, self.module, self.rate, self.steps = team, name, module, rate, steps
        self.path = arguments.work / f"{name}.pt"
        self.parameters = list(module.parameters())
        self.sparse = sparse
        self.optimizer = torch.optim.Adam(self.parameters, betas=(0.9, 0.99), fused=True)
        self.averages = [parameter.detach().clone() for parameter in self.parameters]
        self.step = 0
        if self.path.exists():
            state = torch.load(self.path)
            self.step = state["step"]
            module.load_state_dict(state["module"])
            self.averages = state["averages"]
            if "optimizer" in state:
                self.optimizer.load_state_dict(state["optimizer"])

    def save(self, with_optimizer=True):
        if self.team.rank == 0:
            state = {"step": self.step, "module": self.module.state_dict(), "averages": self.averages}
            if with_optimizer:
                state["optimizer"] = self.optimizer.state_dict()
            save(state, self.path)

    def swap_averages(self):
        with torch.no_grad():
            for parameter, average in zip(self.parameters, self.averages):
                held = parameter.clone()
                parameter.copy_(average)
                average.copy_(held)

    def take_step(self, loss):
        self.optimizer.zero_grad()
        loss.backward()
        gradients = [parameter.grad for parameter in self.parameters if not self.sparse or parameter is not self.sparse[0]]
        if self.sparse:
            table, rows = self.sparse
            gradients.append(table.grad[rows])
        self.team.average(gradients)
        if self.sparse:
            table.grad[rows] = gradients[-1]
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        progress = self.step / self.steps
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * min(1, (self.step + 1) / self.WARM_UP, (1 - progress) / self.DECAY)
        self.optimizer.step()
        self.step += 1
        share = 1 - min(1 - 1 / self.AVERAGED_STEPS, self.step / (self.step + 9))
        torch._foreach_lerp_(self.averages, [parameter.detach() for parameter in self.parameters], share)

    def run(self, loss_of, check=None, check_every=500):
        """`loss_of(step)`: of this process's share of that step's batch. At the end the module has the averaged weights.

        `check(step)` is called with them now and then.
        """
        reported = saved = time.monotonic()
        losses, reported_step = [], self.step
        while self.step < self.steps:
            loss = loss_of(self.step)
            self.take_step(loss)
            losses.append(loss.item())
            now = time.monotonic()
            if now > reported + self.REPORT_SECONDS or self.step == self.steps:
                pace = (now - reported) / (self.step - reported_step)
                self.team.say(f"{self.name}: step {self.step} of {self.steps}, loss {sum(losses) / len(losses):.4f}, "
                              f"{pace:.2f} s a step, {pace * (self.steps - self.step) / 60:.0f} min left")
                losses, reported, reported_step = [], now, self.step
            if now > saved + self.SAVE_SECONDS:
                self.save()
                saved = now
            if check and self.step % check_every == 0 and self.step < self.steps:
                self.swap_averages()
                check(self.step)
                self.swap_averages()
        self.save(with_optimizer=False)
        self.swap_averages()


# The text encoder learns first, like CLIP's, what prompts are about: from each token after the prompt's last word a linear map tells the scene.


def scene_labels(scene):
    """The scene in reading order as class numbers: arrangement, background, and each item's colour and shape (or none)."""
    told = scene.in_reading_order()
    colours, kinds = list(shapes.COLOURS), list(shapes.SHAPES)
    labels = [(None, "above", "left of").index(told.relation), colours.index(told.background)]
    for item in (*told.items, None)[:2]:
        labels += [colours.index(item.colour), kinds.index(item.shape)] if item else [len(colours), len(kinds)]
    return labels


LABELS = [3, len(shapes.COLOURS), *[len(shapes.COLOURS) + 1, len(shapes.SHAPES) + 1] * 2]


def scene_loss(head, hidden, ids, labels, told):
    """Cross-entropy over the tokens that end a prompt; `told`: the rows that have a prompt."""
    ends = (ids == clip_tokenizer.END) & told[:, None]
    logits = head(hidden[ends])
    wanted = labels[:, None].expand(-1, ids.shape[1], -1)[ends]
    return sum(F.cross_entropy(part.float(), wanted[:, i]) for i, part in enumerate(logits.split(LABELS, -1)))


def tokens_of(prompts):
    return torch.tensor([clip_tokenizer.encode(prompt) for prompt in prompts])


def used_tokens():
    words = [*shapes.COLOURS, *shapes.SHAPES, *shapes.RELATIONS, "a an on to the background"]
    return sorted({clip_tokenizer.START, clip_tokenizer.END, *(token for word in words for token in clip_tokenizer.encode(word))})


def train_text(team, arguments, checkpoint, head):
    def loss_of(step):
        rng, _ = random_generators(arguments.seed, "text", step, team.rank)
        scenes = [shapes.random_scene(rng, SINGLES) for _ in range(128 // team.size)]
        ids = tokens_of(shapes.random_prompt(rng, scene) for scene in scenes)
        labels = torch.tensor([scene_labels(scene) for scene in scenes])
        return scene_loss(head, checkpoint.text(ids), ids, labels, torch.ones(len(ids), dtype=bool))

    module = nn.ModuleList([checkpoint.text, head])
    table = checkpoint.text.embeddings.token_embedding.weight
    Training(team, arguments, "text", module, 1e-3, arguments.text_steps, (table, used_tokens())).run(loss_of)


# The VAE.


def to_tensor(pictures):
    """Bytes (N, H, W, 3) -> -1…1 (N, 3, H, W), channels last."""
    return torch.from_numpy(numpy.stack(pictures)).float().div_(127.5).sub_(1).movedim(-1, 1)


def to_bytes(pictures):
    return (pictures.clamp(-1, 1) + 1).mul(127.5).round().byte().movedim(1, -1).numpy()


def drawn(rng):
    return numpy.asarray(shapes.draw(shapes.random_scene(rng, SINGLES), rng))


def train_vae(team, arguments, vae):
    """On quarters of pictures, and at the end on whole ones, as encoded later: normalisation and attention see all of a picture."""
    def quarter(picture, rng):
        y, x = (rng.randint(0, shapes.SIZE // 2) for _ in range(2))
        return picture[y:y + shapes.SIZE // 2, x:x + shapes.SIZE // 2]

    def loss_of(step):
        rng, generator = random_generators(arguments.seed, "vae", step, team.rank)
        if step < 0.75 * arguments.vae_steps:
            pictures = to_tensor([quarter(drawn(rng), rng) for _ in range(32 // team.size)])
        else:
            pictures = to_tensor([drawn(rng) for _ in range(max(1, 8 // team.size))])
        with torch.autocast("cpu", torch.bfloat16):
            mean, log_variance = (part.float() for part in vae.encode(pictures))
            log_variance = log_variance.clamp(-30, 20)
            latents = mean + (0.5 * log_variance).exp() * torch.randn(mean.shape, generator=generator)
            difference = vae.decode(latents).float() - pictures
        divergence = 0.5 * (mean ** 2 + log_variance.exp() - 1 - log_variance).mean()
        return difference.abs().mean() + (difference ** 2).mean() + 5e-4 * divergence

    Training(team, arguments, "vae", vae, 1e-3, arguments.vae_steps).run(loss_of)


@torch.no_grad()
def normalise_latents(vae, latents):
    """Folds into the 1×1 convolutions beside the latents what makes each channel, scaled, of mean 0 and standard deviation 1.

    Returns the latents of the VAE as it is then, scaled.
    """
    kept = model.LATENT_CHANNELS
    means, deviations = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    factors = 1 / (model.LATENT_SCALE * deviations)
    weight, bias = vae.quant_conv.weight, vae.quant_conv.bias
    weight[:kept] *= factors[:, None, None, None]
    bias[:kept] = (bias[:kept] - means) * factors
    bias[kept:] += 2 * factors.log()
    vae.post_quant_conv.bias += vae.post_quant_conv.weight[:, :, 0, 0] @ means
    vae.post_quant_conv.weight /= factors[:, None, None]
    return (latents - means[:, None, None]) / deviations[:, None, None]


# The diffusion model, on latents of pictures drawn once.


def drawn_scenes(arguments):
    """Scene and generator of each picture. No pair that is evaluated is among them."""
    held_out = {scene.in_reading_order() for scene in evaluated_scenes() if scene.relation}
    for i in range(arguments.pictures):
        rng, _ = random_generators(arguments.seed, "picture", i)
        scene = shapes.random_scene(rng, SINGLES)
        while scene.in_reading_order() in held_out:
            scene = shapes.random_scene(rng, SINGLES)
        yield scene, rng


@torch.no_grad()
def encode_pictures(team, arguments, vae):
    """Means of the posterior, (pictures, 4, 16, 16), as the VAE has them before `normalise_latents`."""
    path = arguments.work / "latents.pt"
    if not path.exists():
        mine, encoded = set(team.share(arguments.pictures)), []
        pictures = [numpy.asarray(shapes.draw(scene, rng))
                    for i, (scene, rng) in enumerate(drawn_scenes(arguments)) if i in mine]
        for at in range(0, math.ceil(arguments.pictures / team.size), 4):
            if at < len(pictures):
                with torch.autocast("cpu", torch.bfloat16):
                    encoded.extend(vae.encode(to_tensor(pictures[at:at + 4]))[0].half().numpy())
            if at % 512 == 0:
                team.wait()  # ends this process, too, should another have ended
                team.say(f"latents: {at * team.size} of {arguments.pictures}")
        latents = torch.from_numpy(numpy.stack(team.gather(encoded)))
        if team.rank == 0:
            save(latents, path)
        team.wait()
    return torch.load(path).float()


def loss_weights(alphas):
    """Of the squared error of the noise at each timestep: that of the picture predicted, by min(SNR, 5)^½.

    As Hang et al., "Efficient Diffusion Training via Min-SNR Weighting Strategy" (2023), but more for the noisy steps, where a picture's
    composition and colours are settled.
    """
    ratio = alphas / (1 - alphas)
    weights = ratio.clamp(max=5) ** 0.5 / ratio
    return weights / weights.mean()


def train_diffusion(team, arguments, checkpoint, head, latents):
    alphas = model.alphas_cumprod()
    weights = loss_weights(alphas)
    scenes = [scene for scene, _ in drawn_scenes(arguments)]

    def loss_of(step):
        rng, generator = random_generators(arguments.seed, "diffusion", step, team.rank)
        chosen = [rng.randrange(len(scenes)) for _ in range(32 // team.size)]
        told = torch.tensor([rng.random() >= UNPROMPTED for _ in chosen])
        ids = tokens_of(shapes.random_prompt(rng, scenes[i]) if has else "" for i, has in zip(chosen, told))
        labels = torch.tensor([scene_labels(scenes[i]) for i in chosen])
        clean = latents[chosen]
        noise = torch.randn(clean.shape, generator=generator)
        # One timestep from each of as many equal parts of the schedule.
        timesteps = ((torch.arange(len(chosen)) + torch.rand(len(chosen), generator=generator))
                     * (model.TRAINED_TIMESTEPS / len(chosen))).long()
        share = alphas[timesteps, None, None, None]
        noisy = (share.sqrt() * clean + (1 - share).sqrt() * noise).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            context = checkpoint.text(ids)
            predicted = checkpoint.unet(noisy, timesteps, context).float()
        error = ((predicted - noise) ** 2).mean((1, 2, 3))
        return (weights[timesteps] * error).mean() + 0.02 * scene_loss(head, context, ids, labels, told)

    def check(step):
        right = [is_right for is_right, _ in evaluate(team, checkpoint, evaluated_scenes()[:50], fast=True)]
        team.say(f"diffusion: after step {step}, {sum(right)} of {len(right)} prompts are right")

    module = nn.ModuleList([checkpoint.unet, checkpoint.text, head])
    table = checkpoint.text.embeddings.token_embedding.weight
    Training(team, arguments, "diffusion", module, 1e-3, arguments.steps, (table, used_tokens())).run(loss_of, check)


# Evaluation.


def evaluated_scenes():
    """Three of four with two items."""
    rng = random.Random("evaluation")
    return [shapes.random_scene(rng, singles=0.25) for _ in range(EVALUATED)]


@torch.no_grad()
def evaluate(team, checkpoint, scenes, fast=False):
    """(right or not, picture) of each scene's prompt, sampled as the quick start does; `fast`: in bfloat16."""
    results = []
    mine = team.share(len(scenes))
    for at in range(0, len(mine), 10):
        batch = mine[at:at + 10]
        noise = torch.stack([torch.randn(model.LATENT_CHANNELS, shapes.SIZE // 8, shapes.SIZE // 8,
                                         generator=torch.Generator().manual_seed(i)) for i in batch])
        ids = tokens_of(scenes[i].prompt for i in batch)
        with torch.autocast("cpu", torch.bfloat16, enabled=fast):
            latents = model.sample(checkpoint, ids, tokens_of([""] * len(batch)), noise)
            pictures = to_bytes(checkpoint.vae.decode(latents / model.LATENT_SCALE).float())
        results += [(shapes.is_right(picture, scenes[i]), picture) for i, picture in zip(batch, pictures)]
    return team.gather(results)


def report(team, arguments, path):
    """Evaluates a file: each prompt that went wrong, the count, and all pictures in one, wrong ones with a red frame."""
    checkpoint = model.Checkpoint().to(memory_format=torch.channels_last)
    checkpoint.load_state_dict({name: tensor.float() for name, tensor in load_file(path).items()})
    scenes = evaluated_scenes()
    results = evaluate(team, checkpoint, scenes)
    framed = []
    for scene, (right, picture) in zip(scenes, results):
        if not right:
            team.say(f"wrong: {scene.prompt}; it shows {shapes.read(picture)}")
        framed.append(numpy.pad(picture, ((3, 3), (3, 3), (0, 0)), constant_values=128))
        if not right:
            framed[-1][[0, 1, 2, -3, -2, -1]] = framed[-1][:, [0, 1, 2, -3, -2, -1]] = (255, 0, 0)
    for count, name in ((1, "one item"), (2, "two items")):
        right = [is_right for scene, (is_right, _) in zip(scenes, results) if len(scene.items) == count]
        team.say(f"{name}: {sum(right)} of {len(right)} prompts are right")
    team.say(f"all: {sum(right for right, _ in results)} of {len(results)} prompts are right")
    if team.rank == 0:
        rows = [numpy.concatenate(framed[at:at + 10], 1) for at in range(0, len(framed), 10)]
        Image.fromarray(numpy.concatenate(rows)).save(arguments.work / "evaluation.png")


def train(team, arguments):
    torch.manual_seed(arguments.seed)
    checkpoint = model.Checkpoint().to(memory_format=torch.channels_last)
    head = nn.Linear(64, sum(LABELS))
    train_text(team, arguments, checkpoint, head)
    train_vae(team, arguments, checkpoint.vae)
    latents = encode_pictures(team, arguments, checkpoint.vae)
    latents = normalise_latents(checkpoint.vae, latents)
    train_diffusion(team, arguments, checkpoint, head, latents)
    if team.rank == 0:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.half().contiguous() for name, tensor in checkpoint.state_dict().items()}, arguments.out,
                  metadata={"format": "pt", "description": "coloured shapes, trained from scratch on drawn pictures by deploy/demo/train.py"})
    team.wait()
    team.say(f"written: {arguments.out}")
    report(team, arguments, arguments.out)


def work(rank, arguments, meeting_point):
    torch.set_num_threads(1)
    team = Team(rank, arguments.processes, meeting_point)
    if arguments.evaluate:
        report(team, arguments, arguments.evaluate)
    else:
        train(team, arguments)


def main():
    arguments = parse_arguments()
    arguments.work = arguments.work.resolve()
    arguments.work.mkdir(parents=True, exist_ok=True)
    meeting_point = arguments.work / "meeting-point"
    meeting_point.unlink(missing_ok=True)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    context = torch.multiprocessing.get_context("spawn")
    others = [context.Process(target=work, args=(rank, arguments, meeting_point), daemon=True)
              for rank in range(1, arguments.processes)]
    for process in others:
        process.start()
    work(0, arguments, meeting_point)
    for process in others:
        process.join()


if __name__ == "__main__":
    main()
