"""What the model adapter costs beyond the vendor's own SDK, in one run against the same loopback server.

    python benchmarks/bench_models.py [--requests 60]

The server is a process of its own. CPU is this process's, per streamed request; `+/1,000 deltas` is the slope between a short
and a long answer. RSS is a fresh process that imports one provider and asks once. Take differences and ratios: machines are
noisy.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cairn.harness.messages import AssistantMessage, Text, UserMessage
from cairn.harness.models import resolve
from cairn.harness.models.protocol import ModelRequest, TextDelta

SPECS = {"anthropic": "anthropic:claude-sonnet-4-5", "openai": "openai:gpt-5", "openai-chat": "openai-chat:gpt-5"}
SHORT, LONG = 1, 1001


@contextmanager
def served(chunks: int) -> Any:
    """A loopback provider in another process; yields its variables."""
    command = [sys.executable, "-m", "cairn.testing.providers", "word ", str(chunks)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    environ = {}
    while line := process.stdout.readline().strip():
        name, _, value = line.removeprefix("export ").partition("=")
        environ[name] = value
    try:
        yield environ
    finally:
        process.terminate()
        process.wait()


async def timed(ask: Ask, count: int, deltas: int) -> tuple[float, float]:
    """The least CPU and wall of a request, in milliseconds: least, because noise only adds."""
    for _ in range(3):
        assert await ask() == deltas
    cpu, wall = [], []
    for _ in range(count):
        before = time.process_time(), time.perf_counter()
        await ask()
        cpu.append(time.process_time() - before[0])
        wall.append(time.perf_counter() - before[1])
    return min(cpu) * 1000, min(wall) * 1000


Ask = Callable[[], Awaitable[int]]
Close = Callable[[], Awaitable[None]]


def ours(name: str, environ: dict[str, str]) -> tuple[Ask, Close]:
    model = resolve(SPECS[name], environ=environ)
    request = ModelRequest(SPECS[name], "Be brief.", [UserMessage(content=(Text(text="hi"),))])

    async def ask() -> int:
        return sum([isinstance(event, TextDelta) async for event in model.stream(request)])

    return ask, model.aclose


def raw(name: str, environ: dict[str, str]) -> tuple[Ask, Close]:
    if name == "anthropic":
        return _raw_anthropic(environ)
    from openai import AsyncOpenAI

    client = AsyncOpenAI(api_key="k", base_url=environ["OPENAI_BASE_URL"], max_retries=0)

    async def responses() -> int:
        stream = await client.responses.create(model="gpt-5", instructions="Be brief.", input="hi", stream=True)
        return sum([event.type == "response.output_text.delta" async for event in stream])

    async def chat() -> int:
        stream = await client.chat.completions.create(model="gpt-5", messages=[{"role": "user", "content": "hi"}], stream=True)
        return sum([bool(chunk.choices and chunk.choices[0].delta.content) async for chunk in stream])

    return responses if name == "openai" else chat, client.close


def _raw_anthropic(environ: dict[str, str]) -> tuple[Ask, Close]:
    from anthropic import AsyncAnthropic

    client = AsyncAnthropic(api_key="k", base_url=environ["ANTHROPIC_BASE_URL"], max_retries=0)

    async def ask() -> int:
        stream = await client.beta.messages.create(
            model="claude-sonnet-4-5",
            max_tokens=1000,
            system="Be brief.",
            messages=[{"role": "user", "content": "hi"}],
            stream=True,
        )
        return sum([event.type == "content_block_delta" async for event in stream])

    return ask, client.close


async def measured(make: Callable[..., tuple[Ask, Close]], name: str, deltas: int, count: int) -> tuple[float, float]:
    with served(deltas) as environ:
        ask, close = make(name, environ)
        found = await timed(ask, count, deltas)
        await close()
    return found


async def overhead(count: int) -> None:
    print(f"{'protocol':<12} {'who':<6} {'CPU ms':>8} {'wall ms':>8} {'+/1,000 deltas, CPU ms':>24}")
    for name in SPECS:
        for who, make in (("raw", raw), ("cairn", ours)):
            short = await measured(make, name, SHORT, count)
            long = await measured(make, name, LONG, max(5, count // 10))
            print(f"{name:<12} {who:<6} {short[0]:>8.2f} {short[1]:>8.2f} {long[0] - short[0]:>24.1f}")


async def growth() -> None:
    """One more turn on conversations of different length: the library still maps every message for the wire."""
    print("\nconversation  CPU ms per request")
    with served(SHORT) as environ:
        model = resolve(SPECS["anthropic"], environ=environ)
        for turns in (1, 100, 500):
            messages: list[Any] = []
            for turn in range(turns):
                messages += [
                    UserMessage(content=(Text(text=f"question {turn}"),)),
                    AssistantMessage(content=(Text(text=f"answer {turn}"),), model=model.spec),
                ]
            messages.append(UserMessage(content=(Text(text="and?"),)))
            request = ModelRequest(model.spec, "Be brief.", messages)

            async def ask(request: ModelRequest = request) -> int:
                return sum([isinstance(event, TextDelta) async for event in model.stream(request)])

            cpu, _ = await timed(ask, 10, SHORT)
            print(f"{turns:>6} turns  {cpu:>8.2f}")
        await model.aclose()


def memory() -> None:
    """Import and first request in a fresh process, per provider."""
    print("\nprovider      warm, CPU s   RSS MB")
    with served(SHORT) as environ:
        for name in (None, *SPECS):
            command = [sys.executable, __file__, "--one", str(name)]
            done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
            print(f"{name or 'none':<12} {done.stdout.strip()}")


async def one(name: str) -> None:
    """The child of `memory`: asks once and says what it cost."""
    import os

    cpu = 0.0
    if name != "None":
        before = time.process_time()
        model = resolve(SPECS[name], environ=os.environ)
        await model.warm()
        cpu = time.process_time() - before
        request = ModelRequest(SPECS[name], "", [UserMessage(content=(Text(text="hi"),))])
        assert [event async for event in model.stream(request)]
    print(f"{cpu:>12.2f} {resident_kib() / 1024:>8.0f}")


def resident_kib() -> float:
    """What this process holds now. Not ru_maxrss where it can be helped: a child inherits its parent's."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return float(status.partition("VmRSS:")[2].split()[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=60)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        asyncio.run(one(options.one))
        return
    asyncio.run(overhead(options.requests))
    asyncio.run(growth())
    memory()


if __name__ == "__main__":
    main()
