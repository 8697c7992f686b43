"""Machines that are lost are told of: a line when one is, and one when it is back."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

from edgellm.console.units import plural


class Outages:
    """The machines that are missing: that was told, or an error has told it."""

    def __init__(self) -> None:
        self._missing: set[str] = set()
        self._failed = 0

    def lost(self, name: str, then: str) -> None:
        """Tell that a machine is gone, and what then is done, where that was not told."""
        if name not in self._missing:
            self._missing.add(name)
            tell(f"machine {name} is gone: {then}")

    def text_failed(self, names: Iterable[str]) -> None:
        """Count a text that ends with an error because these machines are missing."""
        self._missing.update(names)
        self._failed += 1

    def back(self, name: str, then: str = "texts are computed again") -> None:
        """Tell that a machine is there again, and how many texts have failed meanwhile."""
        self._missing.discard(name)
        failed = ""
        if self._failed and not self._missing:
            failed = f"; {plural(self._failed, 'text')} failed meanwhile"
            self._failed = 0
        tell(f"machine {name} is back: {then}{failed}")


def tell(what: str) -> None:
    """Warn, also where the same was told before: a machine may be lost twice in a week."""
    warnings.warn_explicit(what, RuntimeWarning, __file__, 1, module=__name__, registry={})
