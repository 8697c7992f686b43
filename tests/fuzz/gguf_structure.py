"""A GGUF file taken apart into keys and tensors, and put together again, damaged or not."""

import struct
from dataclasses import dataclass, field

from fuzz.byte_damage import BOUNDARIES
from fuzz.json_damage import TEXTS

STRING, ARRAY, BOOL, UINT32, FLOAT32 = 8, 9, 7, 4, 6
SCALARS = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q",
    12: "<d",
}  # fmt: skip
KINDS = [0, 1, 2, 3, 6, 7, 8, 10, 12, 13, 14, 20, 30, 31, 39, 4, 99, 24, 28]
"""ggml's numbers of types: floats, blocks of 32 and 256, integers, retired and unknown ones."""


@dataclass
class Tensor:
    """One tensor: axes as GGUF has them, its bytes, and what is to be lied about its place."""

    name: bytes
    axes: list[int]
    kind: int
    data: bytes
    moved: int = 0


@dataclass
class Gguf:
    """A file: keys (name, type, value), an array's value being its type and its items."""

    keys: list = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)
    version: int = 3


def take_apart(path):
    """A whole file's structure, by the gguf library's reader."""
    import gguf

    reader = gguf.GGUFReader(path)
    whole = Gguf()
    for name, item in reader.fields.items():
        if name.startswith("GGUF."):
            continue
        kinds = [int(kind) for kind in item.types]
        values = item.contents()
        if kinds[0] == ARRAY:
            values = (kinds[1], [_plain(kinds[1], value) for value in values])
        else:
            values = _plain(kinds[0], values)
        whole.keys.append((name.encode(), kinds[0], values))
    for tensor in reader.tensors:
        axes = [int(length) for length in tensor.shape]
        whole.tensors.append(
            Tensor(tensor.name.encode(), axes, int(tensor.tensor_type), tensor.data.tobytes())
        )
    return whole


def copied(whole):
    """A copy to be damaged: lists of items are shared until they are replaced."""
    tensors = [Tensor(one.name, [*one.axes], one.kind, one.data) for one in whole.tensors]
    return Gguf([*whole.keys], tensors, whole.version)


def put_together(model, alignment=32):
    """The bytes of a file."""
    head = [b"GGUF", struct.pack("<IQQ", model.version, len(model.tensors), len(model.keys))]
    for name, kind, value in model.keys:
        head += [_text(name), struct.pack("<I", kind & 0xFFFFFFFF), _value(kind, value)]
    offset = 0
    content = []
    for tensor in model.tensors:
        axes = [length % (1 << 64) for length in tensor.axes]
        place = (offset + tensor.moved) % (1 << 64)
        head += [_text(tensor.name), struct.pack("<I", len(axes))]
        head.append(struct.pack(f"<{len(axes)}QIQ", *axes, tensor.kind, place))
        content.append(tensor.data + bytes(-len(tensor.data) % alignment))
        offset += len(content[-1])
    data = b"".join(head)
    return data + bytes(-len(data) % alignment) + b"".join(content)


def damage(model, random):
    """One to three changes of keys or tensors."""
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        if random.random() < 0.65:
            _damage_key(model, random)
        else:
            _damage_tensor(model, random)
    if random.random() < 0.02:
        model.version = random.choice((0, 1, 2, 4, 1 << 24))
    return model


def _damage_key(model, random):
    if not model.keys:
        return
    at = random.randrange(len(model.keys))
    name, kind, value = model.keys[at]
    match random.randrange(10):
        case 0:
            del model.keys[at]
        case 1:
            model.keys.append(model.keys[at])
        case 2:
            new = random.choice((*KEYS, b"\x1b[31m", b"", b"\xff", b"k" * 300))
            model.keys[at] = (new, kind, value)
        case 3:
            other = random.randrange(len(model.keys))
            model.keys[at] = (name, *model.keys[other][1:])
        case 4 if kind == ARRAY and isinstance(value[1], list) and value[1]:
            items = [*value[1]]
            _damage_items(items, value[0], random)
            model.keys[at] = (name, kind, (value[0], items))
        case 5:
            model.keys.append((random.choice(KEYS), *any_value(random)))
        case 6:  # what it is, in an array
            if kind != ARRAY:
                model.keys[at] = (name, ARRAY, (kind, [value] * random.choice((0, 1, 2, 320))))
        case 7 if kind == STRING:
            model.keys[at] = (name, kind, random.choice(WORDS))
        case _:
            model.keys[at] = (name, *any_value(random))


def _damage_items(items, kind, random):
    for _ in range(random.randint(1, 3)):
        at = random.randrange(len(items))
        match random.randrange(5):
            case 0:
                items[at] = _item(kind, random)
            case 1 if len(items) > 1:
                del items[at]
            case 2:
                items.insert(at, items[random.randrange(len(items))])
            case 3:
                items[at] = items[random.randrange(len(items))]
            case _:
                items[0] = _item(kind, random)


