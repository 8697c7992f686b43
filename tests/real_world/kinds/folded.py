"""Families that become LLaMA: Granite, Helium, ERNIE, Seed-OSS, and wrappers of a text model."""

import json

import numpy as np

from real_world import templates
from real_world.byte_level import byte_level_json, id_of
from real_world.kinds.mistral import MISTRAL, TEKKEN
from real_world.pieces import piece_model
from real_world.release import BASE, Built, byte_files, piece_files, release, write
from real_world.weights import random_weights, save_safetensors


def granite_files():
    names = [
        "<|end_of_text|>",
        "<fim_prefix>",
        "<fim_middle>",
        "<|start_of_role|>",
        "<|end_of_role|>",
    ]
    names += ["<|tool_call|>"]
    document = byte_level_json("gpt2", names, first=True, old_merges=True)
    files, size = byte_files(
        document,
        template=templates.GRANITE,
        add_bos_token=False,
        add_prefix_space=False,
        bos_token="<|end_of_text|>",
        eos_token="<|end_of_text|>",
        pad_token="<|end_of_text|>",
        unk_token="<|end_of_text|>",
        errors="replace",
        tokenizer_class="GPT2Tokenizer",
    )
    return files, {"vocab_size": size, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}


GRANITE = BASE | {
    "architectures": ["GraniteForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.1,
    "attention_multiplier": 0.0625,
    "embedding_multiplier": 12.0,
    "logits_scaling": 8.0,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "model_type": "granite",
    "residual_multiplier": 0.22,
    "rope_scaling": None,
    "rope_theta": 10000000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
}


@release("Granite 3.1 2B Instruct", "family", note="multipliers")
def granite3(path):
    files, ids = granite_files()
    write(path, GRANITE | ids, files)
    return Built(path=path, runs=False)


@release("Granite 4.0 micro", "family", note="granitemoehybrid without experts")
def granite4(path):
    files, ids = granite_files()
    config = (
        GRANITE
        | ids
        | {
            "architectures": ["GraniteMoeHybridForCausalLM"],
            "init_method": "mup",
            "layer_types": ["attention", "attention"],
            "mamba_chunk_size": 256,
            "mamba_conv_bias": True,
            "mamba_d_conv": 4,
            "mamba_d_head": 32,
            "mamba_d_state": 16,
            "mamba_expand": 2,
            "mamba_n_groups": 1,
            "mamba_n_heads": 4,
            "mamba_proj_bias": False,
            "model_type": "granitemoehybrid",
            "normalization_function": "rmsnorm",
            "num_experts_per_tok": 0,
            "num_local_experts": 0,
            "output_router_logits": False,
            "position_embedding_type": "rope",
            "router_aux_loss_coef": 0.01,
            "shared_intermediate_size": 112,
        }
    )
    write(path, config, files)
    return Built(path=path, runs=False)


@release("Helium 1 2B", "family", note="turns neighbours")
def helium(path):
    files, size = piece_files(
        piece_model(),
        legacy=True,
        tokenizer_class="PreTrainedTokenizerFast",
        clean_up_tokenization_spaces=False,
    )
    del files["tokenizer.model"]
    config = BASE | {
        "architectures": ["HeliumForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "head_dim": 16,
        "max_position_embeddings": 4096,
        "mlp_bias": False,
        "model_type": "helium",
        "pad_token_id": 3,
        "rms_norm_eps": 1e-08,
        "rope_theta": 20000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "vocab_size": size,
    }
    write(path, config, files)
    return Built(path=path, chats=False, runs=False)


@release("ERNIE 4.5 0.3B", "family", note="turns neighbours, tied unless it says otherwise")
def ernie(path):
    files, size = piece_files(
        piece_model(symbols=("<|begin_of_sentence|>", "<|end_of_sentence|>")),
        template=templates.ERNIE,
        tokenizer_class="LlamaTokenizer",
        cls_token="<|begin_of_sentence|>",
        sep_token="<|end_of_sentence|>",
        add_bos_token=False,
        legacy=True,
        document={"begin": False},
    )
    config = BASE | {
        "architectures": ["Ernie4_5ForCausalLM"],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "head_dim": 16,
        "max_position_embeddings": 131072,
        "model_type": "ernie4_5",
        "pad_token_id": 0,
        "rope_theta": 500000,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "use_bias": False,
        "vocab_size": size,
    }
    write(path, config, files)
    return Built(path=path, runs=False)


@release("Seed-OSS 36B Instruct", "family", note="biases of queries, keys and values alone")
def seed_oss(path):
    names = [
        "<seed:bos>",
        "<seed:pad>",
        "<seed:eos>",
        "<seed:think>",
        "</seed:think>",
        "<seed:tool_call>",
    ]
    document = byte_level_json("seed", names, first=True)
    files, size = byte_files(
        document,
        bos_token="<seed:bos>",
        eos_token="<seed:eos>",
        pad_token="<seed:pad>",
        clean_up_tokenization_spaces=False,
    )
    files["chat_template.jinja"] = templates.SEED
    config = BASE | {
        "architectures": ["SeedOssForCausalLM"],
        "attention_bias": True,
        "attention_dropout": 0.1,
        "attention_out_bias": False,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "head_dim": 24,
        "max_position_embeddings": 524288,
        "mlp_bias": False,
        "model_type": "seed_oss",
        "pad_token_id": 1,
        "residual_dropout": 0.1,
        "rms_norm_eps": 1e-06,
        "rope_scaling": {"rope_type": "default"},
        "rope_theta": 10000000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "vocab_size": size,
    }
    write(path, config, files)
    return Built(path=path)


@release(
    "Mistral Small 3.1 24B", "family", note="text part of mistral3; theirs is the text part alone"
)
def small3(path):
    names = [*TEKKEN[:13], "[IMG]", "[IMG_BREAK]", "[IMG_END]", *TEKKEN[16:]]
    document = byte_level_json("tekken", names, first=True, begin="<s>", ignore_merges=True)
    files, size = byte_files(
        document,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
        legacy=True,
        processor_class="PixtralProcessor",
        tokenizer_class="LlamaTokenizerFast",
        extra_special_tokens={},
    )
    files["chat_template.jinja"] = templates.SMALL3
    text = MISTRAL | {
        "vocab_size": size,
        "head_dim": 24,
        "max_position_embeddings": 131072,
        "rope_theta": 1000000000.0,
        "sliding_window": None,
    }
    alone = write(path.parent / "alone", text, files)
    config = {
        "architectures": ["Mistral3ForConditionalGeneration"],
        "image_token_index": 13,
        "model_type": "mistral3",
        "multimodal_projector_bias": False,
        "projector_hidden_act": "gelu",
        "spatial_merge_size": 2,
        "text_config": {
            key: value for key, value in text.items() if key not in ("architectures", "torch_dtype")
        },
        "torch_dtype": "bfloat16",
        "vision_config": {"hidden_size": 32, "model_type": "pixtral", "patch_size": 14},
        "vision_feature_layer": -1,
    }

    def save(folder, tensors, dtype):
        seeing = {
            "vision_tower.patch_conv.weight": np.ones((32, 3, 14, 14), np.float32),
            "multi_modal_projector.linear_1.weight": np.ones((64, 32), np.float32),
        }
        tensors = {f"language_model.{name}": values for name, values in tensors.items()}
        save_safetensors(folder, tensors | seeing, dtype=dtype)

    write(path, config, files, save=save, weights=random_weights(text))
    return Built(path=path, theirs=alone)


@release("DeepSeek LLM 7B chat", "family", note="a pattern a step, single digits")
def deepseek(path):
    names = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"]
    document = byte_level_json("deepseek", names, begin=names[0])
    files, size = byte_files(
        document,
        template=templates.DEEPSEEK,
        add_bos_token=True,
        add_eos_token=False,
        bos_token=names[0],
        eos_token=names[1],
        pad_token=names[1],
        legacy=True,
        tokenizer_class="LlamaTokenizer",
        clean_up_tokenization_spaces=False,
    )
    config = BASE | {
        "architectures": ["LlamaForCausalLM"],
        "bos_token_id": id_of(document, names[0]),
        "eos_token_id": id_of(document, names[1]),
        "max_position_embeddings": 4096,
        "model_type": "llama",
        "pretraining_tp": 1,
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "vocab_size": size,
    }
    write(path, config, files)
    return Built(path=path)


@release("DeepSeek Coder 6.7B", "family", note="linear positions, theta 100000")
def deepseek_coder(path):
    deepseek(path)
    config = json.loads((path / "config.json").read_text())
    config |= {
        "max_position_embeddings": 16384,
        "rope_scaling": {"factor": 4.0, "type": "linear"},
        "rope_theta": 100000,
    }
    (path / "config.json").write_text(json.dumps(config))
    return Built(path=path)
