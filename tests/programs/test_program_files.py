"""The workspace as the file system of a program: by grant, journaled, and never anything else."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.programs.scenes import Stage, staged

from cairn.runtime import Client
from cairn.runtime.program import ProgramLimits
from cairn.runtime.program_files import FILE_BYTES_MAX, Grant


def play(source: str, *, grant: Grant | None = "write", limits: ProgramLimits = ProgramLimits()) -> dict[str, Any]:
    """One program on an object that has a few files."""

    async def main() -> dict[str, Any]:
        stage = Stage(limits=limits, files=grant)
        async with staged(stage) as (_, client, _worker):
            await prepared(client)
            receipt = await client.accept("one", "run", [source, {}])
            result = await asyncio.wait_for(client.result(receipt), 30)
            result["files"] = await client.result(await client.accept("one", "files", []))
            return result

    return asyncio.run(main())


async def prepared(client: Client) -> None:
    files = {"/a.txt": "one\ntwo\n", "/deep/er/b.csv": "x,y\n1,2\n", "/deep/c.txt": "c", "/big.txt": "b" * (FILE_BYTES_MAX + 1)}
    await client.result(await client.accept("one", "put", [files]))


ALL = """
import os
from pathlib import Path
out = [open("a.txt").read(), Path("/workspace/a.txt").read_text(), [line for line in open("/a.txt")]]
with open("deep/er/b.csv", "rb") as file:
    out.append(len(file.read()))
out.append(sorted(str(each) for each in Path("deep").iterdir()))
out.append(sorted(str(each) for each in Path("/").glob("**/*.txt")))
out.append(sorted(os.listdir("/deep")))
out.append([Path("deep").is_dir(), Path("a.txt").is_file(), Path("nope").exists(), Path("a.txt").stat().st_size])
with open("new.txt", "w") as file:
    file.write("first\\n")
    file.write("ünd\\n")
with open("new.txt", "a") as file:
    file.write("third\\n")
out.append(Path("new.txt").read_text())
Path("made/too").mkdir(parents=True)
Path("made/too/d.bin").write_bytes(b"\\x00\\xff")
out.append(list(Path("made/too/d.bin").read_bytes()))
Path("made/too/d.bin").rename("/moved.bin")
Path("made/too").rmdir()
Path("a.txt").unlink()
out
"""


def test_open_and_pathlib_reach_the_workspace() -> None:
    """What a program writes is in the workspace, what it reads was there: relative, absolute, and as its shell says it."""
    result = play(ALL)
    assert result["failure"] is None, result
    out = result["value"]
    assert out[:3] == ["one\ntwo\n", "one\ntwo\n", ["one\n", "two\n"]]
    assert out[3:8] == [
        8,
        ["deep/c.txt", "deep/er"],
        ["/a.txt", "/big.txt", "/deep/c.txt"],
        ["c.txt", "er"],
        [True, True, False, 8],
    ]
    assert out[8:] == ["first\nünd\nthird\n", [0, 255]]
    assert result["files"] == ["/big.txt", "/deep/c.txt", "/deep/er/b.csv", "/moved.bin", "/new.txt"]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("open('nope.txt').read()", "FileNotFoundError"),
        ("open('/deep').read()", "IsADirectoryError"),
        ("open('/big.txt').read()", "larger than the 500,000 bytes"),
        ("open('x', 'w').write('y' * 500_001)", "more than the 500,000 bytes"),
        ("open('x', 'wb').write(b'y' * 500_001)", "more than the 500,000 bytes"),
        ("import pathlib\npathlib.Path('/deep').unlink()", "IsADirectoryError"),
        ("import pathlib\npathlib.Path('/deep').rmdir()", "ot empty"),
        ("open('../../../etc/passwd').read()", "FileNotFoundError"),
        ("open('/proc/self/environ').read()", "FileNotFoundError"),
        ("open('/tmp/../etc/shadow').read()", "FileNotFoundError"),
        ("open('/workspace/../etc/shadow').read()", "FileNotFoundError"),
        ("open('x\\0y').read()", "rror"),
        ("open('a.txt', 'x')", "rror"),
        ("import os\nos.environ['HOME']", "rror"),
        ("import os\nos.system('id')", "rror"),
        ("open(0).read()", "rror"),
    ],
)
def test_what_is_not_in_the_workspace_is_not_there(source: str, words: str) -> None:
    """X2: the host's files, the environment, what is too large: each an error in Python's own words, and nothing was done."""
    result = play(source)
    assert result["failure"] is not None and words in result["failure"][1], result
    assert [path for path in result["files"] if path not in ("/x",)] == ["/a.txt", "/big.txt", "/deep/c.txt", "/deep/er/b.csv"]


def test_a_grant_to_read_is_none_to_write_and_no_grant_is_nothing() -> None:
    """X2: what was not granted is not there."""
    denied = play("out = open('a.txt').read()\nopen('a.txt', 'w')", grant="read")
    assert denied["failure"][0] == "error" and "may read files, and write none" in denied["failure"][1]
    for call in ("mkdir()", "unlink()", "write_text('x')", "touch()", "rename('/b.txt')", "append_text('x')"):
        result = play(f"from pathlib import Path\nPath('a.txt').{call}", grant="read")
        assert result["failure"] is not None, call
    assert play("open('a.txt').read()", grant=None)["failure"] is not None
    assert "path_read_text" in play("await path_read_text('/a.txt')")["failure"][1]


def test_file_calls_are_calls() -> None:
    """They are counted, so that a program that reads for ever ends."""
    result = play("while True:\n    open('a.txt').read()", limits=ProgramLimits(calls=20))
    assert result["failure"][0] == "calls"


def test_calls_that_are_under_way_keep_their_identity_around_a_file(tmp_path: Path) -> None:
    """A file call stops the whole program; what was begun before it and after it is called once each, in its order."""
    result = play(
        """
import asyncio
async def one(number):
    found = await fetch(number)
    open(f"{number}.txt", "w").write(str(found["size"]))
    return [number, open(f"{number}.txt").read(), await charge(number)]
first = fetch(9)
text = open("a.txt").read()
[await asyncio.gather(*[one(number) for number in range(4)]), (await first)["item"], text]
"""
    )
    assert result["failure"] is None, result
    assert result["value"] == [[[number, "10", f"charged {number}"] for number in range(4)], 9, "one\ntwo\n"]
