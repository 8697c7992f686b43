"""What a chat template may spend, and what each of its steps costs.

One unit pays for one character that is made or for about 20 ns of work. The purse grows with the
conversation, so that a long chat never runs dry, while a hostile template on a short one ends after
0.1 to 0.5 s (one 2.5 GHz core) and 16 MB. Should a price be wrong, the thread's own clock ends what
takes several times as long as was paid for.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

NODE = 16  # units for one element of a value, one call, or one node of the syntax tree
VALUE_UNITS = 1 << 19  # the largest value that a template may make of an empty conversation
TOTAL_UNITS = 1 << 22  # all that it may make and do
VALUE_FACTOR, TOTAL_FACTOR = 16, 512  # how both grow with each unit of the conversation
SECONDS_A_UNIT = 1.5e-7  # of the thread's own time; the clock is read once in 64 payments
GLANCE = 6  # reading 64 characters costs as much as making one
MAX_LAZY_DEPTH = 16  # iterators over iterators are freed one inside the other, on the C stack
MAX_INT_BITS = 4096
MAX_INDENT = 32
MAX_NAME = 256  # characters of an attribute that map, groupby and their like read of every element

VIEWS: tuple[type[Any], ...] = (type({}.keys()), type({}.values()), type({}.items()))
CONTAINERS: tuple[type[Any], ...] = (dict, list, tuple, set, frozenset, *VIEWS)


class ExhaustedError(Exception):
    """A template wants more time or memory than its conversation calls for."""


class RefusedError(Exception):
    """A template asks for something whose cost cannot be foreseen."""


class Meter:
    """The purse of one rendering.

    Args:
        variables: the conversation and all else that is given to the template.
    """

    def __init__(self, variables: Mapping[str, Any]) -> None:
        self.largest = self.left = 1 << 62
        given = self.weight(dict(variables))
        self.largest = VALUE_UNITS + VALUE_FACTOR * given
        self.left = TOTAL_UNITS + TOTAL_FACTOR * given
        self._payments = 0
        self._end = time.thread_time() + self.left * SECONDS_A_UNIT

    def spend(self, units: int) -> None:
        """Pay ``units``; raises ``ExhaustedError`` when they are too many for one thing or for what is left."""
        self.left -= max(units, 0)
        self._payments += 1
        if units > self.largest or self.left < 0:
            raise ExhaustedError
        if not self._payments & 63 and time.thread_time() > self._end:
            raise ExhaustedError

    def weight(self, value: Any, glance: int = 0) -> int:
        """Return the units of ``value``; a part that occurs twice counts twice, as it would when printed.

        Args:
            value: anything.
            glance: how many times to halve the lengths of strings; above 0 the value is read and
                not made.
        """
        total, waiting = 0, [value]
        while waiting:
            item = waiting.pop()
            total += NODE
            if isinstance(item, str | bytes):
                total += len(item) >> glance
            elif isinstance(item, dict):
                waiting += item.keys()
                waiting += item.values()
            elif isinstance(item, CONTAINERS):
                waiting += item
            elif isinstance(item, int):
                limit_bits(item.bit_length())
            elif glance and isinstance(item, range):
                total += NODE * len(item)
            elif glance and isinstance(item, Iterator) and not isinstance(item, Lazy):
                raise RefusedError("a loop that is read from inside")
            if total > self.largest:
                raise ExhaustedError
        return total

    def pay(self, value: Any) -> Any:
        """Pay for having made ``value``, and return it."""
        self.spend(self.weight(value))
        return value

    def look(self, value: Any) -> None:
        """Pay for reading all of ``value`` once."""
        self.spend(self.weight(value, GLANCE))

    def read(self, value: Any) -> None:
        """Pay for doing something with all of ``value``: each character, or each element."""
        if isinstance(value, str):
            self.spend(len(value))
        else:
            self.look(value)

    def compare(self, left: Any, right: Any) -> None:
        """Pay for ``left == right``, which is quick unless both sides are containers."""
        if isinstance(left, CONTAINERS) and isinstance(right, CONTAINERS):
            self.look(left)
            self.look(right)
        elif isinstance(left, str) and isinstance(right, str):
            self.spend(min(len(left), len(right)) >> GLANCE)

    def search(self, sought: Any, place: Any) -> None:
        """Pay for ``sought in place``."""
        if isinstance(place, str):
            self.spend(len(place))
        elif not isinstance(place, dict):
            self.look(place)

    def join(self, separator: str, items: Sequence[Any]) -> None:
        """Pay for ``separator.join(items)``."""
        self.explode(items)
        self.look(items)
        self.spend(len(separator) * len(items) + self.weight(items))

    def percent(self, text: str, arguments: Any) -> None:
        """Pay for ``text % arguments``."""
        if "*" in text:
            raise RefusedError("a format with * for its width")
        self.spend(digits(text) + (text.count("%") + 1) * self.weight(arguments))

    def replace(self, text: str, old: str = "", new: str = "", *_: Any, **__: Any) -> None:
        """Pay for ``text.replace(old, new)``."""
        self.spend(len(text) + text.count(old) * len(new))

    def split(self, text: str, sep: str | None = None, *_: Any, **__: Any) -> None:
        """Pay for ``text.split(sep)``: a piece of one character takes about 5 elements' worth."""
        self.spend(len(text) + 5 * NODE * (text.count(sep) + 1 if sep else len(text) // 2 + 1))

    def split_from_right(self, text: str, sep: str | None = None, *_: Any, **__: Any) -> None:
        """Pay for ``text.rsplit(sep)``."""
        self.split(text, sep)
        self.find(text, sep)

    def split_lines(self, text: str, *_: Any, **__: Any) -> None:
        """Pay for ``text.splitlines()``."""
        self.spend(
            len(text)
            + 5 * NODE * (sum(map(text.count, "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029")) + 1)
        )

    def find(self, place: Any, sought: Any = "", *_: Any) -> None:
        """Pay for a search, which from the right end of a text takes as long as both lengths multiplied."""
        self.read(place)
        if isinstance(place, str) and isinstance(sought, str):
            self.spend(len(place) * (len(sought) >> 4))

    def strip(self, text: str, characters: str | None = None, *_: Any) -> None:
        """Pay for ``text.strip(characters)``, which takes as long as both lengths multiplied."""
        self.spend(len(text) * (1 + (len(characters or "") >> 2)) >> 2)

    def multiply(self, left: Any, right: Any) -> None:
        """Pay for ``left * right``."""
        if isinstance(left, int) and isinstance(right, int):
            limit_bits(left.bit_length() + right.bit_length())
        elif isinstance(left, int) or isinstance(right, int):
            times, many = (left, right) if isinstance(left, int) else (right, left)
            self.spend((len(many) if isinstance(many, str) else self.weight(many)) * max(times, 1))

    def explode(self, text: Any) -> None:
        """Pay for a list of the characters of ``text``, if it is one."""
        if isinstance(text, str):
            self.spend(5 * NODE * len(text))


class Lazy:
    """What map, select and their like return: an iterator that pays for each step."""

    __slots__ = ("_depth", "_items", "_meter")

    def __init__(self, items: Iterator[Any], source: Any, meter: Meter) -> None:
        self._items, self._meter = items, meter
        self._depth: int = source._depth + 1 if isinstance(source, Lazy) else 0
        if self._depth > MAX_LAZY_DEPTH:
            raise ExhaustedError

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        item = next(self._items)
        self._meter.look(item)
        return item


METER: ContextVar[Meter] = ContextVar("meter")


def digits(text: str) -> int:
    """Return the sum of all numbers in a format: an upper bound of what it pads."""
    return sum(int(run) if len(run) < 1000 else 1 << 62 for run in re.findall(r"\d+", text))


def limit_bits(bits: int) -> None:
    """Raise ``ExhaustedError`` for an integer of more bits than any template needs."""
    if bits > MAX_INT_BITS:
        raise ExhaustedError


def _indent(meter: Meter, text: Any, width: Any = 4, *_: Any, **__: Any) -> None:
    indent = len(width) if isinstance(width, str) else int(width)
    meter.split_lines(str(text))
    meter.spend((len(str(text).splitlines()) + 1) * indent)


def _round(_: Meter, __: Any, precision: Any = 0, *___: Any, **____: Any) -> None:
    limit_bits(abs(int(precision)) * 4)


def _sum(meter: Meter, items: Any, attribute: Any = None, start: Any = 0) -> None:
    _names(attribute)
    if not isinstance(start, int | float):
        raise RefusedError("a sum that starts from something else than a number")
    meter.read(items)


def _replace(meter: Meter, text: Any, *rest: Any, **named: Any) -> None:
    meter.replace(str(text), *map(str, rest), *map(str, named.values()))


def _nothing(*_: Any, **__: Any) -> None:
    pass


def _names(*names: Any) -> None:
    if any(isinstance(name, str) and len(name) > MAX_NAME for name in names):
        raise RefusedError(f"a name of more than {MAX_NAME} characters")


def _elements(_: Meter, __: Any = None, *names: Any, **named: Any) -> None:
    _names(*names, *named.values())


def _joining(meter: Meter, items: Any, d: Any = "", attribute: Any = None) -> None:
    _names(attribute)
    meter.join(str(d), items)


def _listing(meter: Meter, items: Any, *names: Any, **named: Any) -> None:
    _names(*names, *named.values())
    meter.explode(items)
    meter.read(items)


def _reading(meter: Meter, first: Any = None, *rest: Any, **_: Any) -> None:
    meter.read(first)
    meter.look(rest)


METHOD_PRICES: dict[str, Callable[..., None]] = {
    **dict.fromkeys(
        ("count", "find", "index", "partition", "rfind", "rindex", "rpartition"), Meter.find
    ),
    **dict.fromkeys(("strip", "lstrip", "rstrip"), Meter.strip),
    "join": Meter.join,
    "replace": Meter.replace,
    "rsplit": Meter.split_from_right,
    "split": Meter.split,
    "splitlines": Meter.split_lines,
}
METHOD_PRICE = FILTER_PRICE = TEST_PRICE = _reading
FILTER_PRICES: dict[str, Callable[..., None]] = {
    # These take one element, or none before they are asked for it.
    **dict.fromkeys(
        ("attr", "count", "d", "default", "first", "items", "last", "length"), _nothing
    ),
    **dict.fromkeys(("map", "reject", "rejectattr", "select", "selectattr"), _elements),
    **dict.fromkeys(
        ("dictsort", "groupby", "list", "max", "min", "reverse", "sort", "unique"), _listing
    ),
    "format": lambda meter, text, *items, **named: meter.percent(str(text), (items, named)),
    "indent": _indent,
    "join": _joining,
    "replace": _replace,
    "round": _round,
    "sum": _sum,
    "trim": lambda meter, text, chars=None: meter.strip(str(text), chars),
}
