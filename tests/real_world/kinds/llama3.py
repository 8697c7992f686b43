"""Llama 3 to 3.2, and those who stand on them."""

from functools import partial

from real_world import templates
from real_world.byte_level import byte_level_json, id_of
from real_world.release import BASE, Built, byte_files, kept, release, write
from real_world.weights import save_safetensors

RESERVED = [f"<|reserved_special_token_{number}|>" for number in range(12)]
SPECIALS = [
    "<|begin_of_text|>",
    "<|end_of_text|>",
    *RESERVED[:2],
    "<|finetune_right_pad_id|>",
    RESERVED[2],
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eom_id|>",
    "<|eot_id|>",
    "<|python_tag|>",
    *RESERVED[3:],
]
SCALING = {
    "factor": 8.0,
    "high_freq_factor": 4.0,
    "low_freq_factor": 1.0,
    "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}
LLAMA3 = BASE | {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "max_position_embeddings": 8192,
    "model_type": "llama",
    "pretraining_tp": 1,
    "rope_scaling": None,
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.40.0.dev0",
}


@kept
def tokenizer_json(more=()):
    """Llama 3's tokenizer.json."""
    return byte_level_json(
        "llama3", [*SPECIALS, *more], begin="<|begin_of_text|>", ignore_merges=True, old_merges=True
    )


def llama3_files(template, *, end, more=(), **config):
    """Its files, and the ids that a config names."""
    document = tokenizer_json(more)
    files, size = byte_files(
        document,
        template=template,
        bos_token="<|begin_of_text|>",
        eos_token=end,
        model_input_names=["input_ids", "attention_mask"],
        **config,
    )
    ids = {"bos_token_id": id_of(document, "<|begin_of_text|>"), "vocab_size": size}
    return files, ids, partial(id_of, document)


@release("Llama 3 8B Instruct", "family")
def llama3(path):
    files, ids, of = llama3_files(templates.LLAMA3, end="<|eot_id|>")
    config = LLAMA3 | ids | {"eos_token_id": of("<|eot_id|>")}
    files["generation_config.json"] = {
        "bos_token_id": ids["bos_token_id"],
        "eos_token_id": [of("<|end_of_text|>"), of("<|eot_id|>")],
        "do_sample": True,
        "temperature": 0.6,
        "max_length": 4096,
        "top_p": 0.9,
        "transformers_version": "4.40.0.dev0",
    }
    write(path, config, files, save=partial(save_safetensors, shards=3))
    return Built(path=path)


@release("Llama 3.1 8B Instruct", "family")
def llama31(path):
    files, ids, of = llama3_files(templates.LLAMA31, end="<|eot_id|>")
    ends = [of("<|end_of_text|>"), of("<|eom_id|>"), of("<|eot_id|>")]
    config = (
        LLAMA3
        | ids
        | {
            "eos_token_id": ends,
            "max_position_embeddings": 131072,
            "mlp_bias": False,
            "rope_scaling": SCALING,
            "transformers_version": "4.43.0.dev0",
        }
    )
    files["generation_config.json"] = {"bos_token_id": ids["bos_token_id"], "eos_token_id": ends}
    write(path, config, files)
    return Built(path=path)


@release("Llama 3.2 1B Instruct", "family", note="tied, head_dim said")
def llama32(path):
    files, ids, of = llama3_files(templates.LLAMA31, end="<|eot_id|>")
    config = (
        LLAMA3
        | ids
        | {
            "eos_token_id": [of("<|end_of_text|>"), of("<|eom_id|>"), of("<|eot_id|>")],
            "head_dim": 16,
            "max_position_embeddings": 131072,
            "mlp_bias": False,
            "rope_scaling": SCALING | {"factor": 32.0},
            "tie_word_embeddings": True,
            "transformers_version": "4.45.0.dev0",
        }
    )
    write(path, config, files)
    return Built(path=path)


@release(
    "Llama 3.2 3B saved by transformers 5", "family", note="rope_parameters, dtype, jinja file"
)
def llama32_new(path):
    files, ids, of = llama3_files(
        None,
        end="<|eot_id|>",
        tokenizer_class="TokenizersBackend",
        backend="tokenizers",
        is_local=True,
    )
    files["chat_template.jinja"] = templates.LLAMA31
    config = (
        LLAMA3
        | ids
        | {
            "dtype": "bfloat16",
            "eos_token_id": [of("<|end_of_text|>"), of("<|eom_id|>"), of("<|eot_id|>")],
            "head_dim": 32,
            "max_position_embeddings": 131072,
            "mlp_bias": False,
            "pad_token_id": None,
            "rope_parameters": SCALING | {"factor": 32.0, "rope_theta": 500000.0},
            "tie_word_embeddings": True,
            "transformers_version": "5.0.0",
        }
    )
    for key in ("rope_scaling", "rope_theta", "torch_dtype"):
        del config[key]
    del files["tokenizer_config.json"]["added_tokens_decoder"]
    del files["special_tokens_map.json"]
    write(path, config, files)
    return Built(path=path)


@release("Hermes 3 Llama 3.1 8B", "family", note="ChatML on reserved tokens")
def hermes3(path):
    files, ids, of = llama3_files(
        templates.CHATML, end="<|im_end|>", more=("<|im_start|>", "<|im_end|>")
    )
    config = (
        LLAMA3
        | ids
        | {
            "eos_token_id": of("<|im_end|>"),
            "max_position_embeddings": 131072,
            "rope_scaling": SCALING,
        }
    )
    files["generation_config.json"] = {
        "_from_model_config": True,
        "bos_token_id": ids["bos_token_id"],
        "eos_token_id": of("<|im_end|>"),
    }
    write(path, config, files)
    return Built(path=path)


@release("a chat tune on Llama 3's base tokenizer", "tokenizer", note="ends by the template's text")
def on_base(path):
    files, ids, of = llama3_files(templates.LLAMA3, end="<|end_of_text|>")
    config = LLAMA3 | ids | {"eos_token_id": of("<|end_of_text|>")}
    write(path, config, files)
    return Built(path=path)


@release("a speech model with 4,000 tokens of sound", "tokenizer")
def speech(path):
    sounds = tuple(f"<custom_token_{number}>" for number in range(4000))
    files, ids, of = llama3_files(templates.LLAMA3, end="<|eot_id|>", more=sounds)
    config = LLAMA3 | ids | {"eos_token_id": of("<|eot_id|>"), "tie_word_embeddings": True}
    write(path, config, files)
    return Built(path=path)


@release(
    "DeepSeek R1 Distill Llama 8B", "family", note="LlamaTokenizerFast over bytes, full-width bars"
)
def r1_llama(path):
    more = (
        "<｜begin▁of▁sentence｜>",
        "<｜end▁of▁sentence｜>",
        "<｜▁pad▁｜>",
        "<｜User｜>",
        "<｜Assistant｜>",
    )
    thinking = tuple((text, (("special", False),)) for text in ("<think>", "</think>"))
    document = byte_level_json(
        "llama3",
        [*SPECIALS, *more, *((text, dict(fields)) for text, fields in thinking)],
        begin="<｜begin▁of▁sentence｜>",
        ignore_merges=True,
    )
    files, size = byte_files(
        document,
        template=templates.R1,
        add_bos_token=True,
        add_eos_token=False,
        bos_token={"__type": "AddedToken", "content": more[0], "lstrip": False}
        | {"normalized": True, "rstrip": False, "single_word": False},
        eos_token={"__type": "AddedToken", "content": more[1], "lstrip": False}
        | {"normalized": True, "rstrip": False, "single_word": False},
        clean_up_tokenization_spaces=False,
        legacy=True,
        model_max_length=16384,
        pad_token=None,
        sp_model_kwargs={},
        unk_token=None,
        tokenizer_class="LlamaTokenizerFast",
    )
    del files["tokenizer_config.json"]["added_tokens_decoder"]
    del files["special_tokens_map.json"]
    config = LLAMA3 | {
        "vocab_size": size,
        "bos_token_id": id_of(document, more[0]),
        "eos_token_id": id_of(document, more[1]),
        "max_position_embeddings": 131072,
        "mlp_bias": False,
        "rope_scaling": SCALING,
    }
    write(path, config, files)
    return Built(path=path)


@release("SmolLM2 135M Instruct", "family", note="GPT2Tokenizer with single digits, tied")
def smollm2(path):
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>", "<file_sep>"]
    document = byte_level_json("smollm", names, first=True)
    files, size = byte_files(
        document,
        template=templates.SMOLLM,
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        add_prefix_space=False,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
        tokenizer_class="GPT2Tokenizer",
        vocab_size=size_of_vocabulary(document),
    )
    config = LLAMA3 | {
        "vocab_size": size,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
        "is_llama_config": True,
        "rope_interleaved": False,
        "rope_theta": 100000,
        "tie_word_embeddings": True,
        "hidden_size": 72,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16"}},
    }
    write(path, config, files)
    return Built(path=path)


def size_of_vocabulary(document):
    """Ids that are no added tokens."""
    return len(document["model"]["vocab"])
