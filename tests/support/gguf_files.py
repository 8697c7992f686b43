"""Small GGUF files of the tiny models, written by the gguf library as llama.cpp would."""

import json

import gguf
import mlx.core as mx
import numpy as np
from support.tiny import CONFIGS, TEXTS, random_tensors
from support.tiny_tokenizers import piece_model

from edgellm.converters.gguf.blocks.sizes import number_of, type_of
from edgellm.tokenizer.spm_proto import read_piece_model

WIDE = CONFIGS["llama-2"] | {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "vocab_size": 512,
}
"""Rows of 256, which every block type takes."""

SAMPLE_TEXTS = [
    "Once upon a time",
    " there  was\n\na dog, 123456 years old!",
    "",
    "<s>x</s> y",
    "glücklich 日本 🙂",
]

LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.qkv_proj": "attn_qkv",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.gate_up_proj": "ffn_up",
}
OUTER = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def gguf_name(name):
    path, _, part = name.rpartition(".")
    if path in OUTER:
        return f"{OUTER[path]}.{part}"
    _, _, index, inner = path.split(".", 3)
    return f"blk.{index}.{LAYER[inner]}.{part}"


def permuted(values, heads):
    """Rows as llama.cpp's converter orders them."""
    return (
        values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
        .swapaxes(1, 2)
        .reshape(values.shape)
    )


