"""Tokenizers in the forms of further releases, each under a LLaMA."""

import json
from dataclasses import replace

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from real_world import templates
from real_world.byte_level import byte_level_json, bytes_step, id_of, split
from real_world.kinds.llama2 import LLAMA2
from real_world.pieces import added, begins_with, piece_model
from real_world.release import Built, byte_files, piece_files, release, write
from real_world.texts import TEXTS, corpus

LLAMA = LLAMA2 | {"torch_dtype": "bfloat16", "rms_norm_eps": 1e-6}


def built(path, document, *, begin, end, chats=True, **config):
    """Write a LLaMA with a tokenizer.json."""
    template = templates.CHATML
    if not chats:
        template = None
    files, size = byte_files(document, template=template, bos_token=begin, eos_token=end, **config)
    ids = {"vocab_size": size, "eos_token_id": id_of(document, end)}
    ids["bos_token_id"] = None
    if begin:
        ids["bos_token_id"] = id_of(document, begin)
    write(path, LLAMA | ids, files)
    return Built(path=path, chats=chats)


CHAT = ["<|im_start|>", "<|im_end|>"]


@release("Falcon3 7B Instruct", "tokenizer", note="marks, bytes, digits in threes")
def falcon3(path):
    document = byte_level_json("gpt2", ["<|endoftext|>", *CHAT])
    document["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Punctuation", "behavior": "Contiguous"},
            bytes_step(True),
            {"type": "Digits", "individual_digits": False},
            split("[0-9][0-9][0-9]"),
        ],
    }
    return built(path, document, begin=None, end="<|im_end|>")


@release("llm-jp 3, one piece a likelihood", "tokenizer", note="Unigram with bytes")
def llm_jp(path):
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    special = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    special += [f"<0x{byte:02X}>" for byte in range(256)]
    tokenizer.train_from_iterator(
        corpus(),
        trainers.UnigramTrainer(
            vocab_size=600, show_progress=False, special_tokens=special, unk_token="<unk>"
        ),
    )
    document = json.loads(tokenizer.to_str())
    document["added_tokens"] = [added(place, text) for place, text in enumerate(special[:5])]
    document["model"]["byte_fallback"] = True
    document["decoder"] = {
        "type": "Sequence",
        "decoders": [
            {"type": "ByteFallback"},
            {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": False},
        ],
    }
    document["pre_tokenizer"] = {
        "type": "Metaspace",
        "replacement": "▁",
        "prepend_scheme": "always",
        "split": False,
    }
    document["post_processor"] = begins_with("<s>", 1)
    files, size = byte_files(
        document,
        template=templates.CHATML,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )
    write(path, LLAMA | {"vocab_size": size}, files)
    # tokenizers 0.23 gives up a whole run of bytes where one of them is no part of a character
    return Built(path=path, decoded={TEXTS[38]: "<s> A\ufffd bytes spelled"})


@release("a SentencePiece of likelihoods alone", "tokenizer", note="Unigram, nfkc, tokenizer.model")
def unigram_pieces(path):
    model = piece_model(
        model_type="unigram", normalization_rule_name="nmt_nfkc", remove_extra_whitespaces=True
    )
    files, size = piece_files(model, both=False, legacy=True)
    write(path, LLAMA | {"vocab_size": size}, files)
    return Built(path=path, chats=False)


@release("EuroLLM 1.7B", "tokenizer", note="merges, Metaspace always, chat tokens added")
def eurollm(path):
    files, size = piece_files(
        piece_model(), template=templates.CHATML, more=CHAT, eos_token="<|im_end|>", legacy=True
    )
    files["tokenizer.json"]["normalizer"] = None
    files["tokenizer.json"]["pre_tokenizer"] = {
        "type": "Metaspace",
        "replacement": "▁",
        "prepend_scheme": "always",
        "split": False,
    }
    del files["tokenizer.model"]
    write(path, LLAMA | {"vocab_size": size, "eos_token_id": size - 1}, files)
    return Built(path=path)


@release(
    "a GPT-NeoX tokenizer under a LLaMA", "tokenizer", note="runs of spaces added, not special"
)
def neox(path):
    spaces = [(" " * count, {"special": False, "normalized": True}) for count in range(8, 1, -1)]
    document = byte_level_json("gpt2", ["<|endoftext|>", "<|padding|>", *spaces], nfc=True)
    return built(
        path,
        document,
        begin="<|endoftext|>",
        end="<|endoftext|>",
        chats=False,
        tokenizer_class="GPTNeoXTokenizer",
        add_prefix_space=False,
    )


@release("a byte-level one that begins with a space", "tokenizer", note="add_prefix_space")
def prefix_space(path):
    document = byte_level_json("gpt2", ["<|endoftext|>", *CHAT])
    document["pre_tokenizer"] = bytes_step(True, prefix=True)
    return built(path, document, begin=None, end="<|im_end|>", add_prefix_space=True)


@release("added tokens that take spaces and stand alone", "tokenizer")
def odd_tokens(path):
    odd = [
        ("<left>", {"lstrip": True}),
        ("<right>", {"rstrip": True, "special": False}),
        ("Hello", {"single_word": True, "special": False, "normalized": True}),
        ("water", {"special": False, "normalized": True}),
        ("naïve", {"special": False, "normalized": False}),
        (" way", {"special": False, "normalized": False}),
    ]
    document = byte_level_json("llama3", ["<|endoftext|>", *CHAT, *odd], nfc=True)
    made = built(path, document, begin=None, end="<|im_end|>")
    # the decoder of tokenizers 0.23 takes the letters of an added token for bytes
    return replace(made, decoded={TEXTS[15]: TEXTS[15]})


@release("lower case and accents away", "tokenizer", note="normalizers in a row")
def lower(path):
    document = byte_level_json("llama3", ["<|endoftext|>", *CHAT])
    document["normalizer"] = {
        "type": "Sequence",
        "normalizers": [
            {"type": "NFD"},
            {"type": "StripAccents"},
            {"type": "Lowercase"},
            {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
            {"type": "Strip", "strip_left": False, "strip_right": True},
        ],
    }
    return built(path, document, begin=None, end="<|im_end|>")


@release(
    "a tune with a token of each language's end", "tokenizer", note="a text past the BMP added"
)
def emoji_tokens(path):
    odd = [("🙂", {"special": False}), ("你好", {"special": False}), ("<|端|>", {})]
    document = byte_level_json("qwen2", ["<|endoftext|>", *CHAT, *odd], nfc=True)
    return built(path, document, begin=None, end="<|im_end|>", tokenizer_class="Qwen2Tokenizer")
