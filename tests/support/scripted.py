"""A model that says one text in reply to everything: real weights, each token leads to the next."""

import json
from itertools import pairwise

import mlx.core as mx
import numpy as np
from support import tiny
from tokenizers import AddedToken, Tokenizer

CONFIG = tiny.LLAMA | {
    "num_hidden_layers": 1,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": False,
}
SHARPNESS = 100  # of the head: also what is drawn is the likeliest token


def write_scripted(path, reply, template=tiny.TEMPLATE, *, added=(), special=()):
    """Write a folder of a model that answers a user with ``reply``, and return its path.

    Args:
        path: the folder.
        reply: its text, in which no token may come twice.
        template: the chat template.
        added: further tokens.
        special: further tokens that are not shown as text.
    """
    tiny.write_model(path, CONFIG)
    file = str(path / "tokenizer.json")
    tokenizer = Tokenizer.from_file(file)
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in added])
    tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in special])
    tokenizer.save(file)
    config = json.loads((path / "tokenizer_config.json").read_text(encoding="utf-8"))
    config["chat_template"] = template
    (path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")

    from edgellm.tokenizer import Tokenizer as Ours

    ours = Ours.from_folder(path)
    prompt = ours.apply_chat_template([{"role": "user", "content": "?"}])
    chain = [prompt[-1], *ours.encode(reply, add_special_tokens=False), tiny.END]
    assert len(set(chain)) == len(chain), [ours.id_to_token(token) for token in chain]
    tensors = tiny.random_tensors(CONFIG)
    for name in tensors:
        if "o_proj" in name or "down_proj" in name:
            tensors[name] = np.zeros_like(tensors[name])  # only the last token counts
    tensors["model.norm.weight"] = np.ones_like(tensors["model.norm.weight"])
    embedding = tensors["model.embed_tokens.weight"]
    embedding /= np.linalg.norm(embedding, axis=1, keepdims=True)
    head = np.zeros_like(tensors["lm_head.weight"])
    for token, following in pairwise(chain):
        head[following] = SHARPNESS * embedding[token]
    tensors["lm_head.weight"] = head
    mx.save_safetensors(
        str(path / "model.safetensors"),
        {name: mx.array(values.astype(np.float32)) for name, values in tensors.items()},
        metadata={"format": "pt"},
    )
    return path
