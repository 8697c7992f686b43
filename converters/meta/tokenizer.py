"""The tokenizer beside Meta's weights as a model folder has it.

It is SentencePiece's, or Llama 3's table of ranks, which becomes a tokenizer.json.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgellm.converters.tokenizers.pretokenizers import pre_tokenizer_json
from edgellm.converters.tokenizers.ranks import (
    MAX_RANKS,
    MAX_TOKEN_BYTES,
    complete_ranks,
    ranked_document,
)
from edgellm.errors import FormatError, ReadError
from edgellm.files.bounded import read_bounded, require_regular_file
from edgellm.files.strict_json import quoted
from edgellm.tokenizer.spm import TIKTOKEN

TOKENIZER = "tokenizer.model"
MAX_FILE_BYTES = 16 << 20
SPECIAL_TOKENS = 256
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'"
    " + message['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)
"""The form that Llama 3's special tokens are for; whether the model was taught it, nobody says."""

SENTENCEPIECE_CONFIG = {
    "tokenizer_class": "LlamaTokenizer",
    "add_bos_token": True,
    "add_eos_token": False,
    "legacy": False,
}


def tokenizer_files(path: Path, *, scaled: bool) -> tuple[dict[str, Path | bytes], dict[str, Any]]:
    """Return the tokenizer's files in a model folder, and the config's bos and eos token ids.

    Args:
        path: Meta's ``tokenizer.model``.
        scaled: whether the model is Llama 3.1 or later, which give more of the special tokens a
            meaning.

    Raises:
        FormatError: the table of ranks is damaged.
        ReadError: the file cannot be read.
    """
    if not _is_ranks(path):
        content = _json(SENTENCEPIECE_CONFIG)
        return (
            {TOKENIZER: path, "tokenizer_config.json": content},
            {"bos_token_id": 1, "eos_token_id": 2},
        )
    ranks = read_ranks(path)
    special = special_tokens(scaled=scaled)
    begin, end, *_ = special
    ends = [end, "<|eot_id|>"]
    if scaled:
        ends.insert(1, "<|eom_id|>")
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": begin,
        "eos_token": end,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    document = ranked_document(
        ranks,
        added=[(len(ranks) + number, token, True) for number, token in enumerate(special)],
        splitting=pre_tokenizer_json("llama-bpe"),
        begin=special.index(begin),
    )
    written = json.dumps(document, ensure_ascii=False).encode()
    token_ids = {
        "bos_token_id": len(ranks) + special.index(begin),
        "eos_token_id": [len(ranks) + special.index(token) for token in ends],
    }
    return {"tokenizer.json": written, "tokenizer_config.json": _json(config)}, token_ids


def read_ranks(path: Path) -> list[bytes]:
    """Read the tokens of a table of ranks: a line each of base64 and the rank, in their order.

    Raises:
        FormatError: a line is damaged, a rank or a token occurs twice or is missing.
        ReadError: the file cannot be read.
    """
    lines = [line for line in read_bounded(path, MAX_FILE_BYTES).splitlines() if line]
    if len(lines) > MAX_RANKS:
        raise FormatError(f"{path} has {len(lines)} ranks; at most {MAX_RANKS} are read")
    tokens: list[bytes] = []
    for line in lines:
        text, _, rank = line.partition(b" ")
        try:
            token = base64.b64decode(text, validate=True)
        except binascii.Error:
            token = b""
        if not 0 < len(token) <= MAX_TOKEN_BYTES or rank != str(len(tokens)).encode():
            raise FormatError(
                f"{path} is damaged: rank {len(tokens)} is {quoted(line[:80])}",
                hint="download it again",
            )
        tokens.append(token)
    return complete_ranks(tokens, path)


def special_tokens(*, scaled: bool) -> list[str]:
    """Return Llama 3's 256 special tokens in the order of their ids, which follow the ranks."""
    names = ["begin_of_text", "end_of_text"]
    if scaled:
        names += ["reserved_special_token_0", "reserved_special_token_1", "finetune_right_pad_id"]
        names += ["reserved_special_token_2", "start_header_id", "end_header_id"]
        names += ["eom_id", "eot_id", "python_tag"]
        reserved = 3
    else:
        names += [f"reserved_special_token_{number}" for number in range(4)]
        names += ["start_header_id", "end_header_id", "reserved_special_token_4", "eot_id"]
        reserved = 5
    missing = SPECIAL_TOKENS - len(names)
    names += [f"reserved_special_token_{reserved + number}" for number in range(missing)]
    return [f"<|{name}|>" for name in names]


def _is_ranks(path: Path) -> bool:
    require_regular_file(path)
    try:
        with path.open("rb") as file:
            return TIKTOKEN.match(file.read(4096)) is not None
    except OSError as error:
        raise ReadError(f"{path} cannot be read: {error.strerror}") from error


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()
