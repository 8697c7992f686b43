"""Mistral and those who stand on it."""

from functools import partial

from real_world import templates
from real_world.byte_level import byte_level_json
from real_world.pieces import piece_model
from real_world.release import BASE, Built, byte_files, piece_files, release, write
from real_world.weights import save_safetensors

MISTRAL = BASE | {
    "architectures": ["MistralForCausalLM"],
    "bos_token_id": 1,
    "eos_token_id": 2,
    "max_position_embeddings": 32768,
    "model_type": "mistral",
    "rope_theta": 10000.0,
    "sliding_window": 4096,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.34.0.dev0",
}
OLD = {"legacy": True, "additional_special_tokens": [], "spaces_between_special_tokens": False}


@release("Mistral 7B v0.1", "family", note="a window, legacy tokenizer")
def mistral01(path):
    files, size = piece_files(piece_model(), **OLD)
    write(path, MISTRAL | {"vocab_size": size}, files, save=partial(save_safetensors, shards=2))
    return Built(path=path, chats=False)


@release("Mistral 7B Instruct v0.2", "family", note="sliding_window null, theta 1e6")
def mistral02(path):
    files, size = piece_files(piece_model(), template=templates.MISTRAL, **OLD)
    config = MISTRAL | {"vocab_size": size, "rope_theta": 1000000.0, "sliding_window": None}
    files["generation_config.json"] = {
        "_from_model_config": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    write(path, config, files)
    return Built(path=path)


@release("Mistral 7B Instruct v0.3", "family", note="tokenizer v3: controls in the vocabulary")
def mistral03(path):
    names = ["[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"]
    names += [f"[control_{number}]" for number in range(8, 20)]
    files, size = piece_files(
        piece_model(controls=tuple(names), size=720),
        template=templates.MISTRAL3,
        document={"form": "first"},
        **OLD | {"legacy": False, "add_prefix_space": True},
    )
    config = MISTRAL | {"vocab_size": size, "rope_theta": 1000000.0, "sliding_window": None}
    write(path, config, files)
    return Built(path=path)


TEKKEN = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[TOOL_CALLS]"]
TEKKEN += ["<pad>", "[PREFIX]", "[MIDDLE]", "[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"]
TEKKEN += [f"<SPECIAL_{number}>" for number in range(len(TEKKEN), 40)]


@release("Mistral Nemo Instruct 2407", "family", note="heads wider than hidden / heads, tekken")
def nemo(path):
    document = byte_level_json("tekken", TEKKEN, first=True, begin="<s>", ignore_merges=True)
    files, size = byte_files(
        document,
        template=templates.MISTRAL3,
        add_bos_token=True,
        add_eos_token=False,
        add_prefix_space=False,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
        model_max_length=1000000000000000019884624838656,
        tokenizer_class="GPT2Tokenizer",
    )
    config = MISTRAL | {
        "vocab_size": size,
        "head_dim": 24,
        "max_position_embeddings": 131072,
        "rope_theta": 1000000.0,
        "sliding_window": None,
    }
    write(path, config, files)
    return Built(path=path)


@release("Zephyr 7B beta", "family")
def zephyr(path):
    files, size = piece_files(
        piece_model(),
        template=templates.ZEPHYR,
        **OLD | {"additional_special_tokens": ["<unk>", "<s>", "</s>"]},
        pad_token="</s>",
        truncation_side="left",
        model_max_length=2048,
    )
    config = MISTRAL | {"vocab_size": size, "pad_token_id": 2, "use_cache": True}
    write(path, config, files)
    return Built(path=path)


@release("OpenChat 3.5", "family", note="a token more for the end of a turn")
def openchat(path):
    files, size = piece_files(
        piece_model(),
        template=templates.OPENCHAT,
        more=("<|end_of_turn|>", "<|pad_0|>"),
        **OLD,
        eos_token="<|end_of_turn|>",
    )
    config = MISTRAL | {"vocab_size": size, "sliding_window": 4096, "eos_token_id": size - 2}
    write(path, config, files)
    return Built(path=path)


@release("Hermes 2 Pro Mistral 7B", "family", note="ChatML added to Mistral's, rows to spare")
def hermes2(path):
    files, size = piece_files(
        piece_model(),
        template=templates.CHATML,
        more=("<|im_end|>", "<|im_start|>"),
        eos_token="<|im_end|>",
        trust_remote_code=False,
        tokenizer_class="LlamaTokenizer",
        **OLD,
    )
    config = MISTRAL | {"vocab_size": size + 30, "eos_token_id": size - 2}
    write(path, config, files)
    return Built(path=path)
