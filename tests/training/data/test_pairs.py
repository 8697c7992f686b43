"""Pairs: the forms that data sets have, and what is learned of them."""

import pytest
from support.task_files import write_rows
from support.tiny import LLAMA, write_model

from edgellm.errors import ConfigError, FormatError
from edgellm.tokenizer import Tokenizer
from edgellm.training.data.pair_rendering import pairs_in, render_pairs
from edgellm.training.data.pairs import read_pairs
from edgellm.training.data.records import read_records


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return Tokenizer.from_folder(write_model(tmp_path_factory.mktemp("m") / "model", LLAMA))


def written(path, rows):
    write_rows(path, rows)
    return path


def said(role, content):
    return {"role": role, "content": content}


ASKED, YES, NO = said("user", "Is it?"), said("assistant", "Yes."), said("assistant", "No.")

FORMS = [
    {"prompt": "Is it?", "chosen": "Yes.", "rejected": "No."},
    {"question": "Is it?", "system": "", "chosen": "Yes.", "rejected": "No."},
    {"instruction": "Is it?", "input": "", "chosen": "Yes.", "rejected": "No."},
    {"prompt": "Is it?", "chosen_response": "Yes.", "rejected_response": "No."},
    {"prompt": [ASKED], "chosen": [YES], "rejected": [NO]},
    {"prompt": [ASKED], "chosen": YES, "rejected": NO},
    {"prompt": "Is it?", "chosen": [YES], "rejected": [NO]},
    {"chosen": [ASKED, YES], "rejected": [ASKED, NO]},
    {"prompt": "Is it?", "chosen": [ASKED, YES], "rejected": [ASKED, NO]},
    {"chosen": [ASKED, YES, said("user", "Thanks.")], "rejected": [ASKED, NO]},
    {
        "conversations": [{"from": "human", "value": "Is it?"}],
        "chosen": {"from": "gpt", "value": "Yes."},
        "rejected": {"from": "gpt", "value": "No."},
    },
    {
        "chosen": "\n\nHuman: Is it?\n\nAssistant: Yes.",
        "rejected": "\n\nHuman: Is it?\n\nAssistant: No.",
    },
    {"prompt": "\n\nHuman: Is it?\n\nAssistant:", "chosen": "Yes.", "rejected": "No."},
    {"chosen": "Is it? Yes.", "rejected": "Is it? No."},
    {
        "input": {"messages": [ASKED], "tools": [], "parallel_tool_calls": True},
        "preferred_output": [YES],
        "non_preferred_output": [NO],
    },
]


@pytest.mark.parametrize("row", FORMS, ids=range(len(FORMS)))
def test_forms_of_pairs_are_one(tmp_path, row):
    [pair] = read_pairs(written(tmp_path / "pairs.jsonl", [row]))
    assert pair.prompt == (ASKED,)
    assert [one["content"].strip() for one in (*pair.chosen, *pair.rejected)] == ["Yes.", "No."]


def test_earlier_turns_are_what_is_asked(tmp_path, tokenizer):
    turns = [said("system", "Be short."), ASKED, YES, said("user", "Sure?")]
    row = {"chosen": [*turns, YES], "rejected": [*turns, NO]}
    pairs = read_pairs(written(tmp_path / "pairs.jsonl", [row]))
    assert pairs[0].prompt == tuple(turns)
    found = render_pairs(pairs, tokenizer, template="chat", max_tokens=200)
    learned = [[id_ for id_ in one.targets if id_ >= 0] for one in found.sequences]
    assert [tokenizer.decode(ids) for ids in learned] == ["Yes.", "No."]
    [pair] = pairs_in(found)
    for one, answer in ((pair.chosen, YES), (pair.rejected, NO)):
        whole = tokenizer.apply_chat_template([*turns, answer], add_generation_prompt=False)
        assert list(one.tokens) == whole


def test_pairs_have_turns_before_and_tools(tmp_path):
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    row = {
        "prompt": "Sure?",
        "history": [["Is it?", "Yes."]],
        "chosen": "Yes.",
        "rejected": "No.",
        "tools": tools,
    }
    [pair] = read_pairs(written(tmp_path / "pairs.jsonl", [row]))
    assert pair.prompt == (ASKED, YES, said("user", "Sure?"))
    assert pair.tools == tuple(tools)


