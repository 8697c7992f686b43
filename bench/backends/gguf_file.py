"""GGUF files of a known shape with random weights, for llama.cpp to be measured beside ours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edgellm.models.presets import shape_config

TYPES: Mapping[int, tuple[str, ...]] = {4: ("Q4_0", "Q4_1"), 8: ("Q8_0",)}
"""llama.cpp's names of the quantizations nearest to ours, by bits."""

SCALES: Mapping[str, float] = {"Q4_0": 0.005, "Q4_1": 0.005, "Q8_0": 0.0003}
"""The scale of every block, which keeps random weights small."""

SPECIAL_TOKENS = 259
"""Three, and one for each byte."""


def write_gguf(path: Path, shape: str, kind: str) -> None:
    """Write a file of a shape of ``models.presets``, all matrices of one quantization."""
    import gguf

    config = shape_config(shape)
    hidden, inner, vocabulary = (
        config[name] for name in ("hidden_size", "intermediate_size", "vocab_size")
    )
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    key = kv_heads * hidden // heads
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(2048)
    writer.add_embedding_length(hidden)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(hidden // heads)
    writer.add_vocab_size(vocabulary)
    writer.add_tokenizer_model("llama")
    named = [b"<unk>", b"<s>", b"</s>", *(f"<0x{byte:02X}>".encode() for byte in range(256))]
    writer.add_token_list(
        [*named, *(f"t{place}".encode() for place in range(vocabulary - SPECIAL_TOKENS))]
    )
    writer.add_token_scores([0.0] * vocabulary)
    writer.add_token_types([2, 3, 3] + [6] * 256 + [1] * (vocabulary - SPECIAL_TOKENS))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    quantization = gguf.GGMLQuantizationType[kind]
    block, nbytes = gguf.GGML_QUANT_SIZES[quantization]
    random = np.random.default_rng(0)
    scale = SCALES[kind]

    def matrix(name: str, rows: int, columns: int) -> None:
        blocks = random.integers(0, 256, (rows * columns // block, nbytes), dtype=np.uint8)
        blocks[:, :2] = np.frombuffer(np.float16(scale).tobytes(), np.uint8)
        if kind == "Q4_1":
            blocks[:, 2:4] = np.frombuffer(np.float16(-8 * scale).tobytes(), np.uint8)
        writer.add_tensor(name, blocks.reshape(rows, -1), raw_dtype=quantization)

    matrix("token_embd.weight", vocabulary, hidden)
    matrix("output.weight", vocabulary, hidden)
    writer.add_tensor("output_norm.weight", np.ones(hidden, np.float32))
    for index in range(config["num_hidden_layers"]):
        layer = f"blk.{index}."
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"{layer}{name}.weight", np.ones(hidden, np.float32))
        for name, rows, columns in (
            ("attn_q", hidden, hidden),
            ("attn_k", key, hidden),
            ("attn_v", key, hidden),
            ("attn_output", hidden, hidden),
            ("ffn_gate", inner, hidden),
            ("ffn_up", inner, hidden),
            ("ffn_down", hidden, inner),
        ):
            matrix(f"{layer}{name}.weight", rows, columns)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read_bytes(path: Path, shape: str) -> int:
    """Return the bytes of the weights that one decoded token reads: all but the embedding."""
    config = shape_config(shape)
    hidden, inner, heads = (
        config["hidden_size"],
        config["intermediate_size"],
        config["num_attention_heads"],
    )
    key = hidden // heads * config["num_key_value_heads"]
    rows = 2 * config["vocab_size"] + config["num_hidden_layers"] * (
        2 * hidden + 2 * key + 3 * inner
    )
    return int(path.stat().st_size * (rows - config["vocab_size"]) // rows)
