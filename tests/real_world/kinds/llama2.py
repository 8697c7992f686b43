"""LLaMA 1 and 2, and those who took their tokenizer."""

from functools import partial

from real_world import templates
from real_world.pieces import piece_model
from real_world.release import BASE, Built, as_token, piece_files, release, write
from real_world.weights import rotary_buffers, save_bin, save_safetensors

LLAMA = BASE | {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": None,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
}
LLAMA2 = LLAMA | {
    "attention_bias": False,
    "attention_dropout": 0.0,
    "max_position_embeddings": 4096,
    "pretraining_tp": 1,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "transformers_version": "4.32.0.dev0",
}


def sampled(**more):
    """A generation_config.json of the time."""
    return {
        "_from_model_config": True,
        "bos_token_id": 1,
        "do_sample": True,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "temperature": 0.6,
        "max_length": 4096,
        "top_p": 0.9,
        "transformers_version": "4.31.0.dev0",
        **more,
    }


@release("LLaMA 7B", "family")
def llama1(path):
    config = LLAMA | {
        "max_position_embeddings": 2048,
        "max_sequence_length": 2048,
        "pad_token_id": 0,
        "rms_norm_eps": 1e-06,
        "transformers_version": "4.28.1",
    }
    del config["num_key_value_heads"]
    files, size = piece_files(
        piece_model(),
        bos_token=as_token("<s>", normalized=True, __type="AddedToken"),
        eos_token=as_token("</s>", normalized=True, __type="AddedToken"),
        unk_token=as_token("<unk>", normalized=True, __type="AddedToken"),
    )
    for key in ("legacy", "added_tokens_decoder", "use_default_system_prompt"):
        del files["tokenizer_config.json"][key]
    config["vocab_size"] = size
    files["generation_config.json"] = {
        "_from_model_config": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    save = partial(save_bin, shards=2)
    write(path, config, files, dtype="float16", save=save, extra=rotary_buffers(config))
    return Built(path=path, chats=False, runs=False)


@release("Llama 2 7B chat", "family")
def llama2_chat(path):
    files, size = piece_files(piece_model(), template=templates.LLAMA2)
    config = LLAMA2 | {"vocab_size": size, "num_key_value_heads": 4}
    files["generation_config.json"] = sampled()
    save = partial(save_safetensors, shards=2)
    write(path, config, files, dtype="float16", save=save, extra=rotary_buffers(config))
    return Built(path=path)


@release("Llama 2 70B, one key head for eight", "family")
def llama2_70b(path):
    files, size = piece_files(piece_model())
    config = LLAMA2 | {"vocab_size": size, "num_attention_heads": 8, "num_key_value_heads": 1}
    write(path, config, files, dtype="float16")
    return Built(path=path, chats=False)


@release("Vicuna 7B v1.5", "family", note="pickles in shards, no tokenizer.json")
def vicuna(path):
    files, size = piece_files(piece_model(), both=False, pad_token="<unk>", model_max_length=4096)
    config = LLAMA2 | {"vocab_size": size, "num_key_value_heads": 4, "pad_token_id": 0}
    files["generation_config.json"] = sampled()
    write(path, config, files, save=partial(save_bin, shards=2), dtype="float16")
    return Built(path=path, chats=False, runs=False)


@release("Vicuna 13B 16k, linear positions", "family")
def vicuna_16k(path):
    files, size = piece_files(piece_model(), both=False, legacy=True, pad_token="<unk>")
    config = LLAMA2 | {
        "vocab_size": size,
        "max_sequence_length": 16384,
        "rope_scaling": {"factor": 4.0, "type": "linear"},
    }
    write(path, config, files, dtype="float16")
    return Built(path=path, chats=False)


@release("Code Llama 7B Instruct", "family", note="rope_theta 1e6, tokens of the middle")
def code_llama(path):
    model = piece_model(symbols=("▁<PRE>", "▁<MID>", "▁<SUF>", "▁<EOT>"))
    files, size = piece_files(
        model,
        template=templates.LLAMA2,
        tokenizer_class="CodeLlamaTokenizer",
        prefix_token="▁<PRE>",
        middle_token="▁<MID>",
        suffix_token="▁<SUF>",
        eot_token="▁<EOT>",
        fill_token="<FILL_ME>",
        suffix_first=False,
        additional_special_tokens=["▁<PRE>", "▁<MID>", "▁<SUF>", "▁<EOT>"],
        use_default_system_prompt=True,
    )
    config = LLAMA2 | {
        "vocab_size": size + 16 - size % 16,
        "max_position_embeddings": 16384,
        "rope_theta": 1000000,
    }
    write(path, config, files, dtype="bfloat16")
    return Built(path=path)


@release("TinyLlama 1.1B Chat v1.0", "family")
def tiny_llama(path):
    files, size = piece_files(
        piece_model(), template=templates.ZEPHYR, pad_token="</s>", padding_side="right"
    )
    config = LLAMA2 | {
        "vocab_size": size,
        "max_position_embeddings": 2048,
        "torch_dtype": "bfloat16",
    }
    del config["pad_token_id"]
    files["generation_config.json"] = {"bos_token_id": 1, "eos_token_id": 2, "max_length": 2048}
    write(path, config, files)
    return Built(path=path)


@release("Nous Yarn Llama 2 64k", "family", note="yarn of 2023: finetuned, no attention_factor")
def yarn_llama(path):
    files, size = piece_files(piece_model())
    config = LLAMA2 | {
        "vocab_size": size,
        "max_position_embeddings": 65536,
        "rope_scaling": {
            "factor": 16.0,
            "finetuned": True,
            "original_max_position_embeddings": 4096,
            "type": "yarn",
        },
    }
    write(path, config, files)
    return Built(path=path, chats=False)


@release("SOLAR 10.7B Instruct", "family", note="template without tokens of its own")
def solar(path):
    files, size = piece_files(
        piece_model(), template=templates.SOLAR, legacy=True, pad_token="</s>"
    )
    config = LLAMA2 | {"vocab_size": size, "pad_token_id": 2}
    files["generation_config.json"] = {
        "_from_model_config": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    write(path, config, files, dtype="float16")
    return Built(path=path)


@release("Yi 6B chat", "family", note="no beginning, its own words for the ends")
def yi(path):
    model = piece_model(
        symbols=("<|im_start|>", "<|im_end|>"),
        bos_piece="<|startoftext|>",
        eos_piece="<|endoftext|>",
        add_dummy_prefix=False,
    )
    files, size = piece_files(
        model,
        both=False,
        template=templates.CHATML,
        add_bos_token=False,
        legacy=True,
        bos_token="<|startoftext|>",
        eos_token="<|im_end|>",
        pad_token="<unk>",
    )
    del files["tokenizer_config.json"]["added_tokens_decoder"]
    del files["tokenizer_config.json"]["use_default_system_prompt"]
    config = LLAMA2 | {
        "vocab_size": size,
        "pad_token_id": 0,
        "rope_theta": 5000000.0,
        "torch_dtype": "bfloat16",
    }
    files["generation_config.json"] = {"bos_token_id": 1, "eos_token_id": 7, "pad_token_id": 0}
    write(path, config, files)
    return Built(path=path)


@release("InternLM 7B as LLaMA", "family", note="biases of queries, keys, values and output")
def internlm(path):
    files, size = piece_files(piece_model(), both=False, legacy=True)
    config = LLAMA2 | {
        "vocab_size": size,
        "attention_bias": True,
        "bias": True,
        "rms_norm_eps": 1e-6,
        "rope_scaling": {"factor": 1.0, "type": "dynamic"},
        "rope_theta": 1000000,
    }
    write(path, config, files, dtype="bfloat16")
    return Built(path=path, chats=False)
