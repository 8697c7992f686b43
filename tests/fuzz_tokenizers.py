"""Damaged tokenizers and hostile templates by the thousand: each ends well, or in our error.

Each does so in time and in little memory.


python tests/fuzz_tokenizers.py --count 100000
"""

import copy
import json
import os
import random
import tempfile
from pathlib import Path

from support.fuzzing import measured, show
from support.tiny_tokenizers import LLAMA, TEMPLATE, json_text, piece_model

from edgellm.chat_template.render_process import RenderLimits
from edgellm.chat_template.template import ChatTemplate
from edgellm.errors import EdgeLLMError
from edgellm.tokenizer import Tokenizer

LIMITS = RenderLimits(seconds=0.2)
SECONDS = 1.0  # of this process, a case
MEMORY = 64 << 20  # bytes, all cases together

TEXT = "Hello <s><|user|> wörld 😀   x\n\n 12345 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!"
JUNK = [
    None, True, False, 0, 1, -1, 2**31, 2**32 - 1, 2**32, 2**63, 2**64, 10**30, 1e308, 0.5,
    "", "a", "▁", " ", "é" * 5, "\ud800", "<0x41>", "x" * 5000, [], {}, [[]], ["a"], [["a", "b"]],
    {"type": "BPE"}, {"type": "Sequence"}, {"type": "ByteLevel"}, {"String": "a"}, {"String": ""},
    {"Regex": "("}, {"Regex": "a+$"}, {"Regex": ""},
]  # fmt: skip


def damage_bytes(data, rng):
    """Cut, overwritten, shuffled, or with fields added to a protobuf's end."""
    data = bytearray(data)
    place = rng.randrange(len(data))
    match rng.randrange(6):
        case 0:
            del data[place:]
        case 1:
            for _ in range(rng.randint(1, 20)):
                data[rng.randrange(len(data))] = rng.randrange(256)
        case 2:
            for _ in range(rng.randint(1, 8)):
                data[rng.randrange(max(0, len(data) - 400), len(data))] = rng.randrange(256)
        case 3:
            data[place : place + rng.randrange(50)] = rng.randbytes(rng.randrange(50))
        case 4:
            data[place:place] = data[place : place + rng.randrange(200)]
        case 5:
            field = bytes(
                [
                    rng.choice((8, 16, 24, 32, 192)),
                    *([1] if rng.random() < 0.3 else []),
                    rng.choice((0, 1, 2, 127)),
                ]
            )
            data += bytes([rng.randrange(1, 7) << 3 | 2, len(field)]) + field
    return bytes(data)


def damage_json(document, rng):
    """Some values replaced, removed, renamed, doubled or moved; then perhaps cut off."""
    document = copy.deepcopy(document)
    for _ in range(rng.randint(1, 4)):
        parent, key = _place(document, rng)
        if parent is None:
            continue
        match rng.randrange(4):
            case 0:
                parent[key] = copy.deepcopy(rng.choice(JUNK))
            case 1:
                del parent[key]
            case 2 if isinstance(parent, dict):
                parent[rng.choice(["x", "type", "id", "content", ""])] = parent.pop(key)
            case 2:
                parent.insert(key, copy.deepcopy(parent[key]))
            case 3:
                other, at = _place(document, rng)
                if other is not None:
                    parent[key] = copy.deepcopy(other[at])
    text = json.dumps(document)
    return (text[: rng.randrange(len(text))] if rng.random() < 0.1 else text).encode()


def _place(document, rng):
    """A random container in a document and a key of it; shallow ones are likelier."""
    parent = document
    for _ in range(rng.randint(1, 6)):
        if not isinstance(parent, dict | list) or not parent:
            return None, None
        key = (
            rng.choice(list(parent)[:60])
            if isinstance(parent, dict)
            else rng.randrange(min(len(parent), 30))
        )
        if not isinstance(parent[key], dict | list) or rng.random() < 0.3:
            return parent, key
        parent = parent[key]
    return None, None


def words(text):
    """The words of a text."""
    return text.split()


ATOMS = words(
    "1 0 i messages messages[0] messages[0].content loop loop.index x ns ns.a 'a' 'a,b' '%s' "
    "'%9999d' '{}' '{:99999}' 100000 10**9 -1 1.5 true none [] {} () range(100000) range(9) "
    "'a'*1000 [0]*1000 bos_token tools m undefined_name namespace() dict cycler joiner "
    "raise_exception strftime_now self caller varargs"
)
NAMES = words(
    "upper lower title list length join sort unique max min sum tojson string int float abs "
    "first last reverse map select reject trim replace indent round items dictsort groupby e "
    "urlencode wordcount truncate default format attr batch center selectattr"
)
METHODS = words(
    "upper split splitlines join replace strip rsplit find rfind count format items keys "
    "values get center ljust zfill encode __class__ __init__ append pop index partition "
    "startswith translate expandtabs"
)
TESTS = words("defined none string mapping iterable sequence upper lower even odd")
OPERATORS = [*words("+ - * / // % ** ~ == != < > in and or"), "not in"]


