"""`[tool.cairn]` in pyproject.toml: the only project configuration, found from where one stands, checked as a whole.

Laws. Reading it runs nothing and needs no network. Every option is listed here with its meaning; an unknown one is refused
with the nearest name there is, because an option that is silently ignored is a mistake that is found in production.
"""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cairn.errors import UsageError

FILE = "pyproject.toml"

#: Where the store is when nobody says otherwise: beside the project, so that two projects never share one by accident.
DEFAULT_STORE = Path(".cairn") / "cairn.db"
#: The environment variable that says otherwise.
STORE_VARIABLE = "CAIRN_STORE"

#: Each option of `[tool.cairn]` and what it means. All are texts but those of `LISTS` and `NUMBERS`.
OPTIONS = {
    "agents": "the folder agents are discovered in, relative to pyproject.toml; `agents` by default",
    "app": "where the App is, `module:name`; without it what is discovered is served",
    "model": "the model of every agent that names none, `provider:model`",
    "store": "the store's file, relative to pyproject.toml; `.cairn/cairn.db` by default",
    "host": "the address to serve on; 127.0.0.1, this machine only, by default",
    "port": "the port to serve on; 8000 by default, 0 for any",
    "auth": "who may call what is discovered: none (this machine only), tokens, or open",
    "hosts": "the names the server has beside those of this machine",
    "cors": "origins whose pages may call the server from a browser",
}
LISTS = ("hosts", "cors")
NUMBERS = ("port",)


@dataclass(frozen=True, slots=True)
class Config:
    """A project: where it is and what it says about itself."""

    root: Path
    """The folder everything is relative to; importable names start here."""
    file: Path | None = None
    """The pyproject.toml it was read from, if there is one."""
    agents: Path = Path("agents")
    app: str | None = None
    model: str | None = None
    store: Path | None = None
    host: str | None = None
    port: str | None = None
    auth: str | None = None
    hosts: tuple[str, ...] = ()
    cors: tuple[str, ...] = ()

    @property
    def agents_folder(self) -> Path:
        return self.root / self.agents


def find(start: Path | None = None) -> Config:
    """The project around `start` (the working directory by default).

    It is the nearest folder upwards whose pyproject.toml has `[tool.cairn]`; else the nearest with a pyproject.toml; else
    `start` itself, with defaults. *Raises* UsageError for a file that cannot be read or an option that makes no sense.
    """
    start = (start or Path.cwd()).resolve()
    folder = start if start.is_dir() else start.parent
    nearest: Config | None = None
    for candidate in (folder, *folder.parents):
        file = candidate / FILE
        if not file.is_file():
            continue
        table = _table(file)
        if table is not None:
            return _config(candidate, file, table)
        nearest = nearest or Config(candidate, file)
    return nearest or Config(folder)


def _table(file: Path) -> dict[str, Any] | None:
    """The file's `[tool.cairn]`; None when it has none."""
    try:
        parsed = tomllib.loads(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{file} is not valid TOML: {error}") from None
    tool = parsed.get("tool")
    table = tool.get("cairn") if isinstance(tool, dict) else None
    if table is not None and not isinstance(table, dict):
        raise UsageError(f"{file}: tool.cairn must be a table, `[tool.cairn]`")
    return table


def _config(root: Path, file: Path, table: dict[str, Any]) -> Config:
    problems = [problem for name, value in table.items() if (problem := _problem(name, value))]
    if problems:
        raise UsageError(f"{file}: [tool.cairn] {'; '.join(problems)}")
    given = dict(table)
    for name in ("agents", "store"):
        if name in given:
            given[name] = Path(given[name])
    if "store" in given:
        given["store"] = root / given["store"]
    given.update({name: tuple(given[name]) for name in LISTS if name in given})
    given.update({name: str(given[name]) for name in NUMBERS if name in given})
    return Config(root, file, **given)


def _problem(name: str, value: Any) -> str:
    if name not in OPTIONS:
        close = difflib.get_close_matches(name, OPTIONS, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(OPTIONS)}"
        return f"has no option {name!r}; {hint}"
    if name in LISTS:
        if not isinstance(value, list) or not all(isinstance(each, str) and each for each in value):
            return f"{name} = {value!r}: a list of texts is needed ({OPTIONS[name]})"
        return ""
    if name in NUMBERS and isinstance(value, int) and not isinstance(value, bool):
        return "" if 0 <= value <= 65_535 else f"{name} = {value!r}: {OPTIONS[name]}"
    if not isinstance(value, str) or not value:
        return f"{name} = {value!r}: a text is needed ({OPTIONS[name]})"
    if name in ("model", "app") and not all(value.partition(":")):
        return f"{name} = {value!r} does not say {OPTIONS[name].split(',')[-1].split(';')[0].strip()}"
    if name == "agents" and (Path(value).is_absolute() or ".." in Path(value).parts):
        return f"agents = {value!r}: it must lie inside the project"
    return ""
