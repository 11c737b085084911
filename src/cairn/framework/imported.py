"""An App by its name: `module:name`, imported from a project's root."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cairn.errors import UsageError

if TYPE_CHECKING:
    from cairn.framework.app import App

_NAMED = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def names_an_app(target: str, root: Path) -> bool:
    """Whether it has the form of an App's name, and is no file's or folder's."""
    return _NAMED.fullmatch(target) is not None and not (root / target.partition(":")[0]).exists()


def app_named(named: str, root: Path, wants: str) -> App:
    """The App, or what the function of that name makes. Raises UsageError; `wants` says what needs an App."""
    from cairn.framework.app import App

    module_name, _, name = named.partition(":")
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise UsageError(f"{named}: there is no module {error.name!r} under {root}") from None
    except Exception as error:
        from cairn.framework.modules import describe

        raise UsageError(describe(error, root / f"{module_name.replace('.', '/')}.py", root)) from None
    found: Any = getattr(module, name, None)
    if callable(found) and not isinstance(found, App):
        found = found()
    if not isinstance(found, App):
        what = "is not there" if found is None else f"is a {type(found).__name__}"
        raise UsageError(f"{named} {what}; {wants} needs an App, such as `{name} = App([agent])`")
    return found
