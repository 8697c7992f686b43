"""Templates in the manner of real releases give the text, or the refusal, of transformers."""

import re
import warnings
from pathlib import Path

import pytest
from support.conversations import CALL, HELLO, TALK, TOOLS
from support.tiny_tokenizers import json_text, write_json

from edgellm.chat_template.conversation import ConversationTemplate
from edgellm.errors import TemplateError
from edgellm.tokenizer.added_tokens import read_settings
from edgellm.tokenizer.tokenizer import Tokenizer
from edgellm.tokenizer.tokenizer_json import JsonVocabulary

SHAPES = {file.stem: file for file in sorted((Path(__file__).parent / "shapes").glob("*.jinja"))}
PARTS = [{"type": "text", "text": " Two parts"}, {"type": "image"}]
CALL_ID = {
    "id": "abcdefghi",
    "type": "function",
    "function": {"name": "weather", "arguments": {"city": "Zürich"}},
}
DOCUMENTS = [{"doc_id": 7, "title": "One", "text": "The dog."}, {"text": "The ball."}]


def user(text="Hello"):
    return {"role": "user", "content": text}


def assistant(text="Hi", **fields):
    return {"role": "assistant", "content": text, **fields}


def system(text):
    return {"role": "system", "content": text}


CHATS = {
    "hello": (HELLO, {}),
    "talk": (TALK, {}),
    "long": ([user(" a\n"), assistant(" b "), user("<|c|>"), assistant(""), user("é")], {}),
    "empty system": ([system(""), user()], {}),
    "system": ([system(" Be brief. /no_think\n"), user()], {}),
    "two systems": ([system("a"), user(), system("b"), user()], {}),
    "thought": ([user(), assistant("Hi", reasoning_content="\nhm\n"), user("More")], {}),
    "thought last": ([user(), assistant("Hi", thinking="hm")], {}),
    "thought in text": (
        [user(), assistant("<think>\nhm\n</think>\n<answer>\nHi\n</answer>"), user("More")],
        {},
    ),
    "no thinking": (HELLO, {"enable_thinking": False, "thinking": False}),
    "thinking": (TALK, {"enable_thinking": True, "thinking": True}),
    "tools": (HELLO, {"tools": TOOLS}),
    "tools beside": ([system("Be."), user()], {"tools": TOOLS, "tools_in_user_message": False}),
    "call": (CALL, {"tools": TOOLS}),
    "call with an id": (
        [user(), assistant(None, tool_calls=[CALL_ID]), {"role": "tool", "content": "1"}],
        {"tools": TOOLS},
    ),
    "documents": (HELLO, {"documents": DOCUMENTS}),
    "none": ([user(), {"role": "assistant", "content": "Hi", "tool_calls": None}, user()], {}),
    "assistant first": ([assistant(), user()], {}),
    "two users": ([user(), user()], {}),
    "no content": ([user(), {"role": "assistant"}], {}),
    "unknown role": ([{"role": "critic", "content": "a"}], {}),
    "parts": ([user(PARTS)], {}),
    "wrong part": ([user([{"type": "sound"}])], {}),
}


@pytest.fixture(scope="module")
def transformers_tokenizer():
    """A function that makes transformers' tokenizer of a tokenizer.json."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers = pytest.importorskip(
            "transformers", reason="transformers, the reference, is not installed"
        )
        from tokenizers import Tokenizer as Fast

    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=Fast.from_str(json_text("byte-level")),
        bos_token="<|begin|>",
        eos_token="<|end|>",
    )


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    folder = write_json(tmp_path_factory.mktemp("tokenizer"), "byte-level")
    return JsonVocabulary.from_file(folder / "tokenizer.json", read_settings(folder), None)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_conversation_is_rendered_as_by_transformers(
    shape, transformers_tokenizer, vocabulary
):
    source = SHAPES[shape].read_text(encoding="utf-8")
    ours = Tokenizer(vocabulary, {"default": source})
    texts = set()
    for name, (messages, variables) in CHATS.items():
        for prompt in (True, False):
            settings = {"add_generation_prompt": prompt, **variables}
            expected, refusal = None, None
            try:
                expected = transformers_tokenizer.apply_chat_template(
                    messages, chat_template=source, tokenize=False, **settings
                )
            except Exception as error:  # jinja's own, or whatever a program runs into
                refusal = str(error)[:40]
            if refusal is None:
                assert ours.render(messages, **settings) == expected, (name, prompt)
                texts.add(expected)
            else:
                with pytest.raises(TemplateError, match=re.escape(refusal)) as caught:
                    ours.render(messages, **settings)
                assert caught.value.hint, name
    assert len(texts) > 5


@pytest.mark.parametrize("shape", ["llama-2", "mistral-v1", "mistral-v3", "gemma", "command-r"])
def test_roles_that_do_not_alternate_are_refused_with_the_way_round(shape, vocabulary):
    ours = Tokenizer(vocabulary, {"default": SHAPES[shape].read_text(encoding="utf-8")})
    with pytest.raises(TemplateError, match=r"refuses the conversation: .*alternate") as caught:
        ours.render([user(), user()])
    assert caught.value.hint.startswith("let users and assistants take turns")


@pytest.mark.parametrize("shape", ["qwen-3", "deepseek-r1", "exaone-4", "hunyuan"])
def test_past_thinking_is_read_again_as_transformers_has_it_of_the_whole_reply(
    shape, transformers_tokenizer, vocabulary
):
    source = SHAPES[shape].read_text(encoding="utf-8")
    reply = "<think>\nhm\n</think>\n\nHi"
    expected = transformers_tokenizer.apply_chat_template(
        [user(), assistant(reply), user("More")],
        chat_template=source,
        add_generation_prompt=True,
        tokenize=False,
    )
    conversation = ConversationTemplate(Tokenizer(vocabulary, {"default": source}))
    kept = assistant("Hi", reasoning_content="hm")
    assert conversation.render([user(), kept, user("More")]) == expected
    assert "hm" not in expected
