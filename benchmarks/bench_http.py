"""What readers and callers of a real `cairn serve` wait for, and what they cost; and what `cairn dev` costs a person.

    python benchmarks/bench_http.py [delta|admission|history|idle|kill|dev ...]

Servers run in processes of their own, as a user starts them; readers are plain sockets in this one, so that clients cost less
than the server. Latencies are from the moment the provider's stream yields a delta, whose text is that moment on the machine's
monotonic clock. Times are wall times of a machine that does other things too; CPU is the server's alone.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CAIRN = str(Path(sys.executable).with_name("cairn"))
HZ = os.sysconf("SC_CLK_TCK")

AGENTS = """
import asyncio
import time
from cairn import Agent, App
from cairn.harness.messages import Text
from cairn.harness.models.protocol import Completed, TextDelta
from cairn.testing.scripted import ScriptedModel, last_text

class Ticker:
    "Says what time it is, every 20 ms, for as many seconds as it is asked to; a plain word otherwise."
    spec, context_window = "ticker:model", None

    async def warm(self):
        pass

    async def stream(self, request):
        asked = last_text(request)
        seconds = float(asked) if asked.replace(".", "").isdigit() else 0
        said = []
        for _ in range(int(seconds * 50)):
            said.append(f"{time.monotonic_ns()} ")
            yield TextDelta(0, said[-1])
            await asyncio.sleep(0.02)
        yield Completed(content=(Text(text="".join(said) or "Yes."),), stop="stop", response_id="r")

talker = Agent("talker", model=Ticker())
"""

#: The same without a worker: only what a request itself costs.
ADMITTING = AGENTS + "\napp = App(agents=[talker], serve=False)\n"

STAMP = re.compile(rb"\d{12,}(?= )")


# --- servers --------------------------------------------------------------------------------------------------------


class Server:
    """One `cairn serve` or `cairn dev` on a folder."""

    def __init__(self, folder: Path, *command: str, port: int = 0) -> None:
        self.began = time.perf_counter()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the server
        environment = {**os.environ, "CAIRN_STORE": str(folder / "cairn.db")}
        self.process = subprocess.Popen(
            [CAIRN, *command, "--port", str(port)], cwd=folder, env=environment, stdout=self._log, stderr=self._log
        )
        while (found := re.search(r"http://127\.0\.0\.1:(\d+)", self.output)) is None:
            assert self.process.poll() is None, self.output
            time.sleep(0.002)
        self.port = int(found[1])
        while self.get("/ready")[0] != 200:
            time.sleep(0.002)
        self.ready_seconds = time.perf_counter() - self.began

    @property
    def output(self) -> str:
        return os.pread(self._log.fileno(), 100_000, 0).decode(errors="replace")

    def get(self, target: str) -> tuple[int, bytes]:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
            connection.request("GET", target)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except OSError:
            return 0, b""
        finally:
            connection.close()

    def send(self, conversation: str, body: str) -> dict[str, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        value = json.dumps({"kind": "user", "body": body})
        connection.request("POST", f"/agents/talker/{conversation}", value, {"content-type": "application/json"})
        answer = json.loads(connection.getresponse().read())
        connection.close()
        return answer  # type: ignore[no-any-return]

    def settled(self, conversation: str, count: int) -> dict[str, Any]:
        while True:
            state = json.loads(self.get(f"/agents/talker/{conversation}")[1])
            if len(state["settlements"]) >= count:
                return state  # type: ignore[no-any-return]
            time.sleep(0.005)

    def cpu(self) -> float:
        """CPU seconds so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / HZ

    def resident(self) -> int:
        """Bytes of memory, its children's too."""
        return sum(_resident(pid) for pid in (self.process.pid, *_children(self.process.pid)))

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@contextmanager
def folder(agents: str = AGENTS) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "agents.py").write_text(agents)
        yield Path(place)


def percentiles(values: list[float]) -> str:
    ordered = sorted(values)
    return "  ".join(
        f"p{share} {ordered[min(len(ordered) - 1, len(ordered) * share // 100)] * 1e3:8.2f} ms" for share in (50, 99)
    )


# --- readers --------------------------------------------------------------------------------------------------------


