"""Records as tokens: answers are learned, prompts are not; control tokens are no text."""

import json
import subprocess
import sys
import tracemalloc

import pytest
from support.conversations import CALL, HELLO, TOOLS
from support.task_files import write_rows
from support.tiny import LLAMA, write_model

from edgellm.errors import ConfigError, FormatError
from edgellm.tokenizer import Tokenizer
from edgellm.training.data.control_text import ControlText
from edgellm.training.data.conversations import conversation
from edgellm.training.data.records import read_records
from edgellm.training.data.rendering import most_characters, render


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return Tokenizer.from_folder(write_model(tmp_path_factory.mktemp("m") / "model", LLAMA))


def written(path, rows):
    write_rows(path, rows)
    return read_records(path)


def learned(sequence, tokenizer):
    ids = [target for target in sequence.targets if target >= 0]
    return tokenizer.decode(ids, skip_special_tokens=False)


CHAT = {
    "messages": [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Bye"},
        {"role": "assistant", "content": "Good bye."},
        {"role": "user", "content": "never learned"},
    ]
}


def test_answers_are_learned_with_the_token_that_ends_them(tmp_path, tokenizer):
    [record] = written(tmp_path / "chat.jsonl", [CHAT])
    [sequence] = render([record], tokenizer, template="chat", max_tokens=200).sequences
    whole = tokenizer.apply_chat_template(CHAT["messages"][:4], add_generation_prompt=False)
    assert list(sequence.tokens) == whole
    assert learned(sequence, tokenizer) == "Hello.<|end|>Good bye.<|end|>"


@pytest.mark.parametrize(
    "row",
    [
        {"instruction": "Say a", "input": "", "output": "a"},
        {"prompt": "Say a", "completion": "a"},
        {"question": "Say a", "answer": "a"},
        {"query": "Say a", "response": "a"},
        {"problem": "Say a", "solution": "a"},
        {"input": "Say a", "output": "a"},
        {"inputs": "Say a", "targets": "a"},
        {"instruction": "Say a", "output": "a", "history": []},
        {"prompt": [{"role": "user", "content": "Say a"}], "completion": "a"},
        {"prompt": "Say a", "completion": [{"role": "assistant", "content": "a"}]},
        {"messages": '[{"role": "user", "content": "Say a"}, {"role": "model", "content": "a"}]'},
        {"conversations": [{"from": "human", "value": "Say a"}, {"from": "chatgpt", "value": "a"}]},
        {"dialogue": [{"role": "user", "content": "Say a"}, {"role": "assistant", "content": "a"}]},
        {"instruction": "Say a", "instances": [{"input": "", "output": "a"}]},
        {"conversations": [{"from": "human", "value": "Say a"}, {"from": "gpt", "value": "a"}]},
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "Say a"}], "id": 7},
                {"role": "assistant", "content": "a", "tool_calls": None, "weight": 1},
            ],
            "tools": "[]",
        },
    ],
)
def test_one_turn_in_any_form_is_the_same(tmp_path, tokenizer, row):
    found = render(written(tmp_path / "a.jsonl", [row]), tokenizer, template="chat", max_tokens=64)
    assert learned(found.sequences[0], tokenizer) == "a<|end|>"


def test_what_is_asked_in_messages_is_read_and_the_completion_is_learned(tmp_path, tokenizer):
    row = {"prompt": CHAT["messages"][:3], "completion": CHAT["messages"][3:]}
    [record] = written(tmp_path / "a.jsonl", [row])
    [one] = render([record], tokenizer, template="chat", max_tokens=200).sequences
    whole = tokenizer.apply_chat_template(CHAT["messages"][:4], add_generation_prompt=False)
    assert list(one.tokens) == whole
    assert learned(one, tokenizer) == "Good bye.<|end|>"


def test_turns_before_a_request_are_read(tmp_path, tokenizer):
    row = {"instruction": "Bye", "output": "Good bye.", "history": [["Hi", "Hello."]]}
    [record] = written(tmp_path / "a.jsonl", [row])
    assert [one["content"] for one in record.messages] == ["Hi", "Hello.", "Bye", "Good bye."]
    [one] = render([record], tokenizer, template="chat", max_tokens=200).sequences
    assert learned(one, tokenizer) == "Hello.<|end|>Good bye.<|end|>"


