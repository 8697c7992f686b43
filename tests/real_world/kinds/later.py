"""Gemma, families that mlx-lm runs, LitGPT's checkpoints."""

from pathlib import Path

from support.litgpt_files import write_litgpt
from support.mlx_lm_models import write_mlx_lm_model
from support.tiny import random_tensors

from real_world.kinds.llama2 import LLAMA2
from real_world.kinds.own_blocks import written
from real_world.pieces import added, begins_with, piece_json, piece_model, pieces
from real_world.release import BASE, Built, described, piece_files, release, write

SHAPES = Path(__file__).parents[2] / "chat_template" / "shapes"
ROLES = ("<pad>", "<eos>", "<bos>", "<unk>")


def gemma_files():
    """Gemma's tokenizer: its own order of roles, no first space, words cut behind spaces."""
    model = piece_model(
        symbols=("<start_of_turn>", "<end_of_turn>", "<start_of_image>"),
        add_dummy_prefix=False,
        **{f"{role[1:-1]}_id": place for place, role in enumerate(ROLES)},
        **{f"{role[1:-1]}_piece": role for role in ROLES},
    )
    document = piece_json(model, form="none", begin=False, strip=False)
    texts = [piece for piece, _, _ in pieces(model)]
    turns = [added(texts.index(text), text) for text in ("<start_of_turn>", "<end_of_turn>")]
    tokens = [*(added(place, role) for place, role in enumerate(ROLES)), *turns]
    document |= {
        "added_tokens": tokens,
        "post_processor": begins_with("<bos>", 2),
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"String": " "},
            "behavior": "MergedWithPrevious",
            "invert": False,
        },
    }
    files, size = piece_files(
        model,
        template=(SHAPES / "gemma-2.jinja").read_text(),
        legacy=None,
        tokenizer_class="GemmaTokenizer",
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        added_tokens_decoder=described(tokens),
        spaces_between_special_tokens=False,
    )
    del files["tokenizer_config.json"]["legacy"]
    files["tokenizer.json"] = document
    end = texts.index("<end_of_turn>")
    files["generation_config.json"] = {
        "bos_token_id": 2,
        "eos_token_id": [1, end],
        "pad_token_id": 0,
    }
    return files, {"vocab_size": size, "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}


GEMMA = BASE | {
    "attention_bias": False,
    "attention_dropout": 0.0,
    "head_dim": 16,
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_activation": "gelu_pytorch_tanh",
    "num_hidden_layers": 6,
    "rms_norm_eps": 1e-06,
    "torch_dtype": "bfloat16",
}


@release("Gemma 2 2B it", "family", by_peers=True, note="soft caps, norms of 1 + weight")
def gemma2(path, peers):
    files, ids = gemma_files()
    config = (
        GEMMA
        | ids
        | {
            "architectures": ["Gemma2ForCausalLM"],
            "attn_logit_softcapping": 50.0,
            "cache_implementation": "hybrid",
            "final_logit_softcapping": 30.0,
            "max_position_embeddings": 8192,
            "model_type": "gemma2",
            "query_pre_attn_scalar": 256,
            "rope_theta": 10000.0,
            "sliding_window": 4096,
        }
    )
    return written(path, peers, config, files, within=5e-4)


@release("Gemma 3 1B it", "family", by_peers=True, note="two rotary bases")
def gemma3(path, peers):
    files, ids = gemma_files()
    config = (
        GEMMA
        | ids
        | {
            "architectures": ["Gemma3ForCausalLM"],
            "attn_logit_softcapping": None,
            "cache_implementation": "hybrid",
            "final_logit_softcapping": None,
            "max_position_embeddings": 32768,
            "model_type": "gemma3_text",
            "query_pre_attn_scalar": 256,
            "rope_local_base_freq": 10000,
            "rope_scaling": None,
            "rope_theta": 1000000,
            "sliding_window": 512,
            "sliding_window_pattern": 6,
        }
    )
    return written(path, peers, config, files, within=5e-4)


def through_mlx_lm(name, family, **more):
    def build(path):
        write_mlx_lm_model(path, family, **more)
        return Built(
            path=path,
            converts=False,
            loads={"threads": None, "activations": None, "kv_bits": None, "backend": None},
        )

    release(name, "family", oracle="mlx-lm", note="through mlx-lm's own model")(build)


through_mlx_lm("gpt-oss 20B", "gpt_oss")
through_mlx_lm("Qwen3 30B A3B", "qwen3_moe", hugging_face=True)
through_mlx_lm("DeepSeek V3", "deepseek_v3")


@release("LitGPT's Llama 2", "form", note="theirs is the same in transformers' form")
def litgpt(path):
    files, size = piece_files(piece_model(), both=False)
    config = LLAMA2 | {"vocab_size": size, "max_position_embeddings": 256}
    write_litgpt(path, config)
    (path / "tokenizer.model").write_bytes(files["tokenizer.model"])
    theirs = write(
        path.parent / "theirs", config, files, weights=random_tensors(config), dtype="float32"
    )
    return Built(path=path, theirs=theirs, runs=False, chats=False)
