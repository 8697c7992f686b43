"""Habits of folders that people have: of trainers, of mergers, of those who save and save again."""

from functools import partial

import mlx.core as mx
import numpy as np

from real_world import templates
from real_world.kinds.llama2 import LLAMA2
from real_world.kinds.llama3 import LLAMA3, llama3_files
from real_world.kinds.mistral import MISTRAL, OLD
from real_world.kinds.qwen import QWEN2, qwen_files
from real_world.pieces import added, begins_with, piece_model
from real_world.release import Built, described, piece_files, release, write
from real_world.weights import random_weights, save_bin, save_safetensors


def small_llama3(template=templates.LLAMA3, **config):
    """A config and files in Llama 3's manner."""
    files, ids, of = llama3_files(template, end="<|eot_id|>")
    return LLAMA3 | ids | {"eos_token_id": of("<|eot_id|>")} | config, files


@release("a tokenizer.json saved with truncation and padding", "tokenizer")
def truncated(path):
    config, files = small_llama3()
    files["tokenizer.json"] = files["tokenizer.json"] | {
        "truncation": {
            "direction": "Right",
            "max_length": 8,
            "strategy": "LongestFirst",
            "stride": 0,
        },
        "padding": {
            "strategy": {"Fixed": 16},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "<|begin_of_text|>",
        },
    }
    write(path, config, files)
    return Built(
        path=path, document=files["tokenizer.json"] | {"truncation": None, "padding": None}
    )


@release("an embedding tune that ends every text", "tokenizer", note="add_eos_token")
def ends_every_text(path):
    files, size = piece_files(piece_model(), add_eos_token=True)
    post = begins_with("<s>", 1, end="</s>", end_id=2)
    files["tokenizer.json"] = files["tokenizer.json"] | {"post_processor": post}
    write(path, LLAMA2 | {"vocab_size": size}, files)
    return Built(path=path, chats=False)


@release("add_bos_token false over a file that adds one", "tokenizer")
def no_beginning(path):
    files, size = piece_files(piece_model(), add_bos_token=False)
    write(path, LLAMA2 | {"vocab_size": size}, files)
    return Built(path=path, chats=False)


@release("nulls for whatever can be null", "form")
def nulls(path):
    config, files = small_llama3()
    config |= dict.fromkeys(
        ("head_dim", "rope_scaling", "sliding_window", "pad_token_id", "attention_bias", "mlp_bias")
    )
    config |= {"num_key_value_heads": None, "layer_types": None, "quantization_config": None}
    shapes = config | {"num_key_value_heads": 4, "head_dim": 16}
    for key in ("attention_bias", "mlp_bias", "quantization_config"):
        del config[key]
    write(path, config, files, weights=random_weights(shapes))
    return Built(path=path)


@release("norms in float32, the rest in bfloat16", "form")
def mixed_types(path):
    config, files = small_llama3()

    def save(folder, tensors, dtype):
        types = {True: mx.float32, False: mx.bfloat16}
        stored = {n: mx.array(v).astype(types["norm" in n]) for n, v in tensors.items()}
        mx.save_safetensors(str(folder / "model.safetensors"), stored, metadata={"format": "pt"})

    write(path, config, files, save=save)
    return Built(path=path)


@release("a PPO run with its value head", "form", note="v_head beside the model")
def value_head(path):
    config, files = small_llama3()
    extra = {
        "v_head.summary.weight": np.ones((1, 64), np.float32),
        "v_head.summary.bias": np.ones(1, np.float32),
    }
    write(path, config, files, extra=extra)
    return Built(path=path, unused=True)


@release("Mistral's repository: consolidated and params.json too", "form")
def both_forms(path):
    files, size = piece_files(piece_model(), template=templates.MISTRAL, **OLD)
    files["params.json"] = {"dim": 64, "n_layers": 2, "head_dim": 16, "hidden_dim": 112}
    files["tokenizer.model.v3"] = files["tokenizer.model"]
    config = MISTRAL | {"vocab_size": size, "sliding_window": None}
    write(path, config, files, save=partial(save_safetensors, shards=2))
    mx.save_safetensors(
        str(path / "consolidated.safetensors"), {"norm.weight": mx.zeros(64)}, metadata={}
    )
    return Built(path=path)


