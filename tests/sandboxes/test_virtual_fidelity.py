"""The virtual shell is a bash: what agents write gives the same output and exit code, byte for byte, but for a list."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest
from tests.sandboxes.shell_scripts import DIFFERENCES, FILES, SCRIPTS
from tests.sandboxes.virtual_desk import VirtualDesk

from cairn.harness.sandbox.virtual_pool import ShellPool

pytestmark = [pytest.mark.slow]

DOCUMENT = Path(__file__).parents[2] / "docs" / "virtual.md"

#: Seconds for one script; each takes milliseconds.
SECONDS = 30


def by_bash(script: str, folder: Path) -> tuple[int, bytes]:
    """Exit code and stdout of a real bash over the files."""
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
    env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(folder), "LANG": "C.UTF-8", "TMPDIR": str(folder)}
    ended = subprocess.run(
        ["bash", "-c", script], cwd=folder, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS
    )
    return ended.returncode, ended.stdout


async def by_virtual(script: str, pool: ShellPool) -> tuple[int, bytes]:
    """The same in a workspace with the files."""
    async with VirtualDesk(pool=pool, seed=FILES) as desk:
        await desk.sandbox.write("/tmp/.script", script.encode())
        result = await desk.sandbox.exec("bash /tmp/.script 2> /dev/null", timeout_seconds=SECONDS)
        return result.exit_code, result.output


def test_scripts_do_what_they_do_in_bash_but_for_the_listed_ones(tmp_path: Path) -> None:
    """At least 105 of 120 and more scripts are equal in stdout and exit code; those that are not are exactly the list."""

    async def main() -> dict[str, tuple[object, object]]:
        found: dict[str, tuple[object, object]] = {}
        pool = ShellPool()
        for number, (name, script) in enumerate(SCRIPTS.items()):
            folder = tmp_path / str(number)
            folder.mkdir()
            expected = await asyncio.to_thread(by_bash, script, folder)
            actual = await by_virtual(script, pool)
            if expected != actual:
                found[name] = expected, actual
        pool.close()
        return found

    different = asyncio.run(main())

    assert sorted(different) == sorted(DIFFERENCES), {n: different[n] for n in different if n not in DIFFERENCES}
    assert len(SCRIPTS) >= 120
    assert len(SCRIPTS) - len(different) >= 105


def test_every_difference_is_in_the_documentation() -> None:
    """Who reads about the shell is told what it does not do, cause by cause."""
    text = DOCUMENT.read_text(encoding="utf-8")

    assert [cause for cause in DIFFERENCES.values() if cause not in text] == []