def test_a_question_has_what_it_is_about(tmp_path):
    row = {"question": "How many?", "context": "CREATE TABLE t", "answer": "SELECT 1"}
    [record] = written(tmp_path / "a.jsonl", [row])
    assert record.messages[0]["content"] == "How many?\n\nCREATE TABLE t"
    [whole] = written(tmp_path / "a.jsonl", [{**row, "prompt": "All of it"}])
    assert whole.messages[0]["content"] == "All of it"


def test_a_chat_of_one_turn_fits_templates_of_one_turn(tmp_path, tokenizer):
    rows = [
        {"messages": CHAT["messages"][:2]},
        {"prompt": CHAT["messages"][:1], "completion": CHAT["messages"][1:2]},
        {"prompt": "Hi", "completion": "Hello."},
    ]
    records = written(tmp_path / "a.jsonl", rows)
    found = render(records, tokenizer, template="alpaca", max_tokens=200)
    assert found.repeated == 2, "all are the same"


def test_records_that_are_there_more_than_once_are_counted(tmp_path, tokenizer):
    one, other = ({"prompt": "Say a", "completion": text} for text in ("a", "b"))
    records = written(tmp_path / "a.jsonl", [one, other, one, one])
    found = render(records, tokenizer, template="chat", max_tokens=64)
    assert len(found.sequences) == 4
    assert "there more than once, and learned as often: 2 sequences" in found.notes()
    alone = render(records[:2], tokenizer, template="chat", max_tokens=64)
    assert not any("more than once" in note for note in alone.notes())


def test_texts_are_learned_in_windows(tmp_path, tokenizer):
    text = "Once upon a time there was a little dog. " * 8
    records = written(tmp_path / "t.jsonl", [{"text": text}])
    found = render(records, tokenizer, template="chat", max_tokens=50)
    learned_ids = [target for one in found.sequences for target in one.targets if target >= 0]
    whole = tokenizer.encode(text)
    assert learned_ids[: len(whole) - 1] == whole[1:], "each token but the first, once"
    assert found.left_out == []
    assert max(len(one.tokens) for one in found.sequences) == 50


def test_records_that_teach_nothing_are_left_out_and_said(tmp_path, tokenizer):
    rows = [
        {"prompt": "long " * 60, "completion": "a"},
        {"prompt": "Say a", "completion": "<|end|> a\ufdd0"},
        {"prompt": "Say a", "completion": "a"},
    ]
    found = render(written(tmp_path / "r.jsonl", rows), tokenizer, template="chat", max_tokens=40)
    assert (found.left_out, found.control, len(found.sequences)) == ([1], [2], 1)
    assert any("line 1" in note for note in found.notes())
    assert any("that cannot be told from it" in note for note in found.notes())
    with pytest.raises(ConfigError, match="nothing would be learned"):
        render(written(tmp_path / "r.jsonl", rows[:1]), tokenizer, template="chat", max_tokens=40)


def test_a_chat_without_messages_is_left_out_and_said(tmp_path, tokenizer):
    rows = [{"conversations": []}, CHAT]
    records = written(tmp_path / "a.jsonl", rows)
    found = render(records, tokenizer, template="chat", max_tokens=200)
    assert (found.left_out, len(found.sequences)) == ([1], 1)
    with pytest.raises(ConfigError, match=r"nothing is learned of 1 record \(line 1\)"):
        render(records[:1], tokenizer, template="alpaca", max_tokens=200)


