"""What a person waits for: starting, asking for help, running an agent, and going on after a kill. Each in fresh processes.

    python benchmarks/bench_cli.py [--rounds 5]

CPU is that of the whole child process (user and system), so it does not depend on what else the machine does; wall does. The
least of the rounds is shown: noise only adds. The provider is a server on this machine, in a process of its own.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

CAIRN = str(Path(sys.executable).with_name("cairn"))

SCRIPTED = """
from cairn import Agent
from cairn.testing.scripted import Call, Say, ScriptedModel, by_turn

def add(a: int, b: int) -> int:
    "Add."
    return a + b

scripted = Agent("scripted", model=ScriptedModel(by_turn([Call("add", {"a": 1, "b": 2}), "Three."])), tools=[add])
"""

REAL = """
from cairn import Agent
real = Agent("real", model="anthropic:claude-sonnet-4-6")
"""

#: Says something and falls silent; whoever asks it to go on is told the rest.
STALLING = """
from cairn import Agent
from cairn.testing.scripted import Say, ScriptedModel, Stall, already_said

def script(request):
    return Say(" and this is the rest.") if already_said(request.messages) else Stall("This was said")

stalling = Agent("stalling", model=ScriptedModel(script))
"""


@dataclass
class Cost:
    """Of one child process."""

    cpu_ms: float
    wall_ms: float
    rss_mb: float
    first_ms: float = 0.0
    """Wall until a text was read from it."""


def spend(*command: str, until: str = "", kill: bool = False) -> Cost:
    """Run it to its end (or kill it when `until` was read) and measure it."""
    begun = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    seen, first = b"", 0.0
    while more := os.read(process.stdout.fileno(), 65_536):
        seen += more
        if until and not first and until.encode() in seen:
            first = time.perf_counter() - begun
            if kill:
                process.send_signal(signal.SIGKILL)
    # wait4 gives the usage of this child alone, whatever else has been run before.
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert kill or process.returncode == 0, seen.decode()
    assert not until or first, seen.decode()
    cpu = usage.ru_utime + usage.ru_stime
    return Cost(cpu * 1000, (time.perf_counter() - begun) * 1000, usage.ru_maxrss / 1024, first * 1000)


def least(rounds: int, measure: Callable[[int], Cost]) -> Cost:
    costs = [measure(number) for number in range(rounds)]
    return Cost(*(min(getattr(cost, name) for cost in costs) for name in ("cpu_ms", "wall_ms", "rss_mb", "first_ms")))


@contextmanager
def provider() -> Iterator[None]:
    """A loopback provider in another process; its variables are set inside the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "cairn.testing.providers", "word ", "20"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        while line := process.stdout.readline().strip():
            name, _, value = line.removeprefix("export ").partition("=")
            os.environ[name] = value
        yield
    finally:
        process.terminate()
        process.wait()


def row(name: str, cost: Cost, target: str = "") -> None:
    first = f"{cost.first_ms:.0f}" if cost.first_ms else ""
    print(f"{name:<44} {cost.cpu_ms:>8.0f} {cost.wall_ms:>9.0f} {first:>10} {cost.rss_mb:>8.0f}   {target}", flush=True)


def raw_first_text() -> str:
    """A program that asks with the vendor's SDK alone, for comparison."""
    return (
        "import asyncio\nfrom anthropic import AsyncAnthropic\n"
        "async def main():\n"
        "    stream = await AsyncAnthropic(max_retries=0).messages.create(model='m', max_tokens=99, stream=True,\n"
        "        messages=[{'role': 'user', 'content': 'hi'}])\n"
        "    async for event in stream:\n"
        "        if event.type == 'content_block_delta':\n"
        "            print(event.delta.text, flush=True)\n"
        "asyncio.run(main())\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    rounds: int = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder, provider():
        os.chdir(folder)
        for name, text in (("scripted", SCRIPTED), ("real", REAL), ("stalling", STALLING)):
            Path(f"{name}.py").write_text(text)
        Path("agents").mkdir()
        Path("agents/scripted.py").write_text(SCRIPTED)
        title = f"least of {rounds} processes each"
        print(f"{title:<44} {'CPU ms':>8} {'wall ms':>9} {'1st text':>10} {'RSS MB':>8}   target")
        starting(rounds)
        running(rounds)
        continuing(rounds)


def starting(rounds: int) -> None:
    row("python -c pass", least(rounds, lambda _: spend(sys.executable, "-c", "pass")))
    row("import cairn", least(rounds, lambda _: spend(sys.executable, "-c", "import cairn")), "CPU <= 150")
    face = "from cairn import Agent, App, tool, local"
    row("from cairn import Agent, App, tool, local", least(rounds, lambda _: spend(sys.executable, "-c", face)))
    row("cairn --help", least(rounds, lambda _: spend(CAIRN, "--help")), "CPU <= 400")
    row("cairn info (a project of one agent)", least(rounds, lambda _: spend(CAIRN, "info")), "CPU <= 400")
    row("cairn ls", least(rounds, lambda n: _ls(n)), "")


def _ls(number: int) -> Cost:
    if number == 0:
        spend(CAIRN, "run", "scripted.py", "hi", "--id", "listed")
    return spend(CAIRN, "ls")


def running(rounds: int) -> None:
    def scripted(number: int) -> Cost:
        return spend(CAIRN, "run", "scripted.py", "hi", "--id", str(number), until="Three.")

    def real(number: int) -> Cost:
        return spend(CAIRN, "run", "real.py", "hi", "--id", str(number), until="word")

    row("cairn run, scripted model, one tool call", least(rounds, scripted))
    raw = least(rounds, lambda _: spend(sys.executable, "-c", raw_first_text(), until="word"))
    row("the vendor's SDK alone, one request", raw)
    ours = least(rounds, real)
    row("cairn run, anthropic, one request", ours, "RSS: a worker with one provider")
    print(f"{'  first text beyond the SDK program, ms':<44} {ours.first_ms - raw.first_ms:>29.0f}")


def continuing(rounds: int) -> None:
    """Killed in the middle of a text; then until that text, and until what follows it, is on the screen."""

    def again(number: int, until: str) -> Cost:
        id = f"{len(until)}-{number}"
        spend(CAIRN, "run", "stalling.py", "hi", "--id", id, until="This was said", kill=True)
        return spend(CAIRN, "run", "stalling.py", "hi", "--id", id, until=until)

    row(
        "the same command after kill -9: its text", least(rounds, lambda n: again(n, "This was said")), "attempt started <= 1 s"
    )
    row("the same command after kill -9: continued", least(rounds, lambda n: again(n, "the rest")), "attempt started <= 1 s")


if __name__ == "__main__":
    main()
