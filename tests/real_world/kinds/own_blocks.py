"""Families with a block of their own: SmolLM3, OLMo 2 and 3, EXAONE 4, Hunyuan, Phi-4-mini."""

from real_world import templates
from real_world.byte_level import byte_level_json, id_of
from real_world.kinds.phi import PHI3
from real_world.release import BASE, Built, byte_files, dump, release, write
from real_world.weights import random_weights


def written(path, peers, config, files, **built):
    """Write a release whose tensors are named and shaped as transformers says."""
    place = path.parent / "config"
    place.mkdir()
    dump(place / "config.json", config)
    shapes = peers.ask("transformers", shapes=str(place))["shapes"]
    shapes = {name: tuple(shape) for name, shape in shapes.items()}
    write(path, config, files, weights=random_weights(config, shapes=shapes))
    return Built(path=path, **built)


LAYERS = {"num_hidden_layers": 4}


@release("SmolLM3 3B", "family", by_peers=True, note="a layer in four has no positions")
def smollm3(path, peers):
    names = ["<|begin_of_text|>", "<|end_of_text|>", "<|im_start|>", "<|im_end|>"]
    names += [(text, {"special": False}) for text in ("<think>", "</think>", "<tool_call>")]
    document = byte_level_json("llama3", names, ignore_merges=True)
    files, size = byte_files(
        document,
        bos_token=None,
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        fast=False,
        model_input_names=["input_ids", "attention_mask"],
    )
    files["chat_template.jinja"] = templates.QWEN3
    end = id_of(document, "<|im_end|>")
    files["generation_config.json"] = {"bos_token_id": end - 2, "eos_token_id": end}
    config = (
        BASE
        | LAYERS
        | {
            "architectures": ["SmolLM3ForCausalLM"],
            "attention_bias": False,
            "attention_dropout": 0.0,
            "bos_token_id": end - 3,
            "eos_token_id": end,
            "layer_types": ["full_attention"] * 4,
            "max_position_embeddings": 65536,
            "max_window_layers": 28,
            "mlp_bias": False,
            "model_type": "smollm3",
            "no_rope_layer_interval": 4,
            "no_rope_layers": [1, 1, 1, 0],
            "pad_token_id": end,
            "pretraining_tp": 2,
            "rms_norm_eps": 1e-06,
            "rope_scaling": None,
            "rope_theta": 5000000.0,
            "sliding_window": None,
            "tie_word_embeddings": True,
            "torch_dtype": "bfloat16",
            "use_sliding_window": False,
            "vocab_size": size,
        }
    )
    return written(path, peers, config, files)


def olmo_files():
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"]
    names += [(f"|||{text}|||", {"special": False}) for text in ("PHONE_NUMBER", "EMAIL_ADDRESS")]
    document = byte_level_json("llama3", names)
    files, size = byte_files(
        document,
        template=templates.CHATML,
        add_prefix_space=False,
        bos_token="<|endoftext|>",
        eos_token="<|endoftext|>",
        pad_token="<|pad|>",
        unk_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
        tokenizer_class="GPT2Tokenizer",
    )
    end = id_of(document, "<|endoftext|>")
    return files, {"vocab_size": size, "eos_token_id": end, "pad_token_id": end + 3}


@release("OLMo 2 1B Instruct", "family", by_peers=True, note="norms behind the parts")
def olmo2(path, peers):
    files, ids = olmo_files()
    config = (
        BASE
        | ids
        | {
            "architectures": ["Olmo2ForCausalLM"],
            "attention_bias": False,
            "attention_dropout": 0.0,
            "max_position_embeddings": 4096,
            "model_type": "olmo2",
            "num_key_value_heads": 4,
            "rms_norm_eps": 1e-06,
            "rope_scaling": None,
            "rope_theta": 500000,
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
        }
    )
    return written(path, peers, config, files)


@release("OLMo 3 7B Instruct", "family", by_peers=True, note="windows, yarn of the full layers")
def olmo3(path, peers):
    files, ids = olmo_files()
    config = (
        BASE
        | LAYERS
        | ids
        | {
            "architectures": ["Olmo3ForCausalLM"],
            "attention_bias": False,
            "attention_dropout": 0.0,
            "layer_types": [*["sliding_attention"] * 3, "full_attention"],
            "max_position_embeddings": 65536,
            "model_type": "olmo3",
            "num_key_value_heads": 4,
            "rms_norm_eps": 1e-06,
            "rope_scaling": {
                "attention_factor": 1.2079441541679836,
                "beta_fast": 32,
                "beta_slow": 1,
                "factor": 8.0,
                "original_max_position_embeddings": 8192,
                "rope_type": "yarn",
            },
            "rope_theta": 500000,
            "sliding_window": 8,
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
        }
    )
    return written(path, peers, config, files)


