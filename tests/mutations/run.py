"""Breaks Cairn on purpose, one small way at a time, and demands that the tests notice (T22).

    python tests/mutations/run.py                 every mutation
    python tests/mutations/run.py fence checksum  those whose name contains a word
    python tests/mutations/run.py --list

A mutation is a sentence of the code replaced by another. It is applied to a copy of the repository; the tests it names
must pass there before and fail there after. Three ways to be wrong, each loud: the sentence is not in the code any more
(the mutation protects nothing), the tests pass all the same (nothing protects the promise), or they do not run at all.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.mutations.nursery import Nursery

ROOT = Path(__file__).resolve().parents[2]

#: What the tests of a copy need.
COPIED = ("src", "tests", "pyproject.toml")

#: Seconds for the tests of one mutation, twenty times what the slowest takes alone: machines are busy. A mutant that hangs
#: is not caught; give it a test that ends.
SECONDS_MAX = 120

#: pytest's exit status when tests ran and some failed. Any other means that they did not run.
TESTS_FAILED = 1


@dataclass(frozen=True)
class Mutation:
    """`old` in `file` becomes `new`; then one of `tests` must fail, for the code does not keep `promise` any more."""

    name: str
    promise: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


class Survived(AssertionError):
    """A mutation was not caught, or cannot be: the battery is blind here."""


def apply(mutation: Mutation, copy: Path) -> None:
    """Change the copy. Raises Survived when the code does not contain the sentence exactly once."""
    path = copy / mutation.file
    text = path.read_text() if path.exists() else ""
    found = text.count(mutation.old)
    if found != 1:
        raise Survived(
            f"mutation {mutation.name!r} does not apply: its sentence is {found} times in {mutation.file}. The code "
            f"has moved; write the mutation again, so that it removes what now keeps {mutation.promise}:\n{mutation.old}"
        )
    path.write_text(text.replace(mutation.old, mutation.new))
    for compiled in path.parent.glob(f"__pycache__/{path.stem}.*.pyc"):
        compiled.unlink()  # else it would be believed, had the file been edited in this very second


@contextmanager
def copied() -> Iterator[Path]:
    """A copy of the repository, gone afterwards; with what was compiled already, which is most of a test's time."""
    with tempfile.TemporaryDirectory(prefix="cairn-mutation-") as place:
        copy = Path(place)
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("node_modules", ".hypothesis"))
            else:
                shutil.copy2(source, copy / name)
        yield copy


@contextmanager
def restored(path: Path) -> Iterator[None]:
    """Afterwards the file, its time and what was compiled of it are as they were."""
    files = [path, *path.parent.glob(f"__pycache__/{path.stem}.*.pyc")]
    kept = [(file, file.read_bytes(), file.stat()) for file in files if file.exists()]
    try:
        yield
    finally:
        for file, content, stat in kept:
            file.write_bytes(content)
            os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def run_tests(copy: Path, tests: Iterable[str], seconds: float = SECONDS_MAX) -> subprocess.CompletedProcess[str]:
    """The tests, in the copy, against the copy's code only."""
    asked = [*command(), *tests]
    return subprocess.run(asked, cwd=copy, env=surroundings(copy), capture_output=True, text=True, timeout=seconds, check=False)


def command() -> list[str]:
    """How tests are run, without their names."""
    return [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist"]


def surroundings(copy: Path) -> dict[str, str]:
    """The environment in which only the copy's code is found."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "CAIRN_"))}
    environment |= {"PYTHONPATH": str(copy / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # no test of a mutation needs one, and loading them takes longer
    return environment


def demand_applies(mutations: Iterable[Mutation], folder: Path) -> None:
    """Each sentence is in the code exactly once, as it is now."""
    root = Path(__file__).resolve().parents[2]
    for mutation in mutations:
        copy = folder / mutation.file
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text((root / mutation.file).read_text())

        apply(mutation, folder)

        assert copy.read_text() != (root / mutation.file).read_text()


def demand_caught(mutation: Mutation, place: Nursery | None = None) -> str:
    """The line in which a test noticed the mutation; in a copy of its own when no place is given. Raises Survived."""
    try:
        if place is None:
            with copied() as copy:
                apply(mutation, copy)
                ended = run_tests(copy, mutation.tests)
        else:
            with restored(place.copy / mutation.file):
                apply(mutation, place.copy)
                ended = place.run(mutation.tests, SECONDS_MAX)
    except subprocess.TimeoutExpired:
        raise Survived(f"mutation {mutation.name!r}: its tests hang (more than {SECONDS_MAX} s)") from None
    if ended.returncode == 0:
        raise Survived(f"mutation {mutation.name!r} survived: {mutation.promise} is broken and {mutation.tests} pass")
    if ended.returncode != TESTS_FAILED:
        tail = "\n".join((ended.stdout + ended.stderr).splitlines()[-30:])
        raise Survived(f"mutation {mutation.name!r}: its tests did not run (pytest exit {ended.returncode}):\n{tail}")
    return next((line for line in ended.stdout.splitlines() if line.startswith("FAILED")), "a test failed")


def demand_green(mutations: Iterable[Mutation], place: Nursery | None = None) -> None:
    """All named tests pass in an unchanged copy: else their failure proves nothing. Raises Survived."""
    tests = sorted({test for mutation in mutations for test in mutation.tests})
    if place is None:
        with copied() as copy:
            ended = run_tests(copy, tests, 3 * SECONDS_MAX)
    else:
        ended = place.run(tests, 3 * SECONDS_MAX)
    if ended.returncode != 0:
        tail = "\n".join((ended.stdout + ended.stderr).splitlines()[-30:])
        raise Survived(f"without any mutation the named tests fail, so they prove nothing:\n{tail}")


def main() -> int:
    """Run what the command line asks for; the exit status is the number of mutations not caught."""
    sys.path.insert(0, str(ROOT))
    from tests.mutations import (
        answer_mutations,
        edge_mutations,
        http_mutations,
        mutations,
        object_mutations,
        sandbox_mutations,
        socket_mutations,
        virtual_mutations,
        workspace_mutations,
    )
    from tests.mutations.nursery import nursery

    lists = (mutations, http_mutations, edge_mutations, socket_mutations, object_mutations, answer_mutations)
    lists += (workspace_mutations, virtual_mutations, sandbox_mutations)
    every = [mutation for each in lists for mutation in each.MUTATIONS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    chosen = [m for m in every if not options.words or any(word in m.name for word in options.words)]
    if options.list:
        print("\n".join(f"{mutation.promise:<4} {mutation.name}" for mutation in chosen))
        return 0
    uncaught = 0
    with nursery() as place:
        demand_green(chosen, place)
        for mutation in chosen:
            try:
                print(f"{mutation.promise:<4} {mutation.name:<40} {demand_caught(mutation, place)}", flush=True)
            except Survived as blind:
                uncaught += 1
                print(f"{mutation.promise:<4} {mutation.name:<40} NOT CAUGHT: {blind}", flush=True)
    return uncaught


if __name__ == "__main__":
    raise SystemExit(main())