class Reader(asyncio.Protocol):
    """Takes what comes and, when it is a sample, notes when."""

    def __init__(self, port: int, target: str, sample: bool) -> None:
        self._request = f"GET {target} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n\r\n".encode()
        self._sample = sample
        self.seen: list[tuple[int, bytes]] = []
        self.settled = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.write(self._request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        if self._sample:
            self.seen.append((time.monotonic_ns(), data))
        if b"submission-settled" in data:
            self.settled.set()

    def latencies(self) -> list[float]:
        return [(at - int(stamp)) / 1e9 for at, data in self.seen for stamp in STAMP.findall(data)]


async def readers(port: int, target: str, count: int, samples: int) -> list[Reader]:
    made: list[Reader] = []
    loop = asyncio.get_running_loop()
    for start in range(0, count, 100):
        some = [Reader(port, target, start + place < samples) for place in range(min(100, count - start))]
        await asyncio.gather(*(loop.create_connection(lambda reader=reader: reader, "127.0.0.1", port) for reader in some))
        made += some
    await asyncio.sleep(1)
    return made


# --- what is measured -----------------------------------------------------------------------------------------------


def delta() -> None:
    """From the provider's delta to the reader, 50 deltas a second for five seconds."""
    for count in (1, 100, 1_000):
        with folder() as place:
            server = Server(place, "serve", "agents.py", "--log", "none")
            server.send("c", "hello")
            offset = server.settled("c", 1)["offset"]

            async def follow(server: Server = server, offset: str = offset, count: int = count) -> tuple[list[float], float]:
                following = await readers(server.port, f"/agents/talker/c?view=updates&live=sse&offset={offset}", count, 50)
                cpu, began = server.cpu(), time.perf_counter()
                await asyncio.to_thread(server.send, "c", "5")
                await asyncio.gather(*(reader.settled.wait() for reader in following))
                share = (server.cpu() - cpu) / (time.perf_counter() - began)
                return [each for reader in following for each in reader.latencies()], share

            latencies, share = asyncio.run(follow())
            server.stop()
            print(f"delta -> reader, {count:>5} readers   {percentiles(latencies)}   server CPU {share:.0%}", flush=True)


def admission() -> None:
    """Messages accepted a second, eight callers, over many conversations; without running any agent."""
    with folder(ADMITTING) as place:
        server = Server(place, "serve", "agents:app", "--log", "none")
        took: list[float] = []

        async def caller(number: int) -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            body = json.dumps({"kind": "user", "body": "hello"}).encode()
            for turn in range(200):
                head = f"POST /agents/talker/{number}-{turn % 20} HTTP/1.1\r\nhost: 127.0.0.1:{server.port}\r\n"
                head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
                began = time.perf_counter()
                writer.write(head.encode() + body)
                answer = await reader.readuntil(b"\r\n\r\n")
                assert b" 202 " in answer, answer
                await reader.readexactly(int(re.search(rb"content-length: (\d+)", answer)[1]))  # type: ignore[index]
                took.append(time.perf_counter() - began)
            writer.close()

        async def main() -> None:
            await asyncio.gather(*(caller(number) for number in range(8)))

        cpu, began = server.cpu(), time.perf_counter()
        asyncio.run(main())
        wall, cpu = time.perf_counter() - began, server.cpu() - cpu
        server.stop()
        print(f"admission, 8 callers   {len(took) / wall:8,.0f} /s   {cpu / len(took) * 1e6:6.0f} us CPU   {percentiles(took)}")


def history() -> None:
    """A conversation's history, first and again; and what is new at its head: nothing."""
    for messages in (10, 1_000, 10_000):
        with folder(ADMITTING) as place:
            asyncio.run(_talked(place, messages))
            server = Server(place, "serve", "agents:app", "--log", "none")
            path = "/agents/talker/c"
            times = [_timed(server, path) for _ in range(20)]
            state = json.loads(server.get(path)[1])
            assert len(state["messages"]) == messages
            head = [_timed(server, f"{path}?view=updates&offset={state['offset']}") for _ in range(200)]
            server.stop()
            again = Server(place, "serve", "agents:app", "--log", "none")
            third = _timed(again, path)
            again.stop()
            print(
                f"history, {messages:>6} messages   first {times[0] * 1e3:7.1f} ms   next process {third * 1e3:7.1f} ms   again"
                f" {min(times[1:]) * 1e3:6.2f} ms   at the head {percentiles(head)}",
                flush=True,
            )


def _timed(server: Server, target: str) -> float:
    began = time.perf_counter()
    status, _ = server.get(target)
    assert status == 200
    return time.perf_counter() - began


async def _talked(place: Path, messages: int) -> None:
    """A conversation of so many messages, half of them answers of three deltas: written as the owner would write it."""
    import msgspec

    from cairn.clock import SystemClock
    from cairn.harness import records as h
    from cairn.harness.conversation import Conversation
    from cairn.harness.messages import Text
    from cairn.harness.projection import PROJECTION, project
    from cairn.ids import SystemIds
    from cairn.runtime import records as r
    from cairn.runtime.storage import SqliteStore
    from cairn.runtime.storage.store import Address, Append, Batch, Creation, Durability

    store, fold, ordinal, now = (
        SqliteStore(str(place / "cairn.db"), clock=SystemClock(), ids=SystemIds()),
        Conversation(),
        0,
        1e9,
    )
    await store.open()

    def batch(*records: r.Record) -> Batch:
        nonlocal ordinal
        made = Batch(r.encode(records), project(fold.shown, fold.delivery_of, fold.control.queue, records), PROJECTION)
        for record in records:
            fold.apply(record, ordinal)
        ordinal += 1
        return made

    def sent(number: int) -> r.FiberAccepted:
        body = msgspec.Raw(msgspec.json.encode(h.Delivery(body=f"Question {number}, in about fifty characters of words.")))
        return r.FiberAccepted(fiber=f"sub_{number}", method=h.SUBMISSION, at=now, arguments=body)

    born = batch(r.InstanceCreated(kind="talker", id="c", uid="inst_1", at=now))
    creation = Creation("inst_1", "inc_1", born, now)
    admitted = await store.admit(Address("talker", "c"), creation, Append(0, batch(sent(0)), durability=Durability.DELTA))
    for number in range(messages // 2):
        names = {"submission": f"sub_{number}", "turn": f"turn_{number}", "message": f"msg_{number}"}
        text = "An answer of some eighty characters. "
        batches = [batch(sent(number))] if number else []
        batches.append(
            batch(
                r.FiberStarted(fiber=f"sub_{number}", at=now),
                h.TurnStarted(**names, epoch=0, at=now, model="x:y", includes=(f"sub_{number}",)),
            )
        )
        batches += [batch(h.MessageDelta(message=f"msg_{number}", block=0, kind="text", text=text)) for _ in range(3)]
        batches.append(
            batch(
                h.MessageCompleted(**names, content=(Text(text=text * 3),), stop="stop", at=now, model="x:y"),
                r.FiberSettled(fiber=f"sub_{number}", outcome="completed", at=now),
            )
        )
        await asyncio.gather(*(store.append(Append(admitted.n, each, 0, Durability.DELTA)) for each in batches))
    await store.close()


def idle() -> None:
    """Memory of a reader to whom nothing happens."""
    with folder() as place:
        server = Server(place, "serve", "agents.py", "--log", "none")
        server.send("c", "hello")
        offset = server.settled("c", 1)["offset"]
        before = server.resident()

        async def hold() -> int:
            held = await readers(server.port, f"/agents/talker/c?view=updates&live=sse&offset={offset}", 2_000, 0)
            return server.resident() if held else 0

        after = asyncio.run(hold())
        server.stop()
        print(
            f"idle readers, 2,000   {(after - before) / 2_000 / 1024:.1f} KB each   server {before >> 20} -> {after >> 20} MB"
        )


def kill() -> None:
    """SIGKILL in the middle of a text; the same command again at once; until a reader sees the text go on."""
    with folder() as place:
        server = Server(place, "serve", "agents.py", "--log", "none")
        began, start, port = 0.0, 0.0, server.port
        server.send("c", "2")
        time.sleep(1)
        began = time.perf_counter()
        server.kill()
        server = Server(place, "serve", "agents.py", "--log", "none", port=port)
        start = time.perf_counter() - began
        offset = json.loads(server.get("/agents/talker/c")[1])["offset"]
        connection = socket.create_connection(("127.0.0.1", port))
        target = f"/agents/talker/c?view=updates&live=sse&offset={offset}"
        connection.sendall(f"GET {target} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n\r\n".encode())
        seen = b""
        while b"message-delta" not in seen and b"submission-settled" not in seen:
            seen += connection.recv(65_536)
        goes_on = time.perf_counter() - began
        server.stop()
        print(f"kill -9 -> ready {start:.2f} s   -> the text goes on {goes_on:.2f} s")


def dev() -> None:
    """`cairn dev`: ready, an edit live, memory."""
    with folder() as place:
        server = Server(place, "dev", "agents.py", "--no-open")
        page = _until(lambda: server.get("/agents")[0] == 200)
        server.send("c", "hello")
        server.settled("c", 1)
        edits: list[float] = []
        for number in range(3):
            word = f"Edited {number}."
            (place / "agents.py").write_text(AGENTS.replace('"Yes."', repr(word)))
            edits.append(_until(lambda word=word, number=number: _says(server, f"e{number}", word)))
        memory = server.resident()
        ready = server.ready_seconds
        server.stop()
        print(f"cairn dev   ready {ready:.2f} s (+ {page * 1e3:.0f} ms)   an edit live {max(edits):.2f} s   {memory >> 20} MB")


def _says(server: Server, conversation: str, word: str) -> bool:
    before = len(json.loads(server.get(f"/agents/talker/{conversation}")[1] or b"{}").get("settlements", []))
    server.send(conversation, "hello")
    return word in str(server.settled(conversation, before + 1)["messages"])


def _until(condition: Callable[[], bool]) -> float:
    began = time.perf_counter()
    while not condition():
        time.sleep(0.01)
    return time.perf_counter() - began


PARTS: dict[str, Callable[[], None]] = {
    "delta": delta,
    "admission": admission,
    "history": history,
    "idle": idle,
    "kill": kill,
    "dev": dev,
}

if __name__ == "__main__":
    for name in sys.argv[1:] or PARTS:
        PARTS[name]()
