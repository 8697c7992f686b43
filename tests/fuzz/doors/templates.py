"""Chat templates: random programs of Jinja's language, in their process with limits and beside it.

What a template may do is bounded by a process, which takes a tenth of a second to start after each
template that it does not survive: so most cases stop short of programs that never end.
"""

import functools
import json

from support.tiny_tokenizers import TEMPLATE

from edgellm.chat_template.render_process import RenderLimits
from edgellm.chat_template.template import DEFAULT, ChatTemplate, find_templates
from fuzz.byte_damage import damage_bytes
from fuzz.door import DifferenceError, Door, as_bytes, by_the_library
from fuzz.json_damage import TEXTS, junk
from fuzz.template_programs import template

LIMITS = RenderLimits(seconds=0.2)
VARIABLES = {"bos_token": "<s>", "tools": None, "add_generation_prompt": True}
FILE = "chat_template.jinja"


@functools.cache
def _reference():
    """Transformers' own way to compile a template."""
    from transformers.utils.chat_template_utils import _compile_jinja_template

    return _compile_jinja_template


class Templates(Door):
    name = "templates"
    share = 6
    compares = "transformers' Jinja"

    def damage(self, random):
        endless = random.random() < 0.15
        source = template(random, 3, endless=endless)
        if random.random() < 0.2:
            source = damage_bytes(TEMPLATE.encode(), random).decode("utf-8", "replace")
        messages = [{"role": "user", "content": random.choice(["Hello", *TEXTS])}]
        if random.random() < 0.1:
            messages.append({"role": junk(random), "content": junk(random)})
        return {
            FILE: source.encode("utf-8", "surrogatepass"),
            "messages": as_bytes(messages),
        }

    def open(self, files):
        self.put({FILE: files[FILE]})
        source = find_templates(self.folder, {})[DEFAULT]
        opened = ChatTemplate(source, LIMITS)
        _ = opened.names
        return opened.render(_messages(files), VARIABLES)

    def check(self, opened, files):
        source = files[FILE].decode()
        if "strftime_now" in source:
            return False
        with by_the_library():
            theirs = _reference()(source).render(messages=_visible(files), **VARIABLES)
        if theirs != opened and " at 0x" not in theirs:
            raise DifferenceError(f"{opened!r} is {theirs!r} in transformers")
        return True


def _messages(files):
    return json.loads(files["messages"])


def _visible(files):
    """The messages as transformers shows them: without fields that are None."""
    return [
        {name: value for name, value in message.items() if value is not None}
        for message in _messages(files)
    ]
