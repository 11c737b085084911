"""A user's Python file as a module, imported once under its real package path, with every way it can fail as one line.

Laws. A file of a project is imported by the same dotted name its neighbours use, so nothing exists twice. Errors are
`path:line: text`, at the line of the user's own code that is to blame. Nothing here looks into what a module means.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
import traceback
import types
from collections.abc import Sequence
from pathlib import Path

from cairn.errors import UsageError


class ModuleProblem(Exception):
    """A file that cannot be imported. Its text is one line, `path:line: what is wrong`."""


def import_file(file: Path, root: Path) -> types.ModuleType:
    """The module of `file`, which lies under `root`; `root` is importable from now on, as for `python file.py`.

    *Idempotent*: a file imported before, by whatever means, is not run again. *Raises* ModuleProblem.
    """
    file, root = file.resolve(), root.resolve()
    names = _dotted(file, root)
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
        importlib.invalidate_caches()
    dotted = ".".join(names)
    if not _leads_to(dotted, file, root):
        dotted = f"{_package_for(root)}.{dotted}"
    try:
        module = importlib.import_module(dotted)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise ModuleProblem(describe(error, file, root)) from error
    if not _same_file(module, file):
        raise ModuleProblem(f"{shown(file)}: `import {dotted}` finds {module.__file__} instead; rename this file")
    return module


def shown(path: Path | str) -> str:
    """A path as a person would write it: relative when it lies under the working directory."""
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)


def describe(error: BaseException, file: Path, root: Path) -> str:
    """The error as one line, at the last line of the user's own code that it passed through."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{shown(error.filename)}:{error.lineno or 1}: {error.msg}"
    at = f"{shown(file)}:1"
    for frame in traceback.extract_tb(error.__traceback__):
        if _is_users(frame.filename, root):
            at = f"{shown(frame.filename)}:{frame.lineno}"
    text = " ".join(str(error).split())
    if isinstance(error, SystemExit):
        return f"{at}: it ends the program when imported; move that under `if __name__ == '__main__':`"
    if isinstance(error, UsageError):
        return f"{at}: {text}"
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"{at}: {text}; install it, or correct the name"
    return f"{at}: {type(error).__name__}: {text}" if text else f"{at}: {type(error).__name__}"


def _is_users(filename: str, root: Path) -> bool:
    parts = Path(filename).parts
    return filename.startswith(f"{root}{os.sep}") and "site-packages" not in parts


def _dotted(file: Path, root: Path) -> list[str]:
    relative = file.relative_to(root)
    names = [*relative.parts[:-1], relative.stem]
    if names[-1] == "__init__" and len(names) > 1:
        names.pop()
    wrong = next((name for name in names if "." in name), None)
    if wrong is not None:
        raise ModuleProblem(f"{shown(file)}: Python cannot import a name with a dot in it, {wrong!r}; rename it")
    return names


def _leads_to(dotted: str, file: Path, root: Path) -> bool:
    """Whether `import dotted` gives this very file, as far as can be told without running it."""
    present = sys.modules.get(dotted)
    if present is not None:
        return _same_file(present, file)
    top, dot, _ = dotted.partition(".")
    if not _is_ours(top, root) or not _parents_are_ours(dotted, root):
        return False
    try:
        spec = importlib.util.find_spec(dotted) if dot else None
    except Exception:
        # A parent package that fails to import: importing the file fails alike, and that is where it is reported.
        return True
    return spec is None or spec.origin is None or Path(spec.origin).resolve() == file


def _is_ours(top: str, root: Path) -> bool:
    """Whether importing `top` gives what lies under `root`, and not a module of the same name from elsewhere (the
    standard library's, an installed one, another project's)."""
    present = sys.modules.get(top)
    if present is not None:
        return _lies_in(_places(getattr(present, "__file__", None), getattr(present, "__path__", ())), root / top)
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError, AttributeError):
        return False
    if spec is None:
        return True
    return _lies_in(_places(spec.origin, spec.submodule_search_locations or ()), root / top)


def _parents_are_ours(dotted: str, root: Path) -> bool:
    """Whether the packages above it that were imported already lie where this root has them: a namespace package such as
    `agents` spans every project on the path, what is below it belongs to one."""
    names = dotted.split(".")
    for depth in range(2, len(names)):
        present = sys.modules.get(".".join(names[:depth]))
        if present is not None:
            places = _places(getattr(present, "__file__", None), getattr(present, "__path__", ()))
            if not _lies_in(places, root.joinpath(*names[:depth])):
                return False
    return True


def _places(file: str | None, folders: Sequence[str]) -> list[Path]:
    return [Path(place) for place in [*list(folders), *([file] if file else [])]]


def _lies_in(places: list[Path], top: Path) -> bool:
    wanted = {top, top.with_name(top.name + ".py"), top / "__init__.py"}
    return any(place in wanted or place.resolve() in wanted for place in places)


def _package_for(root: Path) -> str:
    """A package that stands for `root` where its own top-level names are taken: relative imports work beneath it."""
    name = f"cairn_project_{hashlib.blake2b(str(root).encode(), digest_size=4).hexdigest()}"
    if name not in sys.modules:
        package = types.ModuleType(name, f"Stands for the folder {root}.")
        package.__path__ = [str(root)]
        sys.modules[name] = package
    return name


def _same_file(module: types.ModuleType, file: Path) -> bool:
    origin = getattr(module, "__file__", None)
    return origin is not None and Path(origin).resolve() == file
