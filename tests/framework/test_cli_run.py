"""`cairn run`: what is admitted, what is continued, what is shown where, and how it ends. Typed as a person types it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.framework.shell import ECHO, SCRIPTED, Shell, at_a_terminal, end, interrupt, started, wait_for

WORKER = f"""{SCRIPTED}
def add(a: int, b: int) -> int:
    "Add two numbers."
    return a + b

def script(request):
    return by_turn([
        [Say("Let me add.", thinking="Numbers."), Call("add", {{"a": 1, "b": 2}})],
        "The sum is three.",
    ])(request)

worker = Agent("worker", model=ScriptedModel(script), tools=[add])
"""

#: Its first answer never ends; whoever asks again is told the rest.
STALLING = f"""{SCRIPTED}
import pathlib
from cairn.testing.scripted import already_said

def script(request):
    if already_said(request.messages):
        return Say(" and here is the rest.")
    return Stall("This was said")

stalling = Agent("stalling", model=ScriptedModel(script))
"""


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path, monkeypatch, capsys)


def accepted(shell: Shell, address: str) -> list[str]:
    """The ids of what was admitted to a conversation."""
    return [record["fiber"] for record in shell.log(address) if record["type"] == "fiber.accepted"]


# --- which agent ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["echo", "agents/echo.py", "agents/echo.py:echo"])
def test_an_agent_is_named_by_its_name_its_file_or_both(shell: Shell, target: str) -> None:
    """What is discovered and what is pointed at is the same agent, and what is sent to it is on the log (S1)."""
    shell.write("agents/echo.py", ECHO)

    done = shell.cairn("run", target, "hello", "--id", "1")

    assert (done.code, done.out) == (0, "You said: hello\n")
    assert len(accepted(shell, "echo/1")) == 1


def test_an_agent_in_a_folder_runs_with_its_instructions_and_tools(shell: Shell) -> None:
    """A folder is the same Agent as a file: what the model was told and may call is on the log."""
    shell.write("agents/clerk/agent.py", SCRIPTED + "agent = Agent(model=ScriptedModel(obedient))\n")
    shell.write("agents/clerk/instructions.md", "Be exact.\n")
    shell.write(
        "agents/clerk/tools/clock.py",
        "from cairn import tool\n@tool\ndef now() -> str:\n    'The time.'\n    return 'noon'\n",
    )

    done = shell.cairn("run", "clerk", "CALL now", "--id", "1")

    assert (done.code, done.out) == (0, "noon\n"), done.err
    opened = next(record for record in shell.log("clerk/1") if record["type"] == "context.opened")
    assert "Be exact." in opened["system"]


def test_another_model_for_one_run_leaves_the_agent_as_it_is(shell: Shell) -> None:
    """`--model` is checked like the agent's own: a spec without a provider is refused before anything is stored (S1)."""
    shell.write("echo.py", ECHO)

    refused = shell.cairn("run", "echo.py", "hi", "--model", "claude-sonnet-4-6")

    assert refused.code == 2
    assert "anthropic:claude-sonnet-4-6" in refused.err
    assert not Path(".cairn").exists()


# --- what is admitted and what is continued -------------------------------------------------------------------------


def test_the_same_id_continues_the_conversation_and_another_message_is_another_submission(shell: Shell) -> None:
    """Settled is settled: the same words again are a new message (S6, S7)."""
    shell.write("echo.py", ECHO)

    for message in ("one", "two", "two"):
        assert shell.cairn("run", "echo.py", message, "--id", "1").out == f"You said: {message}\n"

    assert len(accepted(shell, "echo/1")) == 3


def test_a_key_is_strict(shell: Shell) -> None:
    """The same key and message is the first answer, with another message it is refused and nothing is stored (S6)."""
    shell.write("echo.py", ECHO)
    first = shell.cairn("run", "echo.py", "one", "--id", "1", "--key", "k")
    other = shell.cairn("run", "echo.py", "in between", "--id", "1")

    again = shell.cairn("run", "echo.py", "one", "--id", "1", "--key", "k")
    conflict = shell.cairn("run", "echo.py", "two", "--id", "1", "--key", "k")

    assert first.out == again.out == "You said: one\n"
    assert other.out == "You said: in between\n"
    assert "in between" not in again.err
    assert (conflict.code, conflict.out, conflict.err.count("\n")) == (2, "", 1)
    assert "'k'" in conflict.err
    assert len(accepted(shell, "echo/1")) == 2