def test_pairs_that_are_there_more_than_once_are_counted_as_pairs(tmp_path, tokenizer):
    one, other = ({"prompt": "Say a", "chosen": "a", "rejected": text} for text in "bc")
    pairs = read_pairs(written(tmp_path / "pairs.jsonl", [one, other, one]))
    found = render_pairs(pairs, tokenizer, template="chat", max_tokens=64)
    assert "there more than once, and learned as often: 1 pair" in found.notes()
    # the answer that was preferred is there, too: of another pair
    half, whole = (
        render_pairs([pair], tokenizer, template="chat", max_tokens=64) for pair in pairs[:2]
    )
    assert (half.in_common(whole), half.in_common(found), half.counted) == (0, 1, "1 pair")


def test_plain_prompts_and_answers_are_one_text(tmp_path, tokenizer):
    row = {"prompt": "Once upon a time", "chosen": " there was", "rejected": " dog cat"}
    found = render_pairs(
        read_pairs(written(tmp_path / "p.jsonl", [row])), tokenizer, template="plain", max_tokens=64
    )
    [end] = tokenizer.eos_token_ids
    expected = [
        [*tokenizer.encode(row["prompt"] + row[answer]), end] for answer in ("chosen", "rejected")
    ]
    assert [list(one.tokens) for one in found.sequences] == expected


def test_pairs_that_teach_nothing_are_left_out_and_said(tmp_path, tokenizer):
    rows = [
        {"prompt": "Say a", "chosen": "a", "rejected": "a"},
        {"prompt": "long " * 60, "chosen": "a", "rejected": "b"},
        {"prompt": "Say a", "chosen": "a", "rejected": "b"},
    ]
    pairs = read_pairs(written(tmp_path / "pairs.jsonl", rows))
    found = render_pairs(pairs, tokenizer, template="chat", max_tokens=40)
    assert (found.equal, found.left_out, len(found.sequences)) == ([1], [2], 2)
    assert "left out for equal answers: 1 pair (line 1)" in found.notes()
    with pytest.raises(ConfigError, match=r"equal answers: 1 pair \(line 1\)") as refused:
        render_pairs(pairs[:1], tokenizer, template="chat", max_tokens=40)
    assert "--max-tokens" not in refused.value.hint
    with pytest.raises(ConfigError, match="cut at --max-tokens") as refused:
        render_pairs(pairs[1:2], tokenizer, template="chat", max_tokens=40)
    assert "--max-tokens" in refused.value.hint
    with pytest.raises(ConfigError, match="nothing would be learned of any pair"):
        render_pairs(pairs[:1], tokenizer, template="chat", max_tokens=40)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "a", "completion": "b"}, "no chosen and rejected, but prompt, completion"),
        ({"chosen": "a", "rejected": "b"}, "no prompt that both answers follow"),
        ({"prompt": "a", "chosen": None, "rejected": "b"}, "chosen is null"),
        ({"prompt": "a", "chosen": [], "rejected": "b"}, r"chosen is \[\]"),
        ({"chosen": [ASKED, YES], "rejected": [ASKED, YES]}, "chosen holds no answer that the"),
        ({"chosen": [ASKED, YES], "rejected": [ASKED]}, "rejected holds no answer that the other"),
        ({"prompt": 1, "chosen": "a", "rejected": "b"}, "prompt is 1"),
    ],
)
def test_records_that_are_no_pairs_are_named(tmp_path, row, message):
    with pytest.raises(FormatError, match=f"line 1: .*{message}"):
        read_pairs(written(tmp_path / "pairs.jsonl", [row]))


def test_pairs_where_answers_are_learned_name_their_stage(tmp_path):
    path = written(tmp_path / "p.jsonl", [{"prompt": "a", "chosen": "b", "rejected": "c"}])
    with pytest.raises(FormatError) as refused:
        read_records(path)
    assert "--stage dpo" in refused.value.hint
