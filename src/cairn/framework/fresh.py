"""A project's modules read anew: what it imported is forgotten, so that importing its files runs them as they are now.

Laws. Only the project's own modules are touched: not what it installed, not ours. When the new ones cannot be used the old ones
are put back. What still runs keeps the modules it was made of. A compiled file is not believed: Python tells it from its source
by seconds and size, and an edit can be faster than that.
"""

from __future__ import annotations

import importlib
import linecache
import os
import sys
import types
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

#: Never read anew: the package that does it, and the program.
_KEPT = ("cairn", "__main__", "__mp_main__")


class Modules:
    """The modules that lie under one folder."""

    def __init__(self, root: Path) -> None:
        self._root = str(root.resolve()) + os.sep
        prefix = str(Path(sys.prefix).resolve()) + os.sep
        self._foreign = prefix if prefix.startswith(self._root) else None

    def loaded(self) -> dict[str, types.ModuleType]:
        """The project's modules that are imported now, packages included."""
        found = {}
        for name, module in list(sys.modules.items()):
            if name.partition(".")[0] not in _KEPT and any(self._is_own(place) for place in _places(module)):
                found[name] = module
        return found

    def files(self) -> list[str]:
        """Where they were read from."""
        return [file for module in self.loaded().values() if (file := getattr(module, "__file__", None))]

    def read_anew(self, read: Callable[[], T], *, is_good: Callable[[T], bool]) -> T:
        """What `read`, which imports them, returns now. When it raises, or what it returns is not good, all is as before."""
        before = self.loaded()
        self._forget(before)
        try:
            found = read()
        except BaseException:
            self._put_back(before)
            raise
        if not is_good(found):
            self._put_back(before)
        return found

    def _forget(self, modules: dict[str, types.ModuleType]) -> None:
        for name, module in modules.items():
            sys.modules.pop(name, None)
            if compiled := getattr(getattr(module, "__spec__", None), "cached", None):
                with suppress(OSError):
                    os.unlink(compiled)
        importlib.invalidate_caches()
        linecache.checkcache()

    def _put_back(self, modules: dict[str, types.ModuleType]) -> None:
        for name in self.loaded():
            sys.modules.pop(name, None)
        sys.modules.update(modules)

    def _is_own(self, place: str) -> bool:
        if not (place + os.sep).startswith(self._root) or f"{os.sep}site-packages{os.sep}" in place:
            return False
        return self._foreign is None or not place.startswith(self._foreign)


def _places(module: types.ModuleType) -> Sequence[str]:
    """The file of a module, or the folders of a package that has none."""
    file = getattr(module, "__file__", None)
    if file is not None:
        return (os.path.realpath(file),)
    with suppress(Exception):
        return [os.path.realpath(place) for place in getattr(module, "__path__", ())]
    return ()