def random_blocks(kind, rows, columns, seed):
    """Random bytes of a block type, shape (rows, bytes), its float16 scales small and finite."""
    random = np.random.default_rng(seed)
    _, block, nbytes = type_of(number_of(kind))
    blocks = random.integers(0, 256, (rows * columns // block, nbytes), dtype=np.uint8)
    for place in SCALES.get(kind, ()):
        scales = random.uniform(-0.01, 0.01, (len(blocks), 1)).astype(np.float16)
        blocks[:, place : place + 2] = scales.view(np.uint8)
    if kind == "MXFP4":
        blocks[:, 0] = random.integers(110, 124, len(blocks))
    if kind == "NVFP4":
        blocks[:, :4] = random.integers(0, 40, (len(blocks), 4))
    return blocks.reshape(rows, -1)


SCALES = {
    "Q4_0": (0,),
    "Q4_1": (0, 2),
    "Q5_0": (0,),
    "Q5_1": (0, 2),
    "Q8_0": (0,),
    "Q4_K": (0, 2),
    "Q5_K": (0, 2),
    "Q2_K": (80, 82),
    "Q3_K": (108,),
    "Q6_K": (208,),
    "IQ4_NL": (0,),
    "IQ4_XS": (0,),
    "IQ1_S": (0,),
    "IQ2_XXS": (0,),
    "IQ2_XS": (0,),
    "IQ2_S": (0,),
    "IQ3_XXS": (0,),
    "IQ3_S": (0,),
    "TQ1_0": (52,),
    "TQ2_0": (64,),
    "Q1_0": (0,),
    "Q2_0": (0,),
}
"""Where each block's float16 numbers are."""


def add_sizes(writer, config):
    """Add the numbers that the shapes follow from, as a config.json has them."""
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads", heads))
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(head_dim)


def write_gguf(
    path,
    config,
    *,
    kinds=lambda name: "F16",
    seed=0,
    vocabulary=None,
    metadata=None,
    shards=None,
    blocks=None,
    architecture=None,
    spell=dict,
    more=None,
):
    """Write a model; return its unpermuted tensors, (kind, bytes or values) by our name.

    Args:
        path: the file; with shards, the first of them.
        config: one of tiny's.
        kinds: a matrix's type by its name.
        seed: of the weights.
        vocabulary: called with the writer and the number of tokens; None: LLaMA's kind of
            tokenizer.
        metadata: called with the writer before it is closed.
        shards: tensors of each file; None: all in one.
        architecture: what the file calls the model; None: what it is.
        spell: what names and joins the weights as the architecture has them.
        blocks: what gives a quantized matrix its bytes: (kind, rows, columns, seed).
        more: further tensors, by GGUF's name.
    """
    architecture = architecture or (
        "llama" if config["model_type"] == "mistral" else config["model_type"]
    )
    heads = config["num_attention_heads"]
    kept = config.get("num_key_value_heads", heads)
    small = {"split_max_tensors": shards, "small_first_shard": False} if shards else {}
    writer = gguf.GGUFWriter(path, architecture, **small)
    add_sizes(writer, config)
    writer.add_rope_freq_base(config.get("rope_theta") or 10000.0)
    (vocabulary or add_pieces)(writer, config["vocab_size"])
    if metadata:
        metadata(writer)
    made = {}
    for place, (name, values) in enumerate(spell(random_tensors(config, seed)).items()):
        kind = kinds(name) if values.ndim == 2 else "F32"
        if kind in ("F32", "F16", "BF16"):
            stored = as_float(values, kind)
        else:
            stored = (blocks or random_blocks)(kind, *values.shape, seed * 1000 + place)
        made[name] = (kind, stored)
        if architecture == "llama" and ".q_proj." in name:
            stored = permuted(stored, heads)
        if architecture == "llama" and ".k_proj." in name:
            stored = permuted(stored, kept)
        writer.add_tensor(
            gguf_name(name), np.ascontiguousarray(stored), raw_dtype=gguf.GGMLQuantizationType[kind]
        )
    for name, values in (more or {}).items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return made


def as_float(values, kind):
    """Values in a plain type; bfloat16 as the bytes that the library wants."""
    if kind == "BF16":
        return gguf.quants.quantize(values, gguf.GGMLQuantizationType.BF16)
    return values.astype({"F32": np.float32, "F16": np.float16}[kind])


def dequantized(kind, stored):
    """The float32 values, by the library."""
    if kind in ("F32", "F16"):
        return stored.astype(np.float32)
    return gguf.quants.dequantize(stored, gguf.GGMLQuantizationType[kind])


def add_pieces(writer, size, own=None):
    """LLaMA's kind of tokenizer: SentencePiece; ``own`` are texts of user-defined tokens by id."""
    model = read_piece_model(piece_model(vocab_size=size - 4, split_digits=True))
    texts = [*model.pieces, *(f"[PAD{place}]" for place in range(len(model.pieces), size))]
    missing = size - len(model.pieces)
    kinds = [*model.kinds, *[5] * missing]
    for place, token in (own or {}).items():
        texts[place], kinds[place] = token, 4
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(texts)
    writer.add_token_scores([*model.scores, *[-1000.0] * missing])
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)


def add_byte_level(writer, size, pre="gpt-2", ends=None, *, texts=TEXTS, cut=True):
    """GPT-2's kind of tokenizer: byte-level BPE; ``ends`` are texts and types by id.

    ``cut`` is whether its own texts were cut into words before it learned what to merge.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=cut)
    trainer = trainers.BpeTrainer(
        vocab_size=size - 8,
        special_tokens=["<|begin|>", "<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    ids = tokenizer.get_vocab()
    tokens_by_id = {place: token for token, place in ids.items()}
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    tokens = [tokens_by_id.get(place, f"[PAD{place}]") for place in range(size)]
    kinds = [3, 3, *[1] * (len(tokens_by_id) - 2), *[5] * (size - len(tokens_by_id))]
    for place, (token, kind) in (ends or {}).items():
        assert kinds[place] == 5
        tokens[place], kinds[place] = token, kind
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(merge) for merge in merges])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_add_bos_token(True)


def arrays(path):
    """A folder's tensors as float32, dequantized."""
    tensors = {}
    for file in sorted(path.glob("model*.safetensors")):
        tensors |= mx.load(str(file))
    found = {}
    config = json.loads((path / "config.json").read_text())
    block = config.get("quantization") or {}
    for name, stored in tensors.items():
        stem, _, part = name.rpartition(".")
        if part not in ("weight", "bias"):
            continue
        values = stored
        if part == "weight" and f"{stem}.scales" in tensors:
            form = block | block[stem] if isinstance(block.get(stem), dict) else block
            wide = [tensors[f"{stem}.scales"]]
            if form["mode"] == "affine":
                wide = [
                    tensors[f"{stem}.{part}"].astype(mx.float32) for part in ("scales", "biases")
                ]
            settings = {key: form[key] for key in ("group_size", "bits", "mode")}
            values = mx.dequantize(stored, *wide, **settings, dtype=mx.float32)
        found[name] = np.array(values.astype(mx.float32))
    return found
