"""Tiny random models in Hugging Face's form, one of every kind; writing them needs no torch."""

import json
from functools import cache, lru_cache
from pathlib import Path

import mlx.core as mx
import numpy as np

LAYERS = 4
VOCABULARY = 320
SPECIALS = ["<|begin|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
BEGIN, END = 0, 1

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)

TEXTS = [
    "Once upon a time there was a little dog who lived in a house by the sea.",
    "The little girl said to the dog: you are my friend, let us go and play.",
    "They went to the park, and they played in the sun all day long.",
    "One day the dog found a red ball under the old tree, and he was very happy.",
    "Then they were tired, and they went home and slept. The end.",
]

BASE = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "bos_token_id": BEGIN,
    "eos_token_id": END,
}
LLAMA = BASE | {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
MISTRAL = BASE | {
    "architectures": ["MistralForCausalLM"],
    "model_type": "mistral",
    "num_key_value_heads": 2,
}
QWEN2 = BASE | {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "num_key_value_heads": 2,
}
QWEN3 = BASE | {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "num_key_value_heads": 2,
    "head_dim": 24,
}
GEMMAS = {"gemma2", "gemma3_text"}
POST_NORM = {"olmo2", "olmo3", "exaone4"}
LLAMA3_SCALING = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}

CONFIGS = {
    # Llama 1 said nothing of key/value heads, rope_theta, or a tied head.
    "llama-1": LLAMA,
    "llama-2": LLAMA
    | {
        "num_key_value_heads": 2,
        "rope_theta": 10000.0,
        "rope_scaling": None,
        "tie_word_embeddings": False,
    },
    "llama-3": LLAMA | {"num_key_value_heads": 1, "rope_theta": 500000.0},
    "llama-3.1": LLAMA
    | {"num_key_value_heads": 2, "rope_theta": 500000.0, "rope_scaling": LLAMA3_SCALING},
    "llama-3.2": LLAMA
    | {
        "num_key_value_heads": 2,
        "head_dim": 32,
        "tie_word_embeddings": True,
        "rope_parameters": LLAMA3_SCALING | {"rope_theta": 500000.0},
    },
    "llama-linear": LLAMA
    | {
        "num_key_value_heads": 2,
        "rope_theta": 20000.0,
        "rope_scaling": {"type": "linear", "factor": 4.0},
    },
    "llama-linear-new": LLAMA
    | {
        "num_key_value_heads": 4,
        "rope_parameters": {"rope_type": "linear", "factor": 2.5, "rope_theta": 30000.0},
    },
    "llama-biases": LLAMA | {"num_key_value_heads": 2, "attention_bias": True, "mlp_bias": True},
    "mistral": MISTRAL | {"rope_theta": 1000000.0, "sliding_window": None},
    "mistral-window": MISTRAL | {"rope_theta": 10000.0, "sliding_window": 9},
    "qwen2": QWEN2
    | {
        "rope_theta": 1000000.0,
        "tie_word_embeddings": True,
        "sliding_window": 8,
        "use_sliding_window": False,
    },
    "qwen2-window": QWEN2
    | {
        "rope_theta": 10000.0,
        "sliding_window": 8,
        "use_sliding_window": True,
        "max_window_layers": 1,
    },
    "qwen3": QWEN3
    | {"rope_theta": 1000000.0, "attention_bias": False, "tie_word_embeddings": True},
    "qwen3-biases": QWEN3
    | {
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
        "attention_bias": True,
    },
}
"""Configs as they are found: of every family, in the form of its time and of transformers 5."""


