"""Tokenizers: tokenizer.json, SentencePiece's tokenizer.model, and the small files beside them."""

import functools
import json

import sentencepiece
import tokenizers
from support.tiny_tokenizers import LLAMA, TEMPLATE, json_text, piece_model

from edgellm.tokenizer import Tokenizer
from fuzz.byte_damage import damage_bytes
from fuzz.door import DifferenceError, Door, as_bytes, by_the_library
from fuzz.json_damage import TEXTS, damage_document, encode, junk
from fuzz.protobuf_damage import damage_message

TEXT = "Hello <s><|user|> wörld 😀   x\n\n 12345 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!"
PLAIN = "Hello there, wörld 😀   x\n\n 12345 they went to the park"
FORMS = ("byte-level", "metaspace", "unigram")
PARTS = ("normalizer", "pre_tokenizer", "post_processor", "decoder", "added_tokens", "model")


@functools.cache
def _short(form):
    """A tokenizer.json with few tokens: the alphabet and the first merges."""
    document = json.loads(json_text(form))
    model = document["model"]
    if model["type"] == "BPE":
        merges = model["merges"][:12]
        made = {"".join(merge) for merge in model["merges"][12:]}
        kept = [token for token in model["vocab"] if token not in made]
        kept = [token for token in kept if len(token) < 2 or not token.startswith("<0x")]
        size = 60
        whole = {part for merge in merges for part in (*merge, "".join(merge))}
        kept = [token for at, token in enumerate(kept) if at < size or token in whole]
        model["vocab"] = {token: at for at, token in enumerate(kept)}
        model["merges"] = merges
        model["byte_fallback"] = False
        names = [token["content"] for token in document["added_tokens"]]
        ids = {name: model["vocab"].get(name) for name in names}
        free = len(kept)
        for token in document["added_tokens"]:
            if ids[token["content"]] is None:
                ids[token["content"]] = free
                free += 1
            token["id"] = ids[token["content"]]
        document["post_processor"] = None
    else:
        model["vocab"] = model["vocab"][:60]
    return json.dumps(document)


class TokenizerJson(Door):
    name = "tokenizer-json"
    share = 60
    compares = "tokenizers"

    def __init__(self, folder):
        super().__init__(folder)
        self.texts = [*map(json_text, FORMS), *(_short(form) for form in FORMS for _ in range(3))]
        documents = [json.loads(text) for text in self.texts[:3]]
        self.values = [document[part] for document in documents for part in PARTS[:-1]]

    def damage(self, random):
        document = json.loads(random.choice(self.texts))
        if random.random() < 0.3:  # a part of another tokenizer's
            document[random.choice(PARTS[:-1])] = json.loads(json.dumps(random.choice(self.values)))
        return {"tokenizer.json": encode(damage_document(document, random), random)}

    def open(self, files):
        self.put(files)
        tokenizer = Tokenizer.from_folder(self.folder)
        ids = tokenizer.encode(TEXT)
        tokenizer.decode(ids)
        return ids

    def check(self, opened, files):
        if b'"dropout": ' in files["tokenizer.json"].replace(b'"dropout": null', b""):
            return False  # the library draws lots then
        with by_the_library():
            library = tokenizers.Tokenizer.from_str(files["tokenizer.json"].decode())
            library.no_padding()
            library.no_truncation()
            theirs = library.encode(TEXT).ids
        if theirs != opened:
            raise DifferenceError(f"{opened} is {theirs} in the library")
        return True


class SentencePiece(Door):
    name = "sentencepiece"
    share = 40
    compares = "sentencepiece"

    def __init__(self, folder):
        super().__init__(folder)
        unigram = {"model_type": "unigram", "normalization_rule_name": "nmt_nfkc"}
        self.examples = [
            piece_model(),
            piece_model(**unigram, vocab_size=350),
            piece_model(vocab_size=330, byte_fallback=True),
            *[piece_model(vocab_size=130, byte_fallback=False)] * 3,
        ]

    def damage(self, random):
        data = random.choice(self.examples)
        if random.random() < 0.6:
            data = damage_message(data, random)
        else:
            data = damage_bytes(data, random)
        return {"tokenizer.model": data}

    def open(self, files):
        self.put(files)
        tokenizer = Tokenizer.from_folder(self.folder)
        tokenizer.decode(tokenizer.encode(TEXT))
        return tokenizer

    def check(self, opened, files):
        if any(opened.id_to_token(token) in PLAIN for token in opened.split_token_ids):
            return False  # cut out of the text before the library sees it, as in transformers
        library = sentencepiece.SentencePieceProcessor()
        library.LoadFromSerializedProto(files["tokenizer.model"])
        theirs = library.encode(PLAIN)
        ours = opened.encode(PLAIN, add_special_tokens=False)
        if ours != theirs:
            raise DifferenceError(f"{ours} is {theirs} in the library")
        return True


class TokenizerSettings(Door):
    """The small files beside a vocabulary, and vocab.json with merges.txt in its place."""

    name = "tokenizer-settings"
    share = 50

    NAMES = (
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "chat_template.json",
    )

    def __init__(self, folder):
        super().__init__(folder)
        self.pieces = piece_model(vocab_size=330)
        self.json = _short("metaspace").encode()
        document = json.loads(self.json)
        self.vocabulary = {
            "vocab.json": as_bytes(document["model"]["vocab"]),
            "merges.txt": "\n".join(map(" ".join, document["model"]["merges"])).encode(),
        }
        added = {"content": "<t>", "special": True, "lstrip": False, "normalized": False}
        named = [{"name": "default", "template": TEMPLATE}, {"name": "tool_use", "template": "x"}]
        self.config = LLAMA | {
            "added_tokens_decoder": {"400": added, "401": added | {"content": "<u>"}},
            "additional_special_tokens": ["<t>", "<s>"],
        }
        self.documents = {
            "tokenizer_config.json": [
                self.config,
                LLAMA,
                LLAMA | {"chat_template": named, "bos_token": added},
            ],
            "special_tokens_map.json": [{"bos_token": "<s>", "eos_token": added}],
            "added_tokens.json": [{"<a>": 400, "<b>": 401}],
            "chat_template.json": [{"chat_template": TEMPLATE}, {"chat_template": named}],
        }

    def damage(self, random):
        kind = random.random()
        if kind < 0.02:
            files = dict(self.vocabulary)
            name = random.choice(list(files))
            return files | {name: damage_bytes(files[name], random)}
        files = {"tokenizer.json": self.json}
        if random.random() < 0.5:
            files = {"tokenizer.model": self.pieces}
        if kind < 0.06:
            text = damage_bytes(TEMPLATE.encode(), random)
            return files | {"chat_template.jinja": text}
        for name in random.sample(self.NAMES, random.choice((1, 1, 2))):
            document = json.loads(json.dumps(random.choice(self.documents[name])))
            if random.random() < 0.3:
                document[random.choice([*document, *SWITCHES])] = junk(random)
            files[name] = encode(damage_document(document, random, values=TEXTS), random)
        return files

    def open(self, files):
        self.put(files)
        tokenizer = Tokenizer.from_folder(self.folder, vocab_size=10_000)
        tokenizer.decode(tokenizer.encode(TEXT))


SWITCHES = ("add_bos_token", "add_eos_token", "legacy", "add_prefix_space", "unk_token")
