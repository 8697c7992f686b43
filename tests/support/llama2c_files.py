"""Tiny models as llama2.c's export.py writes them, and its tokenizer.bin."""

import struct

import numpy as np
from support.meta_files import meta_tensors, pairs_from_halves
from support.tiny import random_tensors

ATTENTION = [f"attention.w{letter}" for letter in "qkvo"]
FEED_FORWARD = [f"feed_forward.w{number}" for number in "123"]


def _order(config, version):
    """The names of the tensors in the order of the file; version 0 has two tables at "tables"."""
    layers = range(config["num_hidden_layers"])

    def each(*names):
        return [f"layers.{index}.{name}.weight" for name in names for index in layers]

    if version == 0:
        order = [
            "tok_embeddings.weight",
            *each("attention_norm", *ATTENTION, "ffn_norm", *FEED_FORWARD),
        ]
        order += ["norm.weight", "tables"]
    else:
        order = [
            *each("attention_norm", "ffn_norm"),
            "norm.weight",
            "tok_embeddings.weight",
            *each(*ATTENTION, *FEED_FORWARD),
        ]
    return order if config.get("tie_word_embeddings") else [*order, "output.weight"]


def quantized(weight, group):
    """Codes and scales of symmetric int8 groups, and the values that they stand for."""
    groups = weight.reshape(-1, group)
    scales = (np.abs(groups).max(axis=1) / 127).astype(np.float32)
    codes = np.round(groups / scales[:, None]).astype(np.int8)
    return codes, scales, (codes * scales[:, None]).astype(np.float32).reshape(weight.shape)


def write_llama2c(path, config, *, version, group=64, seed=0):
    """Write a model file; returns the values that it stands for, by Hugging Face's names."""
    values = {
        name: array.astype(np.float32) for name, array in random_tensors(config, seed).items()
    }
    tensors, tied = meta_tensors(config, values), bool(config.get("tie_word_embeddings"))
    vocabulary = config["vocab_size"] if tied or version else -config["vocab_size"]
    numbers = [
        config[key]
        for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    ]
    numbers += [
        config.get("num_key_value_heads", config["num_attention_heads"]),
        vocabulary,
        config["max_position_embeddings"],
    ]
    head = struct.pack("<7i", *numbers)
    if version:
        head = struct.pack("<Ii", 0x616B3432, version) + head + struct.pack("<B", tied)
        head = (head + struct.pack("<i", group) if version == 2 else head).ljust(256, b"\0")
    content = [head]
    for name in _order(config, version):
        if name == "tables":
            content.append(
                np.ones(
                    config["max_position_embeddings"] * (numbers[0] // numbers[3]), np.float32
                ).tobytes()
            )
        elif version == 2 and tensors[name].ndim == 2:
            codes, scales, _ = quantized(tensors[name], group)
            content += [codes.tobytes(), scales.tobytes()]
        else:
            content.append(tensors[name].tobytes())
    path.write_bytes(b"".join(content))
    if version == 2:  # groups may reach over rows, so that their order counts
        values = {name: _restored(name, array, config, group) for name, array in values.items()}
    return values


def _restored(name, weight, config, group):
    """What a tensor's codes stand for, in Hugging Face's order."""
    if weight.ndim == 1:
        return weight
    heads = {"q": config["num_attention_heads"], "k": config["num_key_value_heads"]}.get(
        name[-13:-12]
    )  # ...self_attn.q_proj.weight
    if heads is None or "self_attn" not in name:
        return quantized(weight, group)[2]
    stored = quantized(pairs_from_halves(weight, heads), group)[2]
    size = weight.shape[0] // heads
    pairs = [
        head.reshape(size // 2, 2, -1).transpose(1, 0, 2).reshape(size, -1)
        for head in np.split(stored, heads)
    ]
    return np.concatenate(pairs)


def write_tokenizer_bin(path, pieces):
    """Write what llama2.c's tokenizer.py makes of a SentencePiece model."""
    import sentencepiece

    model = sentencepiece.SentencePieceProcessor()
    model.LoadFromSerializedProto(pieces)
    content = []
    for token in range(model.vocab_size()):
        text = model.id_to_piece(token)
        text = {1: "\n<s>\n", 2: "\n</s>\n"}.get(token, text).replace("\u2581", " ").encode()
        content.append(struct.pack("<fi", model.get_score(token), len(text)) + text)
    path.write_bytes(struct.pack("<i", max(map(len, content)) - 8) + b"".join(content))
    return path
