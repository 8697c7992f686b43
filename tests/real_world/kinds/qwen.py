"""Qwen2 to 3, and those who stand on them."""

from functools import partial

from real_world import templates
from real_world.byte_level import byte_level_json, id_of
from real_world.release import BASE, Built, byte_files, kept, release, vocabulary_files, write
from real_world.weights import save_safetensors

QWEN2 = BASE | {
    "architectures": ["Qwen2ForCausalLM"],
    "attention_dropout": 0.0,
    "max_position_embeddings": 32768,
    "max_window_layers": 21,
    "model_type": "qwen2",
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.40.1",
    "use_sliding_window": False,
}
QWEN3 = QWEN2 | {
    "architectures": ["Qwen3ForCausalLM"],
    "attention_bias": False,
    "head_dim": 32,
    "max_position_embeddings": 40960,
    "max_window_layers": 28,
    "model_type": "qwen3",
    "rope_scaling": None,
    "sliding_window": None,
    "transformers_version": "4.51.0",
}
NAMES = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TOOLS = ["<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"]
THINKING = ["<think>", "</think>"]


@kept
def tokenizer_json(more=()):
    """Qwen's tokenizer.json: composed texts, no beginning."""
    plain = [(text, {"special": False}) for text in more]
    return byte_level_json("qwen2", [*NAMES, *plain], nfc=True)


def qwen_files(template, more=(), end="<|im_end|>", **config):
    """Its files, and the ids that a config names."""
    document = tokenizer_json(tuple(more))
    files, size = byte_files(
        document,
        template=template,
        add_prefix_space=False,
        add_bos_token=False,
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        bos_token=None,
        clean_up_tokenization_spaces=False,
        eos_token=end,
        errors="replace",
        pad_token="<|endoftext|>",
        split_special_tokens=False,
        tokenizer_class="Qwen2Tokenizer",
        unk_token=None,
        **config,
    )
    files |= vocabulary_files(document)
    ids = {
        "bos_token_id": id_of(document, "<|endoftext|>"),
        "eos_token_id": id_of(document, end),
        # rows that stand for nothing, as Qwen pads them
        "vocab_size": size + 16 - size % 16,
    }
    both = [id_of(document, "<|im_end|>"), id_of(document, "<|endoftext|>")]
    files["generation_config.json"] = {
        "bos_token_id": ids["bos_token_id"],
        "do_sample": True,
        "eos_token_id": both,
        "pad_token_id": ids["bos_token_id"],
        "repetition_penalty": 1.1,
        "temperature": 0.7,
        "top_k": 20,
        "top_p": 0.8,
        "transformers_version": "4.37.0",
    }
    return files, ids


@release("Qwen2 0.5B Instruct", "family")
def qwen2(path):
    files, ids = qwen_files(templates.CHATML)
    write(path, QWEN2 | ids, files)
    return Built(path=path)


@release("Qwen2.5 7B Instruct", "family", note="untied, shards")
def qwen25(path):
    files, ids = qwen_files(templates.QWEN25, TOOLS)
    config = QWEN2 | ids | {"tie_word_embeddings": False, "max_window_layers": 28}
    write(path, config, files, save=partial(save_safetensors, shards=4))
    return Built(path=path)


@release("Qwen2.5 with yarn for 128k", "family")
def qwen25_yarn(path):
    files, ids = qwen_files(templates.QWEN25, TOOLS)
    scaling = {"factor": 4.0, "original_max_position_embeddings": 32768, "type": "yarn"}
    write(path, QWEN2 | ids | {"rope_scaling": scaling}, files)
    return Built(path=path)


@release("Qwen2 with vocab.json and merges.txt only", "tokenizer")
def qwen2_merges(path):
    files, ids = qwen_files(templates.CHATML)
    del files["tokenizer.json"]
    write(path, QWEN2 | ids, files)
    return Built(path=path)


@release("Qwen3 0.6B", "family", note="norms of heads, thinking in the template")
def qwen3(path):
    files, ids = qwen_files(templates.QWEN3, [*TOOLS, *THINKING])
    write(path, QWEN3 | ids, files)
    return Built(path=path)


@release("Qwen3 8B Base saved by transformers 5", "family")
def qwen3_base(path):
    files, ids = qwen_files(None, [*TOOLS, *THINKING], end="<|endoftext|>")
    config = (
        QWEN3
        | ids
        | {
            "dtype": "bfloat16",
            "layer_types": ["full_attention", "full_attention"],
            "pad_token_id": None,
            "rope_parameters": {"rope_theta": 1000000, "rope_type": "default"},
            "tie_word_embeddings": False,
            "transformers_version": "5.0.0",
        }
    )
    for key in ("rope_theta", "rope_scaling", "torch_dtype"):
        del config[key]
    files["chat_template.jinja"] = templates.QWEN3
    write(path, config, files)
    return Built(path=path)


@release("DeepSeek R1 Distill Qwen 1.5B", "family", note="LlamaTokenizerFast over Qwen's bytes")
def r1_qwen(path):
    names = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"]
    plain = [(text, {"special": False}) for text in ("<｜User｜>", "<｜Assistant｜>", *THINKING)]
    document = byte_level_json("qwen2", [*names, *plain], nfc=True, begin=names[0])
    said = {"__type": "AddedToken", "lstrip": False, "normalized": True, "rstrip": False}
    files, size = byte_files(
        document,
        template=templates.R1,
        add_bos_token=True,
        add_eos_token=False,
        bos_token=said | {"content": names[0], "single_word": False},
        eos_token=said | {"content": names[1], "single_word": False},
        clean_up_tokenization_spaces=False,
        legacy=True,
        model_max_length=16384,
        pad_token=said | {"content": names[1], "single_word": False},
        sp_model_kwargs={},
        unk_token=None,
        tokenizer_class="LlamaTokenizerFast",
    )
    del files["tokenizer_config.json"]["added_tokens_decoder"]
    del files["special_tokens_map.json"]
    config = QWEN2 | {
        "vocab_size": size + 16,
        "bos_token_id": id_of(document, names[0]),
        "eos_token_id": id_of(document, names[1]),
        "rope_theta": 10000,
        "sliding_window": 4096,
        "tie_word_embeddings": False,
        "use_mrope": False,
    }
    files["generation_config.json"] = {
        "_from_model_config": True,
        "bos_token_id": config["bos_token_id"],
        "eos_token_id": config["eos_token_id"],
        "do_sample": True,
        "temperature": 0.6,
        "top_p": 0.95,
    }
    write(path, config, files)
    return Built(path=path)