def test_a_key_without_an_id_names_its_conversation_too(shell: Shell) -> None:
    """A key that was sent twice must meet itself, wherever it went (S6)."""
    shell.write("echo.py", ECHO)

    first = shell.cairn("run", "echo.py", "one", "--key", "k", "--json").events
    again = shell.cairn("run", "echo.py", "one", "--key", "k", "--json").events

    assert (first[0]["how"], again[0]["how"]) == ("started", "known")
    assert first[0]["submission"] == again[0]["submission"]
    assert first[1:] == again[1:]


def test_without_a_message_a_settled_conversation_has_nothing_to_do(shell: Shell) -> None:
    """`--id` alone goes on with what is unsettled; that there is nothing is said, and is no failure (L1)."""
    shell.write("echo.py", ECHO)
    shell.cairn("run", "echo.py", "one", "--id", "1")

    done = shell.cairn("run", "echo.py", "--id", "1")

    assert (done.code, done.out) == (0, "")
    assert "nothing unsettled" in done.err
    assert len(accepted(shell, "echo/1")) == 1


def test_a_message_may_come_from_standard_input(shell: Shell) -> None:
    """What is too long for a command line is piped; its last line break is the shell's (S1)."""
    shell.write("echo.py", ECHO)

    done = shell.cairn("run", "echo.py", "-", stdin="Zeile eins\nZeile zwei: ü\n".encode())

    assert done.out == "You said: Zeile eins\nZeile zwei: ü\n"


def test_data_is_the_first_state_of_a_new_conversation_only(shell: Shell) -> None:
    """An existing conversation keeps its state, and the person is told."""
    shell.write(
        "case.py",
        f"{SCRIPTED}\nfrom dataclasses import dataclass\nfrom cairn import Context\n"
        "@dataclass\nclass Case:\n    customer: str = ''\n    level: int = 0\n"
        "case = Agent('case', model=ScriptedModel(obedient), state=Case)\n"
        "@case.tool\nasync def who(context: Context[Case]) -> str:\n"
        "    'Who.'\n    return f'{context.state.customer} at {context.state.level}'\n",
    )

    first = shell.cairn("run", "case.py", "CALL who", "--id", "1", "--data", '{"customer": "Ada", "level": 3}')
    second = shell.cairn("run", "case.py", "CALL who", "--id", "1", "--data", '{"customer": "Bob"}')

    assert first.out == "Ada at 3\n"
    assert second.out == "Ada at 3\n"
    assert "--data" not in first.err
    assert "--data" in second.err


# --- what is shown --------------------------------------------------------------------------------------------------


def test_a_pipe_gets_the_answer_and_nothing_else(shell: Shell) -> None:
    """How it came to be goes to stderr: thinking, what was said on the way, calls, results, cost."""
    shell.write("worker.py", WORKER)

    done = shell.cairn("run", "worker.py", "add", "--id", "1")

    assert (done.code, done.out) == (0, "The sum is three.\n")
    for part in ("worker/1 · started", "Numbers.", "Let me add.", "→ add a=1 b=2", "← add", "  3", "2 requests", "tokens in"):
        assert part in done.err
    assert "\x1b" not in done.err


def test_json_lines_are_all_events_in_order_and_end_with_the_settlement(shell: Shell) -> None:
    """A program can follow a run: each line parses, pairs are complete, the last one says how it ended (S7, F6)."""
    shell.write("worker.py", WORKER)

    done = shell.cairn("run", "worker.py", "add", "--id", "1", "--json")

    names = [event["event"] for event in done.events]
    assert names == [
        "run.opened", "submission.accepted", "attempt.started", "submission.started",
        "turn.started", "message.started", "message.delta", "message.delta", "message.completed",
        "tool.started", "tool.completed", "turn.completed",
        "turn.started", "message.started", "message.delta", "message.completed", "turn.completed",
        "submission.settled",
    ]  # fmt: skip
    assert done.events[-1]["outcome"] == "completed"
    assert done.events[-1]["text"] == "The sum is three."
    assert done.err == ""


