"""Chat templates: the same text as transformers makes of them, and an end to those that have none."""

import copy
import json
import re
import threading
import warnings
from types import SimpleNamespace

import pytest
from support.tiny_tokenizers import LLAMA, TEMPLATE, write_config, write_pieces

from edgellm.chat_template.template import MAX_SOURCE, ChatTemplate, find_templates
from edgellm.chat_template.work_budget import TOTAL_UNITS
from edgellm.errors import TemplateError
from edgellm.tokenizer import Tokenizer

NAMES = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "tools": None,
    "documents": None,
    "add_generation_prompt": True,
}
HELLO = [{"role": "user", "content": "Hello"}]
TALK = [
    {"role": "system", "content": "Be brief. "},
    {"role": "user", "content": "  What is <b>1 & 1</b>?\n"},
    {"role": "assistant", "content": "<think>\nhm\n</think>\n\nTwo, 'of course' é"},
    {"role": "user", "content": "Sure?"},
]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Say <how> the weather is & 'was' é",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        },
    }
]
CALL = [
    *HELLO,
    {
        "role": "assistant",
        "tool_calls": [
            {"function": {"name": "weather", "arguments": {"city": "Zürich", "days": [1, 2]}}}
        ],
    },
    {"role": "tool", "content": "sunny"},
]

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
{%- if tools %}{{ tools | tojson }}{{ tools | tojson(indent=4) }}{% for tool in tools %}{{ tool.function.name }}{% endfor %}
{%- endif %}
{%- for message in messages %}
{%- if message.tool_calls is defined and message.tool_calls %}{% for call in message.tool_calls %}
{{ call.function.name }}({{ call.function.arguments | tojson(separators=(",", ":"), sort_keys=True) }})
{%- for key, value in call.function.arguments.items() %} {{ key }}={{ value if value is string else value | tojson }}
{%- endfor %}
{%- endfor %}{% else %}{{ message.content | default("nothing", true) }}{% endif %}
{%- endfor %}""",
    "namespace": """
{%- set ns = namespace(system="", last=-1, found=false) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages | length - 1) - loop.index0 %}
    {%- if not ns.found and message.role == "user" %}{% set ns.found = true %}{% set ns.last = index %}{% endif %}
    {%- if message.role == "system" %}{% set ns.system = ns.system ~ message.content %}{% continue %}{% endif %}
{%- endfor %}
{{- ns.system }}|{{ ns.last }}|
{%- for message in messages %}
    {%- if loop.index0 > ns.last %}{% break %}{% endif %}
    {%- if "</think>" in (message.content or "") %}{{ message.content.split("</think>")[-1].lstrip("\\n") }}
    {%- else %}{{ message.content }}{% endif %}
    {%- if not loop.last %},{% endif %}
{%- endfor %}""",
    "macros": """
{%- macro block(role, text="") -%}
<{{ role | upper }}>{{ text | replace("\\n", " ") | trim }}{{ caller() if caller }}</{{ role }}>
{%- endmacro -%}
{%- for message in messages %}{{ block(message.role, message.content) }}{% endfor %}
{%- call block("end") %}{{ messages | map(attribute="role") | unique | join(", ") }}{% endcall %}""",
    "filters": """
{{- messages | selectattr("role", "equalto", "user") | map(attribute="content") | list }}
{{- messages | rejectattr("role", "in", ["user"]) | list | length }}
{{- (messages | first).role | capitalize }}{{ (messages | last)["role"] | title }}
{{- {"b": 1, "a": [1.5, none, true]} | dictsort }}{{ [3, 1, 2] | sort | join }}{{ [1, 2] | sum }}
{{- -7 | abs }}{{ 7.6 | round | int }}
{{- "%s-%05.1f" | format("x", 2) }}{{ "%s:%d" % ("y", 3) }}{{ "{} {a:>4}".format("z", a=5) }}{{ "ab" * 2 }}{{ 2 ** 8 }}
{{- 1 < 2 < 3 }}{{ 3 > 2 > 2 }}{{ "a" not in "b" }}{{ [1] == [1] }}{{ "a" <= "b" }}{{ (1, 2)[1:] }}{{ "abc"[::-1] }}
{{- messages is iterable }}{{ x is defined }}{{ x.y is defined }}{{ messages[0].nothing is none }}{{ 4 is even }}
{{- dict(a=1, **{"b": 2}) }}{{ range(3) | list }}{{ "a\\nb" | indent(2, true) }}{{ "<&>" | e }}{{ "a b" | urlencode }}
{{- [1, [2]] | string }}{{ cycler("o", "e").next() }}{% set comma = joiner("; ") %}{{ comma() }}{{ comma() }}
{%- for key, group in messages | groupby("role") %}{{ key }}{{ group | length }}{% endfor %}
{%- filter upper %}shout{% endfilter %}{% set text %}kept {{ bos_token }}{% endset %}{{ text }}
{%- for branch in [[1, [2]]] recursive %}({{ loop(branch) if branch is not number else branch }}){% endfor %}""",
    "generation": "{% for message in messages %}{% generation %}{{ message.content }}{% endgeneration %}{% endfor %}",
    "date": "{{ strftime_now('%Y') | length }}{% if not date_string is defined %}{% set date_string = 'none' %}{% endif %}",
    "trim": "a\n  {% if true %}\n  b\n  {% endif %}\n{{ 'c' }}\n{# gone #}\nd\n",
}


@pytest.fixture(scope="module")
def reference():
    """What transformers renders."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("transformers", reason="transformers, the reference, is not installed")
        from transformers.utils.chat_template_utils import render_jinja_template

    def render(source, messages, variables):
        return render_jinja_template(
            [copy.deepcopy(messages)], chat_template=source, **copy.deepcopy(variables)
        )[0][0]

    return render


