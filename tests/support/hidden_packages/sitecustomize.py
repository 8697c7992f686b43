"""Hides the packages named in WITHOUT_PACKAGES from this interpreter; see ``support.without``."""

import os
import sys

HIDDEN = frozenset(os.environ.get("WITHOUT_PACKAGES", "").split(","))


class Hiding:
    """A finder of modules and of installed distributions that passes over what is hidden."""

    def __init__(self, finder):
        self._finder = finder

    def __getattr__(self, name):
        return getattr(self._finder, name)

    def find_spec(self, name, path=None, target=None):
        """Return what the finder finds, and nothing for a hidden package or a module of one."""
        if name.partition(".")[0] in HIDDEN:
            return None
        return self._finder.find_spec(name, path, target)

    def find_distributions(self, *arguments):
        """Yield the distributions that the finder finds, without those of hidden packages."""
        find = getattr(self._finder, "find_distributions", lambda *_: ())
        for distribution in find(*arguments):
            name = distribution.name.replace("-", "_")
            if name.removesuffix("_python") not in HIDDEN:
                yield distribution


sys.meta_path[:] = [Hiding(finder) for finder in sys.meta_path]