@pytest.mark.parametrize("json", [False, True])
def test_what_an_agents_own_code_prints_is_no_part_of_the_answer(shell: Shell, json: bool) -> None:
    """A `print` that was left in a tool, or in the file, must not break a program that reads stdout."""
    shell.write(
        "chatty.py",
        f"{SCRIPTED}\nprint('imported')\ndef look() -> str:\n    'Look.'\n    print('looking')\n    return 'seen'\n"
        "chatty = Agent('chatty', model=ScriptedModel(by_turn([Call('look'), 'I saw it.'])), tools=[look])\n",
    )

    done = shell.cairn("run", "chatty.py", "go", *(["--json"] if json else []))

    assert (done.events[-1]["text"] if json else done.out.rstrip()) == "I saw it."
    assert "imported" in done.err
    assert "looking" in done.err


HOSTILE = "\x1b[2J\x1b]0;owned\x07 \x9b31m \u202edesrever fine: äöü 漢字 \u200d ok\r\n"


@pytest.mark.parametrize("json", [False, True])
def test_control_characters_of_a_model_or_a_tool_are_shown_and_never_sent(shell: Shell, json: bool) -> None:
    """Nothing that is read can clear the screen, name the window or turn the writing (X8)."""
    shell.write(
        "hostile.py",
        f"{SCRIPTED}\nTEXT = {HOSTILE!r}\ndef look() -> str:\n    'Look.'\n    return TEXT\n"
        "hostile = Agent('hostile', model=ScriptedModel(by_turn([[Say(TEXT, thinking=TEXT), Call('look')], TEXT])),"
        " tools=[look])\n",
    )

    done = shell.cairn("run", "hostile.py", "go", "--id", "1", *(["--json"] if json else []))

    assert done.code == 0
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", done.out + done.err)
    assert ("\\u001b[2J" if json else "\\x1b[2J") in done.out
    assert "äöü 漢字 \u200d ok" in done.out


def test_a_secret_in_the_arguments_of_a_call_is_not_shown(shell: Shell) -> None:
    """Looking over a shoulder must not be a leak (X8)."""
    secret = "sk-" + "ant-api03-abcdefghijklmnopqrstuvwxyz"
    shell.write(
        "leaky.py",
        f"{SCRIPTED}\ndef login(user: str, password: str) -> str:\n    'Log in.'\n    return 'token {secret}'\n"
        "leaky = Agent('leaky', model=ScriptedModel(by_turn([Call('login', {'user': 'ada', 'password': 'hunter2'}), 'in'])),"
        " tools=[login])\n",
    )

    shown = shell.cairn("run", "leaky.py", "go", "--id", "1")
    machine = shell.cairn("run", "leaky.py", "go again", "--id", "2", "--json")

    for done in (shown, machine):
        assert done.code == 0
        assert "hunter2" not in done.out + done.err
        assert secret not in done.out + done.err
    assert "user=ada" in shown.err


@pytest.mark.system
@pytest.mark.parametrize("columns", [60, 200])
def test_a_terminal_shows_all_of_it_on_one_screen(shell: Shell, columns: int) -> None:
    """The answer once, unstyled; reasoning dim; marks before what tools did; no control character but colours (X8)."""
    shell.write("worker.py", WORKER)

    done = at_a_terminal(shell, "run", "worker.py", "add", "--id", "1", columns=columns)

    plain = re.sub("\x1b\\[[0-9;]*[mK]", "", done.out)
    assert done.code == 0
    assert plain.count("The sum is three.") == 1
    for part in ("worker/1 · started", "Let me add.", "→ add a=1 b=2", "← add", "2 requests"):
        assert part in plain
    assert "\x1b[2;3mNumbers." in done.out
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f]", plain)