def render(source, messages=HELLO, **variables):
    return ChatTemplate(source).render(messages, NAMES | variables)


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("messages", [HELLO, TALK, CALL], ids=["hello", "talk", "call"])
@pytest.mark.parametrize("tools", [None, TOOLS], ids=["plain", "tools"])
def test_the_text_is_that_of_transformers(reference, name, messages, tools):
    variables = NAMES | {"tools": tools}
    try:
        expected = reference(TEMPLATES[name], messages, variables)
    except Exception:
        with pytest.raises(TemplateError, match=r"refuses the conversation|fails"):
            render(TEMPLATES[name], messages, tools=tools)
    else:
        assert render(TEMPLATES[name], messages, tools=tools) == expected


def test_what_a_template_is_given():
    assert (
        render(
            "{{ bos_token }}{{ add_generation_prompt }}{{ tools }}{{ mood }}{{ missing }}",
            mood="gay",
        )
        == "<s>TrueNonegay"
    )


# An end to what has none


LONG = "'ab' * 100000"


def repeated(change, first="1", times=99999):
    """A value ``v`` that changes again and again."""
    loop = f"{{% for i in range({times}) %}}{{% set ns.v = {change} %}}{{% endfor %}}"
    return f"{{% set ns = namespace(v={first}) %}}{loop}{{{{ ns.v }}}}"


