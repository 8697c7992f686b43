"""Tokens that end a turn by their text, as llama.cpp knows them."""

import pytest

from edgellm.chat_template.end_texts import end_texts

# Asked of llama.cpp (llama-cpp-python 0.3.36): llama_vocab_is_eog of every token of a vocabulary
# that has these beside its own end, as control tokens and as plain ones.
ENDS_IN_LLAMA_CPP = [
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>",
    "<EOT>", "_<EOT>", "[EOT]", "<\uff5cend\u2581of\u2581sentence\uff5c>", "<end_of_utterance>",
    "<|eom_id|>", "<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]", "<|fim_repo|>",
    "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>", "<|file_sep|>", "<|return|>",
    "<|call|>", "<|flush|>", "<|calls|>", "[EOS]", "<eos>", "</s>", "<turn|>",
    "<|tool_response>", "[e~[",
]  # fmt: skip
NONE_IN_LLAMA_CPP = [
    "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|tool_response|>",
    "<|END_OF_TURN_TOKEN|>", "<|end_of_turn|>", "<|EOT|>", "<|endofturn|>", "<|user|>",
    "<|assistant|>", "<|eos|>",
    "<|plamo:eos|>", "<|observation|>", "<|endofprompt|>", "<|im_sep|>", "<|eos_token|>",
    "[/INST]", "<|message|>", "<|im_start|>", "<sep>",
]  # fmt: skip


@pytest.mark.parametrize("token", ENDS_IN_LLAMA_CPP)
def test_llama_cpp_s_ends_are_ours(token):
    assert end_texts(["a", token]) == [token]


@pytest.mark.parametrize("token", NONE_IN_LLAMA_CPP)
def test_other_tokens_end_nothing(token):
    assert end_texts(["a", token]) == []


@pytest.mark.parametrize(
    ("tokens", "ends"),
    [
        (["<|end|>", "<|return|>", "<|call|>"], {"<|return|>", "<|call|>"}),
        (["<|end|>", "<|calls|>", "<|flush|>"], {"<|calls|>", "<|flush|>"}),
        (["<|end|>", "<|return|>"], {"<|end|>", "<|return|>"}),
        (["<|im_end|>", "<|endoftext|>"], {"<|im_end|>", "<|endoftext|>"}),
        (["</s>", "<|tool_response>"], {"<|tool_response>"}),
    ],
)
def test_several_ends_are_those_of_llama_cpp(tokens, ends):
    assert set(end_texts(tokens)) == ends
