"""`cairn doctor`: what this machine offers, what is missing, and what to do about it.

Laws. Looks and never changes anything: no store is opened or created. Of a key it says that it is there, never what it
is. What is optional and absent is *missing* and no failure; what keeps Cairn from working is *bad* and exit code 1.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from cairn.errors import StoreUnsupported
from cairn.framework.cli.output import Exit, columns, installed_version, json_line, line, size
from cairn.framework.cli.store import named

State = Literal["ok", "missing", "bad"]

PYTHON_VERSION_MIN = (3, 11)

#: Bytes. A store with less than this to grow into will meet StoreFull within a day of ordinary use.
FREE_BYTES_MIN = 256 << 20

#: Open files. Below it a server with a few hundred readers stops accepting; systemd's and Debian's default is 1,024.
OPEN_FILES_MIN = 1_024

#: Extra → the module whose presence says it is installed, and the variables that may hold its key.
PROVIDERS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "anthropic": ("anthropic", ("ANTHROPIC_API_KEY",)),
    "openai": ("openai", ("OPENAI_API_KEY",)),
    "google": ("google.genai", ("GOOGLE_API_KEY", "GEMINI_API_KEY")),
}

#: Program → is it needed, and for what.
PROGRAMS: Mapping[str, tuple[bool, str]] = {
    "bash": (True, "local() runs commands with it"),
    "git": (False, "agents that work on repositories call it"),
    "rg": (False, "the grep tool is faster with it: install ripgrep"),
    "bwrap": (False, "isolated sandboxes need it: install bubblewrap"),
}


@dataclass(frozen=True, slots=True)
class Check:
    """One finding."""

    name: str
    state: State
    found: str
    advice: str = ""


def run(store: str | None, *, json: bool) -> int:
    """`cairn doctor`: 0 unless something is bad."""
    checks = list(examine(named(store), os.environ))
    if json:
        json_line({"ok": not _is_bad(checks), "checks": [asdict(check) for check in checks]})
    else:
        rows = [(check.name, check.state, "; ".join(filter(None, (check.found, check.advice)))) for check in checks]
        for each in columns(rows, ("CHECK", "STATE", "FOUND")):
            line(each)
    return Exit.FAILED if _is_bad(checks) else Exit.OK


def _is_bad(checks: list[Check]) -> bool:
    return any(check.state == "bad" for check in checks)


def examine(store: Path, environment: Mapping[str, str]) -> Iterator[Check]:
    """Every check, in the order in which a person would look."""
    yield _cairn()
    yield _python()
    yield _system()
    yield _sqlite()
    yield _store(store)
    yield from _directory(store)
    for extra, (module, keys) in PROVIDERS.items():
        yield _extra(extra, module)
        yield _key(extra, keys, environment)
    for program, (needed, use) in PROGRAMS.items():
        yield _program(program, needed, use)
    yield _open_files()


def _cairn() -> Check:
    found = installed_version()
    if found is None:
        return Check("cairn", "missing", "running from a source tree", "install it: pip install -e .")
    return Check("cairn", "ok", found)


def _python() -> Check:
    fine = sys.version_info >= PYTHON_VERSION_MIN
    return Check("python", "ok" if fine else "bad", platform.python_version(), "" if fine else "needs 3.11 or newer")


def _system() -> Check:
    fine = sys.platform in ("linux", "darwin")
    found = f"{platform.system()} {platform.release()}"
    return Check("system", "ok" if fine else "bad", found, "" if fine else "not supported; on Windows use WSL")


def _sqlite() -> Check:
    from cairn.runtime.storage.connection import sqlite_version
    from cairn.runtime.storage.format import require_sqlite

    found = ".".join(map(str, sqlite_version()))
    try:
        require_sqlite()
    except StoreUnsupported as error:
        return Check("sqlite", "bad", found, str(error))
    return Check("sqlite", "ok", found)


def _store(path: Path) -> Check:
    if path.is_file():
        return Check("store", "ok", f"{path} ({size(path.stat().st_size)})", "verify it with: cairn store check")
    if path.exists():
        return Check("store", "bad", f"{path} is not a file", "name another with --store or CAIRN_STORE")
    return Check("store", "ok", f"{path} does not exist yet", "it is created when an agent runs")


def _directory(store: Path) -> Iterator[Check]:
    from cairn.runtime.storage.format import file_system, require_local

    directory = store.absolute().parent
    while not directory.is_dir() and directory != directory.parent:
        directory = directory.parent
    kind = file_system(os.path.realpath(directory), _mounts()) or "unknown"
    try:
        require_local(str(directory))
        yield Check("file system", "ok", kind)
    except StoreUnsupported as error:
        yield Check("file system", "bad", kind, str(error))
    if not os.access(directory, os.W_OK):
        yield Check("data directory", "bad", f"{directory} is not writable", "choose a place you may write to")
        return
    free = shutil.disk_usage(directory).free
    little = free < FREE_BYTES_MIN
    yield Check("disk", "bad" if little else "ok", f"{size(free)} free", "free some space" if little else "")


def _mounts() -> str:
    try:
        return Path("/proc/self/mounts").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:  # not Linux
        return ""


def _extra(name: str, module: str) -> Check:
    if _is_installed("pydantic_ai") and _is_installed(module):
        return Check(f"extra {name}", "ok", "installed")
    return Check(f"extra {name}", "missing", "not installed", f"for {name}:… models: pip install 'cairn-agents[{name}]'")


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _key(provider: str, names: tuple[str, ...], environment: Mapping[str, str]) -> Check:
    present = next((name for name in names if environment.get(name)), None)
    if present is not None:
        return Check(f"key {provider}", "ok", f"{present}: yes")
    return Check(f"key {provider}", "missing", f"{' or '.join(names)}: no", f"set it to use {provider}:… models")


def _program(name: str, needed: bool, use: str) -> Check:
    if shutil.which(name) is not None:
        return Check(name, "ok", "found")
    return Check(name, "bad" if needed else "missing", "not on PATH", use)


def _open_files() -> Check:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    shown = f"{_limit(soft)} of at most {_limit(hard)}"
    few = soft != resource.RLIM_INFINITY and soft < OPEN_FILES_MIN
    return Check("open files", "missing" if few else "ok", shown, f"raise it: ulimit -n {OPEN_FILES_MIN}" if few else "")


def _limit(value: int) -> str:
    import resource

    return "unlimited" if value == resource.RLIM_INFINITY else f"{value:,}"
