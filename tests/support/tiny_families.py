"""Tiny configs of families whose block is not LLaMA's, as they are found."""

from support import tiny

SMOLLM3 = tiny.BASE | {
    "pad_token_id": tiny.END,
    "architectures": ["SmolLM3ForCausalLM"],
    "model_type": "smollm3",
    "num_key_value_heads": 2,
    "rope_theta": 5000000.0,
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": True,
}

YARN = {
    "rope_type": "yarn",
    "factor": 8.0,
    "original_max_position_embeddings": 32,
    "attention_factor": 1.2079441541679836,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
}
PATTERN = (["sliding_attention"] * 3 + ["full_attention"]) * 2
OLMO = tiny.BASE | {
    "pad_token_id": tiny.END,
    "num_key_value_heads": 4,
    "rope_theta": 500000.0,
    "attention_bias": False,
    "tie_word_embeddings": False,
}
OLMO3 = OLMO | {
    "architectures": ["Olmo3ForCausalLM"],
    "model_type": "olmo3",
    "sliding_window": 9,
}
EXAONE4 = tiny.BASE | {
    "architectures": ["Exaone4ForCausalLM"],
    "model_type": "exaone4",
    "num_key_value_heads": 2,
    "head_dim": 24,
    "rope_theta": 1000000.0,
    "rope_scaling": tiny.LLAMA3_SCALING | {"factor": 16.0},
    "tie_word_embeddings": True,
}
HUNYUAN = tiny.BASE | {
    "architectures": ["HunYuanDenseV1ForCausalLM"],
    "model_type": "hunyuan_v1_dense",
    "num_key_value_heads": 2,
    "head_dim": 24,
    "attention_head_dim": 24,
    "rope_theta": 10000.0,
    "use_qk_norm": True,
    "use_cla": False,
    "cla_share_factor": 2,
    "attention_bias": False,
    "tie_word_embeddings": True,
    "pad_token_id": tiny.END,
}
GEMMA = tiny.BASE | {
    "num_key_value_heads": 2,
    "head_dim": 24,
    "hidden_activation": "gelu_pytorch_tanh",
    "query_pre_attn_scalar": 20,
    "tie_word_embeddings": True,
    "sliding_window": 9,
    "pad_token_id": tiny.END,
}
GEMMA2 = GEMMA | {
    "architectures": ["Gemma2ForCausalLM"],
    "model_type": "gemma2",
    # so low that they count
    "attn_logit_softcapping": 2.0,
    "final_logit_softcapping": 5.0,
}

MINISTRAL = tiny.MISTRAL | {
    "architectures": ["MinistralForCausalLM"],
    "model_type": "ministral",
    "rope_theta": 10000.0,
    "head_dim": 24,  # without which transformers 5.24 does not make one
}

CONFIGS = {
    "gemma2": GEMMA2,
    # as published; and as transformers 5 writes it
    "gemma3": GEMMA
    | {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "rope_theta": 5000.0,
        "rope_local_base_freq": 300.0,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        "sliding_window_pattern": 3,
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
    },
    "gemma3-new": GEMMA
    | {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "layer_types": ["full_attention", "sliding_attention"] * 2,
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 5000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 300.0},
        },
        "final_logit_softcapping": 5.0,
    },
    "ministral": MINISTRAL
    | {"layer_types": ["full_attention", *["sliding_attention"] * 3], "sliding_window": 9},
    "ministral-silent": MINISTRAL | {"sliding_window": 9},
    "smollm3": SMOLLM3
    | {
        "layer_types": ["full_attention"] * tiny.LAYERS,
        "no_rope_layer_interval": 4,
        "no_rope_layers": [1, 1, 1, 0],
        "max_window_layers": 28,
        "use_sliding_window": False,
        "sliding_window": None,
    },
    # what is left out, and windows, which its code has and no published model
    "smollm3-window": SMOLLM3
    | {
        "no_rope_layer_interval": 2,
        "use_sliding_window": True,
        "sliding_window": 9,
        "tie_word_embeddings": False,
        "rope_scaling": {"rope_type": "yarn", "factor": 2.0} | {"attention_factor": 1.2},
    },
    # biases that transformers does not read
    "olmo2": OLMO
    | {"architectures": ["Olmo2ForCausalLM"], "model_type": "olmo2", "mlp_bias": True},
    "olmo2-grouped": OLMO
    | {"architectures": ["Olmo2ForCausalLM"], "model_type": "olmo2"}
    | {"num_key_value_heads": 2, "attention_bias": True}
    | {"rope_parameters": {"rope_type": "default", "rope_theta": 20000.0}},
    "olmo3": OLMO3 | {"num_hidden_layers": 8} | {"layer_types": PATTERN, "rope_scaling": YARN},
    # as transformers 5 saves it
    "olmo3-new": OLMO3
    | {
        "rope_parameters": {
            "full_attention": YARN | {"rope_theta": 30000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 40000.0},
        },
    },
    "exaone4": EXAONE4 | {"sliding_window": 9, "sliding_window_pattern": 4, "attention_bias": True},
    "exaone4-listed": EXAONE4
    | {"sliding_window": 9, "sliding_window_pattern": "LLLG", "tie_word_embeddings": False}
    | {"layer_types": ["sliding_attention"] * 3 + ["full_attention"]},
    # as the 1.2B
    "exaone4-full": EXAONE4
    | {"sliding_window": None, "sliding_window_pattern": None}
    | {"layer_types": ["full_attention"] * 4},
    "hunyuan": HUNYUAN
    | {
        "rope_scaling": {
            "alpha": 1000.0,
            "beta_fast": 32,
            "beta_slow": 1,
            "factor": 1.0,
            "mscale": 1.0,
            "mscale_all_dim": 1.0,
            "type": "dynamic",
        },
    },
    "hunyuan-yarn": HUNYUAN
    | {"rope_scaling": YARN, "attention_bias": True, "tie_word_embeddings": False},
}