@pytest.mark.parametrize(("template", "max_tokens"), [("chat", 20), ("alpaca", 200)])
def test_what_is_far_behind_the_cut_is_not_looked_at(tmp_path, tokenizer, template, max_tokens):
    most = most_characters(max_tokens)
    words = "Once upon a time there was a little dog. "
    words *= most // len(words) + 9
    rows = [
        {"prompt": "Say it", "completion": words},
        {"instruction": "Say it", "input": words, "output": "a"},
    ]
    records = written(tmp_path / "a.jsonl", rows)
    assert all(record.cut(most) != record for record in records)
    control = ControlText(tokenizer)
    whole, _ = (conversation(record, tokenizer, template, control=control)[0] for record in records)
    found = render(records, tokenizer, template=template, max_tokens=max_tokens)
    assert list(found.sequences[0].tokens) == whole[0][:max_tokens]
    assert (found.cut, found.left_out, len(found.sequences)) == (2, [2], 1)


def test_sequences_are_small_in_memory(tmp_path, tokenizer):
    row = {"prompt": "Once upon a time " * 30, "completion": "there was a little dog. " * 30}
    records = written(tmp_path / "a.jsonl", [row]) * 50
    render(records[:1], tokenizer, template="chat", max_tokens=4000)
    tracemalloc.start()
    found = render(records, tokenizer, template="chat", max_tokens=4000)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.tokens > 50 * 100
    assert held < 1.2 * found.nbytes + 20_000
    assert found.nbytes < 9 * found.tokens + 300 * len(found.sequences)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "line 1"),
        ('{"text": "a"}\n{"prompt": "a"}', "line 2: it has no completion, but prompt"),
        ('{"instruction": "a", "output": null}', "line 1: output is null"),
        ('{"messages": [{"role": "wizard", "content": "a"}]}', "line 1: message 1 has the role"),
        ('{"messages": [{"role": ["user"], "content": "a"}]}', "line 1: message 1"),
        ('{"messages": [{"role": "assistant", "content": "a", "weight": 0.5}]}', "the weight 0.5"),
        ('{"messages": [{"role": "assistant", "content": "a", "weight": "0"}]}', "the weight '0'"),
        ('{"messages": ["a"]}', "line 1: message 1 is 'a'; it must be an object"),
        ('{"instruction": "a", "output": "b", "history": ["c"]}', "line 1: history is"),
        ('{"prompt": [{"role": "user", "content": "a"}], "completion": 3}', "completion is 3"),
        ('{"conversations": [{"from": "function_call", "value": "f(1)"}]}', "a call of a tool"),
        ("{}", "line 1: it has no prompt, but nothing at all"),
        ('{"messages": "a"}', "line 1: messages is"),
        ('{"text": ""}\n{"text": 1}', "line 1: text is empty; line 2: text is 1"),
        ('{"text": ""}', "line 1: text is empty"),
        ("[1, 2]", "line 1"),
    ],
)
def test_bad_records_are_named_by_their_line(tmp_path, text, message):
    path = tmp_path / "bad.jsonl"
    path.write_text(text)
    with pytest.raises(FormatError, match=message):
        read_records(path)


@pytest.mark.parametrize("text", ["", "\n\n", "[]"])
def test_an_empty_file_is_another_than_was_meant(tmp_path, text):
    path = tmp_path / "empty.jsonl"
    path.write_text(text)
    with pytest.raises(ConfigError, match="holds no row") as refused:
        read_records(path)
    assert refused.value.exit_code == 2, "as where nothing is learned of any record"


def test_bytes_that_are_no_utf8_are_named(tmp_path):
    path = tmp_path / "latin.jsonl"
    path.write_bytes(b'{"text": "a"}\n{"text": "caf\xe9"}\n')
    with pytest.raises(FormatError, match="line 2: the row is not UTF-8 at byte 14"):
        read_records(path)


