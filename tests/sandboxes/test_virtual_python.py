"""`python3` in the virtual shell: CPython over the workspace's files, as closed in as any script."""

from __future__ import annotations

import asyncio
import os

import pytest
from tests.sandboxes.virtual_desk import VirtualDesk

from cairn.harness.sandbox.virtual_pool import shared_pool

pytestmark = [pytest.mark.slow]

PACKAGE = {
    "app/__init__.py": "from app.core import double\n",
    "app/core.py": "def double(x):\n    return x * 2\n",
    "app/other.py": "import app.core\n",
    "tests/__init__.py": "",
    "tests/test_core.py": (
        "import unittest\nfrom app import double\n\n\nclass Core(unittest.TestCase):\n"
        "    def test_right(self):\n        self.assertEqual(double(2), 4)\n\n"
        "    def test_wrong(self):\n        self.assertEqual(double(2), 5)\n"
    ),
}


def run(*commands: str, **options: object) -> list[tuple[int, str]]:
    async def main() -> list[tuple[int, str]]:
        async with VirtualDesk(**options) as desk:  # type: ignore[arg-type]
            return [await desk.run(command) for command in commands]

    return asyncio.run(main())


def test_a_projects_tests_run() -> None:
    """`python3 -m unittest` imports the workspace's packages and says which line failed; mended, it passes."""
    failed, passed = run(
        "python3 -m unittest", "sed -i 's/, 5)/, 4)/' tests/test_core.py; python3 -m unittest 2>&1 | tail -1", seed=PACKAGE
    )

    assert failed[0] == 1
    assert 'File "/workspace/tests/test_core.py", line 10, in test_wrong' in failed[1]
    assert "AssertionError: 4 != 5" in failed[1]
    assert passed == (0, "OK\n")


def test_scripts_modules_arguments_input_and_exit_codes() -> None:
    """As on any machine: -c, -m, a file, standard input, sys.argv, sys.exit, stdout and stderr apart."""
    found = run(
        "python3 -c 'import sys; print(sys.argv[1:]); sys.exit(4)' a b",
        "echo 'import sys; print(sys.stdin.read().upper())' > up.py; echo hello | python3 up.py",
        "python3 -m app.other; echo '{\"a\": 1}' | python3 -m json.tool --compact; python3 nothing.py 2> err; cat err",
        "python3 - x <<'EOF'\nimport sys\nprint('out'); print('err', file=sys.stderr)\nraise SystemExit('said')\nEOF",
        "python3 -c 'print(1); 1/0' 2> /dev/null; echo $?",
        "printf '#!/usr/bin/env python3\\nprint(__name__)\\n' > tool; chmod +x tool; ./tool",
        seed=PACKAGE,
    )

    assert found == [
        (4, "['a', 'b']\n"),
        (0, "HELLO\n\n"),
        (0, "{\"a\":1}\npython3: can't open file '/workspace/nothing.py': [Errno 2] No such file or directory\n"),
        (1, "out\nerr\nsaid\n"),
        (0, "1\n1\n"),
        (0, "__main__\n"),
    ]


