"""Scenes of one or two coloured shapes: their pictures, their prompts, and what a picture shows, read back from its pixels."""

from __future__ import annotations

import dataclasses
import functools
import math
import random

import numpy
from PIL import Image, ImageDraw

SIZE = 128  # pixels, both ways

COLOURS = {
    "red": (220, 30, 30), "green": (30, 160, 50), "blue": (30, 70, 220), "yellow": (250, 220, 30),
    "orange": (250, 130, 20), "purple": (140, 40, 180), "white": (255, 255, 255), "black": (0, 0, 0),
}
SHAPES = ("circle", "square", "triangle", "star", "heart")
RELATIONS = ("above", "below", "left of", "right of")


@dataclasses.dataclass(frozen=True)
class Item:
    colour: str
    shape: str

    def __str__(self):
        return f"{self.colour} {self.shape}"


@dataclasses.dataclass(frozen=True)
class Scene:
    """One item in the middle, or `items[0]` in `relation` to `items[1]`."""
    background: str
    items: tuple[Item, ...]
    relation: str | None = None

    @property
    def prompt(self) -> str:
        text = f"a {self.items[0]}"
        if self.relation:
            text += f" {self.relation} a {self.items[1]}"
        return f"{text} on a {self.background} background"

    def in_reading_order(self) -> Scene:
        """The same picture, told from the top or from the left."""
        turned = {"below": "above", "right of": "left of"}.get(self.relation)
        return Scene(self.background, self.items[::-1], turned) if turned else self


def random_scene(rng: random.Random, singles: float) -> Scene:
    """Of one item with probability `singles`. No item has the background's colour."""
    background = rng.choice(list(COLOURS))
    colours = [colour for colour in COLOURS if colour != background]
    items = [Item(rng.choice(colours), rng.choice(SHAPES)) for _ in range(2)]
    if rng.random() < singles:
        return Scene(background, (items[0],))
    return Scene(background, tuple(items), rng.choice(RELATIONS))


def random_prompt(rng: random.Random, scene: Scene) -> str:
    """One of the ways to ask for a scene. A background that is not mentioned is white."""
    def named(thing):
        return ("an " if str(thing).startswith("o") and rng.random() < 0.5 else "a ") + str(thing)

    text = named(scene.items[0])
    if scene.relation:
        to_the = "to the " if scene.relation.endswith(" of") and rng.random() < 0.15 else ""
        text += f" {to_the}{scene.relation} {named(scene.items[1])}"
    style = rng.random()
    if scene.background == "white" and style < 0.3:
        return text
    if style < 0.9:
        return f"{text} on {named(scene.background)} background"
    return f"{text} on {scene.background}"


def parse(prompt: str) -> Scene:
    """The scene of a prompt of `Scene.prompt` or `random_prompt`. Raises ValueError on other text."""
    words = [word for word in prompt.replace(",", "").split() if word not in ("a", "an", "to", "the", "of", "background")]
    words, background = (words[:-2], words[-1]) if words[-2:-1] == ["on"] else (words, "white")
    relations = {relation.split()[0]: relation for relation in RELATIONS}
    if len(words) not in (2, 5) or background not in COLOURS or any(word not in relations for word in words[2:3]):
        raise ValueError(f"no prompt for a scene of shapes: {prompt!r}")
    items = tuple(Item(*words[at:at + 2]) for at in range(0, len(words), 3))
    if any(item.colour not in COLOURS or item.shape not in SHAPES for item in items):
        raise ValueError(f"a colour or a shape that is none of those drawn: {prompt!r}")
    return Scene(background, items, relations[words[2]] if len(words) == 5 else None)


# Drawing: at four times the size, then averaged.

FINE = 4
APART, PAIR_RADIUS, PAIR_JITTER = 32, (17, 20), 3  # from the middle; pixels
SINGLE_RADIUS, SINGLE_JITTER = (26, 30), 4


def outline(shape: str, radius: float) -> list[tuple[float, float]]:
    """The corners around (0, 0); all shapes of one radius are of about the same area."""
    def ring(corners, outer, inner=None, turn=-math.pi / 2):
        return [((inner if inner and i % 2 else outer) * math.cos(turn + 2 * math.pi * i / corners),
                 (inner if inner and i % 2 else outer) * math.sin(turn + 2 * math.pi * i / corners)) for i in range(corners)]

    if shape == "circle":
        return ring(64, radius)
    if shape == "square":
        return ring(4, 1.27 * radius, turn=math.pi / 4)
    if shape == "triangle":
        return ring(3, 1.4 * radius)
    if shape == "star":
        return ring(10, 1.4 * radius, 0.62 * radius)
    angles = [2 * math.pi * i / 64 for i in range(64)]
    return [(radius * 1.15 * math.sin(a) ** 3,
             -radius * 1.15 / 16 * (13 * math.cos(a) - 5 * math.cos(2 * a) - 2 * math.cos(3 * a) - math.cos(4 * a) - 2))
            for a in angles]


def paint(canvas: ImageDraw.ImageDraw, item: Item, x: float, y: float, radius: float):
    corners = [(FINE * (x + dx), FINE * (y + dy)) for dx, dy in outline(item.shape, radius)]
    canvas.polygon(corners, fill=COLOURS[item.colour])


