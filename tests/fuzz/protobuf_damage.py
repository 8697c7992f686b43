"""Protocol buffers damaged by their structure: fields, which may be messages themselves."""

import struct

VARINTS = [0, 1, 2, 3, 4, 5, 6, 7, 127, 128, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1]
FLOATS = [0.0, -0.0, 1.0, -1.0, 1e30, -1e38, float("inf"), float("nan")]
TEXTS = [b"", b"a", b" ", b"<s>", b"\xff\xfe", b"\xe2\x96\x81", b"\x00", b"\x1b[2J", b"x" * 3000]
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


def damage_message(data, random, depth=0):
    """Change one to three fields: their number, type or value, or leave, double or move them."""
    fields = read_fields(data)
    if not fields:
        return data
    for _ in range(random.choice((1, 1, 2, 3))):
        # what follows the many pieces is as likely as they are
        at = random.choice(
            (
                random.randrange(len(fields)),
                max(0, len(fields) - 1 - random.randrange(min(5, len(fields)))),
            )
        )
        number, wire, value = fields[at]
        match random.randrange(9):
            case 0:
                del fields[at]
            case 1:
                fields.insert(random.randrange(len(fields)), (number, wire, value))
            case 2:
                fields[at] = (random.choice((0, 1, 2, 3, 4, 5, 18, 40, 100)), wire, value)
            case 3:
                fields[at] = (number, *_value(random))
            case 4 if depth == 0:
                other = random.randrange(len(fields))
                fields[at], fields[other] = fields[other], fields[at]
            case 5 if depth == 0:
                fields.append((random.randrange(1, 6), *_value(random)))
            case _ if wire == BYTES and read_fields(value):
                fields[at] = (number, wire, damage_message(value, random, depth + 1))
            case _:
                fields[at] = (number, *_like(wire, random))
        if not fields:
            break
    return b"".join(map(_field, fields))


def read_fields(data):
    """A message's fields (number, wire type, value); none where it is no message."""
    fields = []
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        if key is None:
            return []
        number, wire = key >> 3, key & 7
        if wire == VARINT:
            value, at = _read_varint(data, at)
            if value is None:
                return []
        elif wire in (FIXED32, FIXED64):
            width = 4 if wire == FIXED32 else 8
            value = data[at : at + width]
            at += width
        elif wire == BYTES:
            length, at = _read_varint(data, at)
            if length is None or at + length > len(data):
                return []
            value = data[at : at + length]
            at += length
        else:
            return []
        fields.append((number, wire, value))
    return fields


def _field(field):
    number, wire, value = field
    head = _varint(number << 3 | wire)
    if wire == VARINT:
        return head + _varint(value)
    if wire == BYTES:
        return head + _varint(len(value)) + value
    return head + value


def _value(random):
    return random.choice((
        (VARINT, random.choice(VARINTS)),
        (FIXED32, struct.pack("<f", random.choice(FLOATS))),
        (FIXED64, struct.pack("<d", random.choice(FLOATS))),
        (BYTES, random.choice(TEXTS)),
    ))  # fmt: skip


def _like(wire, random):
    while True:
        kind, value = _value(random)
        if kind == wire:
            return kind, value


def _varint(number):
    data = bytearray()
    while number > 127:
        data.append(number & 127 | 128)
        number >>= 7
    data.append(number)
    return bytes(data)


def _read_varint(data, at):
    number = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        number |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return number, at
        shift += 7
    return None, at
