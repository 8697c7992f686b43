"""The tokenizer beside Meta's weights: SentencePiece, or Llama 3's table of ranks, which becomes a tokenizer.json."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgellm.converters.tokenizers.byte_level import byte_level_document
from edgellm.errors import FormatError, ReadError
from edgellm.files.strict_json import quoted, require_regular_file
from edgellm.tokenizer.spm import TIKTOKEN

TOKENIZER = "tokenizer.model"
MAX_FILE_BYTES = 16 << 20
MAX_RANKS = 1 << 19
MAX_TOKEN_BYTES = 256
"""Llama 3's longest token has 128 bytes."""

PATTERN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
"""How Llama 3 cuts a text before its parts are merged; as in Meta's tokenizer.py."""

SPECIAL_TOKENS = 256
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)
"""The form that Llama 3's special tokens are for; the folder does not say whether the model was taught it."""


def tokenizer_files(path: Path, *, scaled: bool) -> tuple[dict[str, Path | bytes], dict[str, Any]]:
    """The tokenizer's files as a model folder has them, and the config's bos_token_id and eos_token_id.

    Args:
        path: Meta's ``tokenizer.model``.
        scaled: whether the model is Llama 3.1 or later, which give more of the special tokens a
            meaning.

    Raises:
        FormatError: the table of ranks is damaged.
        ReadError: the file cannot be read.
    """
    if not _is_ranks(path):
        config = {
            "tokenizer_class": "LlamaTokenizer",
            "add_bos_token": True,
            "add_eos_token": False,
            "legacy": False,
        }
        files: dict[str, Path | bytes] = {TOKENIZER: path, "tokenizer_config.json": _json(config)}
        return files, {"bos_token_id": 1, "eos_token_id": 2}
    ranks = read_ranks(path)
    special = special_tokens(scaled=scaled)
    ids = {token: len(ranks) + at for at, token in enumerate(special)}
    ends = ["<|end_of_text|>", *(["<|eom_id|>"] if scaled else []), "<|eot_id|>"]
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": special[0],
        "eos_token": special[1],
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    document = json.dumps(tokenizer_document(ranks, special), ensure_ascii=False).encode()
    files = {"tokenizer.json": document, "tokenizer_config.json": _json(config)}
    return files, {"bos_token_id": ids[special[0]], "eos_token_id": [ids[token] for token in ends]}


def read_ranks(path: Path) -> list[bytes]:
    """The tokens of a table of ranks, in their order.

    Raises:
        FormatError: a line is damaged, a rank or a token comes twice or is missing.
        ReadError: the file cannot be read.
    """
    if require_regular_file(path) > MAX_FILE_BYTES:
        raise FormatError(f"{path} is larger than {MAX_FILE_BYTES} bytes")
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ReadError(f"{path} cannot be read: {error.strerror}") from error
    lines = [line for line in lines if line]
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
    if len(set(tokens)) < len(tokens) or not {bytes([byte]) for byte in range(256)} <= set(tokens):
        raise FormatError(
            f"{path} is damaged: a token comes twice, or one of the 256 bytes is missing"
        )
    return tokens


def special_tokens(*, scaled: bool) -> list[str]:
    """Llama 3's 256 special tokens in the order of their ids, which follow the ranks."""
    if scaled:
        named = "begin_of_text end_of_text reserved_special_token_0 reserved_special_token_1 finetune_right_pad_id "
        named += "reserved_special_token_2 start_header_id end_header_id eom_id eot_id python_tag"
        reserved = 3
    else:
        named = "begin_of_text end_of_text reserved_special_token_0 reserved_special_token_1 reserved_special_token_2 "
        named += (
            "reserved_special_token_3 start_header_id end_header_id reserved_special_token_4 eot_id"
        )
        reserved = 5
    names = named.split()
    names += [
        f"reserved_special_token_{reserved + at}" for at in range(SPECIAL_TOKENS - len(names))
    ]
    return [f"<|{name}|>" for name in names]


def tokenizer_document(ranks: Sequence[bytes], special: Sequence[str]) -> dict[str, Any]:
    """A tokenizer.json that encodes as the ranks do: each token may be made of any two others that spell it."""
    rank_of = {token: rank for rank, token in enumerate(ranks)}
    letters = _letters()
    spelled = [token.decode("latin-1").translate(letters) for token in ranks]
    merges: list[list[str]] = []
    for token in ranks:
        halves = [
            (rank_of[token[:at]], rank_of[token[at:]])
            for at in range(1, len(token))
            if token[:at] in rank_of and token[at:] in rank_of
        ]
        merges += [[spelled[left], spelled[right]] for left, right in sorted(halves)]
    begin = {"id": special[0], "ids": [len(ranks)], "tokens": [special[0]]}
    return byte_level_document(
        spelled,
        merges,
        added=[(len(ranks) + at, token, True) for at, token in enumerate(special)],
        splitting={
            "type": "Sequence",
            "pretokenizers": [
                {
                    "type": "Split",
                    "pattern": {"Regex": PATTERN},
                    "behavior": "Isolated",
                    "invert": False,
                },
                {
                    "type": "ByteLevel",
                    "add_prefix_space": False,
                    "trim_offsets": True,
                    "use_regex": False,
                },
            ],
        },
        frame={
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": special[0], "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
            ],
            "pair": [
                {"Sequence": {"id": "A", "type_id": 0}},
                {"Sequence": {"id": "B", "type_id": 1}},
            ],
            "special_tokens": {special[0]: begin},
        },
        whole_words=True,
    )


def _letters() -> dict[int, int]:
    """The printable letter that stands for each byte in a byte-level vocabulary, as GPT-2 chose them."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {byte: byte for byte in printable} | {byte: 256 + at for at, byte in enumerate(others)}


def _is_ranks(path: Path) -> bool:
    require_regular_file(path)
    try:
        with path.open("rb") as file:
            return TIKTOKEN.match(file.read(4096)) is not None
    except OSError as error:
        raise ReadError(f"{path} cannot be read: {error.strerror}") from error


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()
