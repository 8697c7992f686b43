"""The pickles inside PyTorch's weight files, read without running them.

A pickle is a program for a stack machine that may import and call anything. This machine knows only
the instructions that a dictionary of tensors needs, and three names: an ordered dictionary, a
tensor made from a storage, a parameter made from a tensor. It builds descriptions; it cannot
import, and there is nothing that it could call.

An allow-list over ``pickle.Unpickler`` would be weaker: it bounds what is called, and not what a
pickle's own values cost in time and stack.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final

from edgellm.errors import FormatError
from edgellm.files.strict_json import quoted

MAX_INSTRUCTIONS = 400_000
"""A tensor takes about 40; the machine runs about a million a second."""

MAX_TEXT_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Name:
    """A name that a pickle wants imported."""

    module: str
    name: str


@dataclass(frozen=True, slots=True)
class Storage:
    """A run of numbers outside the pickle: its class's name, its key, how many numbers."""

    kind: str
    key: str
    count: int


@dataclass(frozen=True, slots=True)
class PickledTensor:
    """A tensor as a view of a storage; offset and strides count numbers, not bytes."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Mark:
    """Where a run of items begins on the stack."""


MARK: Final = _Mark()


def read_pickle(stream: BytesIO, name: str) -> Any:
    """Return the value of the pickle at the stream's position, which afterwards is behind it.

    Raises:
        FormatError: it is damaged, too large, or asks for anything but tensors.
    """
    machine = _Machine(name)
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if count > MAX_INSTRUCTIONS:
                raise FormatError(f"{name} has more than {MAX_INSTRUCTIONS} instructions")
            if opcode.name == "STOP":
                return machine.pop()  # what follows belongs to the next pickle
            machine.run(opcode.name, argument)
    except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
        raise FormatError(f"{name} is damaged: {quoted(str(error))}") from error
    raise FormatError(f"{name} has no end")


class _Machine:
    """The stack, the memo, and what each instruction does to them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, opcode: str, argument: Any) -> None:
        if opcode in CONSTANTS:
            self.stack.append(CONSTANTS[opcode])
        elif opcode in LITERALS:
            self.stack.append(argument)
        elif opcode in ACTIONS:
            ACTIONS[opcode](self, argument)
        elif opcode not in ("PROTO", "FRAME"):
            raise self.refusal(f"the instruction {opcode}")

    def refusal(self, what: str) -> FormatError:
        return FormatError(
            f"{self.name} holds {what}, which weights do not need; it was not run",
            hint="use the model's safetensors files, or save the weights alone with what made it",
        )

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is MARK:
            raise ValueError("an item is missing")
        return value

    def pop_run(self) -> list[Any]:
        """Take the items above the last mark off the stack."""
        start = len(self.stack) - 1
        while self.stack[start] is not MARK:
            start -= 1
            if start < 0:
                raise ValueError("a mark is missing")
        items = self.stack[start + 1 :]
        del self.stack[start:]
        return items

    def put(self, index: int | None) -> None:
        self.memo[len(self.memo) if index is None else int(index)] = self.stack[-1]

    def get(self, index: int) -> None:
        self.stack.append(self.memo[int(index)])

    def push_tuple(self, length: int | None) -> None:
        items = self.pop_run() if length is None else [self.pop() for _ in range(length)][::-1]
        self.stack.append(tuple(items))

    def extend(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise TypeError("items are added to something that is not a list")
        self.stack[-1].extend(items)

    def update(self, items: list[Any]) -> None:
        target = self.stack[-1]
        # texts and the numbers of an optimizer's parameters: what other keys cost to hash would be
        # the stream's to choose
        if (
            not isinstance(target, dict)
            or len(items) % 2
            or not all(isinstance(key, str) or _is_index(key) for key in items[::2])
        ):
            raise TypeError("keys that are not text, or a target that is not a dictionary")
        target.update(zip(items[::2], items[1::2], strict=True))

    def set_item(self) -> None:
        value, key = self.pop(), self.pop()
        self.update([key, value])

    def push_name(self, module: Any, name: Any) -> None:
        if (module, name) not in CALLABLES and not (
            module == "torch" and str(name).endswith("Storage")
        ):
            raise self.refusal(f"the name {quoted(f'{module}.{name}')}")
        self.stack.append(Name(module, name))

    def push_global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self.push_name(module, name)

    def push_stack_global(self) -> None:
        name, module = self.pop(), self.pop()
        self.push_name(module, name)

    def reduce(self) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, Name) or (function.module, function.name) not in CALLABLES:
            raise self.refusal("a call")
        self.stack.append(CALLABLES[function.module, function.name](arguments))

    def build(self) -> None:
        """Attributes of a dictionary (a state's version numbers) are dropped."""
        self.pop()
        if not isinstance(self.stack[-1], dict):
            raise self.refusal("attributes of something that is not a dictionary")

    def push_storage(self) -> None:
        match self.pop():
            case ("storage", Name(module="torch", name=kind), key, str(), int(count), *_) if (
                isinstance(key, str) or _is_index(key)  # LitGPT numbers them
            ):
                self.stack.append(Storage(kind, str(key), count))
            case _:
                raise self.refusal("a reference that is not a storage")


