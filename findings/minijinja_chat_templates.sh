#!/bin/sh
# minijinja 3.1.0 (PyPI) against transformers 5.24.0's chat templates (jinja2 3.1.6, its own tojson,
# trim_blocks, lstrip_blocks, loop controls and the tag `generation`).
#
# One would expect: minijinja, Jinja's syntax by Jinja's author with Python's methods switched on,
# renders small valid chat templates to the same text.
#
# What happens: most do, these do not. Floats are written out, `center` is missing, `wordwrap` takes
# its width by name only, `tojson` escapes for HTML, and the tag with which transformers marks what
# the assistant says is unknown.
#
# Output seen:
#   template                                 transformers     minijinja
#   {{ 1e20 }}                               1e+20            100000000000000000000.0
#   {{ 1e-7 }}                               1e-07            0.0000001
#   [{{ 'ab' | center(7) }}]                 [   ab  ]        unknown filter
#   {{ 'aa bb cc' | wordwrap(5) }}           aa bb (2 lines)  too many arguments
#   {{ messages[0].content | tojson }}       "is 1 < 2?"      "is 1 \u003c 2?"
#   {% generation %}Yes{% endgeneration %}   Yes              unknown statement generation
#
# For users: a model's prompt changes without a word where a template writes a small or large number
# or prints `<`, `>`, `&` or `'` as JSON (tool definitions do); compare the rendered text before
# you take minijinja for a template that was written for transformers.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check \
    minijinja==3.1.0 jinja2==3.1.6 transformers==5.24.0
cd "$folder"
venv/bin/python - <<'PYTHON'
import minijinja
from transformers.utils.chat_template_utils import render_jinja_template

MESSAGES = [{"role": "user", "content": "is 1 < 2?"}]


def by_transformers(template):
    (text,), _ = render_jinja_template([MESSAGES], chat_template=template)
    return text


def by_minijinja(template):
    environment = minijinja.Environment(trim_blocks=True, lstrip_blocks=True)
    environment.pycompat = True
    try:
        return environment.render_str(template, messages=MESSAGES)
    except minijinja.TemplateError as error:
        return f"error: {error.message}"


EXPECTED = {
    "{{ 1e20 }}": ("1e+20", "100000000000000000000.0"),
    "{{ 1e-7 }}": ("1e-07", "0.0000001"),
    "[{{ 'ab' | center(7) }}]": ("[   ab  ]", "error: "),
    "{{ 'aa bb cc' | wordwrap(5) }}": ("aa bb\ncc", "error: "),
    "{{ messages[0].content | tojson }}": ('"is 1 < 2?"', '"is 1 \\u003c 2?"'),
    "{% generation %}Yes{% endgeneration %}": ("Yes", "error: "),
    "{{ messages[0] }} {{ 0.1 + 0.2 }} {{ 7 // 2 }}": (None, None),
}
for template, (theirs, minis) in EXPECTED.items():
    found = by_transformers(template), by_minijinja(template)
    print(template, repr(found[0]), repr(found[1]), sep=" | ")
    if theirs is None:
        assert found[0] == found[1], found
    else:
        assert found[0] == theirs, found
        assert found[1].startswith(minis) and found[0] != found[1], found
PYTHON