ENDLESS = {
    "loops": "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
    "a filtered loop": "{% for i in range(99999) %}{% for j in range(99999) if j < 0 %}{% endfor %}{% endfor %}",
    "a recursive loop": "{% for i in range(9) recursive %}{{ loop(range(99999)) }}{% endfor %}",
    "a macro in a macro": "{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}",
    "macros that branch": "{% macro m(n) %}{% if n < 30 %}{{ m(n + 1) }}{{ m(n + 1) }}{% endif %}{% endmacro %}{{ m(0) }}",
    "a block in itself": "{% block a %}{{ self.a() }}{% endblock %}",
    "a big output": "{% for i in range(99999) %}" + "y" * 1000 + "{% endfor %}",
    "a big block": "{% set x %}{% for i in range(99999) %}"
    + "y" * 1000
    + "{% endfor %}{% endset %}{{ x | length }}",
    "a long string": "{{ 'x' * 10 ** 9 }}",
    "a long list": "{{ [0] * 10 ** 9 }}",
    "a list of lists": "{{ [[0] * 1000] * 1000 }}",
    "a large power": "{{ 10 ** (10 ** 8) }}",
    "a number of many digits": "{{ ('f' * 9999) | int(0, 16) }}",
    "a product": repeated("ns.v * ns.v", "3", 99),
    "doubling by +": repeated("ns.v + ns.v", "'x'", 60),
    "doubling by ~": repeated("ns.v ~ ns.v", "'x'", 60),
    "doubling by a list": repeated("[ns.v, ns.v]", times=60),
    "doubling by a dict": repeated("{1: ns.v, 2: ns.v}", times=60),
    "a wide percent format": "{{ '%1000000000d' % 1 }}",
    "a wide format in a test": "{{ '%1000000000d' is odd }}{{ '%1000000000d' is divisibleby(1) }}",
    "a starred format": "{{ '%*d' % (1000000000, 1) }}",
    "a wide format": "{{ '{:1000000000}'.format(1) }}",
    "a nested format": "{{ '{:{}}'.format(1, 1000000000) }}",
    "a wide format behind zeros": "{{ '%000000000000999999999d' % 1 }}",
    "a wide format in other digits": "{{ '{:\u0661\u0660\u0660\u0660\u0660\u0660\u0660\u0660\u0660\u0660}'.format(1) }}",
    "a wide format of escaped text": "{{ ('{:999999999}' | e).format(1) }}{{ ('%999999999d' | e) % 1 }}",
    "a large replace in escaped text": "{{ (('a' * 1000) | e).replace('a', " + LONG + ") }}",
    "repeated fields": "{{ ('{0}' * 9999).format(" + LONG + ") }}",
    "a large replace": "{{ ('a' * 1000).replace('a', " + LONG + ") }}",
    "a large replace of nothing": "{{ ('a' * 1000) | replace('', " + LONG + ") }}",
    "a long join": "{{ ['a'] * 9999 | join("
    + LONG
    + ") }}{{ (['a'] * 9999) | join("
    + LONG
    + ") }}",
    "a long join by a method": "{{ (" + LONG + ").join(range(9999) | map('string')) }}",
    "an indent": "{{ 'a' | indent(10 ** 9) }}",
    "an indent of many lines": "{{ ('a\n' * 9999) | indent(9999) }}",
    "an indented JSON": "{{ messages | tojson(indent=10 ** 9) }}",
    "a rounding": "{{ 1 | round(10 ** 8, 'ceil') }}",
    "groups": "{{ (" + LONG + ") | groupby(0) }}",
    "long names": "{{ range(9999) | map(attribute=" + LONG + ") | list }}",
    "a sum of lists": "{{ ([[0]] * 9999) | sum(start=[]) | length }}",
    "a strip": "{{ ('a' * 250000).strip('b' * 99999 ~ 'a') }}",
    "a search from the right": "{% for i in range(999) %}{% set x = ('a' * 250000).rfind('b' ~ 'a' * 99999) %}{% endfor %}",
    "a split": "{{ ('a ' * 200000).split() | length }}",
    "letters": "{{ ('é中' * 200000) | list | length }}",
    "comparisons": "{% set l = range(9999) | list %}{% for i in range(99999) %}{% set x = l == [] or 1 in l %}{% endfor %}",
    "reading a list": "{% set l = range(9999) | list %}{% for i in range(99999) %}{% set x = l | max %}{% endfor %}",
    "reading a string": "{% set s = "
    + LONG
    + " %}{% for i in range(99999) %}{% set x = s.islower() %}{% endfor %}",
    "reading a range": "{% for i in range(99999) %}{% set x = range(99999) | sum + (0.5 in range(99999)) %}{% endfor %}",
    "reading a loop": "{% for i in range(99999) %}{% for j in range(99999) %}{% set x = loop | max %}{% endfor %}{% endfor %}",
    "many arguments": "{% for i in range(99999) %}{% set x = dict(*range(99999)) %}{% endfor %}",
    "what has changed": "{% for i in range(99999) %}{% set x = loop.changed(range(9999) | list) %}{% endfor %}",
    "slices": "{% set s = "
    + LONG
    + " %}{% for i in range(99999) %}{% set x = s[1:] %}{% endfor %}",
    "iterators in iterators": repeated("ns.v | map('abs')", "[1]"),
    "tuples in tuples": repeated("(ns.v,)") + "{{ {ns.v: 1} }}",
    "a padded date": "{{ strftime_now('%99999999d') }}",
    "parentheses": "{{ " + "(" * 9000 + "1" + ")" * 9000 + " }}",
    "a sum of many": "{{ " + "+".join(["1"] * 9000) + " }}",
    "lists in lists": "{{ " + "[" * 900 + "]" * 900 + " }}",
    "chains in chains": "{{ "
    + "1 < (" * 40
    + "1"
    + ") < 3" * 40
    + " }}"
    + repeated("ns.v * 9 ** 99"),
    "blocks in blocks": "{% if 1 %}" * 150 + "{% endif %}" * 150,
    "loops in loops": "{% for x in y %}" * 50 + "{% endfor %}" * 50,
    "many parts": "{{ a }}" * 9000,
    "too long a source": "a" * (MAX_SOURCE + 1),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ENDLESS)
