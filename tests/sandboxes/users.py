"""Running a program of the tests as another user than root, where the tests are root.

The interpreter and the code may lie in a directory that only root may enter (a clone in its home): then the system's Python of
the same version and a copy of what is needed are used, in a directory that everybody may read.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534
USERS = ("root", "nobody")


def argv(user: str) -> list[str]:
    """What to put before a command so that it runs as the user."""
    if user == "root" or os.geteuid() != 0:
        return []
    # Through a shell, because setpriv itself can still start a program that the user may not.
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--", "sh", "-c", 'exec "$0" "$@"']


@lru_cache(maxsize=2)
def interpreter(user: str) -> str:
    """A Python of this version that the user may run."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    candidates = [sys.executable, f"/usr/bin/python{version}", f"/usr/local/bin/python{version}"]
    for path in candidates:
        tried = subprocess.run([*argv(user), path, "-c", "pass"], capture_output=True, cwd="/", check=False)
        if tried.returncode == 0:
            return path
    raise AssertionError(f"no Python {version} that {user} may run: tried {', '.join(candidates)}")


@contextmanager
def code() -> Iterator[str]:
    """A PYTHONPATH that everybody may read, with Cairn and what its sandboxes import."""
    with TemporaryDirectory(prefix="cairn-code-") as name:
        place = Path(name)
        shutil.copytree(
            ROOT / "src" / "cairn", place / "cairn", ignore=shutil.ignore_patterns("__pycache__", "console", "*.js")
        )
        packages = Path(sysconfig.get_paths()["platlib"])
        for package in ("msgspec",):
            shutil.copytree(packages / package, place / package)
        shutil.copytree(Path(__file__).parent, place / "sandbox_tests", ignore=shutil.ignore_patterns("__pycache__"))
        for path in (place, *place.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        yield str(place)


def run(user: str, program: str, *arguments: str, seconds: float = 120) -> str:
    """What a program of this folder printed, run by the user in a directory of their own."""
    with code() as path, TemporaryDirectory(prefix="cairn-user-") as home:
        os.chmod(home, 0o755)
        if argv(user):
            os.chown(home, NOBODY, NOBODY)
        done = subprocess.run(
            [
                *argv(user),
                interpreter(user),
                "-I",
                "-c",
                _START.format(path=path),
                f"{path}/sandbox_tests/{program}",
                *arguments,
            ],
            capture_output=True,
            text=True,
            timeout=seconds,
            cwd=home,
            env={"PATH": os.environ["PATH"], "TMPDIR": home, "HOME": home, "LANG": "C.UTF-8"},
            check=False,
        )
    assert done.returncode == 0, done.stderr
    return done.stdout


_START = (
    "import runpy, sys; sys.path.insert(0, {path!r}); sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
)