def test_files_are_the_workspaces() -> None:
    """open, os, pathlib, shutil and glob work on what the shell has, both ways."""
    script = """
import glob, os, pathlib, shutil
p = pathlib.Path("a/b"); p.mkdir(parents=True); (p / "f").write_text("one\\n")
with open("a/b/f", "a") as f: f.write("two\\n")
with open("a/b/f", "rb+") as f: f.seek(0); f.write(b"O")
shutil.copytree("a", "c"); shutil.rmtree("a"); os.symlink("c/b/f", "link"); os.rename("c/b", "c/d")
os.chmod("c/d/f", 0o600); os.utime("c/d/f", (1, 1)); os.chdir("c")
print(os.getcwd(), os.listdir(), oct(os.stat("d/f").st_mode), os.path.getmtime("d/f"), os.path.exists("/workspace/a"))
print(sorted(glob.glob("/workspace/**", recursive=True)), [e.name for e in os.scandir("d") if e.is_file()])
o = open
for wrong in (lambda: o("nope"), lambda: o("d"), lambda: os.mkdir("d"), lambda: o("/etc/x", "w"), lambda: os.rmdir("d")):
    try: wrong()
    except OSError as e: print(type(e).__name__, e.errno)
"""
    (first, second) = run(f"cat > s.py <<'EOF'\n{script}EOF\npython3 s.py", "cat c/d/f link; ls c; stat -c %a c/d/f")

    assert first[0] == 0, first[1]
    lines = first[1].splitlines()
    assert lines[0] == "/workspace/c ['d'] 0o100600 1.0 False"
    assert "'/workspace/c/d/f'" in lines[1]
    assert lines[2:] == ["FileNotFoundError 2", "IsADirectoryError 21", "FileExistsError 17", "OSError 30", "OSError 39"]
    assert second == (0, "One\ntwo\ncat: link: No such file or directory\nd\n600\n")


def test_code_reaches_nothing_of_this_machine() -> None:
    """X2: no file, variable, process or connection, by whichever of Python's ways."""
    os.environ["CAIRN_TEST_SECRET"] = "kept-outside"
    attempts = [
        "import os; print(os.environ)",
        f"print(open({__file__!r}).read())",
        f"import os; print(os.read(os.open({__file__!r}, 0), 100))",
        f"import _io; print(_io.open({__file__!r}).read())",
        f"import posix; print(posix.listdir({os.path.dirname(__file__)!r}))",
        "import subprocess; print(subprocess.run(['id'], capture_output=True))",
        "import os; print('forked', os.fork())",
        "import os; os.execv('/bin/sh', ['sh', '-c', 'echo shell'])",
        "import socket; s = socket.socket(); s.connect(('127.0.0.1', 22)); print('connected')",
        "import ctypes; c = ctypes.CDLL(None); print('opened', c.open(b'/etc/hostname', 0) >= 0)",
        "import os; os.kill(os.getppid(), 9); print('killed')",
    ]
    try:
        found = run(*(f"cat > s.py <<'EOF'\n{text}\nEOF\npython3 s.py" for text in attempts))
    finally:
        del os.environ["CAIRN_TEST_SECRET"]

    said = "\n".join(text for _, text in found)
    for word in ("kept-outside", "def test_code_reaches", "shell_scripts", "forked", "\nshell", "connected", "uid=", "killed"):
        assert word not in "\n".join(line for line in said.splitlines() if not line.startswith((" ", "FileNot"))), (word, said)
    assert "opened True" not in said


def test_what_code_leaves_behind_is_gone_with_its_worker() -> None:
    """X11: an interpreter that ran code runs no other command: neither its modules nor its threads are there for anybody."""

    async def main() -> None:
        async with VirtualDesk() as desk:
            await desk.run("true")
            (before,) = shared_pool().pids
            await desk.run("true")
            assert shared_pool().pids == [before]
            stay = "threading.Thread(target=time.sleep, args=(60,)).start()"
            await desk.run(f"python3 -c 'import string, threading, time; string.digits = None; {stay}'", timeout_seconds=20)
            assert shared_pool().processes == 0
            assert await desk.run("python3 -c 'import string; print(string.digits)'") == (0, "0123456789\n")

    asyncio.run(main())


def test_code_that_never_ends_is_ended_and_has_done_nothing() -> None:
    """S1: as any command; so has code that crashes its interpreter."""

    async def main() -> None:
        async with VirtualDesk() as desk:
            result = await desk.sandbox.exec("echo 1 > f; python3 -c 'print(1)\nwhile True: pass'", timeout_seconds=1)
            assert result.timed_out
            with pytest.raises(Exception, match="Nothing it did was kept"):
                await desk.sandbox.exec("echo 1 > f; python3 -c 'import ctypes; ctypes.string_at(0)'")
            assert desk.tree() == {}

    asyncio.run(main())
