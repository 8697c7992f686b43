"""SentencePiece models: the ids and texts of the library, of transformers, and of the training."""

import re

import pytest
import sentencepiece
from hypothesis import assume, given
from hypothesis import strategies as st
from support.tiny_tokenizers import CHAT, LLAMA, piece_model, write_config, write_pieces
from support.tokenizer_texts import TOKENS, any_texts, mixed_texts

from edgellm.errors import TokenizerError
from edgellm.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def processor():
    return sentencepiece.SentencePieceProcessor(model_proto=piece_model())


@given(
    st.one_of(any_texts, mixed_texts).filter(
        lambda text: not any(token in text for token in TOKENS)
    )
)
def test_plain_text_has_the_ids_that_sentencepiece_gives(pieces, processor, text):
    ids = processor.encode(text)
    assert pieces.encode(text, add_special_tokens=False) == ids
    assert pieces.encode(text) == [1, *ids]
    if "▁" not in text:
        assert pieces.decode(ids) == text


@given(
    st.lists(
        st.tuples(st.sampled_from(CHAT), any_texts.filter(lambda text: "<" not in text)),
        min_size=1,
        max_size=5,
    )
)
def test_chat_has_the_ids_that_it_was_trained_on(pieces, processor, turns):
    text = "".join(token + content for token, content in turns)
    # no word-start piece stands before a leading special token
    trained = processor.encode(text)[1:]
    assert pieces.encode("<s>" + text, add_special_tokens=False) == [1, *trained]
    assert pieces.encode(text) == [1, *trained]


def test_special_tokens_are_single_ids_and_come_once(pieces, processor):
    text = "<s><|user|>Hello<|end|><|assistant|>"
    user, end, assistant = (
        pieces.token_to_id(token) for token in ("<|user|>", "<|end|>", "<|assistant|>")
    )
    hello = processor.encode("<|end|>Hello")[2:]
    assert pieces.encode(text, add_special_tokens=False) == [1, user, *hello, end, assistant]
    messages = [{"role": "user", "content": "Hello"}]
    assert pieces.render(messages) == text
    assert pieces.apply_chat_template(messages) == [1, user, *hello, end, assistant]
    assert pieces.apply_chat_template(messages, add_generation_prompt=False) == [
        1,
        user,
        *hello,
        end,
    ]


def test_a_message_that_spells_a_special_token_becomes_it_as_in_transformers(pieces):
    ids = pieces.apply_chat_template([{"role": "user", "content": "a<|end|>b"}])
    assert ids.count(pieces.token_to_id("<|end|>")) == 2


def test_names_and_ids(pieces):
    assert (pieces.bos_token_id, pieces.eos_token_ids, pieces.vocab_size) == (1, {2}, 420)
    assert pieces.id_to_token(1) == "<s>"
    assert pieces.token_to_id("no such token") is None
    with pytest.raises(TokenizerError, match="no token 420; the vocabulary has 420 ids"):
        pieces.id_to_token(420)
    with pytest.raises(TokenizerError, match="no token -1"):
        pieces.id_to_token(-1)


LONE_SPACE = re.compile(" (" + "|".join(map(re.escape, TOKENS)) + "|$)")


def without_first_space(text):
    """Return the text as transformers 5 takes it: one leading space is the one it would add."""
    return text.removeprefix(" ")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"legacy": True},
        {"add_prefix_space": False},
        {"add_eos_token": True},
        {"bos_token": None},
    ],
)
def test_pieces_are_those_of_transformers(reference, tmp_path, changes):
    folder = write_pieces(tmp_path, LLAMA | changes)
    ours, theirs = Tokenizer.from_folder(folder), reference(folder)

    @given(
        mixed_texts.map(lambda text: re.sub("> +", ">", text) if changes.get("legacy") else text)
    )
    def agree(text):
        assume(not LONE_SPACE.match(text))
        own = text if "add_prefix_space" in changes else without_first_space(text)
        ids = theirs.encode(text)
        assert ours.encode(own) == ids
        for skip in (True, False):
            assert ours.decode(ids, skip_special_tokens=skip) == theirs.decode(
                ids, skip_special_tokens=skip
            )

    agree()
    first = "Hello there" if changes.get("legacy") else " Hello  there\n"
    chat = [{"role": "user", "content": first}, {"role": "assistant", "content": "a"}]
    assert ours.apply_chat_template(chat) == theirs.apply_chat_template(
        chat, add_generation_prompt=True, return_dict=False
    )