@pytest.mark.system
@pytest.mark.parametrize("arguments", [["run", "echo.py", "hi"], ["info", "echo.py"], ["check", "echo.py"]])
def test_what_is_not_used_is_not_imported(shell: Shell, arguments: list[str]) -> None:
    """A pipe does not pay for colours, a scripted model for no provider, looking for no store."""
    shell.write("echo.py", ECHO)
    script = f"import sys\nfrom cairn.framework.cli import main\nmain({arguments!r})\nprint(*sys.modules)"

    done = subprocess.run([sys.executable, "-c", script], cwd=shell.folder, capture_output=True, text=True, check=True)

    imported = set(done.stdout.splitlines()[-1].split())
    assert not imported & {"rich", "rich.console", "pydantic", "pydantic_ai", "anthropic", "openai", "httpx2", "http.client"}
    if arguments[0] != "run":
        assert not imported & {"sqlite3", "cairn.runtime.worker"}


# --- how it ends ----------------------------------------------------------------------------------------------------


def test_a_submission_that_failed_is_exit_code_1_and_one_line_says_why(shell: Shell) -> None:
    """Failed is not completed, for scripts too (S7)."""
    shell.write(
        "failing.py",
        f"{SCRIPTED}\nfrom cairn import ModelError\n"
        "failing = Agent('failing', model=ScriptedModel([Fail(ModelError('the credit is used up', kind='quota'), 'Well')]))\n",
    )

    done = shell.cairn("run", "failing.py", "go")

    assert (done.code, done.out) == (1, "")
    assert [line for line in done.err.splitlines() if "credit" in line] == ["failed: the credit is used up"]


def test_a_submission_that_was_aborted_from_elsewhere_is_exit_code_130(shell: Shell) -> None:
    """An abort is on the log, whoever asked for it (S7)."""
    shell.write(
        "stopping.py",
        f"{SCRIPTED}\nfrom cairn import Context\nimport asyncio\n"
        "def stop_all() -> str:\n    'Stop.'\n"
        "    import subprocess, sys, pathlib\n"
        "    code = 'import asyncio\\nfrom cairn import App\\nfrom stopping import stopping\\n'"
        "    'async def main():\\n    async with App([stopping], serve=False) as app:\\n'"
        '    \'        await app.conversation(stopping, "1").abort(reason="enough")\\nasyncio.run(main())\'\n'
        "    subprocess.run([sys.executable, '-c', code], check=True)\n    return 'stopped'\n"
        "stopping = Agent('stopping', model=ScriptedModel(by_turn([Call('stop_all'), Stall('on')])), tools=[stop_all])\n",
    )

    done = shell.cairn("run", "stopping.py", "go", "--id", "1")

    assert (done.code, done.out) == (130, "")
    assert "aborted: enough" in done.err


@pytest.mark.system
def test_a_tool_that_raises_is_one_line_that_names_the_place_and_no_traceback(shell: Shell) -> None:
    """The author sees where; the model sees what; the run goes on (L7)."""
    shell.write(
        "broken.py",
        f"{SCRIPTED}\ndef divide() -> str:\n    'Divide.'\n    return str(1 / 0)\n"
        "broken = Agent('broken', model=ScriptedModel(by_turn([Call('divide'), 'I could not.'])), tools=[divide])\n",
    )

    with started(shell, "run", "broken.py", "go") as process:
        done = end(process)

    assert (done.code, done.out) == (0, "I could not.\n")
    assert "Traceback" not in done.err
    line = next(line for line in done.err.splitlines() if "ZeroDivisionError" in line)
    assert re.search(r"broken\.py:\d+", line)


def test_what_runs_after_a_settlement_has_run_when_the_command_ends(shell: Shell) -> None:
    """`on_settled` is at least once, and a command that ends early would be the commonest reason for never."""
    shell.write(
        "telling.py",
        ECHO.replace("echo =", "telling =").replace('"echo"', '"telling"')
        + "import pathlib, time\n@telling.on_settled\ndef tell(event):\n    time.sleep(0.2)\n"
        "    pathlib.Path('told').write_text(event.outcome)\n",
    )

    done = shell.cairn("run", "telling.py", "go")

    assert done.code == 0
    assert Path("told").read_text() == "completed"


