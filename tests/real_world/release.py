"""A rebuilt release: its name, how it is written, what it is held against."""

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from real_world.byte_level import size_of
from real_world.peers import Peers
from real_world.pieces import added, dump, piece_json, pieces
from real_world.weights import random_weights, save_safetensors

BASE = {
    "hidden_size": 64,
    "intermediate_size": 112,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "rms_norm_eps": 1e-05,
    "use_cache": True,
}
"""What all configs have, in the sizes of a toy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What a release has become on disk.

    Attributes:
        path: what we open or convert.
        theirs: what the oracle opens, where that is another form of the same model.
        runs: whether it opens as it is; else it is converted first.
        converts: whether it can be converted; else it is opened as it is alone.
        settings: of the conversion, beside 16 bits in float32.
        loads: settings of opening it.
        chats: whether it has a chat template.
        within: how far float32 logits may be from the oracle's.
        as_it_is: how far those of the stored type may be, of the logits' spread.
        adapter: a folder with an adapter for the oracle.
        keeps_codes: whether ``path`` is quantized and ``theirs`` the same in float32, beside which
            what is usually made of it is held, too.
        unused: whether there are tensors that the model does not use.
        decoded: what ids of some texts are decoded to, where the oracle loses characters.
        document: a tokenizer.json that says what ids a text has, where the oracle gives others.
    """

    path: Path
    theirs: Path | None = None
    runs: bool = True
    converts: bool = True
    settings: dict = field(default_factory=dict)
    loads: dict = field(default_factory=dict)
    chats: bool = True
    within: float = 2e-4
    as_it_is: float = 0.03
    adapter: Path | None = None
    keeps_codes: bool = False
    unused: bool = False
    decoded: dict = field(default_factory=dict)
    document: dict | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """One row of the table.

    Attributes:
        name: of the release, as its makers call it.
        kind: what of it is rebuilt: a family, a tokenizer, a quantizer, a form of files.
        oracle: what it is held against, one of ``oracles.ORACLES``.
        build: writes it to a folder.
        note: what the table says of it.
    """

    name: str
    kind: str
    oracle: str
    build: Callable[[Path, Peers], Built]
    note: str = ""


RELEASES: dict[str, Release] = {}


def release(name, kind, *, oracle="transformers", note="", by_peers=False):
    """Add a function that builds a release to the table; with ``by_peers`` it gets these, too."""

    def add(build):
        if name in RELEASES:
            raise ValueError(f"{name} is there twice")

        def made(path, peers):
            return build(path, peers) if by_peers else build(path)

        RELEASES[name] = Release(name=name, kind=kind, oracle=oracle, build=made, note=note)
        return build

    return add


def write(
    path,
    config,
    files,
    *,
    dtype="bfloat16",
    save=save_safetensors,
    weights=None,
    extra=None,
    seed=0,
):
    """Write a folder in Hugging Face's form and return its path.

    Args:
        path: the folder.
        config: its config.json; ``vocab_size`` has to be there.
        files: further files by name: JSON, text or bytes.
        dtype: of the stored weights.
        save: what writes them.
        weights: the tensors; None: random ones of the config.
        extra: further tensors.
        seed: of the weights.
    """
    path.mkdir(parents=True, exist_ok=True)
    dump(path / "config.json", config)
    for name, content in files.items():
        (path / name).parent.mkdir(exist_ok=True)
        if isinstance(content, bytes):
            (path / name).write_bytes(content)
        elif isinstance(content, str):
            (path / name).write_text(content, encoding="utf-8")
        else:
            dump(path / name, content)
    if weights is None:
        weights = random_weights(config, seed)
    save(path, weights | (extra or {}), dtype=dtype)
    return path


def described(tokens):
    """The ``added_tokens_decoder`` of a tokenizer_config.json."""
    return {str(one["id"]): {k: v for k, v in one.items() if k != "id"} for one in tokens}


def as_token(text, **fields):
    """A token with its fields, as older tokenizer_config.json files have it."""
    plain = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    return {"content": text, **plain, **fields}


PIECE_TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
MAX_LENGTH = 1000000000000000019884624838656
"""What transformers writes for a length that nobody set."""


def piece_files(model, *, template=None, more=(), both=True, document=None, **config):
    """The files of a SentencePiece tokenizer.

    Args:
        model: the SentencePiece model.
        template: of chats.
        more: added tokens: texts, or a text and fields.
        both: whether there is a tokenizer.json beside the tokenizer.model.
        document: keywords of ``piece_json``.
        config: what tokenizer_config.json says beside the usual.

    Returns:
        The files, and how many ids there are.
    """
    size = len(pieces(model))
    named = [one if isinstance(one, tuple) else (one, {}) for one in more]
    tokens = [added(size + place, text, **fields) for place, (text, fields) in enumerate(named)]
    first = [added(place, text) for place, text in enumerate(("<unk>", "<s>", "</s>"))]
    said = {
        "add_bos_token": True,
        "add_eos_token": False,
        "added_tokens_decoder": described([*first, *tokens]),
        "clean_up_tokenization_spaces": False,
        "legacy": False,
        "model_max_length": MAX_LENGTH,
        "pad_token": None,
        "sp_model_kwargs": {},
        "tokenizer_class": "LlamaTokenizer",
        "use_default_system_prompt": False,
        **PIECE_TOKENS,
        **config,
    }
    if template is not None:
        said["chat_template"] = template
    files = {
        "tokenizer.model": model,
        "tokenizer_config.json": said,
        "special_tokens_map.json": {
            role: as_token(said[role]) for role in PIECE_TOKENS if isinstance(said[role], str)
        },
    }
    if both:
        files["tokenizer.json"] = piece_json(model, more=tokens, **(document or {}))
    elif tokens:
        files["added_tokens.json"] = {one["content"]: one["id"] for one in tokens}
    return files, size + len(tokens)


def byte_files(document, *, template=None, **config):
    """The files of a byte-level tokenizer, and how many ids there are."""
    said = {
        "added_tokens_decoder": described(document["added_tokens"]),
        "clean_up_tokenization_spaces": True,
        "model_max_length": 131072,
        "tokenizer_class": "PreTrainedTokenizerFast",
        **config,
    }
    if template is not None:
        said["chat_template"] = template
    roles = ("bos_token", "eos_token", "pad_token", "unk_token")
    return {
        "tokenizer.json": document,
        "tokenizer_config.json": said,
        "special_tokens_map.json": {role: said[role] for role in roles if said.get(role)},
    }, size_of(document)


def vocabulary_files(document):
    """The vocab.json and merges.txt that a byte-level tokenizer.json was made from."""
    merges = [" ".join(pair) for pair in document["model"]["merges"]]
    return {
        "vocab.json": json.dumps(document["model"]["vocab"], ensure_ascii=False),
        "merges.txt": "\n".join(["#version: 0.2", *merges, ""]),
    }


kept = functools.cache
"""For what several releases share."""
