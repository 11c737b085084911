"""X7: two thousand readers of one server, a hundred of them stuck. A real `cairn serve`, and clients in another process."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from tests.http.serving import PATIENCE_SECONDS, Server, serving

READERS = 2_000
STUCK = 100
#: What the whole server may hold then: what an idle one does, 2,000 connections, and two pieces for each that is stuck.
SERVER_BYTES_MAX = 400 << 20

WORDS = 40
AGENTS = f"""
from cairn import Agent
from cairn.testing.scripted import Say, ScriptedModel, last_text

def script(request):
    if last_text(request).startswith("big"):
        return "Noted."
    return Say("".join(f"word {{n:03}}. " for n in range({WORDS})), chunk=10, pause=0.05)

talker = Agent("talker", model=ScriptedModel(script))
"""
TEXT = "".join(f"word {n:03}. " for n in range(WORDS))
#: Characters of each message of the conversation that the stuck ones are sent: far beyond what a kernel takes for them.
BIG = 900_000


def ask(server: Server, target: str, value: Any = None) -> Any:
    body = None if value is None else json.dumps(value).encode()
    headers = {} if body is None else {"content-type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(server.url + target, body, headers), timeout=PATIENCE_SECONDS) as answer:
        return json.loads(answer.read())


def talk(server: Server, conversation: str, body: str) -> str:
    """Send, and return the offset at which the answer is complete."""
    sent = ask(server, f"/agents/talker/{conversation}", {"kind": "user", "body": body})
    offset = sent["offset"]
    while True:
        with urllib.request.urlopen(
            f"{server.url}/agents/talker/{conversation}?view=updates&live=long-poll&offset={offset}", timeout=PATIENCE_SECONDS
        ) as answer:
            offset = answer.headers["stream-next-offset"]
            chunks = json.loads(answer.read())
        if any(chunk.get("submissionId") == sent["submissionId"] and "outcome" in chunk for chunk in chunks):
            return str(offset)


def resident(pid: int) -> int:
    """Bytes of memory that the process has."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"process {pid} has no memory")


@pytest.mark.system
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="measures memory in /proc")
def test_two_thousand_readers_of_which_a_hundred_are_stuck_all_but_those_read_every_word(tmp_path: Path) -> None:
    """X7, L5: the stuck ones cost a bounded amount, and nobody else anything."""
    (tmp_path / "agents.py").write_text(AGENTS)
    with serving(tmp_path, "agents.py", options=("--log", "none")) as server:
        for number in range(8):
            talk(server, "large", f"big {number} " + "x" * BIG)
        offset = talk(server, "live", "big")
        before = resident(server.pid)
        live = f"/agents/talker/live?view=updates&live=sse&offset={offset}"
        stuck = "/agents/talker/large?view=updates&live=sse&offset=-1"
        arguments = [str(server.url.rpartition(":")[2]), str(READERS - STUCK), live, str(STUCK), stuck]
        with subprocess.Popen(
            [sys.executable, "-m", "tests.http.load_client", *arguments],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as clients:
            assert clients.stdout is not None and clients.stdin is not None
            try:
                assert clients.stdout.readline() == b"connected\n"
                idle = resident(server.pid)
                talk(server, "live", "Tell me.")
                told = json.loads(clients.stdout.readline())
                after = resident(server.pid)
                ask(server, "/health")
            finally:
                clients.stdin.close()
                clients.kill()
    assert told == {"stuck": STUCK, "texts": {TEXT: READERS - STUCK}}
    assert after < SERVER_BYTES_MAX, f"{before >> 20} MB before, {idle >> 20} MB with readers, {after >> 20} MB in the end"
    print(f"{before >> 20} MB, {(idle - before) / READERS / 1024:.1f} KB a reader, {after >> 20} MB after the answer")
