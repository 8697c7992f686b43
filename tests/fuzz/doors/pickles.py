"""PyTorch's weight files, and Meta's folders of them."""

import json
import zipfile
import zlib

import numpy as np
from support.meta_files import meta_tensors, params_of, rank_lines, some_ranks
from support.tiny import LLAMA, random_tensors
from support.tiny_tokenizers import TEXTS, piece_model
from support.torch_files import pickled_tensor, state

from edgellm.converters.huggingface.torch_file import read_rows, read_torch_file
from edgellm.converters.meta.source import MetaSource
from fuzz.byte_damage import damage_bytes
from fuzz.door import DifferenceError, Door, UnreadableError, by_the_library, read_beginnings
from fuzz.doors.folders import SMALL
from fuzz.json_damage import damage_json
from fuzz.pickle_damage import as_legacy, as_zip, damage_pickle, damage_views

try:
    import torch
except ImportError:  # no part of a plain install
    torch = None

COMPARED = 4
"""Of accepted files, the one in so many that torch reads too."""


class Pickles(Door):
    name = "pickles"
    share = 90
    compares = "torch"

    def __init__(self, folder):
        super().__init__(folder)
        self.arrays = {
            "model.norm.weight": np.arange(8, dtype=np.float32),
            "a.weight": np.arange(12, dtype=np.float16).reshape(3, 4),
            "b.bias": np.arange(3, dtype=np.int64),
            "c": np.arange(8, dtype=np.float32).reshape(2, 2, 2),
        }
        entries = {
            name: pickled_tensor(str(index), array)
            for index, (name, array) in enumerate(self.arrays.items())
        }
        self.pickled = state(entries)
        self.examples = [as_zip(self.pickled, self.arrays), as_legacy(self.pickled, self.arrays)]
        self.path = folder / "pytorch_model.bin"

    def damage(self, random):
        kind = random.random()
        if kind < 0.3:
            data = random.choice(self.examples)
            return {self.path.name: damage_bytes(data, random, head=None)}
        pickled = self.pickled
        if kind < 0.65:
            pickled = damage_pickle(pickled, random)
        else:
            pickled = state(damage_views(self.arrays, random))
        if random.random() < 0.3:
            return {self.path.name: as_legacy(pickled, self.arrays)}
        method = random.choice((zipfile.ZIP_STORED,) * 9 + (zipfile.ZIP_DEFLATED,))
        return {self.path.name: as_zip(pickled, self.arrays, method=method)}

    def open(self, files):
        self.put(files)
        tensors = read_torch_file(self.path)
        return {
            name: (tensor.info, read_rows(tensor, 0, next(iter(tensor.info.shape), 1)))
            for name, tensor in tensors.items()
        }

    def check(self, opened, files):
        data = files[self.path.name]
        if zlib.crc32(data) % COMPARED or torch is None:
            return False
        with by_the_library():
            said, again = self._by_torch(), self._by_torch()
        if said != again:  # bytes that it has not read from the file
            raise UnreadableError
        ours = {name: rows.tobytes() for name, (_, rows) in opened.items()}
        if ours != said:
            raise DifferenceError(f"{ours} is {said} in torch, of {len(data)} bytes")
        return True

    def _by_torch(self):
        theirs = torch.load(self.path, weights_only=True, map_location="cpu")
        return {name: tensor.contiguous().numpy().tobytes() for name, tensor in theirs.items()}


class Meta(Door):
    """Meta's folder: params.json, a shard, and the tokenizer as SentencePiece or as ranks."""

    name = "meta"
    share = 10
    compares = "nothing"

    def __init__(self, folder):
        super().__init__(folder)
        config = LLAMA | SMALL | {"num_attention_heads": 2, "vocab_size": 420}
        arrays = meta_tensors(config, random_tensors(config))
        arrays = {name: values.astype(np.float16) for name, values in arrays.items()}
        entries = {
            name: pickled_tensor(str(index), array)
            for index, (name, array) in enumerate(arrays.items())
        }
        self.arrays = arrays
        self.shard = as_zip(state(entries), arrays)
        self.params = json.dumps(params_of(config, vocab_size=420))
        self.ranks = rank_lines(some_ranks(TEXTS[0], merges=20))
        self.pieces = piece_model()
        self.keep(
            {
                "consolidated.00.pth": self.shard,
                "params.json": self.params.encode(),
                "tokenizer.model": self.pieces,
            }
        )

    def damage(self, random):
        kind = random.random()
        if kind < 0.5:
            return {"params.json": damage_json(self.params, random)}
        if kind < 0.7:
            return {"tokenizer.model": damage_bytes(self.ranks, random)}
        if kind < 0.8:
            return {"tokenizer.model": damage_bytes(self.pieces, random)}
        names = random.sample(list(self.arrays), len(self.arrays))
        kept = {name: self.arrays[name] for name in names[random.randrange(3) :]}
        pickled = state(damage_views(kept, random))
        return {"consolidated.00.pth": as_zip(pickled, kept)}

    def open(self, files):
        self.put(files)
        source = MetaSource(self.folder)
        read_beginnings(source)
        return source
