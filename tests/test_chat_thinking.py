"""A conversation with a model that thinks: what is shown, computed, kept, and read again."""

import pytest
from support.scripted import write_scripted
from support.thinking_templates import CUTTING, KEEPING, SPECIAL, STRICT

import edgellm
from edgellm.errors import ConfigError, TemplateError

MARKERS = ["<think>", "</think>", "\n\n"]


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """A function that opens a model with a template and what it replies."""
    models = {}

    def load(template, reply, **tokens):
        if (template, reply) not in models:
            folder = tmp_path_factory.mktemp("scripted") / "model"
            write_scripted(folder, reply, template, **tokens)
            models[template, reply] = edgellm.load(folder, memory="500MB", threads=1)
        return models[template, reply]

    yield load
    for model in models.values():
        model.close()


@pytest.fixture
def cutting(opened):
    return opened(CUTTING, "<think>\nThey played</think>\n\nOnce <b>.", added=MARKERS)


@pytest.fixture
def keeping(opened):
    return opened(KEEPING, "They played</think>Once.", added=MARKERS)


THOUGHT = {"role": "assistant", "content": "Once <b>.", "reasoning_content": "They played"}


def test_thinking_is_no_part_of_the_answer(cutting):
    chat = cutting.chat()
    tokens = list(chat.stream("Hello"))
    assert "".join(token.text for token in tokens) == "Once <b>."
    assert "".join(token.thinking for token in tokens) == "They played"
    assert tokens[-1].stats.completion_tokens == len(tokens)
    assert chat.messages == [{"role": "user", "content": "Hello"}, THOUGHT]
    assert chat.send("More") == "Once <b>."


@pytest.mark.parametrize(
    ("think", "switched"), [(None, ""), (True, ""), (False, "<think>\n\n</think>")]
)
def test_thinking_is_switched_by_the_templates_own_variable(cutting, think, switched):
    chat = cutting.chat(think=think)
    *_, last = chat.stream("Hello", max_tokens=1)
    prompt = f"<|user|>Hello<|end|><|assistant|>{switched}"
    ids = cutting.tokenizer.encode(prompt, add_special_tokens=False)
    assert last.stats.prompt_tokens == len(ids)
    same = cutting.chat(chat_template_kwargs={"enable_thinking": think is not False})
    assert next(same.stream("Hello", max_tokens=1)).stats.prompt_tokens == len(ids)
    with pytest.raises(TemplateError, match="has no variable 'reasoning_effort'"):
        cutting.chat(chat_template_kwargs={"reasoning_effort": "low"})


def test_past_thinking_is_left_out_of_what_is_read_again(cutting):
    chat = cutting.chat()
    for saying in ("Hello", "More", "And?"):
        *_, last = chat.stream(saying)
    said = "".join(
        f"<|{message['role']}|>{message['content']}<|end|>" for message in chat.messages[:-1]
    )
    ids = cutting.tokenizer.encode(f"{said}<|assistant|>", add_special_tokens=False)
    assert last.stats.prompt_tokens == len(ids)
    # all but the last reply, which was read with its thinking, and the new turn
    before = said[: said.rindex("<|assistant|>")] + "<|assistant|>"
    known = cutting.tokenizer.encode(before, add_special_tokens=False)
    assert last.stats.cached_tokens == len(known)


def test_thinking_that_stays_is_not_computed_again(keeping):
    chat = keeping.chat()
    *_, first = chat.stream("Hello")
    *_, second = chat.stream("More")
    assert chat.messages[1]["reasoning_content"] == "They played"
    known = first.stats.prompt_tokens + first.stats.completion_tokens
    assert second.stats.cached_tokens >= known - 1


@pytest.mark.parametrize("stop", ["limit", "closed"])
def test_thinking_that_was_cut_off_leaves_the_conversation_usable(cutting, stop):
    chat = cutting.chat(max_tokens=4)
    stream = chat.stream("Hello")
    if stop == "closed":
        for _ in range(4):
            next(stream)
        stream.close()
    else:
        assert [token.text for token in stream] == [""] * 4
    cut = {"role": "assistant", "content": "", "reasoning_content": "They"}
    assert chat.messages == [{"role": "user", "content": "Hello"}, cut]
    assert chat.send("More", max_tokens=50) == "Once <b>."


def test_a_turn_that_a_template_would_refuse_ever_after_is_taken_back(opened):
    model = opened(STRICT, "They played</think>Once.", added=MARKERS)
    chat = model.chat()
    assert "".join(token.thinking for token in chat.stream("Hello", max_tokens=3)) == "They play"
    assert chat.messages == []
    assert chat.send("Hello") == "Once."


def test_markers_that_are_special_tokens_part_it_too(opened):
    reply = "[THINK]They played[/THINK]Once."
    model = opened(SPECIAL, reply, special=["[THINK]", "[/THINK]"])
    chat = model.chat()
    assert [chat.send("Hello"), chat.send("More")] == ["Once.", "Once."]
    assert chat.messages[-1]["reasoning_content"] == "They played"
    with pytest.raises(TemplateError, match="no switch for thinking"):
        model.chat(think=False)


def test_thinking_is_saved_and_loaded(keeping, tmp_path):
    chat = keeping.chat()
    chat.send("Hello")
    chat.save(tmp_path / "talk.json")
    other = keeping.chat()
    other.load(tmp_path / "talk.json")
    assert other.messages == chat.messages
    assert "reasoning_content" in other.messages[1]
    *_, last = other.stream("More")
    assert last.stats.cached_tokens > 0


@pytest.mark.parametrize("wrong", [{"think": "yes"}, {"chat_template_kwargs": ["enable_thinking"]}])
def test_arguments_of_another_kind_are_refused(cutting, wrong):
    (name,) = wrong
    with pytest.raises(ConfigError, match=f"{name} is "):
        cutting.chat(**wrong)