def draw(scene: Scene, rng: random.Random) -> Image.Image:
    """Places and sizes vary a little with `rng`."""
    picture = Image.new("RGB", (FINE * SIZE, FINE * SIZE), COLOURS[scene.background])
    canvas = ImageDraw.Draw(picture)
    told = scene.in_reading_order()
    dx, dy = {"above": (0, APART), "left of": (APART, 0), None: (0, 0)}[told.relation]
    radii, jitter = (PAIR_RADIUS, PAIR_JITTER) if told.relation else (SINGLE_RADIUS, SINGLE_JITTER)
    for item, side in zip(told.items, (-1, 1)):
        x, y = (SIZE / 2 + side * d + rng.uniform(-jitter, jitter) for d in (dx, dy))
        paint(canvas, item, x, y, rng.uniform(*radii))
    return picture.reduce(FINE)


# Reading.

MIN_AREA = 200  # pixels: what is smaller is a speck
MIN_BORDER = 0.9  # of the border's pixels have the background's colour
MIN_PURITY = 0.65  # of a region's pixels have its colour: the rest is its rim
MIN_OVERLAP = 0.8  # of a region with its shape's template, over both together
GRID = 32


def nearest_colours(pixels: numpy.ndarray) -> numpy.ndarray:
    """Indices into COLOURS, of (H, W, 3) in 0…255."""
    palette = numpy.array(list(COLOURS.values()), numpy.float32)
    return ((pixels.astype(numpy.float32)[:, :, None] - palette) ** 2).sum(-1).argmin(-1)


def regions(mask: numpy.ndarray) -> list[numpy.ndarray]:
    """Its connected parts of MIN_AREA and more, each a mask; neighbours share an edge."""
    left, found = mask.copy(), []
    for y, x in zip(*numpy.nonzero(mask)):
        if not left[y, x]:
            continue
        region, stack = numpy.zeros_like(mask), [(y, x)]
        left[y, x] = False
        while stack:
            y, x = stack.pop()
            region[y, x] = True
            for at in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if 0 <= at[0] < mask.shape[0] and 0 <= at[1] < mask.shape[1] and left[at]:
                    left[at] = False
                    stack.append(at)
        if region.sum() >= MIN_AREA:
            found.append(region)
    return found


def centre(region: numpy.ndarray) -> tuple[float, float]:
    ys, xs = numpy.nonzero(region)
    return xs.mean(), ys.mean()


def normalised(region: numpy.ndarray) -> numpy.ndarray:
    """On a grid about its centre as large as its area asks for: the same at any place and size."""
    x, y = centre(region)
    reach = 1.7 * math.sqrt(region.sum() / math.pi)
    steps = numpy.linspace(-reach, reach, GRID)
    xs, ys = (numpy.rint(at + steps).astype(int) for at in (x, y))
    padded = numpy.pad(region, SIZE)
    return padded[ys[:, None] + SIZE, xs + SIZE]


@functools.cache
def templates() -> dict[str, numpy.ndarray]:
    result = {}
    for shape in SHAPES:
        picture = Image.new("RGB", (FINE * SIZE, FINE * SIZE), COLOURS["white"])
        paint(ImageDraw.Draw(picture), Item("black", shape), SIZE / 2, SIZE / 2, 24)
        result[shape] = normalised(numpy.asarray(picture.reduce(FINE))[:, :, 0] < 128)
    return result


def read_item(colours: numpy.ndarray, region: numpy.ndarray) -> Item | None:
    counts = numpy.bincount(colours[region], minlength=len(COLOURS))
    grid = normalised(region)
    overlaps = {shape: (grid & template).sum() / (grid | template).sum() for shape, template in templates().items()}
    shape = max(overlaps, key=overlaps.get)
    if counts.max() < MIN_PURITY * region.sum() or overlaps[shape] < MIN_OVERLAP:
        return None
    return Item(list(COLOURS)[counts.argmax()], shape)


def read(pixels: numpy.ndarray) -> Scene | None:
    """The scene in a picture of (SIZE, SIZE, 3) bytes, in reading order; None where it shows none clearly."""
    colours = nearest_colours(pixels)
    border = numpy.concatenate([colours[0], colours[-1], colours[:, 0], colours[:, -1]])
    counts = numpy.bincount(border, minlength=len(COLOURS))
    if counts.max() < MIN_BORDER * len(border):
        return None
    background = counts.argmax()
    found = [(centre(region), read_item(colours, region)) for region in regions(colours != background)]
    if not 1 <= len(found) <= 2 or any(item is None for _, item in found):
        return None
    name = list(COLOURS)[background]
    if len(found) == 1:
        return Scene(name, (found[0][1],))
    ((x0, y0), _), ((x1, y1), _) = found
    axis = 1 if abs(y1 - y0) > abs(x1 - x0) else 0
    found.sort(key=lambda at: at[0][axis])
    return Scene(name, tuple(item for _, item in found), ("left of", "above")[axis])


def is_right(pixels: numpy.ndarray, wanted: Scene) -> bool:
    return read(pixels) == wanted.in_reading_order()