@release("EXAONE 4.0 1.2B", "family", by_peers=True, note="norms of heads and behind the parts")
def exaone4(path, peers):
    names = ["[BOS]", "[PAD]", "[|endofturn|]", "[|system|]", "[|user|]", "[|assistant|]"]
    document = byte_level_json("gpt2", names, first=True, nfc=True)
    files, size = byte_files(
        document,
        bos_token="[BOS]",
        eos_token="[|endofturn|]",
        pad_token="[PAD]",
        tokenizer_class="GPT2Tokenizer",
        clean_up_tokenization_spaces=True,
    )
    files["chat_template.jinja"] = templates.ZEPHYR
    config = (
        BASE
        | LAYERS
        | {
            "architectures": ["Exaone4ForCausalLM"],
            "attention_dropout": 0.0,
            "bos_token_id": 0,
            "eos_token_id": 2,
            "head_dim": 16,
            "layer_types": ["full_attention"] * 4,
            "max_position_embeddings": 65536,
            "model_type": "exaone4",
            "pad_token_id": 1,
            "rope_scaling": {
                "factor": 16.0,
                "high_freq_factor": 4.0,
                "low_freq_factor": 1.0,
                "original_max_position_embeddings": 8192,
                "rope_type": "llama3",
            },
            "rope_theta": 1000000,
            "sliding_window": None,
            "sliding_window_pattern": None,
            "tie_word_embeddings": True,
            "torch_dtype": "bfloat16",
            "vocab_size": size,
        }
    )
    return written(path, peers, config, files)


@release("Hunyuan 1.8B Instruct", "family", by_peers=True, note="alpha of dynamic positions")
def hunyuan(path, peers):
    names = ["<|startoftext|>", "<|endoftext|>", "<|eos|>", "<|pad|>", "<|extra_0|>"]
    document = byte_level_json("qwen2", names)
    files, size = byte_files(
        document,
        template=templates.CHATML,
        bos_token="<|startoftext|>",
        eos_token="<|eos|>",
        pad_token="<|pad|>",
        clean_up_tokenization_spaces=False,
    )
    end = id_of(document, "<|eos|>")
    config = BASE | {
        "architectures": ["HunYuanDenseV1ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": end - 2,
        "eos_token_id": end,
        "head_dim": 16,
        "max_position_embeddings": 262144,
        "model_type": "hunyuan_v1_dense",
        "pad_token_id": end + 1,
        "rope_scaling": {
            "alpha": 1000.0,
            "beta_fast": 32,
            "beta_slow": 1,
            "factor": 1.0,
            "mscale": 1.0,
            "mscale_all_dim": 1.0,
            "type": "dynamic",
        },
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "use_qk_norm": True,
        "vocab_size": size,
    }
    return written(path, peers, config, files)


@release("Phi-4 mini Instruct", "family", by_peers=True, note="three quarters of a head turn")
def phi4_mini(path, peers):
    names = ["<|endoftext|>", "<|assistant|>", "<|user|>", "<|system|>", "<|end|>"]
    document = byte_level_json("tekken", names)
    files, size = byte_files(
        document,
        template=templates.PHI3,
        add_bos_token=False,
        add_eos_token=False,
        add_prefix_space=False,
        bos_token="<|endoftext|>",
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        unk_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
        tokenizer_class="GPT2Tokenizer",
    )
    end = id_of(document, "<|endoftext|>")
    pairs = 12 // 2
    config = PHI3 | {
        "vocab_size": size,
        "bos_token_id": end,
        "eos_token_id": end,
        "pad_token_id": end,
        "full_attn_mod": 1,
        "interpolate_factor": 1,
        "lm_head_bias": False,
        "max_position_embeddings": 131072,
        "mlp_bias": False,
        "num_key_value_heads": 2,
        "partial_rotary_factor": 0.75,
        "rope_scaling": {
            "long_factor": [1.0 + 2.5 * place for place in range(pairs)],
            "short_factor": [1.0] * pairs,
            "type": "longrope",
        },
        "sliding_window": 262144,
        "tie_word_embeddings": True,
    }
    files["generation_config.json"] = {
        "_from_model_config": True,
        "bos_token_id": end,
        "eos_token_id": [end + 4, end],
        "pad_token_id": end,
    }
    return written(path, peers, config, files)
