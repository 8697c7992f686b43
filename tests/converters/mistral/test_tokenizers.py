"""tekken.json and Mistral's SentencePiece files: ids and chats as mistral-common has them."""

import json

import pytest
from support.mistral_files import CONFIG, tekken, write_mistral
from support.tiny import write_model
from support.tiny_tokenizers import piece_model

from edgellm.converters import convert
from edgellm.converters.mistral.tokenizer import mistral_tokenizer
from edgellm.converters.tokenizers.companions import companion_tokenizer
from edgellm.converters.tokenizers.tekken import tekken_companions
from edgellm.errors import FormatError
from edgellm.tokenizer import Tokenizer

# ids of mistral-common 1.13.1: Tekkenizer.encode, and encode_chat_completion
TEXTS = {
    "Once upon a time there was a little dog.": [
        *(312, 119, 121, 297, 132, 304, 278, 316, 306, 279, 281, 314, 278, 318, 296, 66)
    ],
    "the dog\n  said: 365 É日": [
        *(136, 276, 296, 30, 52, 52, 135, 117, 125, 120, 78, 52, 71, 74, 73, 52, 215, 157, 250),
        *(171, 185),
    ],
}
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "the dog?"},
    {"role": "assistant", "content": "sun "},
    {"role": "user", "content": " sea"},
]
SYSTEM = [86, 121, 323, 134, 125, 121, 122, 66]
FIRST_TURNS = [3, 136, 276, 296, 83, 4, 135, 137, 130, 2]
CHATS = {
    "v3": [1, *FIRST_TURNS, 3, *SYSTEM, 30, 30, 288, 121, 117, 4],
    "v7": [1, 17, *SYSTEM, 18, *FIRST_TURNS, 3, 288, 121, 117, 4],
}


def tokenizer_of(folder, document):
    (folder / "tekken.json").write_text(json.dumps(document))
    files, notes = tekken_companions(folder / "tekken.json")
    return companion_tokenizer(files, vocab_size=None), notes


@pytest.mark.parametrize("version", CHATS)
def test_ids_are_those_of_mistral_common(tmp_path, version):
    document = tekken(version=version)
    tokenizer, notes = tokenizer_of(tmp_path, document)
    for text, ids in TEXTS.items():
        assert tokenizer.encode(text, add_special_tokens=False) == ids
        assert tokenizer.encode(text) == [1, *ids]
        assert tokenizer.decode(ids) == text
    assert tokenizer.encode("[SYSTEM_PROMPT]</s>", add_special_tokens=False) == [17, 2]
    assert tokenizer.apply_chat_template(CHAT) == CHATS[version]
    assert tokenizer.vocab_size == document["config"]["default_vocab_size"]
    assert tokenizer.eos_token_ids == {2}
    assert not notes


def test_listed_special_tokens_and_numbered_ones(tmp_path):
    document = tekken(version="v13", special=12, listed=["<unk>", "<s>", "</s>", "[THINK]"])
    document["special_tokens"][3]["is_control"] = False
    tokenizer, _ = tokenizer_of(tmp_path, document)
    assert tokenizer.encode("<s>[THINK]<SPECIAL_11>", add_special_tokens=False) == [1, 3, 11]
    assert tokenizer.decode([1, 3, 11]) == "[THINK]"
    assert tokenizer.chat_template is None  # its turns have no tokens here


def test_an_unknown_version_has_no_template_and_says_so(tmp_path):
    listed = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"]
    tokenizer, notes = tokenizer_of(tmp_path, tekken(version="v15", listed=listed))
    assert tokenizer.chat_template is None
    assert "version v15" in notes[0]


@pytest.mark.parametrize(
    "edit",
    [
        lambda document: document["config"].update(version="v11"),
        lambda document: document["config"].update(default_vocab_size=10**6),
        lambda document: document["config"].update(default_num_special_tokens=3),
        lambda document: document["vocab"][300].update(rank=299),
        lambda document: document["vocab"][300].update(token_bytes="*"),
        lambda document: document["vocab"][300].update(document["vocab"][299] | {"rank": 300}),
        lambda document: document.update(special_tokens=[{"rank": 1, "token_str": "<s>"}]),
        lambda document: document.update(special_tokens=[{"rank": 0, "token_str": "<unk>"}]),
        lambda document: document.update(config=None),
    ],
)
def test_damaged_files_are_refused(tmp_path, edit):
    document = tekken()
    edit(document)
    with pytest.raises(FormatError, match=r"tekken\.json"):
        tokenizer_of(tmp_path, document)


def test_a_folder_in_hugging_faces_form_with_tekken_alone(tmp_path):
    document = tekken()
    size = document["config"]["default_vocab_size"]
    folder = write_model(tmp_path / "own", CONFIG | {"vocab_size": size}, tokenizer=False)
    (folder / "tekken.json").write_text(json.dumps(document))
    (folder / "chat_template.jinja").write_text("{{ bos_token }}its own")
    said = []
    convert(folder, tmp_path / "made", progress=lambda step: said.append(step.message))
    tokenizer = Tokenizer.from_folder(tmp_path / "made", vocab_size=size)
    assert tokenizer.encode("the dog") == [1, 136, 276, 296]
    assert tokenizer.render(CHAT) == "<s>its own"
    given = write_mistral(tmp_path / "other")
    (given / "tekken.json").unlink()
    convert(given, tmp_path / "again", tokenizer=folder / "tekken.json")
    assert Tokenizer.from_folder(tmp_path / "again").encode("the dog") == [1, 136, 276, 296]


CONTROL = "[INST],[/INST],[SYSTEM_PROMPT],[/SYSTEM_PROMPT]"


@pytest.mark.parametrize(
    ("name", "rendered"),
    [
        (
            "tokenizer.model",
            "<s>[INST] Be brief.\n\nthe dog? [/INST] sun </s>[INST]  sea [/INST]",
        ),
        (
            "tokenizer.model.v3",
            "<s>[INST]the dog?[/INST]sun</s>[INST]Be brief.\n\n sea[/INST]",
        ),
        (
            "mistral_instruct_tokenizer_241114.model.v7m1",
            "<s>[SYSTEM_PROMPT]Be brief.[/SYSTEM_PROMPT][INST]the dog?[/INST]sun</s>"
            "[INST] sea[/INST]",
        ),
        ("tokenizer.model.v99", None),
    ],
)
def test_the_version_in_a_pieces_files_name_decides_the_template(tmp_path, name, rendered):
    (tmp_path / name).write_bytes(piece_model(control_symbols=CONTROL))
    files, place, notes = mistral_tokenizer(tmp_path)
    tokenizer = companion_tokenizer(files, vocab_size=None)
    assert place == tmp_path / name
    if rendered is None:
        assert tokenizer.chat_template is None
        assert "version v99" in notes[0]
    else:
        assert tokenizer.render(CHAT) == rendered
    # what follows a special token begins as a text does
    [inst] = tokenizer.encode("[INST]", add_special_tokens=False)
    dog = tokenizer.encode("dog", add_special_tokens=False)
    assert tokenizer.encode("[INST]dog", add_special_tokens=False) == [inst, *dog]
