"""A tokenizer of bytes, for models that nothing but their shape is known of."""

from __future__ import annotations

import json
from pathlib import Path

from edgellm.tokenizer.detokenizer import BYTE_OF

BEGIN, END = "<|begin|>", "<|end|>"
BYTES = 256
"""Ids below it are bytes; the special tokens come next, then what pads the vocabulary."""

TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<' + message['role'] + '>\n' + message['content'] + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>\n' }}{% endif %}"
)


def tokenizer_files(vocabulary: int, context: int) -> dict[str, Path | bytes]:
    """Make a tokenizer of bytes, padded with tokens that no text contains, and a chat template."""
    vocab = dict(sorted(BYTE_OF.items(), key=lambda item: item[1]))
    specials = {BEGIN: BYTES, END: BYTES + 1}
    vocab |= specials
    vocab |= {f"Ġ<{number}>": number for number in range(len(vocab), vocabulary)}
    switches = ("single_word", "lstrip", "rstrip", "normalized")
    plain = {"special": True} | dict.fromkeys(switches, False)
    by_bytes = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": False,
    }
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": number, "content": token} | plain for token, number in specials.items()
        ],
        "normalizer": None,
        "pre_tokenizer": by_bytes,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": BEGIN, "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
            ],
            "pair": [
                {"Sequence": {"id": "A", "type_id": 0}},
                {"Sequence": {"id": "B", "type_id": 1}},
            ],
            "special_tokens": {BEGIN: {"id": BEGIN, "ids": [BYTES], "tokens": [BEGIN]}},
        },
        "decoder": by_bytes,
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
    }
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BEGIN,
        "eos_token": END,
        "clean_up_tokenization_spaces": False,
        "model_max_length": context,
        "chat_template": TEMPLATE,
    }
    return {
        "tokenizer.json": json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":")).encode(),
        "tokenizer_config.json": json.dumps(settings, indent=2).encode(),
    }
