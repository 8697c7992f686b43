"""Tiny models in Mistral's own form. No torch is needed."""

import base64
import json

import mlx.core as mx
from support.meta_files import meta_tensors, params_of, some_ranks
from support.tiny import CONFIGS, TEXTS, random_tensors

SPECIAL = 20
CONFIG = CONFIGS["mistral"] | {"head_dim": 32, "rope_theta": 1e6, "sliding_window": None}


def tekken(*, version="v3", special=SPECIAL, listed=None, unused=7):
    """A tekken.json with a few tokens more than its default vocabulary."""
    ranks = some_ranks(" ".join(TEXTS))
    document = {
        "config": {
            "pattern": r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s+",
            "num_vocab_tokens": len(ranks),
            "default_vocab_size": len(ranks) - unused + special,
            "default_num_special_tokens": special,
            "version": version,
        },
        "vocab": [
            {
                "rank": rank,
                "token_bytes": base64.b64encode(token).decode(),
                "token_str": token.decode(errors="ignore") or None,
            }
            for rank, token in enumerate(ranks)
        ],
    }
    if listed is not None:
        document["special_tokens"] = [
            {"rank": rank, "token_str": text, "is_control": True}
            for rank, text in enumerate(listed)
        ]
    return document


def write_mistral(path, *, config=CONFIG, params=None, files=1, extra=None, tokenizer=None):
    """Write a folder as Mistral distributes it, and return its path."""
    path.mkdir(parents=True)
    tokenizer = tekken() if tokenizer is None else tokenizer
    config = config | {"vocab_size": tokenizer["config"]["default_vocab_size"]}
    tensors = meta_tensors(config, random_tensors(config)) | (extra or {})
    names = sorted(tensors)
    parts = [names[at::files] for at in range(files)]
    where = {}
    for number, part in enumerate(parts, 1):
        file = "consolidated.safetensors"
        if files > 1:
            file = f"consolidated-{number:05d}-of-{files:05d}.safetensors"
        mx.save_safetensors(str(path / file), {name: mx.array(tensors[name]) for name in part})
        where |= dict.fromkeys(part, file)
    if files > 1:
        index = {"metadata": {}, "weight_map": where}
        (path / "consolidated.safetensors.index.json").write_text(json.dumps(index))
    own = {
        "head_dim": config["head_dim"],
        "hidden_dim": config["intermediate_size"],
        "rope_theta": config["rope_theta"],
        "vocab_size": config["vocab_size"],
    }
    (path / "params.json").write_text(json.dumps(params_of(config, **own) | (params or {})))
    (path / "tekken.json").write_text(json.dumps(tokenizer))
    return path
