"""GGUF files of further families, each with the name that llama.cpp has for its way to cut a text."""

from functools import partial

from real_world import templates
from real_world.byte_level import byte_level_json, size_of
from real_world.gguf_file import add_bytes, add_pieces, write_gguf
from real_world.kinds.folded import GRANITE
from real_world.kinds.gguf import WIDE
from real_world.kinds.llama3 import tokenizer_json as llama3_json
from real_world.kinds.mistral import TEKKEN
from real_world.kinds.qwen import THINKING, TOOLS
from real_world.kinds.qwen import tokenizer_json as qwen_json
from real_world.pieces import piece_model, pieces
from real_world.release import Built, release
from real_world.weights import random_weights


def file_of(path, peers, config, vocabulary, *, architecture="llama", kind="Q8_0", **more):
    """Write a model whose matrices are of one type."""
    path.mkdir()
    file = path / "model.gguf"
    plain = write_gguf(
        file,
        config,
        random_weights(config),
        peers,
        architecture=architecture,
        kinds=lambda _: kind,
        vocabulary=vocabulary,
        metadata=more.pop("metadata", None),
    )
    return Built(path=file, theirs=plain, runs=False, **more)


def byte_level(
    name, pre, make, *, begin, end, template, adds=None, config=(), composes=False, **more
):
    """Add a file with a byte-level vocabulary, that of the tokenizer.json that ``make`` makes.

    With ``composes`` texts are composed first, as llama.cpp does not do.
    """

    def build(path, peers):
        document = make()

        def vocabulary(writer):
            add_bytes(writer, document, pre, begin=begin, end=end, template=template)
            if adds is not None:
                writer.add_add_bos_token(adds)

        said = WIDE | {"vocab_size": size_of(document)} | dict(config)
        if composes:
            more["document"] = document
        return file_of(path, peers, said, vocabulary, **more)

    release(name, "GGUF", oracle="llama.cpp", by_peers=True)(build)


SMOL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>"]
byte_level(
    "SmolLM2 135M Q8_0.gguf",
    "smollm",
    lambda: byte_level_json("smollm", SMOL, first=True),
    begin="<|im_start|>",
    end="<|im_end|>",
    template=templates.SMOLLM,
    adds=False,
    config={"tie_word_embeddings": True, "rope_theta": 100000.0},
)
byte_level(
    "Mistral Nemo Q8_0.gguf",
    "tekken",
    lambda: byte_level_json("tekken", TEKKEN, first=True, begin="<s>", ignore_merges=True),
    begin="<s>",
    end="</s>",
    template=templates.MISTRAL3,
    adds=True,
    config={"head_dim": 96, "rope_theta": 1000000.0},
)
byte_level(
    "Qwen3 0.6B BF16.gguf",
    "qwen2",
    lambda: qwen_json((*TOOLS, *THINKING)),
    begin="<|endoftext|>",
    end="<|im_end|>",
    template=templates.QWEN3,
    adds=False,
    config={"model_type": "qwen3", "head_dim": 64, "rope_theta": 1000000.0, "rms_norm_eps": 1e-6},
    architecture="qwen3",
    kind="BF16",
    composes=True,
)
BARS = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"]
USERS = [(text, {"special": False}) for text in ("<｜User｜>", "<｜Assistant｜>")]
byte_level(
    "R1 Distill Qwen Q4_1.gguf",
    "deepseek-r1-qwen",
    lambda: byte_level_json("qwen2", [*BARS, *USERS], nfc=True, begin=BARS[0]),
    composes=True,
    begin=BARS[0],
    end=BARS[1],
    template=templates.R1,
    adds=True,
    kind="Q4_1",
    config={"model_type": "qwen2", "rope_theta": 10000.0},
    architecture="qwen2",
)
byte_level(
    "Granite 3.1 F16.gguf",
    "refact",
    lambda: byte_level_json(
        "smollm", ["<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>"], first=True
    ),
    begin="<|end_of_text|>",
    end="<|end_of_text|>",
    template=templates.GRANITE,
    adds=False,
    kind="F16",
    architecture="granite",
    config={"model_type": "llama", "tie_word_embeddings": True},
    metadata=lambda writer: (
        writer.add_attention_scale(GRANITE["attention_multiplier"]),
        writer.add_embedding_scale(GRANITE["embedding_multiplier"]),
        writer.add_residual_scale(GRANITE["residual_multiplier"]),
        writer.add_logit_scale(GRANITE["logits_scaling"]),
    ),
)
byte_level(
    "Llama 3 of April 2024 F16.gguf",
    "llama-bpe",
    llama3_json,
    begin="<|begin_of_text|>",
    end="<|end_of_text|>",
    template=templates.LLAMA3,
    kind="F16",
    config={"rope_theta": 500000.0},
)


@release("Phi-3 mini 4k F16.gguf", "GGUF", oracle="llama.cpp", by_peers=True)
def phi3(path, peers):
    model = piece_model()
    names = ["<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>"]
    config = WIDE | {
        "model_type": "phi3",
        "num_key_value_heads": 4,
        "vocab_size": len(pieces(model)) + len(names),
    }
    vocabulary = partial(add_pieces, model=model, template=templates.PHI3, more=names)
    return file_of(path, peers, config, vocabulary, architecture="phi3", kind="F16")
