"""Decode a few tokens with one runtime, and print how long each of them took.

    python -m edgellm.bench.studies.peer_runners RUNTIME MODEL TOKENS MEMORY

``peers_in_a_budget`` runs it in a process of its own.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

from edgellm.checkpoint.folder import INDEX
from edgellm.device import machine as device
from edgellm.errors import BackendError

PROMPT_TOKEN = 1


def ours(model: Path, memory: str) -> Iterator[int]:
    """Yield tokens from edgellm, inside ``memory``."""
    import edgellm

    with edgellm.load(model, memory=memory) as llm:
        while True:
            for token in llm.stream([PROMPT_TOKEN], max_tokens=64):
                yield token.id or 0


def llama_cpp(model: Path, memory: str) -> Iterator[int]:
    """Yield tokens from llama.cpp, its weights mapped from the file.

    They are not repacked, which would need them all in memory.
    """
    import ctypes

    import llama_cpp as c
    import numpy as np

    c.llama_backend_init()
    parameters = c.llama_model_default_params()
    parameters.use_extra_bufts = False
    loaded = c.llama_model_load_from_file(str(model).encode(), parameters)
    if not loaded:
        raise BackendError(f"llama.cpp cannot load {model}")
    settings = c.llama_context_default_params()
    settings.n_ctx = 256
    settings.n_threads = settings.n_threads_batch = device.core_count()
    context = c.llama_init_from_model(loaded, settings)
    words = c.llama_vocab_n_tokens(c.llama_model_get_vocab(loaded))
    token = PROMPT_TOKEN
    while True:
        one = (c.llama_token * 1)(token)
        if c.llama_decode(context, c.llama_batch_get_one(one, 1)):
            raise BackendError("llama.cpp failed to decode")
        logits = np.ctypeslib.as_array(
            ctypes.cast(c.llama_get_logits(context), ctypes.POINTER(ctypes.c_float)), (words,)
        )
        token = int(logits.argmax())
        yield token


def accelerate(model: Path, memory: str) -> Iterator[int]:
    """Yield tokens from transformers; accelerate offloads to disk what is above ``memory``."""
    import torch
    import transformers

    with tempfile.TemporaryDirectory(dir=model.parent) as offload:
        loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(
            model,
            dtype=torch.bfloat16,
            device_map="auto",
            max_memory={"cpu": memory},
            offload_folder=offload,
        )
        yield from _torch_tokens(loaded)


def airllm(model: Path, memory: str) -> Iterator[int]:
    """Yield tokens from AirLLM.

    It splits the model into a second copy first, and then keeps one layer in memory.
    """
    from airllm import AutoModel

    shards = with_airllm_names(model)
    yield from _torch_tokens(
        AutoModel.from_pretrained(str(shards), device="cpu", layer_shards_saving_path=str(shards))
    )


def with_airllm_names(model: Path) -> Path:
    """Return a folder of the same files, linked, under the names that AirLLM looks for.

    They are ``model-00001-of-00024.safetensors`` and so on.
    """
    shards = model.with_name(model.name + "-shards")
    if shards.exists():
        return shards
    partial = shards.with_suffix(".partial")
    partial.mkdir(parents=True)
    files = sorted(model.glob("*.safetensors"))
    names = {
        file.name: f"model-{number:05}-of-{len(files):05}.safetensors"
        for number, file in enumerate(files, 1)
    }
    for file in model.iterdir():
        (partial / names.get(file.name, file.name)).hardlink_to(file)
    index = json.loads((model / INDEX).read_text())
    index["weight_map"] = {tensor: names[name] for tensor, name in index["weight_map"].items()}
    (partial / INDEX).unlink()
    (partial / INDEX).write_text(json.dumps(index))
    partial.rename(shards)
    return shards


def _torch_tokens(model: Any) -> Iterator[int]:
    import torch

    ids = torch.tensor([[PROMPT_TOKEN]])
    cache = None
    with torch.inference_mode():
        while True:
            out = model(input_ids=ids, past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            ids = out.logits[:, -1:].argmax(-1)
            yield int(ids)


RUNTIMES: Mapping[str, Callable[[Path, str], Iterator[int]]] = {
    "edgellm": ours,
    "llama.cpp": llama_cpp,
    "accelerate": accelerate,
    "airllm": airllm,
}


def main(runtime: str, model: str, tokens: str, memory: str) -> None:
    """Decode, and print the seconds of each token but the first, and the most memory held."""
    begun = time.perf_counter()
    stream = RUNTIMES[runtime](Path(model), memory)
    times = [time.perf_counter() for _ in islice(stream, int(tokens) + 1)]
    result = {
        "first_token_seconds": times[0] - begun,
        "seconds": [after - before for before, after in pairwise(times)],
        "peak_memory_bytes": device.peak_process_memory(),
    }
    sys.stdout.write("\n" + json.dumps(result) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