def _is_index(key: object) -> bool:
    return type(key) is int and 0 <= key < MAX_INSTRUCTIONS


def _ordered_dict(arguments: Any) -> dict[str, Any]:
    if arguments != ():
        raise TypeError("a dictionary made from arguments")
    return {}


def _tensor(arguments: Any) -> PickledTensor:
    match arguments:
        case (Storage() as storage, int(offset), tuple(shape), tuple(strides), *_):
            numbers = (offset, *shape, *strides)
            if len(shape) == len(strides) and all(
                type(number) is int and 0 <= number < 1 << 63 for number in numbers
            ):
                return PickledTensor(storage, offset, shape, strides)
    raise TypeError("a tensor of impossible shape")


def _parameter(arguments: Any) -> PickledTensor:
    match arguments:
        case (PickledTensor() as tensor, *_):
            return tensor
    raise TypeError("a parameter that is not a tensor")


CALLABLES: Final[Mapping[tuple[str, str], Callable[[Any], Any]]] = {
    ("collections", "OrderedDict"): _ordered_dict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
}

CONSTANTS: Final[Mapping[str, Any]] = {
    "MARK": MARK,
    "NONE": None,
    "NEWTRUE": True,
    "NEWFALSE": False,
    "EMPTY_TUPLE": (),
}

LITERALS: Final = frozenset(
    [
        "BININT",
        "BININT1",
        "BININT2",
        "INT",
        "LONG",
        "LONG1",
        "BINFLOAT",
        "BINUNICODE",
        "SHORT_BINUNICODE",
        "BINUNICODE8",
        "UNICODE",
        "BINSTRING",
        "SHORT_BINSTRING",
    ]
)

ACTIONS: Final[Mapping[str, Callable[[_Machine, Any], None]]] = {
    "EMPTY_DICT": lambda machine, _: machine.stack.append({}),
    "EMPTY_LIST": lambda machine, _: machine.stack.append([]),
    "TUPLE": lambda machine, _: machine.push_tuple(None),
    "TUPLE1": lambda machine, _: machine.push_tuple(1),
    "TUPLE2": lambda machine, _: machine.push_tuple(2),
    "TUPLE3": lambda machine, _: machine.push_tuple(3),
    "APPEND": lambda machine, _: machine.extend([machine.pop()]),
    "APPENDS": lambda machine, _: machine.extend(machine.pop_run()),
    "SETITEM": lambda machine, _: machine.set_item(),
    "SETITEMS": lambda machine, _: machine.update(machine.pop_run()),
    "PUT": _Machine.put,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": _Machine.put,
    "GET": _Machine.get,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "GLOBAL": _Machine.push_global,
    "STACK_GLOBAL": lambda machine, _: machine.push_stack_global(),
    "REDUCE": lambda machine, _: machine.reduce(),
    "BUILD": lambda machine, _: machine.build(),
    "BINPERSID": lambda machine, _: machine.push_storage(),
}