@pytest.mark.system
def test_only_the_conversation_of_the_command_is_run(shell: Shell) -> None:
    """Others of the same agent, left unsettled, are not this person's business: nothing of them is appended (L7)."""
    shell.write("stalling.py", STALLING)
    with started(shell, "run", "stalling.py", "left", "--id", "left") as process:
        wait_for(process, "This was said")
        process.kill()
        process.wait()
    before = shell.log("stalling/left")

    with started(shell, "run", "stalling.py", "mine", "--id", "mine") as process:
        wait_for(process, "This was said")
        interrupt(process)
        assert end(process).code == 130

    assert shell.log("stalling/left") == before


# --- kill, and the same command again -------------------------------------------------------------------------------


def killed(shell: Shell, *arguments: str, at: str = "This was said") -> None:
    with started(shell, *arguments) as process:
        wait_for(process, at)
        process.kill()
        process.wait()


@pytest.mark.system
@pytest.mark.parametrize("again", [["tell me", "--id", "1"], ["--id", "1"]])
def test_after_a_kill_the_same_command_continues_and_so_does_the_id_alone(shell: Shell, again: list[str]) -> None:
    """One submission, its text kept, its answer whole (S1, S8, L2)."""
    shell.write("stalling.py", STALLING)
    killed(shell, "run", "stalling.py", "tell me", "--id", "1")

    done = shell.cairn("run", "stalling.py", *again)

    assert (done.code, done.out) == (0, "This was said and here is the rest.\n")
    assert "continuing · attempt 2" in done.err
    assert len(accepted(shell, "stalling/1")) == 1


@pytest.mark.system
def test_after_a_kill_the_same_command_continues_without_an_id_and_other_words_do_not(shell: Shell) -> None:
    """Nobody writes down a random id before a power cut (S1)."""
    shell.write("stalling.py", STALLING)
    killed(shell, "run", "stalling.py", "tell me")
    (killed_one,) = [each["id"] for each in shell.cairn("ls", "--json").events[0]["instances"]]

    with started(shell, "run", "stalling.py", "something else", "--json") as process:
        other = wait_for(process, "This was said", "stdout")
    done = shell.cairn("run", "stalling.py", "tell me", "--json")

    assert killed_one not in other
    assert (done.events[0]["id"], done.events[0]["how"]) == (killed_one, "continuing")
    assert done.events[-1]["text"] == "This was said and here is the rest."


@pytest.mark.system
def test_a_replay_is_told_in_a_line_and_the_unfinished_text_is_there_to_read_on_from(shell: Shell) -> None:
    """Who comes back does not scroll through what they have read, and misses nothing of what is open (L5)."""
    shell.write(
        "long.py",
        f"{SCRIPTED}\ndef look(n: int) -> str:\n    'Look.'\n    return f'result {{n}}'\n"
        "long = Agent('long', model=ScriptedModel(by_turn([\n"
        "    [Say('First.'), Call('look', {'n': 1}), Call('look', {'n': 2})], [Say('Second.'), Call('look', {'n': 3})],\n"
        "    lambda request: Stall('The end begins') if 'cut off' not in str(request.messages[-1:]) and not any(\n"
        "        getattr(m, 'interrupted', False) for m in request.messages) else 'The end begins and ends.',\n"
        "])), tools=[look])\n",
    )
    killed(shell, "run", "long.py", "go", "--id", "1", at="The end begins")

    done = shell.cairn("run", "long.py", "go", "--id", "1")

    assert done.out == "The end begins and ends.\n"
    assert "long/1 · continuing · attempt 2 · 2 answers and 3 calls are on the log\nThe end begins" in done.err
    assert "First." not in done.err
    assert "result" not in done.err


