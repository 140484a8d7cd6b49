"""The demo checkpoint: its training script's pictures, prompts and tokens, the reader that judges it, and the file that is shipped."""

import json
import random
import sys

import numpy
import pytest
import safetensors

from conftest import ROOT

DEMO = ROOT / "deploy" / "demo"
sys.path.insert(0, str(DEMO))
import clip_tokenizer  # noqa: E402
import shapes  # noqa: E402


def scenes(count, singles=0.3):
    """Scenes, each with a generator to draw it with."""
    for seed in range(count):
        rng = random.Random(seed)
        yield shapes.random_scene(rng, singles), rng


def pixels(scene, rng=None):
    return numpy.asarray(shapes.draw(scene, rng or random.Random(0)))


def test_what_is_drawn_is_read():
    for scene, rng in scenes(300):
        assert shapes.read(pixels(scene, rng)) == scene.in_reading_order()


def test_another_scene_is_not_right():
    red_circle, blue_square = shapes.Item("red", "circle"), shapes.Item("blue", "square")
    wanted = shapes.Scene("white", (red_circle, blue_square), "above")
    assert shapes.is_right(pixels(wanted), wanted)
    assert shapes.is_right(pixels(shapes.Scene("white", (blue_square, red_circle), "below")), wanted)
    for other in (
        shapes.Scene("yellow", (red_circle, blue_square), "above"),
        shapes.Scene("white", (red_circle, blue_square), "below"),
        shapes.Scene("white", (red_circle, blue_square), "left of"),
        shapes.Scene("white", (shapes.Item("blue", "circle"), shapes.Item("red", "square")), "above"),
        shapes.Scene("white", (shapes.Item("red", "square"), shapes.Item("blue", "circle")), "above"),
        shapes.Scene("white", (red_circle, shapes.Item("blue", "heart")), "above"),
        shapes.Scene("white", (red_circle,)),
    ):
        assert not shapes.is_right(pixels(other), wanted), other


def test_a_spoilt_picture_is_not_right():
    scene = shapes.Scene("white", (shapes.Item("red", "circle"),))
    picture = pixels(scene)
    for spoil in ((slice(0, 128), slice(62, 66), (255, 255, 255)),  # cut in two
                  (slice(8, 40), slice(8, 40), (30, 70, 220)),  # something more
                  (slice(64, 128), slice(0, 128), (30, 70, 220)),  # another background below
                  (slice(64, 100), slice(30, 100), (255, 255, 255))):  # half of it gone
        spoilt = picture.copy()
        spoilt[spoil[:2]] = spoil[2]
        assert not shapes.is_right(spoilt, scene), spoil
    noise = numpy.random.default_rng(0).integers(0, 256, picture.shape, numpy.uint8)
    assert shapes.read(noise) is None


def test_prompts_parse():
    for scene, rng in scenes(500):
        assert shapes.parse(scene.prompt) == scene
        prompt = shapes.random_prompt(rng, scene)
        assert shapes.parse(prompt) == scene, prompt


@pytest.mark.parametrize("prompt", [
    "", "a cat", "a red circle above", "a red circle beside a blue square", "a pink circle", "a red circle on a pink background",
    "a red circle above a blue cube",
])
def test_other_prompts_do_not_parse(prompt):
    with pytest.raises(ValueError):
        shapes.parse(prompt)


def test_the_shipped_cases_are_scenes():
    for case in json.loads((DEMO / "cases.json").read_text()):
        assert shapes.parse(case["prompt"]).prompt == case["prompt"]


def test_tokens_are_the_references():
    compared = 0
    for golden in json.loads((ROOT / "tests" / "golden" / "tokens.json").read_text())["prompts"]:
        text, chunks = golden["text"], golden["clip_l"]
        # Without the syntax of weights, which prompts have and plain text does not, and what only a browser writes so.
        if text.isascii() and text.isprintable() and not set(text) & set("()\\&") and len(chunks) == 1:
            assert clip_tokenizer.encode(text) == [token for token, _, repeat in chunks[0] for _ in range(repeat)], text
            compared += 1
    assert compared >= 15
    with pytest.raises(ValueError, match="printable ASCII"):
        clip_tokenizer.encode("ein roter Kreis für dich")


def test_the_shipped_file_has_the_layout_of_the_model():
    path = DEMO / "shapes-sd1.safetensors"
    assert path.stat().st_size < 27_000_000
    with safetensors.safe_open(path, "numpy") as file:
        tensors = {name: file.get_slice(name) for name in file.keys()}
    assert {tensor.get_dtype() for tensor in tensors.values()} == {"F16"}
    parts = {}
    for name in tensors:
        part = ".".join(name.split(".")[:2])
        parts[part] = parts.get(part, 0) + 1
    assert parts == {"cond_stage_model.transformer": 52, "first_stage_model.decoder": 104, "first_stage_model.encoder": 72,
                     "first_stage_model.quant_conv": 2, "first_stage_model.post_quant_conv": 2, "model.diffusion_model": 324}
    unet, text, vae = "model.diffusion_model.", "cond_stage_model.transformer.text_model.", "first_stage_model."
    for name, shape in {
        unet + "input_blocks.0.0.weight": [64, 4, 3, 3],
        unet + "input_blocks.3.0.in_layers.2.weight": [128, 64, 3, 3],
        unet + "middle_block.1.transformer_blocks.0.attn2.to_k.weight": [128, 64],
        unet + "output_blocks.3.2.conv.weight": [128, 128, 3, 3],
        unet + "out.2.weight": [4, 64, 3, 3],
        text + "embeddings.token_embedding.weight": [49408, 64],
        text + "embeddings.position_embedding.weight": [77, 64],
        text + "encoder.layers.2.mlp.fc1.weight": [256, 64],
        vae + "quant_conv.weight": [8, 8, 1, 1],
        vae + "decoder.up.3.upsample.conv.weight": [128, 128, 3, 3],
        vae + "decoder.up.0.block.0.conv1.weight": [64, 64, 3, 3],
    }.items():
        assert tensors[name].get_shape() == shape, name