def _damage_tensor(model, random):
    if not model.tensors:
        return
    at = random.randrange(len(model.tensors))
    tensor = model.tensors[at]
    match random.randrange(12):
        case 0:
            del model.tensors[at]
        case 1:
            model.tensors.append(
                Tensor(tensor.name, [*tensor.axes], tensor.kind, tensor.data, tensor.moved)
            )
        case 2:
            tensor.name = random.choice((*NAMES, b"", b"\x1b[2J", b"\xff", b"a" * 300))
        case 3 if tensor.axes:
            place = random.randrange(len(tensor.axes))
            tensor.axes[place] = random.choice(BOUNDARIES)
        case 4:
            tensor.axes.insert(0, random.choice((1, 1, 2, 32)))
        case 5:
            tensor.axes.append(1)
        case 6:
            tensor.kind = random.choice(KINDS)
        case 7:
            tensor.moved = random.choice((-32, 32, 1, 1 << 40, 1 << 63, 64))
        case 8:
            tensor.data = random.choice((b"", tensor.data[:-4], tensor.data + bytes(40)))
        case 9:  # the bytes of its kind and shape, whatever these are now
            _retype(tensor, random.choice(KINDS))
        case 10:
            _retype(tensor, random.choice((0, 1, 2, 8, 12, 14, 30)))
        case _:
            tensor.axes = random.sample(tensor.axes, len(tensor.axes))


def _retype(tensor, kind):
    """Store as many numbers in another type: valid, if rows are whole blocks of it."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    tensor.kind = kind
    try:
        block, nbytes = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
    except (ValueError, KeyError):
        return
    count = 1
    for length in tensor.axes:
        count *= length
    if count < 1 << 20:
        tensor.data = bytes(range(1, 50)) * (count // block * nbytes // 49 + 1)
        tensor.data = tensor.data[: count // block * nbytes]


def any_value(random):
    """A type and a value of it, an array half of the time."""
    kind = random.choice((*SCALARS, STRING, STRING))
    if random.random() < 0.5:
        count = random.choice((0, 1, 2, 3, 64, 320))
        return ARRAY, (kind, [_item(kind, random) for _ in range(count)])
    if random.random() < 0.02:
        return random.choice((13, 99, 1 << 31)), 0
    return kind, _item(kind, random)


def _item(kind, random):
    if kind == STRING:
        return random.choice(WORDS)
    if kind == BOOL:
        return random.random() < 0.5
    if kind in (FLOAT32, 12):
        return random.choice((0.0, -0.0, 1.0, -1.0, 1e-5, 1e30, float("inf"), float("nan")))
    width = struct.calcsize(SCALARS.get(kind, "<I"))
    number = random.choice((0, 1, 2, 3, 4, 5, 6, 31, 32, 319, 320, *BOUNDARIES))
    return number % (1 << 8 * width - 1)


def _plain(kind, value):
    if kind == STRING:
        return str(value).encode()
    return value.item() if hasattr(value, "item") else value


def _text(content):
    return struct.pack("<Q", len(content)) + content


def _value(kind, value):
    if kind == STRING:
        return _text(value)
    if kind == ARRAY:
        inner, items = value
        content = b"".join(_value(inner, item) for item in items)
        return struct.pack("<IQ", inner, len(items)) + content
    return struct.pack(SCALARS.get(kind, "<I"), value)


WORDS = [text.encode("utf-8", "replace") for text in TEXTS]
WORDS += [
    b"llama",
    b"gpt2",
    b"llama-bpe",
    b"qwen2",
    b"default",
    b"none",
    b"linear",
    b"yarn",
    b"\xff",
]
NAMES = [
    b"token_embd.weight", b"output.weight", b"output_norm.weight", b"rope_freqs.weight",
    b"blk.0.attn_q.weight", b"blk.0.attn_q.bias", b"blk.0.attn_norm.weight", b"blk.1.ffn_up.weight",
    b"blk.00.attn_q.weight", b"blk.0.attn_q_norm.weight", b"v.patch.weight",
]  # fmt: skip
KEYS = [
    b"general.architecture", b"general.alignment", b"general.name", b"split.no", b"split.count",
    b"split.tensors.count", b"llama.block_count", b"llama.attention.head_count",
    b"llama.attention.head_count_kv", b"llama.attention.key_length", b"llama.rope.freq_base",
    b"llama.attention.layer_norm_rms_epsilon", b"llama.rope.scaling.type", b"llama.expert_count",
    b"llama.rope.scaling.factor", b"llama.rope.scale_linear", b"llama.attention.scale",
    b"llama.rope.scaling.original_context_length", b"llama.rope.dimension_count",
    b"llama.vocab_size", b"llama.context_length", b"llama.attention.sliding_window",
    b"tokenizer.ggml.model", b"tokenizer.ggml.pre", b"tokenizer.ggml.tokens",
    b"tokenizer.ggml.scores", b"tokenizer.ggml.token_type", b"tokenizer.ggml.merges",
    b"tokenizer.ggml.bos_token_id", b"tokenizer.ggml.eos_token_id",
    b"tokenizer.ggml.eot_token_id", b"tokenizer.ggml.eom_token_id",
    b"tokenizer.ggml.unknown_token_id", b"tokenizer.ggml.padding_token_id",
    b"tokenizer.ggml.add_bos_token", b"tokenizer.ggml.add_eos_token",
    b"tokenizer.ggml.add_space_prefix", b"tokenizer.chat_template",
    b"tokenizer.chat_template.tool_use", b"tokenizer.chat_templates",
]  # fmt: skip