@pytest.mark.system
def test_beside_a_live_owner_it_follows_and_never_takes_over(shell: Shell) -> None:
    """Two terminals, one run: the second sees it all and changes nothing; its own message is answered too (S3, S4, L5)."""
    shell.write("echo.py", ECHO.replace("Say(", 'Stall("Thinking about it") if last_text(request) == "wait" else Say('))
    with started(shell, "run", "echo.py", "wait", "--id", "1") as owner:
        wait_for(owner, "Thinking about it")
        with started(shell, "run", "echo.py", "wait", "--id", "1") as follower:
            seen = wait_for(follower, "Thinking about it")
            interrupt(follower)
            followed = end(follower)
        owned = end(owner)

    assert f"continuing · attempt 1 · run by process {owner.pid}" in seen
    assert (owned.code, followed.code) == (130, 130)
    claims = [record for record in shell.log("echo/1") if record["type"] == "instance.claimed"]
    assert len(claims) == 1


@pytest.mark.system
def test_who_follows_takes_over_when_the_owner_dies(shell: Shell) -> None:
    """Following is not watching: the message is answered as long as one of the two lives (S1, L2)."""
    shell.write("stalling.py", STALLING)
    with started(shell, "run", "stalling.py", "tell me", "--id", "1") as owner:
        wait_for(owner, "This was said")
        with started(shell, "run", "stalling.py", "tell me", "--id", "1") as follower:
            wait_for(follower, "This was said")
            owner.kill()
            owner.wait()
            done = end(follower)

    assert (done.code, done.out) == (0, "This was said and here is the rest.\n")
    assert "taken up by another process" in done.err


@pytest.mark.system
def test_a_message_sent_beside_a_live_owner_is_answered_by_it(shell: Shell) -> None:
    """It sends and follows (S1): the owner's model is shown the second message, one process does the work."""
    shell.write(
        "gated.py",
        f"{SCRIPTED}\nimport pathlib, time\ndef wait() -> str:\n    'Wait for a file.'\n"
        "    while not pathlib.Path('go').exists():\n        time.sleep(0.01)\n    return 'there'\n"
        "gated = Agent('gated', model=ScriptedModel(by_turn([Call('wait'), *['Both are answered.'] * 2])), tools=[wait])\n",
    )
    with started(shell, "run", "gated.py", "one", "--id", "1") as owner:
        wait_for(owner, "→ wait")
        with started(shell, "run", "gated.py", "two", "--id", "1") as sender:
            wait_for(sender, "started")
            shell.write("go", "")
            sent = end(sender)
        owned = end(owner)

    assert (owned.code, owned.out) == (sent.code, sent.out) == (0, "Both are answered.\n")
    assert len([record for record in shell.log("gated/1") if record["type"] == "instance.claimed"]) == 1


# --- Ctrl-C ---------------------------------------------------------------------------------------------------------


@pytest.mark.system
def test_ctrl_c_aborts_and_the_conversation_goes_on_later(shell: Shell) -> None:
    """One settlement, aborted, 130; nothing is left unsettled (S7, F1)."""
    shell.write("stalling.py", STALLING)

    with started(shell, "run", "stalling.py", "tell me", "--id", "1") as process:
        wait_for(process, "This was said")
        interrupt(process)
        done = end(process)

    settled = [record for record in shell.log("stalling/1") if record["type"] == "fiber.settled"]
    assert (done.code, done.out) == (130, "")
    assert "Traceback" not in done.err
    assert [record["outcome"] for record in settled] == ["aborted"]
    assert "nothing unsettled" in shell.cairn("run", "stalling.py", "--id", "1").err


@pytest.mark.system
def test_ctrl_c_ends_a_run_whose_tool_ignores_everything(shell: Shell) -> None:
    """The abort settles within its bound, the thread is abandoned, and the process ends (L6, F3)."""
    shell.write(
        "deaf.py",
        f"{SCRIPTED}\nimport time\nfrom cairn import Limits\n"
        "def sleep() -> str:\n    'Sleep.'\n    time.sleep(600)\n    return ''\n"
        "deaf = Agent('deaf', model=ScriptedModel([Call('sleep')]), tools=[sleep], limits=Limits(abort_seconds=0.5))\n",
    )

    with started(shell, "run", "deaf.py", "go", "--id", "1") as process:
        wait_for(process, "→ sleep")
        interrupt(process)
        done = end(process)

    assert done.code == 130
    assert shell.log("deaf/1")[-1]["type"] in ("fiber.settled", "instance.released")


