"""JSON documents damaged by their structure, and then perhaps as text."""

import json

from fuzz.byte_damage import damage_bytes

NUMBERS = [
    -1, 0, 1, 2, 3, 7, 8, 31, 127, 128, 255, 256, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**32,
    2**53, 2**63 - 1, 2**63, 2**64, 10**40, -(2**63), 0.0, -0.0, 0.5, 1e-45, 1e308, -1e308,
    float("nan"), float("inf"), float("-inf"),
]  # fmt: skip
TEXTS = [
    "", "a", " ", "0", "8", "true", "▁", "é" * 5, "\ud800", "\udfff\ud800", "<0x41>", "x" * 5000,
    "\x00", "\x1b]0;title\x07", "\x1b[2J", "\x9b31m", "\x7f", "\u202e", "a\nb", "a\r\tb", "../x",
    "/etc/hostname", "a/b", "\\", "con", "%s%n", "{}", "{{ 1 }}", "😀", "\ufeff", "float16", "BPE",
    "default", "linear", "llama", "None", "1e999", "model.norm.weight", "model.safetensors",
]  # fmt: skip
OTHERS = [
    None, True, False, [], {}, [[]], [None], ["a"], [0], [["a", "b"]], {"": 0}, {"type": "BPE"},
    {"type": "Sequence"}, {"type": "ByteLevel"}, {"String": "a"}, {"String": ""}, {"Regex": "("},
    {"Regex": "a+$"}, {"Regex": ""}, {"content": "<s>"}, {"bits": 4, "group_size": 64},
]  # fmt: skip
JUNK = [*NUMBERS, *TEXTS, *OTHERS]
KEYS = ["x", "type", "id", "content", "", "\x1b[1m", "\ud800", "k" * 3000, "__class__", "a.b"]


def junk(random):
    """A value of any type."""
    return json.loads(json.dumps(random.choice(JUNK)))


def damage_document(document, random, *, values=None, changes=None):
    """Change one to four places of a document (of which nothing is shared with the caller).

    Args:
        document: a dictionary.
        random: the case's generator.
        values: values that this kind of document may have, likelier than others.
        changes: how many places; None for one to four.
    """
    for _ in range(changes or random.choice((1, 1, 1, 2, 3, 4))):
        parent, key = _place(document, random)
        if parent is not None:
            _change(document, parent, key, random, values)
    return document


def encode(document, random):
    """The text of a document: now and then escaped, spaced or damaged otherwise, or cut off."""
    ascii_only = random.random() < 0.5
    text = json.dumps(document, ensure_ascii=ascii_only)
    data = text.encode("utf-8", "surrogatepass")
    kind = random.random()
    if kind > 0.18:
        return data
    if kind < 0.06:
        return data[: random.randrange(len(data) + 1)]
    if kind < 0.10:
        return damage_bytes(data, random)
    return random.choice(
        (
            b"\xef\xbb\xbf" + data,
            text.encode("utf-16", "surrogatepass"),
            data[:-1] + b"," + data[1:],  # a key occurs twice
            random.choice((b"[", b'{"a":')) * random.randrange(100_000),
            b'{"a":' + b"9" * random.randrange(20_000) + b"," + data[1:],
            data.replace(b"\\u", random.choice((b"\\U", b"\\x", b"\\u0"))),
        )
    )


def damage_json(text, random, **options):
    """Damage a document that is given as text; returns bytes."""
    return encode(damage_document(json.loads(text), random, **options), random)


def _change(document, parent, key, random, values):
    value = parent[key]
    match random.randrange(14):
        case 0 | 1 | 2:
            parent[key] = junk(random)
        case 3 | 4:
            if values:
                parent[key] = json.loads(json.dumps(random.choice(values)))
            else:
                parent[key] = random.choice(NUMBERS)
        case 5:
            del parent[key]
        case 6 if isinstance(parent, dict):
            parent[random.choice(KEYS)] = parent.pop(key)
        case 6:
            parent.insert(key, value)
        case 7:  # another part in its place
            other, at = _place(document, random)
            if other is not None:
                parent[key] = json.loads(json.dumps(other[at]))
        case 8:
            parent[key] = _nested(value, random)
        case 9:
            parent[key] = _near(value, random)
        case 10:
            parent[key] = _repeated(value, random)
        case 11 if isinstance(parent, dict):
            parent[random.choice(KEYS)] = junk(random)
        case 12:
            parent[key] = _of_another_type(value)
        case _:
            parent[key] = _shuffled(value, random)


def _nested(value, random):
    for _ in range(random.choice((1, 1, 2, 30, 40, 60))):
        value = random.choice(([value], {"a": value}))
    return value


def _near(value, random):
    """A number one off, or a text with something in it."""
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int):
        return random.choice((value + 1, value - 1, -value, value * 2, value / 2))
    if isinstance(value, float):
        return value * random.choice((-1, 0, 2, 1e300))
    if isinstance(value, str):
        at = random.randrange(len(value) + 1)
        return value[:at] + random.choice(TEXTS) + value[at:]
    return junk(random)


def _repeated(value, random):
    times = random.choice((0, 2, 3, 100))
    if isinstance(value, str | list) and len(value) < 1000:
        return value * times
    return [value] * times


def _of_another_type(value):
    """The same said in another type: 8 as "8", "a" as ["a"]."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int) and abs(value) < 2**63:
        return float(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return str(value)
    if isinstance(value, dict):
        return list(value)
    if isinstance(value, list):
        return dict.fromkeys(map(str, value), 0)
    return [value]


def _shuffled(value, random):
    if isinstance(value, list):
        return random.sample(value, len(value))
    if isinstance(value, dict) and len(value) > 1:
        one, two = random.sample(list(value), 2)
        return value | {one: value[two], two: value[one]}
    return junk(random)


def _place(document, random):
    """A random container in a document and a key of it; shallow ones are likelier."""
    parent = document
    for _ in range(random.randint(1, 6)):
        if not isinstance(parent, dict | list) or not parent:
            return None, None
        if isinstance(parent, dict):
            keys = list(parent)
            key = keys[random.randrange(min(len(keys), 60))]
        else:
            key = random.randrange(min(len(parent), 30))
        if not isinstance(parent[key], dict | list) or random.random() < 0.3:
            return parent, key
        parent = parent[key]
    return None, None
