"""Prompt caches on disk: a damaged one is left aside with a warning, never used."""

import warnings

import mlx.core as mx
import numpy as np
import safetensors
import safetensors.numpy

from edgellm.errors import FormatError
from edgellm.kv_cache.cache import KVCache
from edgellm.kv_cache.kv_format import KVFormat
from edgellm.prompt_cache.disk_cache import PromptCache
from edgellm.prompt_cache.owned_folder import FOLDER_NAME
from fuzz.byte_damage import damage_bytes
from fuzz.door import DifferenceError, Door
from fuzz.doors.folders import damage_safetensors
from fuzz.harness import CONTROL

LAYERS, TOKENS = 2, 70
FORMATS = (KVFormat(1, 8, mx.float16), KVFormat(1, 32, mx.float32, 8))


class PromptCaches(Door):
    name = "prompt-caches"
    share = 25
    compares = "safetensors"

    def __init__(self, folder):
        super().__init__(folder)
        self.tokens = list(range(100, 100 + TOKENS))
        self.examples = []
        for number, kv_format in enumerate(FORMATS):
            kept = folder / str(number)
            cache = PromptCache(kept, lambda number=number: f"model {number}")
            caches = self._caches(kv_format)
            for layer, one in enumerate(caches):
                values = mx.random.normal(
                    (1, 1, TOKENS, kv_format.head_dim), key=mx.random.key(layer)
                )
                one.update(values, values + 1)
            cache.save(self.tokens, caches)
            [path] = kept.glob(f"{FOLDER_NAME}/model-*/*")
            self.examples.append((cache, kv_format, path, path.read_bytes()))

    def _caches(self, kv_format):
        return [KVCache(kv_format, capacity=128) for _ in range(LAYERS)]

    def damage(self, random):
        number = random.randrange(len(FORMATS))
        *_, path, data = self.examples[number]
        kind = random.random()
        if kind < 0.6:
            data = damage_safetensors(data, random)
        else:
            data = damage_bytes(data, random)
        return {path.relative_to(self.folder).as_posix(): data}

    def open(self, files):
        self.put(files)
        [name] = files
        [(cache, kv_format)] = [
            (cache, kv_format)
            for cache, kv_format, path, _ in self.examples
            if path == self.folder / name
        ]
        caches = self._caches(kv_format)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            match = cache.find(self.tokens, caches)
            length = 0
            if match is not None:
                length = cache.load(match, caches)
        for one in said:
            text = str(one.message)
            if found := CONTROL.search(text):
                raise FormatError(f"{found[0]} in a warning")
        if not length:
            raise FormatError("it was left aside")
        return length, caches

    def check(self, opened, files):
        length, caches = opened
        [data] = files.values()
        theirs = safetensors.numpy.load(data)
        for number, cache in enumerate(caches):
            for name, array in zip(cache.kv_format.names, cache.arrays, strict=True):
                stored = theirs[f"layers.{number}.{name}"][:, :, :length]
                if not np.array_equal(np.array(array[:, :, :length]), stored, equal_nan=True):
                    raise DifferenceError(f"layer {number} has other {name}")
        return True
