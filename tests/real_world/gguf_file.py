"""GGUF files as llama.cpp's converter and quantizer leave them, and the same one in float32."""

import base64

import gguf
import numpy as np
from support.gguf_files import LAYER, OUTER, add_sizes, permuted

from real_world.oracles.arrays_as_text import to_text
from real_world.pieces import pieces

KINDS = gguf.GGMLQuantizationType


def gguf_name(name):
    """llama.cpp's name of a tensor."""
    path, _, part = name.rpartition(".")
    if path in OUTER:
        return f"{OUTER[path]}.{part}"
    _, _, index, inner = path.split(".", 3)
    return f"blk.{index}.{LAYER[inner]}.{part}"


BY_LIBRARY = ("BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "TQ1_0", "TQ2_0")
"""Types that the gguf library itself quantizes to."""


def blocks(kind, values, peers):
    """A matrix in a type: by the gguf library where it can, else by llama.cpp's quantizer."""
    if kind in ("F32", "F16"):
        return values.astype({"F32": np.float32, "F16": np.float16}[kind])
    if kind in BY_LIBRARY:
        return gguf.quants.quantize(values, KINDS[kind])
    said = peers.ask("llama.cpp", quantize=to_text(values), kind=int(KINDS[kind]))
    return np.frombuffer(base64.b64decode(said["blocks"]), np.uint8).reshape(len(values), -1)


def write_gguf(
    path, config, tensors, peers, *, architecture, kinds, vocabulary, metadata=None, more=None
):
    """Write a model to ``path``, and the same numbers in float32 beside it; return that path.

    Args:
        path: the file.
        config: of the model.
        tensors: by Hugging Face's names.
        peers: one of them quantizes.
        architecture: llama.cpp's name of the family.
        kinds: a matrix's type by llama.cpp's name.
        vocabulary: called with each writer.
        metadata: called with each writer, for what else the file says.
        more: further float32 tensors by llama.cpp's names.
    """
    plain = path.with_name("float32.gguf")
    writers = [gguf.GGUFWriter(file, architecture) for file in (path, plain)]
    heads = config["num_attention_heads"]
    kept = config["num_key_value_heads"]
    for writer in writers:
        writer.add_name(path.stem)
        add_sizes(writer, config)
        writer.add_rope_freq_base(config["rope_theta"])
        writer.add_vocab_size(config["vocab_size"])
        writer.add_quantization_version(2)
        vocabulary(writer)
        if metadata:
            metadata(writer)
    for ours, given in tensors.items():
        name, values = gguf_name(ours), given
        if architecture in ("llama", "granite") and "attn_q." in name:
            values = permuted(values, heads)
        if architecture in ("llama", "granite") and "attn_k." in name:
            values = permuted(values, kept)
        kind = "F32"
        if values.ndim == 2:
            kind = kinds(name)
        values = np.ascontiguousarray(values)
        stored = blocks(kind, values, peers)
        exact = stored.astype(np.float32)
        if kind not in ("F32", "F16"):
            exact = gguf.quants.dequantize(stored, KINDS[kind])
        writers[0].add_tensor(name, stored, raw_dtype=KINDS[kind])
        writers[1].add_tensor(name, exact)
    for name, values in (more or {}).items():
        for writer in writers:
            writer.add_tensor(name, values)
    for writer in writers:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return plain


def add_pieces(writer, model, *, template=None, more=(), size=None):
    """LLaMA's kind of vocabulary."""
    listed = pieces(model)
    tokens = [piece for piece, _, _ in listed] + list(more)
    kinds = [_kind(piece, place, control) for place, (piece, _, control) in enumerate(listed)]
    kinds += [3] * len(more)
    scores = [score for _, score, _ in listed] + [-1000.0] * len(more)
    missing = (size or len(tokens)) - len(tokens)
    tokens += [f"[PAD{place}]" for place in range(len(tokens), len(tokens) + missing)]
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores + [-1000.0] * missing)
    writer.add_token_types(kinds + [5] * missing)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    if template:
        writer.add_chat_template(template)


def _kind(piece, place, control):
    """llama.cpp's number for a kind of token: unknown, control, byte, the user's own, plain."""
    if place == 0:
        return 2
    if control:
        return 3
    if piece.startswith("<0x"):
        return 6
    if piece.startswith("<|"):
        return 4
    return 1


def add_bytes(writer, document, pre, *, begin=None, end=None, template=None, size=None):
    """GPT-2's kind of vocabulary, from a tokenizer.json."""
    named = {token_id: piece for piece, token_id in document["model"]["vocab"].items()}
    kinds = dict.fromkeys(named, 1)
    for token in document["added_tokens"]:
        named[token["id"]] = token["content"]
        kinds[token["id"]] = 3 if token["special"] else 4
    ids = {text: token_id for token_id, text in named.items()}
    count = size or len(named)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list([named.get(place, f"[PAD{place}]") for place in range(count)])
    writer.add_token_types([kinds.get(place, 5) for place in range(count)])
    merges = document["model"]["merges"]
    writer.add_token_merges([one if isinstance(one, str) else " ".join(one) for one in merges])
    if begin:
        writer.add_bos_token_id(ids[begin])
    if end:
        writer.add_eos_token_id(ids[end])
    if template:
        writer.add_chat_template(template)