@release("Meta's repository: original/ beside it", "form")
def with_original(path):
    config, files = small_llama3()
    files |= {
        "original/params.json": {"dim": 64, "n_layers": 2, "n_heads": 4, "vocab_size": 9},
        "original/tokenizer.model": b"IQ== 0\n",
        "original/consolidated.00.pth": b"PK\x03\x04",
        "LICENSE.txt": "the licence",
        "USE_POLICY.md": "the policy",
        ".gitattributes": "*.safetensors filter=lfs diff=lfs merge=lfs -text\n",
    }
    write(path, config, files)
    return Built(path=path)


@release("pickles and safetensors of the same", "form")
def both_weights(path):
    config, files = small_llama3()
    write(path, config, files, dtype="float16")
    save_bin(path, random_weights(config))
    return Built(path=path)


@release("tokens added in tokenizer_config.json alone", "tokenizer")
def added_in_config(path):
    files, size = piece_files(piece_model(), template=templates.CHATML)
    more = [added(size, "<|im_start|>"), added(size + 1, "<|im_end|>")]
    files["tokenizer_config.json"]["added_tokens_decoder"] |= described(more)
    files["tokenizer_config.json"]["eos_token"] = "<|im_end|>"
    config = LLAMA2 | {"vocab_size": size + 2, "eos_token_id": size + 1}
    write(path, config, files)
    tokens = [*files["tokenizer.json"]["added_tokens"], *more]
    return Built(path=path, document=files["tokenizer.json"] | {"added_tokens": tokens})


@release("special tokens named that no vocabulary has", "tokenizer")
def named_only(path):
    files, size = piece_files(piece_model(), additional_special_tokens=["<extra>", "<more>"])
    files["special_tokens_map.json"]["additional_special_tokens"] = ["<extra>", "<more>"]
    write(path, LLAMA2 | {"vocab_size": size + 8}, files)
    return Built(path=path, chats=False)


GENERATION = templates.CHATML.replace(
    "{{'<|im_start|>' + message['role']",
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] }}"
    "{% endgeneration %}{% endif %}{{'<|im_start|>' + message['role']",
)


@release("a template with the marks of training", "tokenizer", note="{% generation %}")
def generation_marks(path):
    files, ids = qwen_files(GENERATION)
    write(path, QWEN2 | ids, files)
    return Built(path=path)


@release("templates by name in a list", "tokenizer", note="default and tool_use")
def listed_templates(path):
    files, ids = qwen_files(None)
    files["tokenizer_config.json"]["chat_template"] = [
        {"name": "default", "template": templates.CHATML},
        {"name": "tool_use", "template": templates.QWEN25},
    ]
    write(path, QWEN2 | ids, files)
    return Built(path=path)


@release("a config with Infinity in a field", "form")
def infinity(path):
    config, files = small_llama3()
    write(path, config | {"time_step_limit": [0.0, float("inf")]}, files)
    return Built(path=path)


@release("an Unsloth save", "form")
def unsloth(path):
    config, files = small_llama3(unsloth_fixed=True, unsloth_version="2025.1.1")
    files["tokenizer_config.json"] |= {"padding_side": "left", "pad_token": "<|end_of_text|>"}
    write(path, config, files, save=partial(save_safetensors, metadata=False))
    return Built(path=path)


@release("a merge by mergekit", "form", note="shards of one tensor, no generation_config")
def mergekit(path):
    files, size = piece_files(piece_model(), template=templates.MISTRAL, **OLD)
    files["mergekit_config.yml"] = "merge_method: slerp\n"
    config = MISTRAL | {"vocab_size": size, "_name_or_path": "a/b", "torch_dtype": "bfloat16"}
    write(path, config, files, save=partial(save_safetensors, shards=21))
    return Built(path=path)


@release("a depth of one and a head of one", "form")
def smallest(path):
    config, files = small_llama3(num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1)
    write(path, config, files)
    return Built(path=path)
