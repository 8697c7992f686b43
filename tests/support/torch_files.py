"""PyTorch weight files written byte by byte, without torch."""

import struct
import zipfile

import numpy as np

KINDS = {
    np.dtype(np.float32): b"FloatStorage",
    np.dtype(np.float16): b"HalfStorage",
    np.dtype(np.int64): b"LongStorage",
}


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value):
    return b"J" + struct.pack("<i", value)


def numbers(values):
    return b"(" + b"".join(map(number, values)) + b"t"


def pickled_tensor(key, array, *, kind=None, offset=0, shape=None, strides=None, count=None):
    """Pickle a tensor as torch does: a call of its rebuilding function with a storage."""
    plain = [stride // array.itemsize for stride in array.strides]
    storage = (
        b"("
        + text("storage")
        + b"ctorch\n"
        + (kind or KINDS[array.dtype])
        + b"\n"
        + (number(key) if isinstance(key, int) else text(key))
        + text("cpu")
    )
    storage += number(array.size if count is None else count) + b"tQ"
    hooks = b"ccollections\nOrderedDict\n)R"
    view = (
        number(offset)
        + numbers(array.shape if shape is None else shape)
        + numbers(plain if strides is None else strides)
    )
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + view + b"\x89" + hooks + b"tR"


def state(entries):
    return b"\x80\x02}(" + b"".join(text(name) + value for name, value in entries.items()) + b"u."


def write_zip(path, pickle_bytes, storages, *, method=zipfile.ZIP_STORED, byteorder="little"):
    with zipfile.ZipFile(path, "w", method) as file:
        file.writestr("archive/data.pkl", pickle_bytes)
        file.writestr("archive/version", "3\n")
        file.writestr("archive/byteorder", byteorder)
        for key, array in storages.items():
            file.writestr(f"archive/data/{key}", array.tobytes())
    return path


def write_arrays(path, arrays, *, wrap=state, key=str):
    """A weight file as torch writes it, with a storage a tensor; ``wrap`` makes the pickle."""
    entries = {
        name: pickled_tensor(key(index), array)
        for index, (name, array) in enumerate(arrays.items())
    }
    return write_zip(
        path, wrap(entries), {str(index): array for index, array in enumerate(arrays.values())}
    )
