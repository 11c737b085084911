"""Modules of the shell's files: what `import` finds beside the library."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import linecache
import posixpath
import sys
from typing import Any

from .python_disk import Disk
from .tree import DIRECTORY, LINK


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Modules of the shell's files."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self.loaded: set[str] = set()

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        tail = name.rpartition(".")[2]
        places: list[str] = []
        for folder in sys.path if path is None else path:
            top = posixpath.join(self._disk.absolute(folder or "."), tail)
            for file, is_package in ((f"{top}/__init__.py", True), (f"{top}.py", False)):
                node = self._disk.find(file)
                if node is not None and node.kind not in (DIRECTORY, LINK):
                    spec = importlib.util.spec_from_loader(name, self, origin=file, is_package=is_package)
                    assert spec is not None
                    spec.has_location = True
                    if is_package:
                        spec.submodule_search_locations = [top]
                    return spec
            node = self._disk.find(top)
            if node is not None and node.kind == DIRECTORY:
                places.append(top)
        if places:
            spec = importlib.machinery.ModuleSpec(name, None, is_package=True)
            spec.submodule_search_locations = places
            return spec
        return None

    def create_module(self, spec: Any) -> None:
        return None

    def exec_module(self, module: Any) -> None:
        exec(self.get_code(module.__name__, module.__spec__.origin), module.__dict__)

    def get_code(self, name: str, origin: str = "") -> Any:
        origin = (
            origin or self.find_spec(name, None if "." not in name else sys.modules[name.rpartition(".")[0]].__path__).origin
        )
        text = self._disk.read(origin).decode()
        linecache.cache[origin] = (len(text), None, text.splitlines(keepends=True), origin)
        return compile(text, origin, "exec")

    def get_source(self, name: str) -> str:
        return self._disk.read(sys.modules[name].__spec__.origin).decode()  # type: ignore[union-attr]

    def is_package(self, name: str) -> bool:
        return bool(getattr(sys.modules.get(name), "__path__", None))