@pytest.mark.system
def test_ctrl_c_twice_leaves_at_once_and_the_next_run_goes_on(shell: Shell) -> None:
    """Even while a tool blocks the whole program; what was asked for, the abort, is on the log and is done (S1, L2)."""
    shell.write(
        "blocking.py",
        f"{SCRIPTED}\nimport time\n"
        "async def block() -> str:\n    'Block.'\n    print('blocked', flush=True)\n    time.sleep(600)\n"
        "blocking = Agent('blocking', model=ScriptedModel(by_turn([Call('block'), 'over'])), tools=[block])\n",
    )

    with started(shell, "run", "blocking.py", "go", "--id", "1") as process:
        wait_for(process, "blocked")
        interrupt(process)
        interrupt_until_it_ends(process)
        done = end(process)
    again = shell.cairn("run", "blocking.py", "--id", "1")

    assert done.code == 130
    assert "goes on from the log" in done.err
    assert "Traceback" not in done.err
    assert again.code in (0, 130)
    assert "nothing unsettled" in shell.cairn("run", "blocking.py", "--id", "1").err


@pytest.mark.system
def test_ctrl_c_while_a_provider_is_being_imported_does_not_wait_for_it(shell: Shell) -> None:
    """The import is beside everything else: the message is admitted before it ends, aborted before it ends (S1, F1)."""
    shell.write("real.py", "from cairn import Agent\nreal = Agent('real', model='anthropic:claude-sonnet-4-6')\n")
    shell.write("slow/httpx2.py", "import time\ntime.sleep(600)\n")
    environment = {**os.environ, "ANTHROPIC_API_KEY": "k", "PYTHONPATH": f"slow:{os.environ.get('PYTHONPATH', '')}"}

    with started(shell, "run", "real.py", "go", "--id", "1", env=environment) as process:
        wait_for(process, "real/1 · started")
        interrupt(process)
        done = end(process)

    settled = [record["outcome"] for record in shell.log("real/1") if record["type"] == "fiber.settled"]
    assert done.code == 130
    assert "Traceback" not in done.err
    assert settled == ["aborted"]


def interrupt_until_it_ends(process: subprocess.Popen[str]) -> None:
    """Two signals that are pending at once are one; a person presses again."""
    while True:
        try:
            process.wait(0.2)
            return
        except subprocess.TimeoutExpired:
            interrupt(process)


# --- a reader that leaves -------------------------------------------------------------------------------------------


@pytest.mark.system
def test_a_reader_that_leaves_stops_the_run_which_the_same_command_continues(shell: Shell) -> None:
    """`| head -1` is no traceback; what was admitted stays admitted and can go on (S1)."""
    shell.write("worker.py", WORKER)

    with started(shell, "run", "worker.py", "add", "--id", "1", "--json") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        said = process.stderr.read()
        code = process.wait(30)
    again = shell.cairn("run", "worker.py", "add", "--id", "1")

    assert "Traceback" not in said
    assert "Exception" not in said
    assert code in (0, 1)
    assert again.code == 0
    assert (again.out == "The sum is three.\n") or "nothing unsettled" in again.err


@pytest.mark.system
def test_an_answer_nobody_reads_is_still_an_answer(shell: Shell) -> None:
    """In a pipe the answer is written when it is final: the run has settled, and says so."""
    shell.write("worker.py", WORKER)

    with started(shell, "run", "worker.py", "add", "--id", "1") as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        said = process.stderr.read()
        code = process.wait(30)

    assert "Traceback" not in said
    assert code == 0
    assert shell.cairn("run", "worker.py", "--id", "1").code == 0