def test_it_ends(name):
    with pytest.raises(TemplateError):
        render(ENDLESS[name])


def test_an_empty_purse_is_said_plainly():
    with pytest.raises(
        TemplateError, match="takes more time or memory than a conversation calls for"
    ):
        render(ENDLESS["loops"])
    with pytest.raises(
        TemplateError, match=r"a format with \* for its width, which is not allowed"
    ):
        render(ENDLESS["a starred format"])


def test_a_long_conversation_fills_the_purse():
    inner = "{% for n in messages %}{% if n.role == m.role %}{% endif %}{% endfor %}"
    quadratic = "{% for m in messages %}" + inner + "{{ m.content }}{% endfor %}"
    assert len(render(quadratic, [{"role": "user", "content": "word " * 200}] * 200)) == 200 * 1000
    with pytest.raises(TemplateError, match="more time or memory"):
        render(
            quadratic.replace("{% for m", "{% for i in range(999) %}{% for m") + "{% endfor %}",
            HELLO * 20,
        )
    huge = [{"role": "user", "content": "a" * (2 * TOTAL_UNITS)}]
    assert (
        len(render("{% for m in messages %}{{ '<' + m.content | trim + '>' }}{% endfor %}", huge))
        == 2 * TOTAL_UNITS + 2
    )


def test_threads_have_purses_of_their_own():
    template, hostile = ChatTemplate(TEMPLATES["macros"]), ChatTemplate(ENDLESS["loops"])
    expected = template.render(TALK, NAMES)
    seen = []

    def work():
        for _ in range(2):
            with pytest.raises(TemplateError):
                hostile.render(HELLO, NAMES)
            seen.append(template.render(TALK, NAMES))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [expected] * 8


# No way out


RUN = "os.system('touch {canary}')"
ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ ''['__class__']['__base__']['__subclasses__']() }}",
    "{{ (''|attr('__class__')|attr('__mro__'))[1].__subclasses__() }}",
    "{{ [''] | map(attribute='__class__') | map(attribute='__mro__') | list }}",
    "{{ '{0.__class__.__init__.__globals__}'.format(cycler) }}",
    "{{ '{0.__class__}'.format_map({'0': 1}) }}",
    "{{ ('{0.__class__.__init__.__globals__}' | e).format(cycler) }}",
    "{{ ('{a.__class__}' | safe).format_map({'a': cycler}) }}",
    "{% autoescape true %}{% set t %}{0.__class__}{% endset %}{{ t.format(cycler) }}{{ t.__html__ }}{% endautoescape %}",
    "{{ ('a' | e).__init_subclass__ }}{{ ('a' | e).formatter_field_name_split }}{{ ('a' | e).escape.__func__ }}",
    "{{ ('%s' | attr('format')).__self__ }}",
    "{{ cycler.__init__.__globals__.os.system('touch CANARY') }}",
    "{{ joiner.__init__.__globals__['__builtins__']['open']('CANARY', 'w') }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ raise_exception.__globals__['jinja2'].loaders.open('CANARY', 'w') }}",
    "{{ strftime_now.__globals__['json'].codecs.open('CANARY', 'w') }}",
    "{{ dict.__globals__ }}{{ dict.mro() }}",
    "{{ range.__wrapped__.__globals__ }}",
    "{{ self._TemplateReference__context.environment }}",
    "{{ self.__init__.__globals__ }}",
    "{% macro m() %}{% endmacro %}{{ m._environment.compile('CANARY') }}{{ m.__init__.__globals__ }}",
    "{% for x in [1] %}{{ loop.__init__.__globals__ }}{{ loop._iterator.gi_frame.f_globals }}{% endfor %}",
    "{{ (messages | map('upper'))._meter }}{{ (messages | map('upper')).gi_frame.f_back }}",
    "{% set ns = namespace(__html__=1) %}",
    "{% set ns = namespace() %}{% set ns.__class__ = dict %}",
    "{{ messages.append(1) }}",
    "{{ messages[0].update(content='changed') }}",
    "{{ messages.clear() }}{{ messages[0].pop('role') }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}" + "{{ os.system('touch CANARY') }}",
    "{% extends 'x' %}",
    "{{ 1 | @spend(-99999999) }}",
    "{{ lipsum.__globals__.os.system('touch CANARY') }}",
    "{{ environment.from_string('CANARY') }}{{ undefined_thing.__class__ }}",
    "{{ messages.__getitem__.__self__ }}",
    "{{ 'a'.encode().__class__ }}",
]


