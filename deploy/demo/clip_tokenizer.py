"""CLIP's byte-pair encoding of plain English prompts, with the merges in lib/text/vocab."""

import functools
import gzip
import pathlib
import re

MERGES = pathlib.Path(__file__).resolve().parents[2] / "lib" / "text" / "vocab" / "bpe_simple_vocab_16e6.txt.gz"
START, END, LENGTH, VOCABULARY = 49406, 49407, 77, 49408
END_OF_WORD = "</w>"
WORDS = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[a-z]+|[0-9]|[^\sa-z0-9]+")


@functools.cache
def merges() -> dict[tuple[str, str], int]:
    """A pair's place: the earlier merges first, and its token comes after those of single characters."""
    lines = gzip.decompress(MERGES.read_bytes()).decode().split("\n")[1:START - 512 + 1]
    return {tuple(line.split()): place for place, line in enumerate(lines)}


@functools.cache
def alphabet() -> list[str]:
    """Each byte's character, in the order of tokens: those that Latin-1 prints stand for themselves and come first."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [chr(byte) for byte in printable] + [chr(0x100 + i) for i in range(256 - len(printable))]


@functools.cache
def tokens() -> dict[str, int]:
    spellings = alphabet() + [character + END_OF_WORD for character in alphabet()] + ["".join(pair) for pair in merges()]
    return {spelling: token for token, spelling in enumerate(spellings)}


@functools.cache
def encode_word(word: str) -> list[int]:
    parts = [*word[:-1], word[-1] + END_OF_WORD]
    while len(parts) > 1:
        first = min(zip(parts, parts[1:]), key=lambda pair: merges().get(pair, len(merges())))
        if first not in merges():
            break
        merged, at = [], 0
        while at < len(parts):
            step = 2 if tuple(parts[at:at + 2]) == first else 1
            merged.append("".join(parts[at:at + step]))
            at += step
        parts = merged
    return [tokens()[part] for part in parts]


def encode(prompt: str) -> list[int]:
    """One chunk: the start, at most 75 tokens of printable ASCII, and the end up to LENGTH."""
    if not all(character in alphabet() or character.isspace() for character in prompt) or not prompt.isascii():
        raise ValueError(f"only printable ASCII is encoded here: {prompt!r}")
    ids = [token for word in WORDS.findall(prompt.lower()) for token in encode_word(word)][:LENGTH - 2]
    return [START, *ids, *[END] * (LENGTH - 1 - len(ids))]
