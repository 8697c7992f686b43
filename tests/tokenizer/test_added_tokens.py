"""The small files beside a vocabulary: an error for each damage."""

import pytest
from support.tiny_tokenizers import LLAMA, write_pieces

from edgellm.errors import TokenizerError
from edgellm.tokenizer import Tokenizer


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
