"""Throw damaged GGUF files at what reads them: our errors only, in bounded time and memory.

python tests/fuzz_gguf.py --count 100000 --seed 0
"""

import struct
import tempfile
from pathlib import Path

from support.fuzzing import measured, show
from support.gguf_files import add_byte_level, write_gguf
from support.tiny import CONFIGS

from edgellm.converters.gguf.source import GgufSource
from edgellm.converters.tensors.recipe import ConversionSettings, make_recipe
from edgellm.errors import EdgeLLMError

SECONDS = 5.0
"""Of processor time for a case; an intact file takes a tenth of a second."""

MEMORY = 400 << 20
NUMBERS = [
    0,
    1,
    2,
    7,
    31,
    32,
    255,
    1 << 16,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
    1 << 40,
    1 << 60,
    (1 << 63) - 1,
    (1 << 64) - 1,
]


def damage(whole, rng):
    """One to four changes in the header: a number, a byte, a cut, something put in or left out."""
    data = bytearray(whole)
    for _ in range(rng.randint(1, 4)):
        at = min(int(rng.expovariate(1 / 2000)), max(0, len(data) - 9))
        match rng.randrange(7):
            case 0:
                data[at : at + 8] = struct.pack("<Q", rng.choice(NUMBERS))
            case 1:
                data[at : at + 4] = struct.pack("<I", rng.choice(NUMBERS) & 0xFFFFFFFF)
            case 2:
                data[at] = rng.randrange(256)
            case 3:
                del data[rng.randrange(len(data)) :]
            case 4:
                data[at:at] = bytes(rng.randrange(256) for _ in range(rng.randrange(40)))
            case 5:
                del data[at : at + rng.randrange(40)]
            case 6:
                place = rng.choice([8, 16])
                data[place : place + 8] = struct.pack("<Q", rng.choice(NUMBERS))
    return bytes(data)


def run(rng, file, wholes):
    """One case; returns what came of it."""
    file.write_bytes(damage(rng.choice(wholes), rng))
    try:
        source = GgufSource(file)
        make_recipe(source, ConversionSettings())
        for name, tensor in source.tensors.items():
            source.rows(name, 0, min(2, tensor.rows))
    except EdgeLLMError as error:
        return type(error).__name__
    return "whole"


def fuzz(count, seed):
    """Run ``count`` cases, count what came of them; a broken limit is an AssertionError."""
    config = CONFIGS["llama-2"] | {"num_hidden_layers": 1}
    with tempfile.TemporaryDirectory(prefix="edgellm-fuzz-") as made:
        wholes = []
        for vocabulary in (None, add_byte_level):
            path = Path(made) / "whole.gguf"
            write_gguf(path, config, kinds=lambda name: "Q4_0", vocabulary=vocabulary)
            wholes.append(path.read_bytes())
        file = Path(made) / "case.gguf"
        for whole in wholes:
            file.write_bytes(whole)
            # what a first call imports is not the input's doing
            make_recipe(GgufSource(file), ConversionSettings())
        numbers = range(seed, seed + count)
        return measured(lambda rng: run(rng, file, wholes), numbers, seconds=SECONDS, memory=MEMORY)


if __name__ == "__main__":
    show(fuzz, __doc__, count=10_000)
