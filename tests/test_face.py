"""The public face: each name is exported once, loads, is documented, and is shown in use somewhere a reader looks."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest

import cairn
import cairn.framework.http
import cairn.runtime
import cairn.testing

ROOT = Path(__file__).parent.parent

#: Packages whose `__all__` is a promise, with the most names each may have (`cairn`: three sandboxes and
#: a skill among what stands in an agent's definition).
FACES: dict[str, int] = {"cairn": 30, "cairn.runtime": 28, "cairn.testing": 40, "cairn.framework.http": 10}

FACE_MODULES = [module for module in (cairn, cairn.runtime, cairn.testing, cairn.framework.http) if hasattr(module, "__all__")]


def names(module: ModuleType) -> list[str]:
    return [name for name in module.__all__ if not name.startswith("__")]


def shown() -> str:
    """Everything a reader learns from: the README, the docs, the examples."""
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.py")]
    return "\n".join(page.read_text() for page in pages)


@pytest.mark.parametrize("module", FACE_MODULES, ids=lambda module: module.__name__)
def test_every_public_name_loads_and_is_listed_once(module: ModuleType) -> None:
    """A lazy face must not promise what importing would not find."""
    listed = list(module.__all__)

    assert len(listed) == len(set(listed))
    for name in listed:
        assert getattr(module, name) is not None, name


@pytest.mark.parametrize("module", FACE_MODULES, ids=lambda module: module.__name__)
def test_a_face_stays_small_enough_to_learn(module: ModuleType) -> None:
    """Each name is one more thing to know before the first line of code."""
    assert len(names(module)) <= FACES[module.__name__]


@pytest.mark.parametrize("module", FACE_MODULES, ids=lambda module: module.__name__)
def test_every_public_name_is_documented(module: ModuleType) -> None:
    """The docstring of a public name is a promise; the methods a user calls have one too."""
    silent = []
    for name in names(module):
        thing = getattr(module, name)
        if isinstance(thing, type) or callable(thing):
            own = thing.__dict__.get("__doc__") if isinstance(thing, type) else inspect.getdoc(thing)
            if not own:
                silent.append(name)
        if isinstance(thing, type) and module is cairn:
            silent += [
                f"{name}.{method}"
                for method, value in vars(thing).items()
                if inspect.isfunction(value) and not method.startswith("_") and not inspect.getdoc(getattr(thing, method))
            ]

    assert not silent, ", ".join(silent)


def test_every_name_of_the_package_is_used_in_an_example_or_in_the_docs() -> None:
    """A name that nothing shows is a name that nobody finds."""
    text = shown()
    unseen = [name for name in names(cairn) if not re.search(rf"\b{re.escape(name)}\b", text)]

    assert not unseen, ", ".join(unseen)


def test_type_checkers_see_the_same_names_as_the_interpreter() -> None:
    """The lazy face says everything twice, once for each reader; the two must agree."""
    tree = ast.parse(Path(cairn.__file__ or "").read_text())
    seen: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for each in node.body:
                if isinstance(each, ast.ImportFrom):
                    seen |= {alias.asname or alias.name: each.module or "" for alias in each.names}

    assert set(seen) == set(names(cairn))
    for name, home in seen.items():
        assert getattr(importlib.import_module(home), name) is getattr(cairn, name)