def expression(rng, depth):
    """A random expression of Jinja's language."""
    if depth <= 0 or rng.random() < 0.15:
        return rng.choice(ATOMS)
    inner = [expression(rng, depth - 1) for _ in range(3)]
    few = ", ".join(inner[: rng.randrange(3)])
    return rng.choice(
        [
            f"({inner[0]} {rng.choice(OPERATORS)} {inner[1]})",
            f"({inner[0]} {rng.choice(OPERATORS)} {inner[1]})",
            f"({inner[0]})|{rng.choice(NAMES)}",
            f"({inner[0]})|{rng.choice(NAMES)}({few})",
            f"({inner[0]}).{rng.choice(METHODS)}({few})",
            f"({inner[0]})[{inner[1]}]",
            f"({inner[0]})[{inner[1]}:{inner[2]}]",
            f"({inner[0]})[::-1]",
            f"[{inner[0]}, {inner[1]}]",
            f"({inner[0]}, {inner[1]})",
            f"{{'a': {inner[0]}, 'b': {inner[1]}}}",
            f"({inner[0]} if {inner[1]} else {inner[2]})",
            f"({inner[0]} is {rng.choice(TESTS)})",
            f"({inner[0]}, {inner[1]})|map('{rng.choice(NAMES)}')|list",
            f"m({inner[0]})",
        ]
    )


def template(rng, depth=3):
    """A random template: loops, macros and growing values, which often never end or never fit."""
    parts = [
        "{% set ns = namespace(a='ab', b=[1]) %}"
        "{% macro m(x) %}{{ x }}{{ caller is defined }}{% endmacro %}"
    ]
    for _ in range(rng.randint(1, 5)):
        value = expression(rng, rng.randint(1, 4))
        body = (
            template(rng, depth - 1) if depth > 0 and rng.random() < 0.4 else f"{{{{ {value} }}}}"
        )
        many = "{% for i in range(100000) %}"
        parts.append(
            rng.choice(
                [
                    f"{{{{ {value} }}}}",
                    f"{{% set x = {value} %}}",
                    f"{{% set ns.a = {value} %}}",
                    f"{{% set ns.a = ns.a {rng.choice(OPERATORS)} ({value}) %}}",
                    f"{{% set x %}}{body}{{% endset %}}",
                    f"{{% for i in {value} %}}{body}{{% endfor %}}",
                    f"{many}{body}{{% set ns.a = ns.a ~ ns.a %}}{{% endfor %}}",
                    f"{many}{{% set ns.b = [ns.b, ns.b, {value}] %}}{{% endfor %}}",
                    f"{many}{body}{{% endfor %}}",
                    f"{{% for i in range(3) recursive %}}{body}{{{{ loop({value}) }}}}"
                    "{% endfor %}",
                    f"{{% if {value} %}}{body}{{% else %}}{{{{ x }}}}{{% endif %}}",
                    f"{{% macro m(x) %}}{body}{{{{ m({value}) }}}}{{% endmacro %}}{{{{ m(1) }}}}",
                    f"{{% call m({value}) %}}{body}{{% endcall %}}",
                    f"{{% filter {rng.choice(NAMES)} %}}{body}{{% endfilter %}}",
                    f"{{% generation %}}{body}{{% endgeneration %}}",
                    f"{{% include {value} %}}",
                    "y" * rng.randrange(2000),
                ]
            )
        )
    text = "".join(parts)
    if rng.random() < 0.05:
        place = rng.randrange(len(text))
        text = text[:place] + rng.choice("{}%#'\"()[]|\\\x00é") + text[place + 1 :]
    return text


def run(rng, folder):
    """One case; returns what came of it."""
    kind = rng.choice(["pieces", "json", "config", "template", "template"])
    if kind == "template":
        variables = {"bos_token": "<s>", "tools": None, "add_generation_prompt": True}
        try:
            chat_template = ChatTemplate(template(rng), LIMITS)
            chat_template.render([{"role": "user", "content": TEXT}], variables)
        except EdgeLLMError as error:
            return "template: " + error.message.split(":")[0][:60]
        return "template: rendered"
    for path in folder.iterdir():
        path.unlink()
    form = rng.choice(["byte-level", "metaspace", "unigram", "pieces"])
    config = LLAMA | {
        "added_tokens_decoder": {"700": {"content": "<t>", "special": True}},
        "chat_template": TEMPLATE,
    }
    if kind == "json" or (kind == "config" and form != "pieces"):
        form = "byte-level" if form == "pieces" else form
        whole = json_text(form)
        data = damage_json(json.loads(whole), rng) if kind == "json" else whole.encode()
        (folder / "tokenizer.json").write_bytes(data)
    else:
        options = rng.choice(
            [
                {},
                {"model_type": "unigram", "normalization_rule_name": "nmt_nfkc", "vocab_size": 350},
            ]
        )
        data = piece_model(**options)
        (folder / "tokenizer.model").write_bytes(
            damage_bytes(data, rng) if kind == "pieces" else data
        )
    if kind == "config":
        name = rng.choice(
            [
                "tokenizer_config.json",
                "special_tokens_map.json",
                "added_tokens.json",
                "chat_template.json",
            ]
        )
        document = {"<a>": 500, "<b>": 501} if name == "added_tokens.json" else config
        (folder / name).write_bytes(damage_json(document, rng))
    try:
        tokenizer = Tokenizer.from_folder(folder, vocab_size=rng.choice([None, 10_000]))
        tokenizer.decode(tokenizer.encode(TEXT))
    except EdgeLLMError as error:
        return f"{kind}: {type(error).__name__}"
    return f"{kind}: loaded"


def fuzz(count, seed):
    """Run ``count`` cases and return what came of them.

    A case that breaks a limit is an AssertionError that names it.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for warm in range(20):
            run(random.Random(-1 - warm), folder)
        numbers = range(seed, seed + count)
        return measured(lambda rng: run(rng, folder), numbers, seconds=SECONDS, memory=MEMORY)


if __name__ == "__main__":
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    show(fuzz, __doc__, count=1000)
