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

CONFIGS = {
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
}
