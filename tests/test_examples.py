"""What the documentation shows is run: Python blocks, console blocks, example programs. A page that lies fails here.

- Every ```python block of a page runs, in order, in one namespace, in an empty directory.
- `<!-- file: triage.py -->` before a block also writes it there, for the commands below it.
- A ```console block after `<!-- run -->` is typed for real: each `$ ` line must succeed, and what is printed must match
  what the page shows, where `...` stands for anything. Without the mark it is an illustration (it needs a key, say).
- Every program in `examples/` runs to its end, in an empty directory, with no key.
"""

from __future__ import annotations

import doctest
import os
import re
import shlex
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
from sybil import Document, Example, Region
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PROGRAMS = sorted(path for path in (ROOT / "examples").glob("*.py") if not path.name.startswith("_"))

#: Seconds for one command or program. A guard against hanging, not a measurement.
COMMAND_SECONDS = 60

MARK = re.compile(r"<!--\s*(?P<what>run|file)\s*(?::\s*(?P<name>\S+))?\s*-->\s*\Z")


def mark(example: Example) -> tuple[str, str]:
    """The mark right before a block: (`run`, ""), (`file`, name) or two empty strings."""
    found = MARK.search(example.document.text[: example.start])
    return (found["what"], found["name"] or "") if found else ("", "")


def write_file(example: Example) -> None:
    what, name = mark(example)
    if what == "file":
        Path(name).write_text(str(example.parsed))


def run_console(example: Example) -> None:
    """Type the block's commands and compare what they print with what stands below each."""
    if mark(example)[0] != "run":
        return
    for command, expected in commands(str(example.parsed)):
        done = run(shlex.split(command))
        printed = done.stdout + done.stderr
        assert done.returncode == 0, f"$ {command}\nexit code {done.returncode}\n{printed}"
        matches = doctest.OutputChecker().check_output(expected, printed, doctest.ELLIPSIS)
        assert not expected or matches, f"$ {command}\nprinted:\n{printed}\nthe page shows:\n{expected}"


def commands(block: str) -> Iterator[tuple[str, str]]:
    """(command, the output shown below it) of a console block; a line ending in a backslash goes on."""
    for part in re.split(r"(?m)^\$ ", block.replace("\\\n", ""))[1:]:
        command, _, expected = part.partition("\n")
        yield command.strip(), expected


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    if command[0] == "cairn":
        command = [str(Path(sys.executable).with_name("cairn")), *command[1:]]
    if command[0] == "python":
        command = [sys.executable, *command[1:]]
    return subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False)


def _example(document: Document, region: Region) -> Example:
    return Example(document, 0, 0, region, document.namespace)


def run_page(page: Path) -> int:
    """Run every block of a page; how many there were."""
    text = page.read_text()
    document = Document(text, str(page))
    python = list(PythonCodeBlockParser()(document))
    console = list(CodeBlockParser("console", run_console)(document))
    # As in a module: what a block defines can be looked up by the name of the module it says it is in.
    module = types.ModuleType("page")
    document.namespace = module.__dict__
    sys.modules[module.__name__] = module
    for region in sorted([*python, *console], key=lambda region: region.start):
        example = _example(document, region)
        if region in python:
            write_file(example)
        example.evaluate()
    return len(python) + len(console)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_block_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader who types what the page shows gets what the page says."""
    monkeypatch.chdir(tmp_path)

    run_page(page)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_relative_link_of_a_page_leads_somewhere(page: Path) -> None:
    """No page promises another one that is not there."""
    links = re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)[^)]*\)", page.read_text())

    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.system
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_every_example_program_runs_to_its_end(program: Path, tmp_path: Path) -> None:
    """What is offered to be copied works as it is, without a key."""
    done = subprocess.run(
        [sys.executable, str(program)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr


PAGE = """
<!-- file: hello.py -->
```python
x = 1
```

```python
assert x == 1
```

<!-- run -->
```console
$ python -c "print('one'); print(7)"
one
...
```

```console
$ rm -rf /nothing-that-runs
```
"""


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("one\n...", "one\n..."), None),
        (("assert x == 1", "assert x == 2"), ""),
        (("one\n...", "two\n..."), "the page shows"),
        (('print(7)"', 'raise SystemExit(3)"'), "exit code 3"),
    ],
)
def test_a_page_that_lies_is_caught(
    change: tuple[str, str], complaint: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runner of the pages is a test, and a test that cannot fail is a defect."""
    monkeypatch.chdir(tmp_path)
    page = tmp_path / "page.md"
    page.write_text(PAGE.replace(*change))

    if complaint is None:
        assert run_page(page) == 4
        assert (tmp_path / "hello.py").read_text() == "x = 1\n"
    else:
        with pytest.raises(AssertionError) as caught:
            run_page(page)
        assert complaint in str(caught.value)
