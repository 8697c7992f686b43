"""llama.cpp by its Python binding: tokens, the template as the binding renders it, logits."""

import base64
import ctypes
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import llama_cpp
import numpy as np
from llama_cpp.llama_chat_format import Jinja2ChatFormatter

from real_world.oracles.arrays_as_text import from_text, to_text
from real_world.oracles.serve import serve


def answer(request):
    """Ids, decoded texts, chats, logits and a greedy text of one file."""
    if "versions" in request:
        return {"llama-cpp-python": llama_cpp.__version__}
    if "quantize" in request:
        return quantized(from_text(request["quantize"]), request["kind"])
    said = {}
    if request.get("texts") is not None:
        said |= tokens(opened(request["folder"], vocab_only=True), request)
    model = opened(request["folder"], n_ctx=256, n_threads=1, logits_all=True, type_k=0, type_v=0)
    model.eval(request["prompt"])
    said["logits"] = to_text(model.scores[: len(request["prompt"])])
    ids = list(request["prompt"])
    for _ in range(request["new"]):
        ids.append(int(model.scores[model.n_tokens - 1].argmax()))
        model.eval(ids[-1:])
    said["greedy"] = ids[len(request["prompt"]) :]
    return said


def quantized(values, kind):
    """A matrix in a block type, by llama.cpp's quantizer with plain importance."""
    rows, columns = values.shape
    base = llama_cpp.llama_cpp._lib
    base.ggml_row_size.restype = ctypes.c_size_t
    base.ggml_row_size.argtypes = [ctypes.c_int, ctypes.c_int64]
    base.ggml_quantize_chunk.restype = ctypes.c_size_t
    floats = ctypes.POINTER(ctypes.c_float)
    base.ggml_quantize_chunk.argtypes = [
        ctypes.c_int,
        floats,
        ctypes.c_void_p,
        *[ctypes.c_int64] * 3,
        floats,
    ]
    out = np.zeros(rows * base.ggml_row_size(kind, columns), np.uint8)
    importance = np.ones(columns, np.float32)
    values = np.ascontiguousarray(values)
    base.ggml_quantize_chunk(
        kind,
        values.ctypes.data_as(floats),
        out.ctypes.data,
        0,
        rows,
        columns,
        importance.ctypes.data_as(floats),
    )
    return {"blocks": base64.b64encode(out.tobytes()).decode()}


def opened(path, **settings):
    """A model without repacked weights, with which some builds crash."""
    usual = llama_cpp.llama_cpp.llama_model_default_params

    def plain():
        found = usual()
        found.use_extra_bufts = False
        return found

    llama_cpp.llama_cpp.llama_model_default_params = plain
    try:
        return llama_cpp.Llama(path, verbose=False, **settings)
    finally:
        llama_cpp.llama_cpp.llama_model_default_params = usual


def tokens(model, request):
    """Ids as ``llama_tokenize`` gives them, and given ones as text."""
    begin = model.metadata.get("tokenizer.ggml.add_bos_token") != "false"
    ids = [
        [model.tokenize(text.encode(), add_bos=special, special=True) for text in request["texts"]]
        for special in (begin, False)
    ]
    decoded = [
        model.detokenize(one, special=True).decode(errors="replace") for one in request["decode"]
    ]
    said = {"ids": ids, "decoded": decoded, "file": None, "class": "llama.cpp", "rendered": []}
    template = model.metadata.get("tokenizer.chat_template")
    if template and request["chats"]:
        names = {
            role: model._model.token_get_text(token) if token >= 0 else ""
            for role, token in (("bos_token", model.token_bos()), ("eos_token", model.token_eos()))
        }
        for chat in request["chats"]:
            settings = {"add_generation_prompt": True} | chat
            begun = settings.pop("add_generation_prompt")
            render = Jinja2ChatFormatter(template, add_generation_prompt=begun, **names)
            try:
                said["rendered"].append(render(**settings).prompt)
            except Exception as error:
                said["rendered"].append({"error": str(error)})
    return said


if __name__ == "__main__":
    serve(answer)
