"""mlx-lm: its model in float32, or as a quantized folder is; and transformers' tokenizer."""

import sys
import warnings
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import mlx.core as mx
import numpy as np
from mlx_lm import convert
from mlx_lm.tuner.utils import load_adapters
from mlx_lm.utils import load_model
from support.adapters import trained_by_mlx_lm

from real_world.oracles.arrays_as_text import to_text
from real_world.oracles.serve import serve
from real_world.oracles.text_side import text_side

warnings.simplefilter("ignore")
mx.set_default_device(mx.cpu)


def answer(request):
    """Ids, decoded texts, chats, logits and a greedy text of one folder."""
    if "versions" in request:
        return {name: version(name) for name in ("mlx-lm", "transformers", "tokenizers")}
    if "quantize" in request:
        convert(request["quantize"], request["to"], quantize=True, **request["settings"])
        return {}
    if "train" in request:
        trained_by_mlx_lm(Path(request["train"]), Path(request["to"]), kind=request["kind"])
        return {}
    said = {}
    if request.get("texts") is not None:
        said |= text_side(request)
    model, _ = load_model(Path(request["folder"]))
    if request.get("adapter"):
        model = load_adapters(model, request["adapter"])
    model.set_dtype(mx.float32)
    said["logits"] = to_text(logits_of(model, request["prompt"]))
    ids = list(request["prompt"])
    for _ in range(request["new"]):
        ids.append(int(logits_of(model, ids)[-1].argmax()))
    said["greedy"] = ids[len(request["prompt"]) :]
    return said


def logits_of(model, ids):
    """Logits (L, V) after each token."""
    return np.array(model(mx.array([ids]))[0].astype(mx.float32))


if __name__ == "__main__":
    serve(answer)
