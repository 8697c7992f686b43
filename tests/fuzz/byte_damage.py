"""Bytes damaged without knowing what they are: flips, boundaries, cuts, splices."""

BOUNDARIES = [
    0, 1, 2, 7, 31, 32, 127, 128, 255, 256, 1 << 15, (1 << 16) - 1, 1 << 16, (1 << 31) - 1, 1 << 31,
    (1 << 32) - 1, 1 << 32, 1 << 40, 1 << 60, (1 << 63) - 1, 1 << 63, (1 << 64) - 1,
]  # fmt: skip


def damage_bytes(data, random, *, head=None, other=None):
    """Change one to four places.

    Args:
        data: the whole bytes.
        random: the case's generator.
        head: about how many bytes from the beginning matter most; None: all alike.
        other: another example, of which a part may be put in.
    """
    data = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 3, 4))):
        at = _place(data, random, head)
        match random.randrange(11):
            case 0:
                if data:
                    data[at] ^= 1 << random.randrange(8)
            case 1:
                if data:
                    data[at] = random.randrange(256)
            case 2 | 3:
                width = random.choice((1, 2, 4, 8))
                number = random.choice(BOUNDARIES) & ((1 << 8 * width) - 1)
                data[at : at + width] = number.to_bytes(width, random.choice(("little", "big")))
            case 4:
                del data[at:]
            case 5:
                del data[at : at + random.randrange(40)]
            case 6:
                data[at:at] = random.randbytes(random.randrange(40))
            case 7:
                data[at:at] = data[at : at + random.randrange(200)]
            case 8:
                start = random.randrange(len(data) + 1)
                data[at : at + random.randrange(60)] = data[start : start + random.randrange(60)]
            case 9:
                width = random.choice((1, 4, 8))
                part = data[at : at + width]
                number = int.from_bytes(part, "little") + random.choice((-1, 1, 8, -8))
                data[at : at + width] = (number % (1 << 8 * width)).to_bytes(width, "little")
            case _:
                source = data if other is None else other
                start = random.randrange(len(source) + 1)
                data[at:at] = source[start : start + random.randrange(100)]
    return bytes(data)


def _place(data, random, head):
    if not data:
        return 0
    if head is None or random.random() < 0.2:
        return random.randrange(len(data))
    return min(int(random.expovariate(2 / head)), len(data) - 1)
