"""GGUF files of models as transformers saves them, with the names of the gguf library."""

import json

import gguf
import numpy as np
from safetensors.numpy import load_file
from support.gguf_files import add_pieces, permuted

NORMS_OF_GEMMA = ("gemma2", "gemma3")


def write_published(folder, path, architecture, *, metadata=None, pairs=False, more=None):
    """Write a model folder as llama.cpp's converter does: F32, a SentencePiece vocabulary.

    Args:
        folder: what transformers saved.
        path: the file.
        architecture: llama.cpp's name.
        metadata: called with the writer.
        pairs: whether the architecture has rows of queries and keys in Meta's order.
        more: further tensors, by GGUF's name.
    """
    config = json.loads((folder / "config.json").read_text())
    heads, kept = config["num_attention_heads"], config["num_key_value_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    layers = config["num_hidden_layers"]
    [arch] = [key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture]
    names = gguf.get_tensor_name_map(arch, layers)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(layers)
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kept)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    rotary = config.get("rope_parameters") or {}
    theta = rotary.get("full_attention", rotary).get("rope_theta")
    if theta is not None:
        writer.add_rope_freq_base(theta)
    add_pieces(writer, config["vocab_size"])
    if metadata is not None:
        metadata(writer)
    for name, stored in load_file(folder / "model.safetensors").items():
        values = [stored.astype(np.float32)]
        if pairs and ".q_proj." in name:
            values.append(permuted(values[-1], heads))
        if pairs and ".k_proj." in name:
            values.append(permuted(values[-1], kept))
        if architecture in NORMS_OF_GEMMA and name.endswith("norm.weight"):
            values.append(values[-1] + 1)
        theirs = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert theirs is not None, name
        writer.add_tensor(theirs, np.ascontiguousarray(values[-1]))
    for name, values in (more or {}).items():
        writer.add_tensor(name, np.array(values, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
