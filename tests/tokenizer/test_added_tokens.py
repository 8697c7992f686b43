"""The small files beside a vocabulary: an error for each damage."""

import gc
import json
import sys

import pytest
from support.tiny_tokenizers import LLAMA, write_json, write_pieces

from edgellm.errors import TokenizerError
from edgellm.tokenizer import Tokenizer

SWITCHES = dict.fromkeys(("special", "lstrip", "rstrip", "single_word", "normalized"), False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bos_token": "<nowhere>"}, "bos_token '<nowhere>' is not in the vocabulary"),
        ({"bos_token": 7}, "bos_token is 7"),
        ({"eos_token": {"content": None}}, "eos_token is None"),
        ({"add_bos_token": "yes"}, "add_bos_token is 'yes'"),
        ({"added_tokens_decoder": []}, "must be a mapping"),
        ({"added_tokens_decoder": {"a": {"content": "x"}}}, "has the id 'a'"),
        ({"added_tokens_decoder": {"-1": {"content": "x"}}}, "has the id '-1'"),
        ({"added_tokens_decoder": {"999999999": {"content": "x"}}}, "has the id '999999999'"),
        (
            {"added_tokens_decoder": {"01": {"content": "x"}, "1": {"content": "y"}}},
            "two added tokens have the id 1",
        ),
        (
            {"added_tokens_decoder": {"500": {"content": "x"}, "501": {"content": "x"}}},
            "listed twice",
        ),
        ({"added_tokens_decoder": {"1": {"content": "x"}}}, "belongs to another token"),
        ({"added_tokens_decoder": {"500": {"content": "<s>"}}}, "belongs to another token"),
        ({"added_tokens_decoder": {"500": "x"}}, "must be an object"),
        ({"additional_special_tokens": "x"}, "must be a list"),
    ],
)
def test_a_damaged_config(tmp_path, changes, message):
    with pytest.raises(TokenizerError, match=message):
        Tokenizer.from_folder(write_pieces(tmp_path, LLAMA | changes))


def test_tens_of_thousands_of_added_tokens_load_in_time_of_their_number(tmp_path):
    """Speech models have 28,000; counted in calls, four times the tokens cost four times."""

    def calls(count):
        folder = write_json(tmp_path / str(count), "byte-level")
        document = json.loads((folder / "tokenizer.json").read_text())
        start = document["added_tokens"][-1]["id"] + 1
        more = [{"id": start + at, "content": f"<sound_{at}>"} | SWITCHES for at in range(count)]
        document["added_tokens"] += more
        config = json.loads((folder / "tokenizer_config.json").read_text())
        config["added_tokens_decoder"] |= {
            str(one["id"]): {key: value for key, value in one.items() if key != "id"}
            for one in more
        }
        (folder / "tokenizer.json").write_text(json.dumps(document))
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
        counted = 0

        def count_one(*_):
            nonlocal counted
            counted += 1

        sys.setprofile(count_one)
        try:
            tokenizer = Tokenizer.from_folder(folder)
        finally:
            sys.setprofile(None)
        assert tokenizer.encode(f"<sound_{count - 1}>")[-1] == start + count - 1
        return counted

    assert calls(28_000) < 4.2 * calls(7_000)


def test_the_collector_runs_again_after_a_tokenizer_was_loaded(tmp_path):
    assert gc.isenabled()
    Tokenizer.from_folder(write_pieces(tmp_path))
    assert gc.isenabled()
    with pytest.raises(TokenizerError):
        Tokenizer.from_folder(tmp_path / "nothing")
    assert gc.isenabled()
