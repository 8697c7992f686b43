"""Pickles damaged by their instructions, put into PyTorch's zips and older files."""

import io
import pickle
import pickletools
import struct
import zipfile

from support.torch_files import number, pickled_tensor

SMALL = [0, 1, 2, 3, 255, 256, 65535, -1]
NUMBERS = [0, 1, 2, 3, 255, 256, 65535, 1 << 31, (1 << 63) - 1, -1, -(1 << 40)]
INTRUDERS = [
    b".", b"(", b"0", b"1", b"2", b"N", b"\x88", b"]", b"}", b")", b"t", b"R", b"Q", b"b", b"s",
    b"u", b"e", b"a", b"\x85", b"\x86", b"\x87", b"h\x00", b"q\x00", b"\x94", b"\x81", b"\x93",
    b"cbuiltins\nprint\n", b"ccollections\nOrderedDict\n", b"ctorch\nFloatStorage\n",
    b"ctorch._utils\n_rebuild_parameter\n", b"ctorch._utils\n_rebuild_tensor_v2\n", b"K\x05",
    b"M\xff\xff", b"J\xff\xff\xff\xff", b"I7\n", b"L7L\n", b"F1.5\n", b"S'a'\n", b"\x8a\x01\x05",
    b"G?\xf0\x00\x00\x00\x00\x00\x00",
    b"\x95\x00\x00\x00\x00\x00\x00\x00\x00", b"X\xff\xff\xff\x7f",
    b"X\x03\x00\x00\x00\x1b[2", b"X\x02\x00\x00\x00\xff\xfe", b"U\x01a", b"C\x01a", b"\x8f",
    b"\x8c\x05model", b"P0\n", b"i__main__\nX\n", b"V\\ud800\n",
    b"\x8b\xd0\x07\x00\x00" + b"\x01" * 2000,
]  # fmt: skip


def damage_pickle(data, random):
    """Leave out, double, move, replace or put in instructions; or change a number or a text."""
    places = [at for _, _, at in pickletools.genops(data)]
    parts = [data[one:two] for one, two in zip(places, [*places[1:], len(data)], strict=True)]
    for _ in range(random.choice((1, 1, 2, 3))):
        at = random.randrange(len(parts))
        match random.randrange(8):
            case 0 if len(parts) > 1:
                del parts[at]
            case 1:
                parts.insert(at, parts[at])
            case 2:
                other = random.randrange(len(parts))
                parts[at], parts[other] = parts[other], parts[at]
            case 3:
                parts.insert(at, random.choice(INTRUDERS))
            case 4:
                parts[at] = random.choice(INTRUDERS)
            case 5:
                start = random.randrange(len(parts))
                parts[at:at] = parts[start : start + random.randrange(40)]
            case _:
                numbered = [place for place, part in enumerate(parts) if part[:1] == b"J"]
                if numbered:
                    place = random.choice(numbered)
                    parts[place] = _number(random.choice(NUMBERS))
    return b"".join(parts)


def damage_views(arrays, random):
    """A dictionary's pickle of which some views have other shapes, strides or offsets."""
    entries = {}
    chosen = random.sample(list(arrays), min(2, len(arrays)))
    for index, (name, array) in enumerate(arrays.items()):
        lies = {}
        if name in chosen:
            lies = random.choice((
                {"offset": random.choice(SMALL)},
                {"shape": tuple(random.choice((0, 1, 2, 4, 64)) for _ in range(array.ndim))},
                {"strides": tuple(random.choice((0, 1, 2, 4, 64)) for _ in range(array.ndim))},
                {"count": random.choice(SMALL)},
                {"shape": (2,) * random.randrange(12), "strides": (1,) * random.randrange(12)},
                {"shape": array.shape[::-1], "strides": _strides(array)[::-1]},
                {"kind": random.choice((b"BoolStorage", b"HalfStorage", b"Storage", b"\x1b[0m"))},
            ))  # fmt: skip
        entries[name] = pickled_tensor(str(index), array, **lies)
    return entries


def as_zip(pickled, arrays, *, method=zipfile.ZIP_STORED):
    """A weight file as torch writes it."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as file:
        file.writestr("archive/data.pkl", pickled)
        file.writestr("archive/byteorder", "little")
        file.writestr("archive/version", "3\n")
        for index, array in enumerate(arrays.values()):
            file.writestr(f"archive/data/{index}", array.tobytes())
    return stream.getvalue()


def as_legacy(pickled, arrays):
    """A weight file as torch wrote it before version 1.6."""
    machine = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}
    parts = [pickle.dumps(item, 2) for item in (0x1950A86A20F9469CFC6C, 1001, machine)]
    # its storages name the view that they are of, here none
    parts += [
        pickled.replace(b"tQ", b"NtQ"),
        pickle.dumps([str(index) for index in range(len(arrays))], 2),
    ]
    for array in arrays.values():
        parts += [struct.pack("<q", array.size), array.tobytes()]
    return b"".join(parts)


def _number(value):
    if -(1 << 31) <= value < 1 << 31:
        return number(value)
    return b"\x8a\x08" + struct.pack("<q", value)


def _strides(array):
    return tuple(stride // array.itemsize for stride in array.strides)
