"""Byte-level BPE tokenizers with the patterns of real ones."""

import functools
import json

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from real_world.pieces import added, begins_with
from real_world.texts import corpus

CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|" + REST
QWEN2 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|" + REST
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SEED = (
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
    + REST
)
CJK = r"[一-龥ࠀ-一가-퟿]+"
DEEPSEEK = [r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", CJK]


def split(pattern):
    return {
        "type": "Split",
        "pattern": {"Regex": pattern},
        "behavior": "Isolated",
        "invert": False,
    }


def bytes_step(use_regex, prefix=False):
    return {
        "type": "ByteLevel",
        "add_prefix_space": prefix,
        "trim_offsets": True,
        "use_regex": use_regex,
    }


DIGITS = {"type": "Digits", "individual_digits": True}
FORMS = {
    "llama3": [split(LLAMA3), bytes_step(False)],
    "qwen2": [split(QWEN2), bytes_step(False)],
    "tekken": [split(TEKKEN), bytes_step(False)],
    "seed": [split(SEED), bytes_step(False)],
    "gpt2": [bytes_step(True)],
    "smollm": [DIGITS, bytes_step(True)],
    "deepseek": [*map(split, DEEPSEEK), DIGITS, bytes_step(False)],
}
"""Steps before merging, by whose they are."""


@functools.cache
def trained(form, size=640, nfc=False):
    """Vocabulary and merges trained with a form's steps."""
    tokenizer = Tokenizer(models.BPE())
    if nfc:
        tokenizer.normalizer = normalizers.NFC()
    steps = []
    for step in FORMS[form]:
        if step["type"] == "Split":
            steps.append(pre_tokenizers.Split(Regex(step["pattern"]["Regex"]), "isolated"))
        elif step["type"] == "Digits":
            steps.append(pre_tokenizers.Digits(individual_digits=True))
        else:
            steps.append(
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=step["use_regex"])
            )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        special_tokens=[],
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    return json.loads(tokenizer.to_str())["model"]


def byte_level_json(
    form, specials, *, first=False, begin=None, nfc=False, ignore_merges=False, old_merges=False
):
    """A byte-level tokenizer.json.

    Args:
        form: one of ``FORMS``.
        specials: added tokens: texts, or a text and fields of its own.
        first: whether the added tokens have the first ids, and not the last.
        begin: the added token that begins a text.
        nfc: whether texts are composed first.
        ignore_merges: whether a word that is a token is taken whole.
        old_merges: whether a merge is one text, as before tokenizers 0.20.
    """
    model = trained(form, nfc=nfc)
    vocab = dict(model["vocab"])
    start = len(vocab)
    named = [one if isinstance(one, tuple) else (one, {}) for one in specials]
    if first:
        vocab = {piece: place + len(named) for piece, place in vocab.items()}
        vocab = {text: place for place, (text, _) in enumerate(named)} | vocab
        start = 0
    listed = [added(start + place, text, **fields) for place, (text, fields) in enumerate(named)]
    merges = model["merges"]
    if old_merges:
        merges = [" ".join(pair) for pair in merges]
    post = bytes_step(True) | {"trim_offsets": False}
    if begin:
        token_id = next(token["id"] for token in listed if token["content"] == begin)
        post = {"type": "Sequence", "processors": [post, begins_with(begin, token_id)]}
    steps = FORMS[form]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": listed,
        "normalizer": {"type": "NFC"} if nfc else None,
        "pre_tokenizer": (
            steps[0] if len(steps) == 1 else {"type": "Sequence", "pretokenizers": steps}
        ),
        "post_processor": post,
        "decoder": bytes_step(True),
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": ignore_merges,
            "vocab": vocab,
            "merges": merges,
        },
    }


def id_of(document, text):
    """The id of an added token."""
    return next(token["id"] for token in document["added_tokens"] if token["content"] == text)


def size_of(document):
    """Ids in all."""
    last = max((token["id"] for token in document["added_tokens"]), default=0)
    vocabulary = document["model"]["vocab"]
    if isinstance(vocabulary, list):  # a Unigram's pairs
        return max(last + 1, len(vocabulary))
    return max(last, *vocabulary.values()) + 1