@pytest.mark.parametrize("source", ESCAPES)
def test_there_is_no_way_out(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    messages = copy.deepcopy(HELLO)
    try:
        text = render(source.replace("CANARY", "canary"), messages)
    except TemplateError:
        text = ""
    assert not re.search(r"class|object at|function|module|builtin|<bound|root:", text)
    assert list(tmp_path.iterdir()) == []
    assert messages == HELLO


def test_spending_less_than_nothing_fills_no_purse():
    refund = "{% for i in range(99999) %}{% for j in range(99999) %}{% set x = [-10 ** 9] | map('@spend') | list %}"
    with pytest.raises(TemplateError, match="more time or memory"):
        render(refund + "{% endfor %}{% endfor %}")


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
    ],
)
def test_what_an_error_says(source, message):
    with pytest.raises(TemplateError, match=message):
        render(source)


# Where templates are found


def test_files_and_their_order(tmp_path):
    assert find_templates(tmp_path, {}) == {}
    config = {
        "chat_template": [
            {"name": "default", "template": "config"},
            {"name": "tool_use", "template": "tools"},
        ]
    }
    assert find_templates(tmp_path, config) == {"default": "config", "tool_use": "tools"}
    write_config(tmp_path, {"chat_template": "json"}, "chat_template.json")
    assert find_templates(tmp_path, config) == {"default": "json", "tool_use": "tools"}
    (tmp_path / "chat_template.jinja").write_text("jinja é", encoding="utf-8")
    (tmp_path / "chat_templates").mkdir()
    (tmp_path / "chat_templates" / "rag.jinja").write_text("rag")
    assert find_templates(tmp_path, config) == {
        "default": "jinja é",
        "tool_use": "tools",
        "rag": "rag",
    }


def test_templates_by_name(tmp_path):
    named = [
        {"name": "default", "template": "plain"},
        {"name": "tool_use", "template": "{{ tools | length }}"},
    ]
    tokenizer = Tokenizer.from_folder(write_pieces(tmp_path, LLAMA | {"chat_template": named}))
    assert tokenizer.chat_template == "plain"
    assert tokenizer.render(HELLO) == "plain"
    assert tokenizer.render(HELLO, tools=TOOLS) == "1"
    assert tokenizer.render(HELLO, template="default", tools=TOOLS) == "plain"
    with pytest.raises(TemplateError, match="no chat template 'other'") as caught:
        tokenizer.render(HELLO, template="other")
    assert caught.value.hint == "there are: default, tool_use"


def test_no_template(tmp_path):
    tokenizer = Tokenizer.from_folder(write_pieces(tmp_path, None))
    assert tokenizer.chat_template is None
    with pytest.raises(TemplateError, match="has no chat template"):
        tokenizer.apply_chat_template(HELLO)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("chat_template.jinja", b"\xff\xfe"),
        ("chat_template.jinja", b"a" * (4 * MAX_SOURCE + 1)),
        ("chat_template.json", b"{"),
        ("chat_template.json", json.dumps({"chat_template": 7}).encode()),
        ("chat_template.json", json.dumps({"chat_template": ["a"]}).encode()),
        ("chat_template.json", json.dumps({"chat_template": [{"name": "a"}]}).encode()),
    ],
    ids=range(6),
)
def test_damaged_files(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(TemplateError):
        find_templates(tmp_path, {})
