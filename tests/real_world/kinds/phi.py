"""Phi-3 and Phi-4: matrices in one, and tokens that take the space behind them."""

from real_world import templates
from real_world.byte_level import byte_level_json, id_of
from real_world.pieces import piece_model
from real_world.release import BASE, Built, byte_files, piece_files, release, write

PHI3 = BASE | {
    "architectures": ["Phi3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "auto_map": {
        "AutoConfig": "configuration_phi3.Phi3Config",
        "AutoModelForCausalLM": "modeling_phi3.Phi3ForCausalLM",
    },
    "bos_token_id": 1,
    "embd_pdrop": 0.0,
    "max_position_embeddings": 4096,
    "model_type": "phi3",
    "num_key_value_heads": 4,
    "original_max_position_embeddings": 4096,
    "resid_pdrop": 0.0,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "sliding_window": 2047,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.40.2",
}


def phi3_files():
    """Llama 2's tokenizer and eleven tokens that take the space behind them."""
    names = ["<|endoftext|>", "<|assistant|>", "<|placeholder1|>", "<|placeholder2|>"]
    names += ["<|placeholder3|>", "<|placeholder4|>", "<|system|>", "<|end|>", "<|placeholder5|>"]
    names += ["<|placeholder6|>", "<|user|>"]
    more = [(name, {"rstrip": name not in ("<|endoftext|>",)}) for name in names]
    files, size = piece_files(
        piece_model(),
        template=templates.PHI3,
        more=more,
        add_bos_token=False,
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        padding_side="left",
        model_max_length=4096,
        document={"begin": False},
    )
    end = files["tokenizer.json"]["added_tokens"][3]["id"]
    files["added_tokens.json"] = {name: end + place for place, name in enumerate(names)}
    files["generation_config.json"] = {
        "_from_model_config": True,
        "bos_token_id": 1,
        "eos_token_id": [end, end + 1, end + 7],
        "pad_token_id": end,
    }
    return files, {"vocab_size": size + 20, "eos_token_id": end, "pad_token_id": end}


@release("Phi-3 mini 4k Instruct", "family", note="a window, auto_map that nobody runs")
def phi3(path):
    files, ids = phi3_files()
    write(path, PHI3 | ids, files)
    return Built(path=path)


@release("Phi-3 mini 128k Instruct", "family", note="longrope as su, short texts")
def phi3_long(path):
    files, ids = phi3_files()
    pairs = 8
    scaling = {
        "long_factor": [1.0 + 0.9 * place for place in range(pairs)],
        "short_factor": [1.0 + 0.05 * place for place in range(pairs)],
        "type": "longrope",
    }
    config = (
        PHI3
        | ids
        | {
            "max_position_embeddings": 131072,
            "rope_scaling": scaling,
            "sliding_window": 262144,
        }
    )
    write(path, config, files)
    return Built(path=path)


@release("Phi-4", "family", note="GPT2Tokenizer with Llama 3's pattern")
def phi4(path):
    names = [
        "<|endoftext|>",
        "<|fim_prefix|>",
        "<|dummy_0|>",
        "<|im_start|>",
        "<|im_end|>",
        "<|im_sep|>",
    ]
    more = [(name, {"rstrip": True, "lstrip": name.startswith("<|im")}) for name in names[1:]]
    document = byte_level_json("llama3", [names[0], *more])
    files, size = byte_files(
        document,
        template=templates.PHI4,
        add_prefix_space=False,
        bos_token="<|endoftext|>",
        eos_token="<|im_end|>",
        pad_token="<|dummy_0|>",
        unk_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
        padding_side="left",
        tokenizer_class="GPT2Tokenizer",
    )
    config = PHI3 | {
        "vocab_size": size + 10,
        "bos_token_id": id_of(document, "<|endoftext|>"),
        "eos_token_id": id_of(document, "<|im_end|>"),
        "pad_token_id": id_of(document, "<|dummy_0|>"),
        "max_position_embeddings": 16384,
        "num_key_value_heads": 1,
        "original_max_position_embeddings": 16384,
        "partial_rotary_factor": 1.0,
        "rope_theta": 250000,
        "sliding_window": None,
    }
    del config["auto_map"]
    write(path, config, files)
    return Built(path=path)
