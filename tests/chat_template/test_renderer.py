"""Chat templates render to the text that transformers makes of them, and fail in our words."""

import copy
import threading
import warnings
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.conversations import CALL, HELLO, NAMES, TALK, TOOLS, render
from support.tiny_tokenizers import TEMPLATE

from edgellm.errors import TemplateError

TEMPLATES = {
    "plain": TEMPLATE,
    "blocks": """
{%- for message in messages %}
    {%- if message.role == "system" and loop.first %}
        {{- "[SYS]" + message.content | trim + "[/SYS]" }}
    {%- elif message['role'] in ["user", "assistant"] %}
        {{- "<|" ~ message.role ~ "|>" ~ message.content.strip() ~ eos_token }}
    {%- else %}
        {{- raise_exception("no such role: " ~ message.role) }}
    {%- endif %}
{%- endfor %}
    {% if add_generation_prompt %}
<|assistant|>
    {% endif %}
""",
    "tools": """
{%- if tools %}{{ tools | tojson }}{{ tools | tojson(indent=4) }}
{%- for tool in tools %}{{ tool.function.name }}{% endfor %}
{%- endif %}
{%- for message in messages %}
{%- if message.tool_calls is defined and message.tool_calls %}{% for call in message.tool_calls %}
{%- set given = call.function.arguments %}
{{ call.function.name }}({{ given | tojson(separators=(",", ":"), sort_keys=True) }})
{%- for key, value in given.items() %} {{ key }}={{ value if value is string else value | tojson }}
{%- endfor %}
{%- endfor %}{% else %}{{ message.content | default("nothing", true) }}{% endif %}
{%- endfor %}""",
    "namespace": """
{%- set ns = namespace(system="", last=-1, found=false) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages | length - 1) - loop.index0 %}
    {%- if not ns.found and message.role == "user" %}
        {%- set ns.found = true %}{% set ns.last = index %}
    {%- endif %}
    {%- if message.role == "system" %}
        {%- set ns.system = ns.system ~ message.content %}{% continue %}
    {%- endif %}
{%- endfor %}
{{- ns.system }}|{{ ns.last }}|
{%- for message in messages %}
    {%- if loop.index0 > ns.last %}{% break %}{% endif %}
    {%- if "</think>" in (message.content or "") %}
        {{- message.content.split("</think>")[-1].lstrip("\\n") }}
    {%- else %}{{ message.content }}{% endif %}
    {%- if not loop.last %},{% endif %}
{%- endfor %}""",
    "macros": """
{%- macro block(role, text="") -%}
<{{ role | upper }}>{{ text | replace("\\n", " ") | trim }}{{ caller() if caller }}</{{ role }}>
{%- endmacro -%}
{%- for message in messages %}{{ block(message.role, message.content) }}{% endfor %}
{%- call block("end") %}{{ messages | map(attribute="role") | unique | join(", ") }}
{%- endcall %}""",
    "generation": """
{%- for message in messages %}
    {%- generation %}{% set text = message.content %}{{ text }}{% endgeneration %}{{ text }}
{%- endfor %}""",
    "date": """{{ strftime_now('%Y') | length }}
{%- if not date_string is defined %}{% set date_string = 'none' %}{% endif %}{{ date_string }}""",
    "trim": "a\n  {% if true %}\n  b\n  {% endif %}\n{{ 'c' }}\n{# gone #}\nd\n",
}


LANGUAGE = Path(__file__).with_name("language.txt").read_text(encoding="utf-8").splitlines()
"""A line each of what Jinja offers and transformers adds; some are errors there too."""


@pytest.fixture(scope="module")
def reference():
    """What transformers renders."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("transformers", reason="transformers, the reference, is not installed")
        from transformers.utils.chat_template_utils import render_jinja_template

    def render_reference(source, messages, variables):
        return render_jinja_template(
            [copy.deepcopy(messages)], chat_template=source, **copy.deepcopy(variables)
        )[0][0]

    return render_reference


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("messages", [HELLO, TALK, CALL], ids=["hello", "talk", "call"])
@pytest.mark.parametrize("tools", [None, TOOLS], ids=["plain", "tools"])
def test_text_is_that_of_transformers(reference, name, messages, tools):
    variables = NAMES | {"tools": tools}
    try:
        expected = reference(TEMPLATES[name], messages, variables)
    except Exception:
        with pytest.raises(TemplateError, match=r"refuses the conversation|fails"):
            render(TEMPLATES[name], messages, tools=tools)
    else:
        assert render(TEMPLATES[name], messages, tools=tools) == expected


def test_each_word_of_the_language_gives_the_text_of_transformers(reference):
    documents = [{"title": "A", "text": "t"}, {"title": "B", "text": None}]
    more = {"numbers": {1: "a"}, "pair": ("a", [1]), "documents": documents, "tools": TOOLS}
    for source in LANGUAGE:
        expected = None
        with suppress(Exception):  # jinja's own, or whatever a program runs into
            expected = reference(source, TALK, NAMES | more)
        if expected is None:
            with pytest.raises(TemplateError, match=r"fails|damaged|refuses"):
                render(source, TALK, **more)
        else:
            assert render(source, TALK, **more) == expected, source


def test_what_a_template_is_given():
    assert (
        render(
            "{{ bos_token }}{{ add_generation_prompt }}{{ tools }}{{ mood }}{{ missing }}",
            mood="gay",
        )
        == "<s>TrueNonegay"
    )


def test_threads_render_at_the_same_time():
    expected = render(TEMPLATES["macros"], TALK)
    texts = []

    def work():
        texts.extend(render(TEMPLATES["macros"], TALK) for _ in range(5))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts == [expected] * 20


@pytest.mark.parametrize(
    "value", [object(), SimpleNamespace(a=1), print, {1, 2}, b"bytes", [[object()]]]
)
def test_a_template_is_given_plain_data_only(value):
    with pytest.raises(TemplateError, match="takes plain data, not a"):
        render("{{ thing }}", thing=value)


def test_subclasses_of_plain_data_come_without_their_methods():
    class Loud(str):
        def upper(self):
            raise AssertionError("a template called it")

    assert render("{{ word.upper() }}", word=Loud("a")) == "A"
    nested = []
    nested.append(nested)
    with pytest.raises(TemplateError, match="nested more than 32 levels deep"):
        render("{{ nested }}", nested=nested)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "{{ raise_exception('roles must alternate') }}",
            "refuses the conversation: roles must alternate",
        ),
        ("a\n{% if %}", "damaged in line 2"),
        ("{{ 'a' | nonsense }}", "damaged in line 1: No filter named 'nonsense'"),
        ("{{ messages[9].content.x }}", "fails: list object has no element 9"),
        ("{{ 1 + 'a' }}", "fails: TypeError"),
        ("{{ 1 / 0 }}", "fails: ZeroDivisionError"),
        ("{{ raise_exception('x' * 5000) }}", r"x{200}\.\.\.$"),
        ("{% include 'x' %}", "fails: "),
    ],
)
def test_what_an_error_says(source, message):
    with pytest.raises(TemplateError, match=message):
        render(source)
