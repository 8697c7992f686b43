"""Sizes and budgets of memory, as texts and as bytes."""

from __future__ import annotations

import math
import re

from edgellm.errors import ConfigError
from edgellm.setting_values import is_int, shown

_UNITS = {"": 1, "b": 1}
for _power, _letter in enumerate("kmgt", 1):
    _UNITS[_letter] = _UNITS[f"{_letter}b"] = 1000**_power
    _UNITS[f"{_letter}ib"] = 1024**_power
_SIZE = re.compile(r"\s*(\d{1,16}(?:\.\d{1,9})?)\s*([a-z]{0,3})\s*", re.IGNORECASE)
MAX_SIZE = 1 << 50

MIN_BARE_SIZE = 4096
"""Bytes below which a budget without a unit is taken for a slip: one page of memory."""


def parse_size(text: str) -> int:
    """Return the bytes that a text such as ``4GB`` (10^9), ``1.5GiB`` (2^30) or ``4096`` says.

    Raises:
        ConfigError: the text is not a size, or is zero.
    """
    match = _SIZE.fullmatch(text)
    unit = _UNITS.get(match.group(2).lower()) if match else None
    if match is None or unit is None:
        raise ConfigError(
            f"{shown(text)} is not a size",
            hint="write it as 4GB (10^9 bytes), 512MB, 1.5GiB (2^30) or 60%",
        )
    size = int(float(match.group(1)) * unit)
    if not 0 < size <= MAX_SIZE:
        raise ConfigError(
            f"{shown(text)} is {size} bytes;"
            f" a size must be above 0 and at most {MAX_SIZE // 1024**4} TiB"
        )
    return size


def parse_memory(setting: str | int | None, available: int) -> int | None:
    """Return the budget in bytes that ``--memory`` asks for; None means that the plan decides.

    Args:
        setting: ``4GB``, ``60%`` (of ``available``), ``auto``, a number of bytes, or None (as
            ``auto``).
        available: bytes that a percentage refers to.
    """
    if setting is None or (isinstance(setting, str) and setting == "auto"):
        return None
    if is_int(setting):
        if setting <= 0:
            raise ConfigError(f"memory is {shown(setting)}; it must be above 0")
        return setting
    if not isinstance(setting, str):
        raise ConfigError(
            f"{shown(setting)} is not a memory budget;"
            " it must be a whole number of bytes, or a text such as '4GB' or '60%'"
        )
    if setting.strip().endswith("%"):
        return int(available * _parse_percent(setting) / 100)
    return parse_budget(setting)


def parse_budget(text: str) -> int:
    """Return the bytes of memory that a text says, as ``parse_size`` does.

    Raises:
        ConfigError: the text is not a size, or a small number without a unit.
    """
    size = parse_size(text)
    number = text.strip()
    if number[-1].isdigit() and size < MIN_BARE_SIZE:
        raise ConfigError(
            f"{shown(text)} has no unit",
            hint=f"write {number}GB (10^9 bytes), {number}GiB (2^30) or {number}MB",
        )
    return size


def _parse_percent(text: str) -> float:
    try:
        percent = float(text.strip()[:-1])
    except ValueError:
        percent = math.nan
    if not 0 < percent <= 100:
        raise ConfigError(
            f"{shown(text)} is not a share of memory",
            hint="write a percentage above 0 and up to 100%",
        )
    return percent
