"""SentencePiece tokenizers as LLaMA, Mistral and Yi carry them, and the tokenizer.json made of one."""

import functools
import io
import json

import sentencepiece

from real_world.texts import corpus

SIZE = 700


@functools.cache
def piece_model(size=SIZE, symbols=(), controls=(), **options):
    """The bytes of a SentencePiece model, BPE with all 256 bytes, as LLaMA's was trained."""
    out = io.BytesIO()
    settings = {
        "model_type": "bpe",
        "vocab_size": size,
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "split_digits": True,
        "allow_whitespace_only_pieces": True,
        "max_sentencepiece_length": 16,
        "user_defined_symbols": list(symbols),
        "control_symbols": list(controls),
        "hard_vocab_limit": False,
        "minloglevel": 2,
        "num_threads": 1,
    } | options
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus()), model_writer=out, **settings
    )
    return out.getvalue()


@functools.cache
def pieces(model):
    """The pieces of a model, their scores and whether each is a control."""
    processor = sentencepiece.SentencePieceProcessor()
    processor.LoadFromSerializedProto(model)
    ids = range(processor.vocab_size())
    return [
        (processor.id_to_piece(i), processor.get_score(i), processor.is_control(i)) for i in ids
    ]


@functools.cache
def merges_of(model):
    """The merges that rebuild a model's pieces: every split into two pieces, the best piece first."""
    listed = pieces(model)
    ids = {piece: place for place, (piece, _, _) in enumerate(listed)}
    found = []
    for piece, score, control in listed:
        if control or len(piece) < 2 or piece.startswith("<0x"):
            continue
        splits = [(piece[:at], piece[at:]) for at in range(1, len(piece))]
        splits = [pair for pair in splits if pair[0] in ids and pair[1] in ids]
        splits.sort(key=lambda pair: (ids[pair[0]], ids[pair[1]]))
        found += [(score, pair) for pair in splits]
    found.sort(key=lambda one: -one[0])  # which leaves equal ones in the order of the pieces
    return [list(pair) for _, pair in found]


def added(token_id, text, **fields):
    """An added token as a tokenizer.json lists it; special, unless its fields say otherwise."""
    return {
        "id": token_id,
        "content": text,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
        **fields,
    }


def begins_with(begin, token_id, *, end=None, end_id=None):
    """The step that puts a beginning before a text, and an end behind it."""
    single = [
        {"SpecialToken": {"id": begin, "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
    ]
    pair = [
        *single,
        {"SpecialToken": {"id": begin, "type_id": 1}},
        {"Sequence": {"id": "B", "type_id": 1}},
    ]
    named = {begin: {"id": begin, "ids": [token_id], "tokens": [begin]}}
    if end:
        single.append({"SpecialToken": {"id": end, "type_id": 0}})
        named[end] = {"id": end, "ids": [end_id], "tokens": [end]}
    return {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": named}


PREPEND = {
    "type": "Sequence",
    "normalizers": [
        {"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    ],
}
"""How ``legacy`` conversions put the first space."""

REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
FIRST = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
"""How newer ones do."""


def piece_json(model, *, form="prepend", more=(), begin=True, strip=True, ignore_merges=False):
    """The tokenizer.json of a SentencePiece model, with added tokens ``more``.

    Args:
        model: the SentencePiece model.
        form: ``prepend`` (a normalizer puts the first space), ``first`` (Metaspace does), or
            ``none`` (nothing does).
        more: added tokens beside <unk>, <s> and </s>.
        begin: whether a text begins with <s>.
        strip: whether decoding takes the first space away.
        ignore_merges: whether a word that is a token is taken whole.
    """
    listed = pieces(model)
    first = [added(place, listed[place][0]) for place in range(3)]
    controls = [
        added(place, piece)
        for place, (piece, _, control) in enumerate(listed)
        if control and place > 2
    ]
    steps = [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}]
    steps += [{"type": "ByteFallback"}, {"type": "Fuse"}]
    if strip:
        steps.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [*first, *controls, *more],
        "normalizer": {"prepend": PREPEND, "first": None, "none": REPLACE}[form],
        "pre_tokenizer": FIRST if form == "first" else None,
        "post_processor": begins_with("<s>", 1) if begin else None,
        "decoder": {"type": "Sequence", "decoders": steps},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": ignore_merges,
            "vocab": {piece: place for place, (piece, _, _) in enumerate(listed)},
            "merges": merges_of(model),
        },
    }


def dump(path, document):
    """Write JSON as transformers does."""
    path.write_text(json.dumps(document, ensure_ascii=False, indent=2), encoding="utf-8")