def tensor_shapes(config):
    """Every tensor of a model as transformers names and shapes it; written from its sources."""
    hidden, inner, kind = config["hidden_size"], config["intermediate_size"], config["model_type"]
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim", hidden // heads)
    query, key = heads * head_dim, config.get("num_key_value_heads", heads) * head_dim
    biased = {
        "qwen2": "qkv",
        "mistral": "",
        "exaone4": "",
    }.get(kind, "qkvo" if config.get("attention_bias") else "")
    shapes = {
        "model.embed_tokens.weight": (config["vocab_size"], hidden),
        "model.norm.weight": (hidden,),
    }
    if not config.get("tie_word_embeddings"):
        shapes["lm_head.weight"] = (config["vocab_size"], hidden)
    for index in range(config["num_hidden_layers"]):
        layer = f"model.layers.{index}."
        for name, shape in {
            "q": (query, hidden),
            "k": (key, hidden),
            "v": (key, hidden),
            "o": (hidden, query),
        }.items():
            shapes[f"{layer}self_attn.{name}_proj.weight"] = shape
            if name in biased:
                shapes[f"{layer}self_attn.{name}_proj.bias"] = shape[:1]
        for name, shape in {
            "gate": (inner, hidden),
            "up": (inner, hidden),
            "down": (hidden, inner),
        }.items():
            shapes[f"{layer}mlp.{name}_proj.weight"] = shape
            if kind == "llama" and config.get("mlp_bias"):
                shapes[f"{layer}mlp.{name}_proj.bias"] = shape[:1]
        norms = ("input_layernorm", "post_attention_layernorm")
        if kind in POST_NORM:
            norms = ("post_attention_layernorm", "post_feedforward_layernorm")
        if kind in GEMMAS:
            norms = (*norms, "pre_feedforward_layernorm", "post_feedforward_layernorm")
        for name in norms:
            shapes[f"{layer}{name}.weight"] = (hidden,)
        if kind in {"qwen3", "exaone4", "gemma3_text"}:
            shapes |= {f"{layer}self_attn.{name}_norm.weight": (head_dim,) for name in "qk"}
        if kind in {"olmo2", "olmo3"}:
            shapes[f"{layer}self_attn.q_norm.weight"] = (query,)
            shapes[f"{layer}self_attn.k_norm.weight"] = (key,)
        if kind == "hunyuan_v1_dense":
            shapes[f"{layer}self_attn.query_layernorm.weight"] = (head_dim,)
            shapes[f"{layer}self_attn.key_layernorm.weight"] = (head_dim,)
    return shapes


def random_tensors(config, seed=0):
    """Random weights that keep the scale of what passes through them.

    NumPy's RandomState never changes its numbers.
    """
    tensors, shapes = {}, tensor_shapes(config)
    for (name, shape), noise in zip(
        shapes.items(), _noises(tuple(map(tuple, shapes.values())), seed), strict=True
    ):
        if "norm" in name:
            tensors[name] = 1 + 0.2 * noise
        elif len(shape) == 1:
            tensors[name] = 0.3 * noise
        else:
            tensors[name] = noise * (1.0 if "embed" in name else 1.4 / np.sqrt(shape[1]))
    if config.get("tie_word_embeddings"):  # a head of this scale, or the greedy text only repeats
        tensors["model.embed_tokens.weight"] *= 0.3
    return tensors


@lru_cache(32)
def _noises(shapes, seed):
    """Draws for tensors of these shapes: hundreds of tests take the same ones."""
    random = np.random.RandomState(seed)
    return [random.standard_normal(shape).astype(np.float32) for shape in shapes]


def write_model(
    path, config, *, seed=0, dtype=mx.float32, shards=1, tokenizer=True, generation_config=None
):
    """Write a model folder as transformers would, and return its path."""
    path = Path(path)
    path.mkdir(parents=True)
    name = {mx.float32: "float32", mx.float16: "float16", mx.bfloat16: "bfloat16"}[dtype]
    (path / "config.json").write_text(json.dumps(config | {"dtype": name}), encoding="utf-8")
    if generation_config is not None:
        (path / "generation_config.json").write_text(
            json.dumps(generation_config), encoding="utf-8"
        )
    tensors = {
        name: mx.array(values).astype(dtype)
        for name, values in random_tensors(config, seed).items()
    }
    if shards == 1:
        mx.save_safetensors(str(path / "model.safetensors"), tensors, metadata={"format": "pt"})
    else:
        names, weight_map = sorted(tensors), {}
        for number in range(shards):
            file = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
            weight_map |= dict.fromkeys(names[number::shards], file)
            part = {name: tensors[name] for name in names[number::shards]}
            mx.save_safetensors(str(path / file), part, metadata={"format": "pt"})
        index = {
            "metadata": {"total_size": sum(tensor.nbytes for tensor in tensors.values())},
            "weight_map": weight_map,
        }
        (path / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    if tokenizer:
        write_tokenizer(path)
    return path


def write_tokenizer(path):
    """Write a byte-level BPE of a few sentences, in the form of Llama 3.

    The beginning is added, and chats have a template.
    """
    (path / "tokenizer.json").write_text(_trained_tokenizer(), encoding="utf-8")
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|begin|>",
        "eos_token": "<|end|>",
        "clean_up_tokenization_spaces": False,
        "chat_template": TEMPLATE,
    }
    (path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")


@cache
def _trained_tokenizer():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 8,  # some ids of the model stand for nothing, as in real ones
        special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin|> $A", special_tokens=[("<|begin|>", BEGIN)]
    )
    return tokenizer.to_str(pretty=True)
