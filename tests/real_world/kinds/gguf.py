"""GGUF files of every common type, with the vocabularies that they come with."""

from dataclasses import replace
from functools import partial

import numpy as np

from real_world import templates
from real_world.byte_level import size_of
from real_world.gguf_file import add_bytes, add_pieces, write_gguf
from real_world.kinds.llama3 import SCALING, tokenizer_json
from real_world.kinds.qwen import TOOLS
from real_world.kinds.qwen import tokenizer_json as qwen_json
from real_world.pieces import piece_model, pieces
from real_world.release import BASE, Built, release
from real_world.weights import random_weights

WIDE = BASE | {
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 512,
    "max_position_embeddings": 2048,
    "rope_theta": 10000.0,
}
"""Rows of 256, which every block type takes."""

EXACT = (2e-4, 0.01)
ROUNDED = (0.1, 0.02)
"""Where scales are rounded to float16, which the amplifying random models show."""


def mixed(plain, better, head="Q6_K"):
    """Types as llama.cpp's quantizer mixes them: more bits for values, half of ffn_down, the head."""

    def kinds(name):
        if name.startswith("output."):
            return head
        if "attn_v" in name or name.startswith("blk.0.ffn_down"):
            return better
        return plain

    return kinds


def llama2_file(path, peers, kinds, *, metadata=None, template=templates.LLAMA2, **config):
    """A Llama 2 in GGUF."""
    path.mkdir()
    model = piece_model()
    config = WIDE | {"vocab_size": len(pieces(model))} | config
    file = path / "model.gguf"
    plain = write_gguf(
        file,
        config,
        random_weights(config),
        peers,
        architecture="llama",
        kinds=kinds,
        vocabulary=partial(add_pieces, model=model, template=template),
        metadata=metadata,
    )
    return Built(path=file, theirs=plain, runs=False, chats=template is not None)


def llama3_file(path, peers, kinds):
    """A Llama 3.1 in GGUF, its stretched positions as factors."""
    path.mkdir()
    document = tokenizer_json()
    config = WIDE | {"vocab_size": size_of(document), "rope_theta": 500000.0}
    file = path / "model.gguf"
    plain = write_gguf(
        file,
        config,
        random_weights(config),
        peers,
        architecture="llama",
        kinds=kinds,
        vocabulary=partial(
            add_bytes,
            document=document,
            pre="llama-bpe",
            begin="<|begin_of_text|>",
            end="<|eot_id|>",
            template=templates.LLAMA31,
        ),
        more={"rope_freqs.weight": stretched(64, 500000.0)},
    )
    return Built(path=file, theirs=plain, runs=False)


def stretched(size, theta):
    """Llama 3.1's factors of each pair, as llama.cpp's converter writes them."""
    factor, low, high = (SCALING[key] for key in ("factor", "low_freq_factor", "high_freq_factor"))
    context = SCALING["original_max_position_embeddings"]
    waves = 2 * np.pi * theta ** (np.arange(0, size, 2) / size)
    smooth = (context / waves - low) / (high - low)
    between = 1 / ((1 - smooth) / factor + smooth)
    found = np.where(waves < context / high, 1.0, np.where(waves > context / low, factor, between))
    return found.astype(np.float32)


def qwen2_file(path, peers, kinds):
    """A Qwen2.5 in GGUF, its head the embedding."""
    path.mkdir()
    document = qwen_json(tuple(TOOLS))
    config = WIDE | {
        "model_type": "qwen2",
        "rope_theta": 1000000.0,
        "tie_word_embeddings": True,
        "vocab_size": size_of(document) + 10,
    }

    def vocabulary(writer):
        add_bytes(
            writer,
            document,
            "qwen2",
            begin="<|endoftext|>",
            end="<|im_end|>",
            template=templates.QWEN25,
            size=config["vocab_size"],
        )
        writer.add_add_bos_token(False)

    file = path / "model.gguf"
    plain = write_gguf(
        file,
        config,
        random_weights(config),
        peers,
        architecture="qwen2",
        kinds=kinds,
        vocabulary=vocabulary,
    )
    return Built(path=file, theirs=plain, runs=False, document=document)


FILES = [
    ("F16", llama2_file, lambda _: "F16"),
    ("BF16", llama3_file, lambda _: "BF16"),
    ("Q4_0", llama2_file, mixed("Q4_0", "Q4_0"), EXACT),
    ("Q4_1", llama2_file, mixed("Q4_1", "Q4_1"), EXACT),
    ("Q5_0", llama2_file, mixed("Q5_0", "Q5_0"), EXACT),
    ("Q5_1", llama3_file, mixed("Q5_1", "Q5_1"), EXACT),
    ("Q8_0", qwen2_file, lambda _: "Q8_0", EXACT),
    ("Q2_K", llama2_file, mixed("Q2_K", "Q4_K"), (0.1, 0.5)),
    ("Q3_K_M", llama3_file, mixed("Q3_K", "Q5_K"), (0.1, 0.3)),
    ("Q4_K_M", llama3_file, mixed("Q4_K", "Q6_K"), ROUNDED),
    ("Q5_K_M", qwen2_file, mixed("Q5_K", "Q6_K"), ROUNDED),
    ("Q6_K", llama2_file, lambda _: "Q6_K", (2e-4, 0.05)),
    ("IQ4_NL", llama3_file, mixed("IQ4_NL", "Q5_K"), ROUNDED),
    ("IQ4_XS", qwen2_file, mixed("IQ4_XS", "Q6_K"), (2e-4, 0.15)),
    ("IQ3_XXS", llama2_file, mixed("IQ3_XXS", "Q4_K", "Q5_K"), (0.1, 0.15)),
    ("IQ2_XS", llama2_file, mixed("IQ2_XS", "Q4_K", "Q5_K"), (0.1, 0.6)),
    ("TQ1_0", llama2_file, mixed("TQ1_0", "TQ1_0"), EXACT),
    ("TQ2_0", llama2_file, mixed("TQ2_0", "TQ2_0"), EXACT),
]
"""Types, whose file, and how far logits may be: in float32, and with the codes that are kept."""


def add(name, file, kinds, within=None):
    of = {llama2_file: "Llama 2", llama3_file: "Llama 3.1", qwen2_file: "Qwen2.5"}[file]

    def build(path, peers):
        built = file(path, peers, kinds)
        if within is None:
            return built
        return replace(built, keeps_codes=True, within=within[0], as_it_is=within[1])

    release(f"{of} {name}.gguf", "GGUF", oracle="llama.cpp", by_peers=True)(build)


for row in FILES:
    add(*row)


@release("stories260K.gguf", "GGUF", oracle="llama.cpp", by_peers=True, note="padding id of -1")
def stories(path, peers):
    def metadata(writer):
        writer.add_uint32("tokenizer.ggml.padding_token_id", 2**32 - 1)
        writer.add_uint32("tokenizer.ggml.seperator_token_id", 2**32 - 1)

    return llama2_file(path, peers, lambda _: "F32", metadata=metadata, template=None)
