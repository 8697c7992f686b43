"""Tiny random models as transformers itself saves them, for families that ``tiny`` has not."""

import numpy as np
from support import tiny

BASE = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": tiny.VOCABULARY,
    "max_position_embeddings": 128,
    "bos_token_id": tiny.BEGIN,
    "eos_token_id": tiny.END,
    "pad_token_id": None,
}


def save_model(folder, model_type, **config):
    """Save a model of a family with its tokenizer, and return it as transformers opens it."""
    import torch
    import transformers
    from make_golden import open_reference

    settings = transformers.AutoConfig.for_model(model_type, **(BASE | config))
    model = transformers.AutoModelForCausalLM.from_config(settings, dtype=torch.float32)
    random = np.random.RandomState(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = random.standard_normal(weight.shape).astype(np.float32)
            if "norm" in name:
                noise = 1 + 0.2 * noise
            elif weight.ndim == 1:
                noise *= 0.3
            else:
                noise *= 1.4 / np.sqrt(weight.shape[1])
            weight.copy_(torch.from_numpy(noise))
    model.save_pretrained(folder)
    tiny.write_tokenizer(folder)
    return open_reference(folder)