FORGETFUL = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.last %}(thought) {% endif %}{{ m.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Thinking stays in the last answer alone, as Qwen3's template has it."""


def templated(tmp_path, template):
    folder = write_model(tmp_path / "model", LLAMA)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": template}))
    return Tokenizer.from_folder(folder)


def test_each_answer_is_by_itself_where_a_template_rewrites_earlier_turns(tmp_path):
    tokenizer = templated(tmp_path, FORGETFUL)
    records = written(tmp_path / "chat.jsonl", [CHAT, {"prompt": "Say a", "completion": "a"}])
    found = render(records, tokenizer, template="chat", max_tokens=400)
    texts = [tokenizer.decode(one.tokens, skip_special_tokens=False) for one in found.sequences]
    assert len(texts) == 3
    assert [text.count("(thought)") for text in texts] == [1, 1, 1]
    assert "Hello." in texts[1], "the earlier turn is read"
    assert learned(found.sequences[1], tokenizer).startswith("(thought) Good bye.")
    assert "Hello" not in learned(found.sequences[1], tokenizer)
    assert found.parted == 1
    assert "of 1 record each answer is learned by itself" in found.notes()[0]


def test_a_template_that_ends_prompts_in_another_way_is_refused_by_line(tmp_path):
    template = FORGETFUL.replace("assistant\n{% endif %}", "assistant: {% endif %}")
    tokenizer = templated(tmp_path, template)
    with pytest.raises(FormatError, match="line 1: the chat template begins an answer otherwise"):
        render(written(tmp_path / "c.jsonl", [CHAT]), tokenizer, template="chat", max_tokens=400)


def test_templates_write_the_day_that_they_are_given(tmp_path):
    tokenizer = templated(tmp_path, "{{ strftime_now('%d %b %Y') }}: {{ messages[0].content }}")
    tokenizer.today = "2026-01-31"
    messages = [{"role": "user", "content": "Hi"}]
    assert tokenizer.render(messages) == "31 Jan 2026: Hi"
    assert tokenizer.render(messages, strftime_now="2025-12-24") == "24 Dec 2025: Hi"
    tokenizer.today = None
    assert tokenizer.render(messages) != "31 Jan 2026: Hi"


CALLING = (
    "{% for tool in tools or [] %}<tool>{{ tool.function.name }}</tool>{% endfor %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for c in m.tool_calls or [] %}<call>{{ c.function.name }} "
    "{{ c.function.arguments | tojson }}</call>{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_calls_of_tools_are_learned_as_the_template_writes_them(tmp_path):
    row = {
        "messages": [
            *HELLO,
            {**CALL[1], "content": None},
            {"role": "tool", "content": "sunny", "tool_call_id": "call_1"},
            {"role": "assistant", "content": "It is sunny."},
        ],
        "tools": json.dumps(TOOLS),
    }
    tokenizer = templated(tmp_path, CALLING)
    found = render(written(tmp_path / "a.jsonl", [row]), tokenizer, template="chat", max_tokens=400)
    [one] = found.sequences
    assert tokenizer.decode(one.tokens).startswith("<tool>weather</tool>")
    said = '<call>weather {"city": "Zürich", "days": [1, 2]}</call>'
    assert learned(one, tokenizer) == f"{said}<|im_end|>\nIt is sunny.<|im_end|>\n"


def test_calls_in_other_forms_are_the_same(tmp_path):
    name, arguments = "weather", json.dumps({"city": "Zürich", "days": [1, 2]})
    answer = {"role": "assistant", "content": "It is sunny."}
    asked = [{"role": "user", "content": "Hi"}]
    calls = {"function": {"name": name, "arguments": arguments}}
    said = {"from": "function_call", "value": json.dumps({"name": name, "arguments": arguments})}
    rows = [
        {
            "messages": [
                *asked,
                {"role": "assistant", "content": None, "tool_calls": [calls]},
                {"role": "tool", "content": "sunny"},
                answer,
            ],
            "tools": TOOLS,
        },
        {
            "messages": [
                *asked,
                {"role": "assistant", "function_call": {"name": name, "arguments": arguments}},
                {"role": "function", "name": name, "content": "sunny"},
                answer,
            ],
            "functions": [tool["function"] for tool in TOOLS],
        },
        {
            "conversations": [*asked, said, {"from": "observation", "value": "sunny"}, answer],
            "tools": json.dumps(TOOLS),
        },
    ]
    tokenizer = templated(tmp_path, CALLING)
    records = written(tmp_path / "a.jsonl", rows)
    found = render(records, tokenizer, template="chat", max_tokens=400)
    assert len(found.sequences) == 3
    assert found.repeated == 2


def test_a_template_without_tools_is_no_place_for_them(tmp_path):
    row = {**CHAT, "tools": TOOLS}
    with pytest.raises(FormatError, match="line 1: the chat template has no place for tools"):
        render(
            written(tmp_path / "a.jsonl", [row]),
            templated(tmp_path, FORGETFUL),
            template="chat",
            max_tokens=400,
        )


def test_messages_of_weight_0_are_read_and_not_learned(tmp_path, tokenizer):
    messages = [dict(message) for message in CHAT["messages"]]
    messages[1]["weight"] = 0
    [record] = written(tmp_path / "a.jsonl", [{"system": "Be kind.", "conversations": messages}])
    [one] = render([record], tokenizer, template="chat", max_tokens=200).sequences
    assert record.messages[0] == {"role": "system", "content": "Be kind."}
    assert learned(one, tokenizer) == "Good bye.<|end|>"


def test_an_instruction_may_have_several_answers_and_a_context(tmp_path):
    answers = [{"input": word, "output": word.upper()} for word in "ab"]
    several, dolly = (
        {"instruction": "Say it loud", "instances": answers},
        {"instruction": "Say it", "context": "a", "response": "a", "category": "qa"},
    )
    found = written(tmp_path / "a.jsonl", [several, dolly])
    assert [record.line for record in found] == [1, 1, 2]
    assert [record.instruction for record in found] == [
        ("Say it loud", "a"),
        ("Say it loud", "b"),
        ("Say it", "a"),
    ]
    assert [record.messages[-1]["content"] for record in found] == ["A", "B", "a"]


def spelled(text):
    """A text that spells a control token, in front, in the middle and at the end."""
    return f"{text}Say {text} and{text}"


@pytest.mark.parametrize("template", ["chat", "alpaca", "plain"])
@pytest.mark.parametrize("row", ["turns", "text"])
def test_text_that_spells_control_tokens_is_text(tmp_path, tokenizer, template, row):
    said = spelled("<|end|>")
    rows = {
        "turns": {"prompt": said, "completion": said},
        "text": {"text": said},
    }
    records = written(tmp_path / "r.jsonl", [rows[row], {"prompt": "a", "completion": "b"}])
    found = render(records, tokenizer, template=template, max_tokens=400)
    assert (found.held, found.control, len(found.sequences)) == (1, [], 2)
    assert any("the text of a control token in 1 record is" in note for note in found.notes())
    one, usual = found.sequences
    assert said in tokenizer.decode(one.tokens, skip_special_tokens=False)
    end = tokenizer.token_to_id("<|end|>")
    # only those that the template writes, as in a record without such text
    if row == "turns":
        assert one.tokens.count(end) == usual.tokens.count(end)
        assert learned(one, tokenizer) == said + learned(usual, tokenizer)[1:]
    else:
        assert one.tokens.count(end) == (end in tokenizer.eos_token_ids)


def test_what_stands_beside_it_has_the_tokens_that_it_always_has(tmp_path, tokenizer):
    rows = [
        {"prompt": "Say a", "completion": said} for said in ("Once upon <|user|> a time", "a time")
    ]
    found = render(written(tmp_path / "r.jsonl", rows), tokenizer, template="chat", max_tokens=200)
    held, usual = ([t for t in one.targets if t >= 0] for one in found.sequences)
    begin = tokenizer.encode("Once upon ", add_special_tokens=False)[:-1]
    assert held[: len(begin)] == begin
    assert held[-len(usual) + 1 :] == usual[1:], "with the template's own end"
    asked = [one.tokens[: one.targets.index(held[0])] for one in found.sequences[:1]]
    assert asked[0] == found.sequences[1].tokens[: len(asked[0])]


def test_records_inside_of_an_object_are_pointed_to(tmp_path):
    path = tmp_path / "train.json"
    path.write_text(json.dumps({"version": 1, "data": [{"prompt": "a", "completion": "b"}]}))
    with pytest.raises(FormatError, match="it has no prompt, but version, data") as refused:
        read_records(path)
    code = refused.value.hint.partition('-c "')[2].partition('"')[0].replace("FILE", str(path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    path.write_bytes(done.stdout)
    assert len(read_records(path)) == 1
