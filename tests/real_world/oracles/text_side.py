"""transformers' tokenizer and template, which need no torch; and the vocabulary's own library."""

import json
import re
from itertools import chain
from pathlib import Path

import sentencepiece
import tokenizers
import transformers


def text_side(request):
    """Ids, decoded texts and rendered chats of one folder."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(request["folder"])
    said = tokens_of(
        lambda text, special: tokenizer(text, add_special_tokens=special)["input_ids"],
        lambda ids: tokenizer.decode(ids, clean_up_tokenization_spaces=False),
        request,
    )
    return said | {
        "class": type(tokenizer).__name__,
        "file": tokens_of_file(tokenizer, request),
        "rendered": [rendered(tokenizer, chat) for chat in request["chats"]],
    }


def tokens_of(encode, decode, request):
    """Ids of texts with and without what is put round them, and given ids decoded."""
    return {
        "ids": [[encode(text, special) for text in request["texts"]] for special in (True, False)],
        "decoded": [decode(ids) for ids in request["decode"]],
    }


def tokens_of_file(tokenizer, request):
    """What the vocabulary's own library makes of texts; None where it has no say."""
    folder = Path(request["folder"])
    if (folder / "tokenizer.json").exists():
        plain = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        return tokens_of(
            lambda text, special: plain.encode(text, add_special_tokens=special).ids,
            lambda ids: plain.decode(ids, skip_special_tokens=False),
            request,
        )
    if not (folder / "tokenizer.model").exists():
        return None
    said = json.loads((folder / "tokenizer_config.json").read_text())
    pieces = sentencepiece.SentencePieceProcessor(str(folder / "tokenizer.model"))
    names = {token: tokenizer.convert_tokens_to_ids(token) for token in tokenizer.get_added_vocab()}
    longest = sorted(filter(str.strip, names), key=len, reverse=True)
    # it knows nothing of special tokens that a text spells: each part is a text of its own
    cut = re.compile("(" + "|".join(map(re.escape, longest)) + ")")
    begin, encoded = tokenizer("")["input_ids"], []
    for text in request["texts"]:
        parts = [part for part in cut.split(text) if part]
        if len(parts) > 1 and not said.get("legacy", True):
            encoded.append(None)  # then only the first part begins with a space
            continue
        ids = [[names[part]] if part in names else pieces.encode(part) for part in parts]
        encoded.append(list(chain.from_iterable(ids)))
    with_begin = [ids if ids is None else begin + ids for ids in encoded]
    special = set(names.values())
    decoded = [None if special & set(ids) else pieces.decode(ids) for ids in request["decode"]]
    return {"ids": [with_begin, encoded], "decoded": decoded}


def rendered(tokenizer, chat):
    """A chat as text, or the error."""
    try:
        settings = {"add_generation_prompt": True} | chat
        return tokenizer.apply_chat_template(settings.pop("messages"), tokenize=False, **settings)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}
