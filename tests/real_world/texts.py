"""What tokenizers are trained on, what they are asked, and conversations."""

import random

WORDS = (
    "the a of to and in that is was for on with as his her they at be this from have or by one had "
    "not but what all were when we there can an your which their said if do will each about how up "
    "out them then she many some so these would other into has more two like him see time could no "
    "make than first been its who now people my made over did down only way find use may water "
    "long little very after words called just where most know der die und nicht für über schön "
    "Straße les des était déjà où garçon niño año señor привет мир это как дела 日本 中国 你好 世界 "
    "東京 한국 안녕 return def class import self print lambda yield True None"
).split()
MARKS = [
    ". ",
    ", ",
    "! ",
    "? ",
    ": ",
    "; ",
    "\n",
    "\n\n",
    " - ",
    " (",
    ") ",
    ' "',
    '" ',
    "'s ",
    "...",
]
CODE = [
    "def add(first, second):\n    return first + second\n",
    "for (int i = 0; i < 10; i++) {\n\tsum += values[i];\n}\n",
    '{"name": "Ada", "year": 1815, "tags": ["a", "b"]}\n',
    "SELECT name, count(*) FROM people WHERE year >= 1990 GROUP BY name;\n",
    "https://example.org/path?query=1&other=2#part\n",
    "1 + 2 = 3; 3.14159 * 2024 / 365 = 17.4\n",
]


def corpus(lines=400, seed=7):
    """Lines of words of several scripts, numbers and code; the same ones every time."""
    chosen = random.Random(seed)
    made = []
    for _ in range(lines):
        words = []
        for _ in range(chosen.randint(4, 14)):
            word = chosen.choice(WORDS)
            words.append(word.capitalize() if chosen.random() < 0.15 else word)
            words.append(chosen.choice(MARKS) if chosen.random() < 0.2 else " ")
        made.append("".join(words).strip() or "a")
        if chosen.random() < 0.2:
            made.append(chosen.choice(CODE))
        if chosen.random() < 0.2:
            made.append(
                f"In {chosen.randint(1, 2100)} there were {chosen.randint(1, 99999)} of them."
            )
    return made


TEXTS = [
    "",
    " ",
    "  ",
    "\n",
    "\t",
    " \n \n\n ",
    "Hello, world!",
    " Hello",
    "Hello ",
    "  two  spaces   and    more",
    "line one\nline two\r\nline three\n\n\nline seven",
    "\tindented\n\t\ttwice\n    by four",
    "1234567890 12 345 6.789 1,000,000 0x1F 3e-5",
    "2024-02-29T23:59:59Z costs $19.99 or 20€",
    "I'm sure you've said they'd come, we'll see; IT'S LATE",
    "naïve café, Straße, über, señor, où",
    "e\u0301 o\u0308 n\u0303 combining, and \u00e9 not",
    "Å \u212b \u2126 \ufb01 \u00bd \u2460 compatibility",
    "你好，世界！日本語のテキスト、한국어 텍스트",
    "Привет, мир! Ελληνικά, עברית, العربية, हिन्दी, ไทย",
    "🙂 👩‍👩‍👧‍👦 🇩🇪 👍🏽 emoji",
    "zero\u200bwidth\u200djoiner\u2060 and\u00a0no-break\u3000wide\u2009thin",
    "def f(x):\n    if x > 0:\n        return x ** 2  # square\n    return -x\n",
    "for (int i=0;i<n;++i){a[i]=b[i]*c[i];} /* done */",
    '{"key": [1, 2, {"nested": null}], "text": "a\\nb"}',
    "SELECT * FROM `t` WHERE a != 'b' AND c >= 10;",
    '<html><body class="x">&amp; text</body></html>',
    "https://example.org/a_b-c?d=%20&e=f#g me@example.org",
    "a" * 40,
    "=" * 20 + "-" * 20 + "_" * 10,
    "...!!!???---",
    "Snake_case camelCase PascalCase SCREAMING kebab-case",
    "▁ the space of SentencePiece ▁▁ twice",
    "Ġ Ċ ĉ letters of bytes",
    "<s>begin</s> and <unk> <pad>",
    "<|endoftext|><|im_start|>user\nhi<|im_end|>\n",
    "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|>",
    "[INST] do it [/INST] done </s><s>[INST] more [/INST]",
    "<0x41><0xFF> bytes spelled",
    "the word <s> inside, </s>and at its end <s>",
    "\x00\x01\x7f controls",
    "Once upon a time there was a little house where people said: this is the way.",
]

PROMPT = "Once upon a time they said that the way to find water was long, and 12 of them"

CHATS = [
    {"messages": [{"role": "user", "content": "Hello, what is this?"}]},
    {
        "messages": [
            {"role": "system", "content": "Be brief. "},
            {"role": "user", "content": "  What is 1 + 1?\n"},
        ]
    },
    {
        "messages": [
            {"role": "user", "content": "One <b>& two</b>"},
            {"role": "assistant", "content": "Two, 'of course' é 你好"},
            {"role": "user", "content": "Sure?"},
        ]
    },
    {
        "messages": [
            {"role": "system", "content": "You are a cat."},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "<think>\nhm\n</think>\n\nMeow"},
            {"role": "user", "content": "And\nnow?"},
        ]
    },
    {
        "messages": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "A whole talk"},
        ],
        "add_generation_prompt": False,
    },
    {
        "messages": [{"role": "user", "content": "How warm is it in Zürich?"}],
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "weather",
                    "description": "Say <how> the weather is & 'was' é",
                    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
                },
            }
        ],
    },
]
"""Conversations, and what else a template is given."""
