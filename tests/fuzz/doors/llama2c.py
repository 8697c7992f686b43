"""llama2.c's files: model.bin of three versions, and the tokenizer.bin beside it."""

import struct
from pathlib import Path

import numpy as np
from support.llama2c_files import write_llama2c, write_tokenizer_bin
from support.tiny import LLAMA
from support.tiny_tokenizers import piece_model

from edgellm.converters.llama2c.source import Llama2cSource
from edgellm.tokenizer.tokenizer import has_vocabulary
from fuzz.byte_damage import BOUNDARIES, damage_bytes
from fuzz.door import DifferenceError, Door, read_beginnings
from fuzz.doors.folders import SMALL

CONFIG = LLAMA | SMALL | {"num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": 330}
CONFIG |= {"max_position_embeddings": 16}
HEADERS = {0: (0, 7), 1: (8, 7), 2: (8, 7)}
"""By version, where the seven numbers of the header begin, and how many they are."""


class Llama2c(Door):
    name = "llama2c"
    share = 45
    compares = "the values written"

    def __init__(self, folder):
        super().__init__(folder)
        self.path = folder / "model.bin"
        self.examples = []
        for version in (0, 1, 2):
            values = write_llama2c(self.path, CONFIG, version=version, group=32)
            self.examples.append((version, self.path.read_bytes(), values))
        self.keep({"tokenizer.bin": _tokenizer(folder)})
        self.tokenizer = (folder / "tokenizer.bin").read_bytes()

    def damage(self, random):
        version, data, _ = random.choice(self.examples)
        if random.random() < 0.35:
            tokenizer = damage_bytes(self.tokenizer, random)
            if random.random() < 0.3:  # a length alone
                tokenizer = bytearray(self.tokenizer)
                tokenizer[8:12] = struct.pack("<I", random.choice(BOUNDARIES) & 0xFFFFFFFF)
            return {"model.bin": data, "tokenizer.bin": bytes(tokenizer)}
        if random.random() < 0.6:
            data = bytearray(data)
            start, count = HEADERS[version]
            for _ in range(random.randint(1, 2)):
                at = start + 4 * random.randrange(count + (version == 2))
                near = int.from_bytes(data[at : at + 4], "little") + random.choice((-1, 1, 0))
                number = random.choice((near, *BOUNDARIES))
                data[at : at + 4] = struct.pack("<I", number & 0xFFFFFFFF)
            return {"model.bin": bytes(data)}
        return {"model.bin": damage_bytes(data, random, head=40)}

    def open(self, files):
        self.put(files)
        source = Llama2cSource(self.path)
        read_beginnings(source)
        if not has_vocabulary(source.companions):
            raise DifferenceError("the tokenizer has no vocabulary")
        return source

    def check(self, opened, files):
        for version, data, values in self.examples:
            if version < 2 and files["model.bin"] == data:
                for name, array in values.items():
                    rows = opened.rows(name, 0, opened.tensors[name].rows)
                    if rows.tobytes() != np.ascontiguousarray(array, np.float32).tobytes():
                        raise DifferenceError(f"{name} has other numbers")
                return True
        return False


def _tokenizer(folder: Path) -> bytes:
    path = write_tokenizer_bin(folder / "tokenizer.bin", piece_model(vocab_size=330))
    return path.read_bytes()
