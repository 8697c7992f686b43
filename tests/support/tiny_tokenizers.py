"""Tiny tokenizers of every form that edgellm reads, trained on the spot."""

import functools
import io
import json

import sentencepiece
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

TEXTS = [
    "Once upon a time there was a little dog who lived in a house by the sea.",
    "The little girl said: you're my friend, let us go and play in the 12 old gardens!",
    "They went to the park, and they played in the sun all day long, all 365 of them.",
    "Der kleine Hund fand einen roten Ball unter dem Baum, und er war sehr glücklich.",
    "Les enfants étaient fatigués, alors ils sont rentrés à la maison et ont dormi.",
    "def add(first, second):\n    return first + second\n",
] * 20

JSON_KINDS = ("byte-level", "metaspace", "unigram")
CHAT = ["<|user|>", "<|assistant|>", "<|end|>"]
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
LLAMA = {
    "tokenizer_class": "LlamaTokenizer",
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "add_bos_token": True,
    "add_eos_token": False,
    "legacy": False,
    "clean_up_tokenization_spaces": False,
    "chat_template": TEMPLATE,
}
SPLIT = (
    r"(?i:'s|'t|'re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@functools.cache
def piece_model(**options):
    """The bytes of a SentencePiece model; by default trained as LLaMA's was."""
    out = io.BytesIO()
    options = {
        "model_type": "bpe",
        "vocab_size": 420,
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "split_digits": True,
        "allow_whitespace_only_pieces": True,
        "user_defined_symbols": ",".join(CHAT),
        "hard_vocab_limit": False,
        "minloglevel": 2,
        "num_threads": 1,
    } | options
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_writer=out, **options
    )
    return out.getvalue()


def write_pieces(folder, config=LLAMA, **options):
    """A folder with a tokenizer.model."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.model").write_bytes(piece_model(**options))
    return write_config(folder, config)


def write_config(folder, config, name="tokenizer_config.json"):
    """A JSON file beside a vocabulary."""
    folder.mkdir(parents=True, exist_ok=True)
    if config is not None:
        (folder / name).write_text(json.dumps(config), encoding="utf-8")
    return folder


@functools.cache
def json_text(kind):
    """A tokenizer.json: byte-level as Llama 3's, metaspace as Llama 2's, or unigram."""
    return {"byte-level": _byte_level, "metaspace": _metaspace, "unigram": _unigram}[
        kind
    ]().to_str()


def write_json(folder, kind, **config):
    """A folder with a tokenizer.json and its tokenizer_config.json."""
    document = json.loads(json_text(kind))
    added = {token.pop("id"): token for token in document["added_tokens"]}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json_text(kind), encoding="utf-8")
    names = ("<|begin|>", "<|end|>") if kind == "byte-level" else ("<s>", "</s>")
    return write_config(
        folder,
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": names[0],
            "eos_token": names[1],
            "clean_up_tokenization_spaces": False,
            "added_tokens_decoder": added,
            **config,
        },
    )


def edited(kind, *changes):
    """Return a tokenizer.json with changes: pairs of a path, "model/vocab/a", and a value."""
    document = json.loads(json_text(kind))
    for path, value in changes:
        *parents, last = path.split("/")
        part = document
        for parent in parents:
            part = part[int(parent) if isinstance(part, list) else parent]
        part[int(last) if isinstance(part, list) else last] = value
    return json.dumps(document)


def _byte_level():
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(SPLIT), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(
            vocab_size=400, initial_alphabet=alphabet, show_progress=False, special_tokens=[]
        ),
    )
    tokenizer.add_special_tokens(["<|begin|>", "<|end|>", "<|user|>", "<|assistant|>"])
    begin = processors.TemplateProcessing(
        single="<|begin|> $A",
        pair="<|begin|> $A <|begin|> $B",
        special_tokens=[("<|begin|>", tokenizer.token_to_id("<|begin|>"))],
    )
    tokenizer.post_processor = processors.Sequence(
        [processors.ByteLevel(trim_offsets=False), begin]
    )
    return tokenizer


def _metaspace():
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=500, show_progress=False, special_tokens=special)
    )
    document = json.loads(tokenizer.to_str())
    # bytes are plain tokens, as in Llama 2's
    document["added_tokens"] = document["added_tokens"][:3]
    tokenizer = Tokenizer.from_str(json.dumps(document))
    tokenizer.add_tokens([AddedToken("word", normalized=True, single_word=True)])
    tokenizer.add_tokens([AddedToken("<|strip|>", normalized=False, lstrip=True, rstrip=True)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return tokenizer


def _unigram():
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.train_from_iterator(
        TEXTS,
        trainers.UnigramTrainer(
            vocab_size=300,
            show_progress=False,
            special_tokens=["<unk>", "<s>", "</s>"],
            unk_token="<unk>",
        ),
    )
    return tokenizer
