"""Templates reach neither files, nor Python's inner workings, nor the caller's messages."""

import copy
import re

import pytest
from support.conversations import HELLO, render

from edgellm.errors import TemplateError

ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ ''['__class__']['__base__']['__subclasses__']() }}",
    "{{ (''|attr('__class__')|attr('__mro__'))[1].__subclasses__() }}",
    "{{ [''] | map(attribute='__class__') | map(attribute='__mro__') | list }}",
    "{{ '{0.__class__.__init__.__globals__}'.format(cycler) }}",
    "{{ '{0.__class__}'.format_map({'0': 1}) }}",
    "{{ ('{0.__class__.__init__.__globals__}' | e).format(cycler) }}",
    "{{ ('{a.__class__}' | safe).format_map({'a': cycler}) }}",
    "{% autoescape true %}{% set t %}{0.__class__}{% endset %}{{ t.format(cycler) }}"
    "{% endautoescape %}",
    "{{ ('a' | e).__html__ }}{{ ('a' | e).__init_subclass__ }}",
    "{{ ('a' | e).formatter_field_name_split }}{{ ('a' | e).escape.__func__ }}",
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
    "{% macro m() %}{% endmacro %}{{ m._environment.compile('CANARY') }}",
    "{% macro m() %}{% endmacro %}{{ m.__init__.__globals__ }}",
    "{% for x in [1] %}{{ loop.__init__.__globals__ }}{% endfor %}",
    "{% for x in [1] %}{{ loop._iterator.gi_frame.f_globals }}{% endfor %}",
    "{{ (messages | map('upper')).gi_frame.f_back }}",
    "{% set ns = namespace(__html__=1) %}",
    "{% set ns = namespace() %}{% set ns.__class__ = dict %}",
    "{{ messages.append(1) }}",
    "{{ messages[0].update(content='changed') }}",
    "{{ messages.clear() }}{{ messages[0].pop('role') }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}" + "{{ os.system('touch CANARY') }}",
    "{% extends 'x' %}",
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
