# ruff: noqa: E501  (a bomb is one line)
"""Commands that take all there is: processes, memory, disk, output, time. Run as a program it prints what each got.

    python bombs.py bubblewrap|landlock[-alone] NAME…      alone: as if no control group could be made

Laws. Every bomb runs with limits far below what this machine has, and in a sandbox of its own. What is measured is measured from
outside: how many processes of the sandbox there were, how much memory the worker itself needed, what is left of the disk.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from cairn.harness.sandbox import cgroups
from cairn.harness.sandbox.isolated import Limits, isolated
from cairn.harness.sandbox.supervisor import processes

MB = 1024 * 1024
LIMITS = Limits(memory_bytes=192 * MB, processes=40, disk_bytes=64 * MB, cpu_seconds=2, seconds=20.0, open_files=256)

BOMBS: dict[str, tuple[str, float]] = {
    "fork": ("f() { f | f & }; f; sleep 3", 4),
    "fork by python": ("python3 -I -c 'import os\nwhile True:\n try: os.fork()\n except OSError: pass'", 3),
    "memory": ("python3 -I -c 'x = bytearray(2 << 30); print(\"GOT\")'; echo after", 15),
    "memory by many": ("for i in 1 2 3 4 5 6; do python3 -I -c 'import time; x = b\"x\" * (100 << 20); print(\"HAS\", flush=True); time.sleep(3)' & done; wait; echo after", 15),
    "shared memory": ("head -c 500M /dev/zero > /dev/shm/x; stat -c %s /dev/shm/x", 15),
    "disk": ("i=0; while i=$((i+1)); do head -c 8M /dev/zero > f$i || exit 9; done", 15),
    "one large file": ("head -c 200M /dev/zero > large; echo status $?; stat -c 'size %s' large", 15),
    "a sparse file": ("truncate -s 1T sparse; echo status $?", 15),
    "output": ("head -c 10G /dev/zero", 60),
    "processor": ("while :; do :; done", 15),
    "time": ("sleep 100", 0.5),
    "descriptors": ("python3 -I -c 'import os\ntry:\n  for n in range(10000): os.dup(0)\nexcept OSError: print(\"AT\", n)'", 15),
}  # fmt: skip


async def explode(backend: Any, name: str) -> dict[str, Any]:
    command, seconds = BOMBS[name]
    with tempfile.TemporaryDirectory(prefix="cairn-bomb-") as folder:
        (Path(folder) / "files").mkdir()
        sandbox = await isolated(Path(folder) / "files", backend=backend, limits=LIMITS, grace_seconds=0.2).open(
            "t/b", folder + "/private"
        )
        seen: list[int] = []

        async def on_started(process: Any) -> None:
            watch(process.pid, seen)

        if name.startswith("fork") and sandbox.limits_kept["processes"] == "not":
            raise SystemExit(
                "nothing limits processes here: root without a writable control group; a fork bomb would harm the host"
            )
        before = peak()
        result = await sandbox.exec(command, timeout_seconds=seconds, on_started=on_started)
        kept = dict(sandbox.limits_kept)
        again = (await sandbox.exec("echo alive", timeout_seconds=10)).output.decode()
        await sandbox.close()
    return {
        "exit": result.exit_code, "timed_out": result.timed_out, "output": result.output[-600:].decode(errors="replace").replace("\0", ""),
        "written": len(result.output) + result.dropped, "most_processes": max(seen, default=0), "grown": peak() - before,
        "kept": kept, "again": again, "full": result.full_output is not None,
    }  # fmt: skip


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def watch(supervisor: int, seen: list[int]) -> None:
    """Count the processes below the supervisor until it is gone."""

    def look() -> None:
        while processes.lookup(supervisor) is not None:
            seen.append(len(processes.descendants(supervisor, processes.table())))
            time.sleep(0.05)

    threading.Thread(target=look, daemon=True).start()


async def main(backend: str, names: list[str]) -> None:
    if backend.endswith("-alone"):
        cgroups.make = lambda *_: None  # type: ignore[assignment]
        backend = backend.removesuffix("-alone")
    print(json.dumps({name: await explode(backend, name) for name in names or BOMBS}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2:]))
