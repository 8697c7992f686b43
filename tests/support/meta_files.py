"""Tiny models in Meta's own form, split as its model parallelism does. No torch is needed."""

import base64
import itertools
import json
import math

import numpy as np
from support.tiny import random_tensors
from support.tiny_tokenizers import piece_model
from support.torch_files import pickled_tensor, state, write_arrays

from edgellm.converters.huggingface.torch_file import END, ENTRY, LOCAL, ZIP_MAGIC

NAMES = {
    "input_layernorm": "attention_norm",
    "self_attn.q_proj": "attention.wq",
    "self_attn.k_proj": "attention.wk",
    "self_attn.v_proj": "attention.wv",
    "self_attn.o_proj": "attention.wo",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.down_proj": "feed_forward.w2",
    "mlp.up_proj": "feed_forward.w3",
}
BY_COLUMNS = ("attention.wo", "feed_forward.w2", "tok_embeddings")


def pairs_from_halves(weight, heads):
    """Rows as Meta orders them: the two that are rotated together side by side."""
    size = weight.shape[0] // heads
    return np.concatenate(
        [
            head.reshape(2, size // 2, -1).transpose(1, 0, 2).reshape(size, -1)
            for head in np.split(weight, heads)
        ]
    )


def meta_tensors(config, tensors):
    """Hugging Face's tensors under Meta's names and in its order."""
    found = {}
    for name, given in tensors.items():
        values, stem = given, name.removesuffix(".weight")
        if stem.startswith("model.layers."):
            _, _, index, inner = stem.split(".", 3)
            renamed = f"layers.{index}.{NAMES[inner]}"
        else:
            renamed = {
                "model.embed_tokens": "tok_embeddings",
                "model.norm": "norm",
                "lm_head": "output",
            }[stem]
        if renamed.endswith(".wq"):
            values = pairs_from_halves(values, config["num_attention_heads"])
        elif renamed.endswith(".wk"):
            values = pairs_from_halves(
                values, config.get("num_key_value_heads", config["num_attention_heads"])
            )
        found[f"{renamed}.weight"] = values
    return found


def split(tensors, shards, *, vocabulary_by_rows):
    """The tensors of each shard."""
    parts = [{} for _ in range(shards)]
    for name, values in tensors.items():
        stem = name.removesuffix(".weight")
        if values.ndim == 1:
            pieces = [values] * shards
        else:
            by_columns = stem.endswith(BY_COLUMNS) and not (
                vocabulary_by_rows and stem == "tok_embeddings"
            )
            pieces = np.split(values, shards, axis=1 if by_columns else 0)
        for part, piece in zip(parts, pieces, strict=True):
            part[name] = np.ascontiguousarray(piece)
    return parts


def params_of(config, **more):
    """The params.json of a Hugging Face config."""
    params = {
        "dim": config["hidden_size"],
        "n_layers": config["num_hidden_layers"],
        "n_heads": config["num_attention_heads"],
        "norm_eps": config["rms_norm_eps"],
        "vocab_size": -1,
    }
    if "num_key_value_heads" in config:
        params["n_kv_heads"] = config["num_key_value_heads"]
    return params | more


def rank_lines(tokens):
    """A table of ranks as tiktoken writes it."""
    return b"".join(
        base64.b64encode(token) + b" " + str(rank).encode() + b"\n"
        for rank, token in enumerate(tokens)
    )


def some_ranks(text, merges=60):
    """Tokens of a byte-pair encoding learned from a text in the plainest way."""
    tokens = [bytes([byte]) for byte in range(256)]
    words = [
        [bytes([byte]) for byte in word]
        for word in text.encode().replace(b" ", b"\0 ").split(b"\0")
    ]
    for _ in range(merges):
        counts = {}
        for word in words:
            for pair in itertools.pairwise(word):
                counts[pair] = counts.get(pair, 0) + 1
        left, right = max(counts, key=lambda pair: (counts[pair], pair))
        if left + right not in tokens:
            tokens.append(left + right)
        for word in words:
            at = 0
            while at < len(word) - 1:
                if (word[at], word[at + 1]) == (left, right):
                    word[at : at + 2] = [left + right]
                at += 1
    return tokens


def write_meta(
    path,
    config,
    *,
    shards=1,
    ranks=None,
    seed=0,
    dtype=np.float32,
    params=None,
    vocabulary_by_rows=False,
):
    """Write a folder as Meta distributes it, and return its path."""
    path.mkdir(parents=True)
    tensors = meta_tensors(
        config,
        {name: values.astype(dtype) for name, values in random_tensors(config, seed).items()},
    )
    for number, part in enumerate(split(tensors, shards, vocabulary_by_rows=vocabulary_by_rows)):
        tables = {"rope.freqs": np.ones(4, np.float32)}
        write_arrays(path / f"consolidated.{number:02d}.pth", part | tables)
    (path / "params.json").write_text(json.dumps(params_of(config, **(params or {}))))
    vocabulary = rank_lines(ranks) if ranks else piece_model()
    (path / "tokenizer.model").write_bytes(vocabulary)
    return path


def sparse_shard(path, shapes):
    """A weight file of float16 zeros that takes no room: zipfile would write its zeros out."""
    entries = {
        name: pickled_tensor(
            str(index),
            np.empty(0, np.float16),
            shape=shape,
            strides=(*shape[1:], 1),
            count=math.prod(shape),
        )
        for index, (name, shape) in enumerate(shapes.items())
    }
    members = {"archive/data.pkl": state(entries)}
    members |= {
        f"archive/data/{index}": 2 * math.prod(shape) for index, shape in enumerate(shapes.values())
    }
    directory = b""
    with path.open("wb") as file:
        for name, content in members.items():
            size, place = content if isinstance(content, int) else len(content), file.tell()
            file.write(
                LOCAL.pack(ZIP_MAGIC, 0, 0, 0, 0, 0, 0, size, size, len(name), 0) + name.encode()
            )
            directory += (
                # flags and method, sizes, lengths of name, extra field and comment, and the place
                ENTRY.pack(b"PK\1\2", 0, 0, size, size, len(name), 0, 0, place) + name.encode()
            )
            if isinstance(content, int):
                file.truncate(file.tell() + size)
                file.seek(0, 2)
            else:
                file.write(content)
        start = file.tell()
        file.write(
            directory
            + END.pack(b"PK\5\6", 0, 0, len(members), len(members), len(directory), start, 0)
        )