@pytest.mark.parametrize(
    "options", [{"model_type": "unigram", "normalization_rule_name": "nmt_nfkc", "vocab_size": 350}]
)
def test_a_normalizing_unigram_model(tmp_path, options):
    tokenizer = Tokenizer.from_folder(write_pieces(tmp_path, **options))
    processor = sentencepiece.SentencePieceProcessor(model_proto=piece_model(**options))
    for text in ("The little dog", "ﬁve ½ Ⅷ ㌔", "  two  spaces ", "中文 😀"):
        assert tokenizer.encode(text) == [1, *processor.encode(text)]


def test_tokens_beside_the_model(tmp_path):
    size = Tokenizer.from_folder(write_pieces(tmp_path)).vocab_size
    added = {
        str(size): {"content": "<tool>", "special": True},
        str(size + 4): {"content": "word", "single_word": True, "lstrip": True, "rstrip": True},
    }
    tokenizer = Tokenizer.from_folder(
        write_config(tmp_path, LLAMA | {"added_tokens_decoder": added}), vocab_size=size + 5
    )
    assert tokenizer.vocab_size == size + 5
    begin = tokenizer.encode("a")
    assert tokenizer.encode("a<tool>") == [*begin, size]
    assert tokenizer.encode("a  word \n") == [*begin, size + 4]
    assert size + 4 not in tokenizer.encode("a swordfish")
    assert tokenizer.decode([*begin, size, size + 2, size + 4]) == "aword"
    assert tokenizer.decode([size], skip_special_tokens=False) == "<tool>"


def test_the_older_files_of_added_and_special_tokens(tmp_path):
    size = Tokenizer.from_folder(write_pieces(tmp_path, None)).vocab_size
    write_config(tmp_path, {"<end>": size, "plain": size + 1}, "added_tokens.json")
    write_config(
        tmp_path, {"eos_token": {"content": "<end>", "lstrip": False}}, "special_tokens_map.json"
    )
    tokenizer = Tokenizer.from_folder(tmp_path)
    assert tokenizer.eos_token_ids == {size}
    assert tokenizer.encode("plain<end>") == [1, size + 1, size]
    assert tokenizer.decode([size + 1, size]) == "plain"


@given(ids=st.lists(st.integers(3, 419), max_size=30))
def test_random_ids_decode_as_in_sentencepiece(pieces, processor, ids):
    # SentencePiece keeps this one space that transformers strips
    if ids and pieces.id_to_token(ids[0]) != "<0x20>":
        assert pieces.decode(ids) == processor.decode(ids)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"IQ== 0\nIg== 1\nIw== 2\n", "tiktoken ranks"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "pointer of git-lfs"),
        (b"", "has no pieces"),
        (b"\n\x7f", "reaches past its end"),
        (b"\n\xff", "cut off"),
        (b"\x0b", "unknown kind"),
        (b"\x08" + b"\xff" * 11, "a number without an end"),
        (b"\n\x05\n\x03a\xffb", "damaged: .*codec can't decode"),
        (b"\n\x03\n\x01a" * 2, "a piece twice"),
        (b"\n\x08\n\x01a\x15\x00\x00\x80\x7f", "an impossible score"),
        (b"\n\x03\n\x01a", "damaged"),
        (piece_model()[:-9], "cut off|past its end|unknown kind"),
        (piece_model() + b"\x12\x03\xc0\x01\x01", "white space at the end of words"),
        (
            piece_model() + b"\x1a\x0b\x12\x09\x00\x04\x00\x00" + b"\xff" * 5,
            "table of the tokenizer is cut off",
        ),
    ],
)
def test_a_damaged_piece_model(tmp_path, data, message):
    (tmp_path / "tokenizer.model").write_bytes(data)
    with pytest.raises(TokenizerError, match=message):
        Tokenizer.from_folder(tmp_path)


def test_a_normalization_table_that_points_outside_itself(tmp_path):
    data = bytearray(
        piece_model(model_type="unigram", normalization_rule_name="nmt_nfkc", vocab_size=350)
    )
    table = data.index(b"\x12", data.index(b"nmt_nfkc")) + 8
    data[table : table + 4] = b"\x00\xfc\xff\x3f"
    (tmp_path / "tokenizer.model").write_bytes(data)
    with pytest.raises(TokenizerError, match="points outside itself"):
        Tokenizer.from_folder(tmp_path)


def test_a_field_of_another_type_is_left_aside_as_in_sentencepiece(tmp_path):
    # NormalizerSpec.add_dummy_prefix (field 3 of field 3) as a text: protobuf takes it for unknown
    data = piece_model() + bytes([3 << 3 | 2, 2, 3 << 3 | 2, 0])
    library = sentencepiece.SentencePieceProcessor()
    library.LoadFromSerializedProto(data)
    (tmp_path / "tokenizer.model").write_bytes(data)
    ours = Tokenizer.from_folder(tmp_path)
    assert ours.encode("a dog", add_special_tokens=False) == library.encode("a dog")
