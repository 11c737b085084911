"""The README's agent as a real `cairn run` process, over each wire protocol, against a provider on this machine."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.framework.shell import Done, Shell, end, started, wait_for

from cairn.testing.providers import (
    Break,
    Call,
    Fail,
    Hang,
    ProviderRequest,
    ProviderServer,
    Reply,
    Say,
    Think,
    Tokens,
    serve_in_thread,
)

pytestmark = pytest.mark.system

ROOT = Path(__file__).parent.parent.parent

REPORT = "The address is cut at the plus. It is fixed, and a ticket tells why."

#: The same agent asks another provider; without the option it asks its own.
WIRES = {
    "anthropic": [],
    "openai": ["--model", "openai:gpt-5"],
    "openai-chat": ["--model", "openai-chat:gpt-4.1"],
}


def readme_agent() -> str:
    """The program the README shows."""
    found = re.search(r"<!-- file: triage\.py -->\n```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    shell = Shell(tmp_path, monkeypatch, capsys)
    shell.write("triage.py", readme_agent())
    shell.write("login.py", "def login(address):\n    return address.split('+')[0]\n")
    return shell


def reachable(shell: Shell, server: ProviderServer) -> None:
    for name, value in server.environ.items():
        shell.set(name, value)


def working(request: ProviderRequest) -> Reply:
    """Looks at the file, opens a ticket with what it saw, reports; it reacts to the results it is sent."""
    if not request.results:
        return Reply.of(
            Think("A plus sign. ", "Look at the code."),
            Say("I shall ", "look."),
            Call("bash", {"command": "grep -n split login.py"}),
            usage=Tokens(input=1000, output=50),
        )
    if "split('+')" in request.results[0].text:
        ticket = Call("open_ticket", {"title": "Plus in addresses", "body": request.results[0].text})
        return Reply.of(ticket, usage=Tokens(input=200, output=30, cache_read=900))
    assert request.results[0].text == "opened: Plus in addresses"
    return Reply.of(Say("The address is cut ", "at the plus. ", "It is fixed, and a ticket tells why."))


def test_the_readme_agent_is_as_short_as_it_says() -> None:
    """Under 25 lines of code, and the rest of this file shows that it does its job."""
    lines = [line for line in readme_agent().splitlines() if line.strip()]

    assert len(lines) < 25


@pytest.mark.parametrize("wire", WIRES)
def test_the_readme_agent_works_over_every_wire(shell: Shell, wire: str) -> None:
    """Real tools, three requests, the answer on stdout; tokens and cost at the end (S8: each call once)."""
    with serve_in_thread(working) as server:
        reachable(shell, server)
        with started(
            shell, "run", "triage.py", "Login fails for addresses with a plus", "--id", "issue-17307", *WIRES[wire]
        ) as it:
            done = end(it)

    assert (done.code, done.out) == (0, REPORT + "\n")
    assert [request.wire for request in server.requests] == [wire] * 3
    assert server.requests[0].said == "Login fails for addresses with a plus"
    assert {"bash", "read", "edit", "open_ticket"} <= set(server.requests[0].tools)
    assert "→ bash grep -n split login.py" in done.err
    assert "split('+')" in done.err
    summary = done.err.splitlines()[-1]
    assert summary.startswith("completed · 3 requests · ")
    assert re.search(r"\(900 cached\), \d+ out · \$0\.\d{4}", summary), summary


@pytest.mark.parametrize("wire", WIRES)
def test_text_is_live_and_after_a_kill_no_finished_answer_is_asked_for_again(shell: Shell, wire: str) -> None:
    """What was said before the provider fell silent is shown while it is silent. Counted at the provider: one request was open
    when the process died, and only that one is made again (S8)."""
    events = {"anthropic": 5, "openai": 6, "openai-chat": 3}[wire]

    def script(request: ProviderRequest) -> Reply:
        reply = working(request)
        if len(server.requests) == 3:
            return Reply.of(Say("The address is cut ", "at"), fault=Break("stall", after=events))
        if len(server.requests) == 4:
            return Reply.of(Say("at the plus. It is fixed, and a ticket tells why."))
        return reply

    command = ["run", "triage.py", "Login fails for addresses with a plus", "--id", "1", *WIRES[wire]]
    with serve_in_thread(script) as server:
        reachable(shell, server)
        with started(shell, *command) as process:
            wait_for(process, "The address is cut")
            assert server.open_streams == 1
            process.kill()
            process.wait()
        with started(shell, *command) as process:
            done = end(process)

    assert (done.code, done.out) == (0, REPORT + "\n")
    assert len(server.requests) == 4
    assert "attempt 2 · 2 answers and 2 calls are on the log\nThe address is cut" in done.err
    assert [record["type"] for record in shell.log("triage/1")].count("tool.called") == 2


# --- when the provider fails ----------------------------------------------------------------------------------------


def _run(shell: Shell, *replies: Reply, agent: str = "") -> tuple[Done, ProviderServer]:
    if agent:
        shell.write("triage.py", agent)
    with serve_in_thread(replies) as server:
        reachable(shell, server)
        return shell.cairn("run", "triage.py", "hello", "--id", "1"), server


def test_a_provider_that_is_busy_is_asked_again_when_it_says(shell: Shell) -> None:
    """Retry-After is honoured and told in one line; the answer comes (T15)."""
    done, server = _run(shell, Reply.of(fault=Fail("rate_limit", retry_after="1")), Reply.of("Here I am."))

    assert (done.code, done.out, len(server.requests)) == (0, "Here I am.\n", 2)
    (line,) = [line for line in done.err.splitlines() if " 429" in line]
    assert re.search(r"asking again in [12]\.\ds", line)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("auth", ["key"]),
        ("quota", ["anthropic:claude-sonnet-4-6"]),
        ("overflow", ["long"]),
        ("not_found", ["claude-sonnet-4-6"]),
    ],
)
def test_a_failure_that_will_not_pass_is_one_clear_line(shell: Shell, kind: str, says: list[str]) -> None:
    """Asked once, told once, exit code 1: the message is settled, a new one can be sent when the cause is gone (S7, T15)."""
    done, server = _run(shell, Reply.of(fault=Fail(kind)))  # type: ignore[arg-type]

    lines = [line for line in done.err.splitlines() if line.startswith("failed: ")]
    assert (done.code, done.out, len(server.requests)) == (1, "", 1)
    assert len(lines) == 1, done.err
    assert "Traceback" not in done.err
    for part in says:
        assert part in lines[0]


IMPATIENT = """
from cairn import Agent, Limits
triage = Agent(
    "triage", model="anthropic:claude-sonnet-4-6",
    limits=Limits(first_event_seconds=0.5, idle_seconds=0.5, model_retries=0),
)
"""


@pytest.mark.parametrize("fault", [Hang(), Break("stall", after=5)], ids=["hangs", "stalls"])
def test_a_provider_that_falls_silent_is_one_clear_line(shell: Shell, fault: Hang | Break) -> None:
    """Deadlines are on events, the connection is dropped, the run settles (L3, F2, T15)."""
    done, _ = _run(shell, Reply.of(Say("Well, ", "no."), fault=fault), agent=IMPATIENT)

    lines = [line for line in done.err.splitlines() if line.startswith("failed: ")]
    assert (done.code, done.out) == (1, "")
    assert len(lines) == 1, done.err
    assert "0.5 s" in lines[0]


def test_a_provider_that_is_not_there_is_one_clear_line(shell: Shell) -> None:
    """A wrong base URL is the commonest mistake with a local server: the line names who was asked, and how that failed."""
    with serve_in_thread([]) as server:
        reachable(shell, server)
    shell.write("triage.py", IMPATIENT.replace("first_event_seconds=0.5, idle_seconds=0.5, ", ""))

    done = shell.cairn("run", "triage.py", "hello", "--id", "1")

    lines = [line for line in done.err.splitlines() if line.startswith("failed: ")]
    assert done.code == 1
    assert len(lines) == 1, done.err
    assert "anthropic" in lines[0]
    assert "connect" in lines[0].lower()


@pytest.fixture(autouse=True)
def _no_other_provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("ANTHROPIC_BASE_URL", "OPENAI_BASE_URL", "GEMINI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    yield
