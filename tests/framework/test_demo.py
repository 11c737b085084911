"""The demo's scripted engineer reacts, its seeds aim, and its report counts: everything that needs no process."""

from __future__ import annotations

import asyncio
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from cairn.errors import UsageError
from cairn.framework.cli import main
from cairn.framework.cli.demo import Request, run
from cairn.framework.demo import report
from cairn.framework.demo.job import INSTRUCTIONS, MESSAGE, PROJECT, Job, prepare
from cairn.framework.demo.knowledge import UNKNOWN, Run, Step, fold, read_run
from cairn.framework.demo.model import ScriptedEngineer, rest, transcript_of
from cairn.framework.demo.moment import Moment, choose, ordinal, reached
from cairn.framework.demo.screen import Screen
from cairn.framework.demo.script import Move, next_move, used_names
from cairn.framework.demo.standing import Standing
from cairn.framework.demo.witness import Line, Witness
from cairn.framework.project import load
from cairn.harness import events as e
from cairn.harness import records as h
from cairn.harness.messages import AssistantMessage, ContextMessage, Text, ToolCall, ToolMessage, UserMessage
from cairn.harness.models.protocol import Completed, ModelRequest, TextDelta
from cairn.harness.render import UNKNOWN_OUTCOME
from cairn.runtime import records as r

ROOT = Path(__file__).parent.parent.parent

#: More calls than any honest repair of this size needs: a script that goes round in circles fails.
CALLS_MAX = 40


# --- a desk: the tools by hand, in a copy of the project -------------------------------------------------------------


def use(tool: str, arguments: dict[str, object], folder: Path) -> tuple[str, bool]:
    """(result, is error), as the file tools would say it."""
    if tool == "bash":
        command = str(arguments["command"]).replace("python3", shlex.quote(sys.executable))
        done = subprocess.run(command, shell=True, cwd=folder, capture_output=True, text=True, check=False)
        text = done.stdout + done.stderr
        return (text if done.returncode == 0 else f"{text}\n[Exit code {done.returncode}.]"), done.returncode != 0
    if tool in ("grep", "glob"):
        pattern = str(arguments["pattern"])
        lines = []
        for path in sorted(folder.rglob(str(arguments.get("glob", "*.py")) if tool == "grep" else pattern)):
            name = path.relative_to(folder).as_posix()
            if tool == "glob":
                lines.append(name)
                continue
            for number, text in enumerate(path.read_text().splitlines(), 1):
                lines += [f"{name}:{number}: {text}"] if re.search(pattern, text) else []
        return "\n".join(lines) or f"No line matches {pattern}.", False
    path = folder / str(arguments["path"])
    if not path.is_file():
        return f"{arguments['path']} does not exist.", True
    if tool == "read":
        return path.read_text().rstrip("\n"), False
    text = path.read_text()
    for each in arguments["edits"]:  # type: ignore[attr-defined]
        if text.count(each["oldText"]) != 1:
            return f"{arguments['path']} was not changed:\n- oldText occurs {text.count(each['oldText'])} times.", True
        text = text.replace(each["oldText"], each["newText"])
    path.write_text(text)
    return f"Changed {arguments['path']}.", False


def work(folder: Path, lose: Callable[[int, str], str] = lambda place, tool: "") -> tuple[list[Step], Move]:
    """Let the script work in the folder. Where `lose` says `before` or `after`, the outcome of the call is lost: it was not
    made, or it was."""
    steps: list[Step] = []
    while len(steps) < CALLS_MAX:
        move = next_move(steps)
        if not move.calls:
            return steps, move
        for tool, arguments in move.calls:
            if lost := lose(len(steps), tool):
                if lost == "after":
                    use(tool, arguments, folder)
                steps.append(Step(tool, arguments, UNKNOWN_OUTCOME, True))
            else:
                steps.append(Step(tool, arguments, *use(tool, arguments, folder)))
    raise AssertionError("it goes round in circles: " + " | ".join(f"{step.tool} {step.arguments}" for step in steps[-6:]))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    shutil.copytree(PROJECT, folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def run_of(folder: Path) -> Run:
    done = subprocess.run([sys.executable, "-m", "unittest"], cwd=folder, capture_output=True, text=True, check=False)
    return read_run("unittest", done.stderr)


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


# --- the project ------------------------------------------------------------------------------------------------------


def test_the_projects_bug_fails_exactly_one_test(project: Path) -> None:
    """A demo on a project that is fine would show nothing."""
    run = run_of(project)

    assert (run.count, run.failed) == (8, 1)
    assert run.failure is not None
    assert run.failure.test == "test_an_address_with_a_plus_gets_in"
    assert (run.failure.path, run.failure.function, run.failure.error) == ("doorkeeper/door.py", "enter", "LinkRefused")


@pytest.mark.parametrize(
    ("path", "old", "new", "refused_by"),
    [
        ("addresses.py", 'return f"{name}@', "return f\"{name.partition('+')[0]}@", "test_a_tag_is_part_of_the_address"),
        ("links.py", 'fields["page"][0]', 'fields["page"][0].replace(" ", "+")', "test_a_page_with_spaces"),
        (
            "door.py",
            "if not is_genuine(token, address, self._key):",
            "if not token:",
            "test_a_link_for_somebody_else_is_refused",
        ),
    ],
    ids=["tags are dropped", "blanks become pluses", "tokens are not checked"],
)
def test_a_wrong_fix_of_the_project_is_refused_by_its_tests(
    project: Path, path: str, old: str, new: str, refused_by: str
) -> None:
    """What the report suggests, and what is easiest, is not what is right; the project's own tests know."""
    change(project / "doorkeeper" / path, old, new)

    assert re.search(f"^(FAIL|ERROR): {refused_by}", run_of(project).output, re.MULTILINE)


# --- the script reacts ------------------------------------------------------------------------------------------------


def test_the_script_finds_the_bug_mends_it_and_leaves_the_tests_alone(project: Path) -> None:
    """The main job: reproduce, look, change one thing, check, report."""
    steps, move = work(project)

    assert run_of(project).passed
    assert [step.tool for step in steps] == ["read", "bash", "read", "grep", "read", "read", "edit", "bash"]
    assert "Fixed: Login fails for addresses with a plus." in move.text
    assert "all 8 tests pass" in move.text
    assert (project / "tests" / "test_door.py").read_bytes() == (PROJECT / "tests" / "test_door.py").read_bytes()


def test_what_the_script_reads_searches_and_edits_comes_out_of_the_results(project: Path) -> None:
    """The same bug under other names, in another file, in another shape: other calls, and it is mended all the same."""
    (project / "doorkeeper" / "links.py").rename(project / "doorkeeper" / "addresses_in_mail.py")
    for path in project.rglob("*.py"):
        text = path.read_text().replace("doorkeeper.links", "doorkeeper.addresses_in_mail")
        path.write_text(text.replace("read_link", "parse").replace("def enter", "def admit").replace(".enter(", ".admit("))
    change(
        project / "doorkeeper" / "addresses_in_mail.py",
        'return f"{base}/login?address={address}&token={token}&page={page}"',
        'url = f"{base}/in?page={page}&token={token}&address={address}"\n    return url',
    )

    steps, move = work(project)

    assert run_of(project).passed
    assert [step.arguments["pattern"] for step in steps if step.tool == "grep"] == ["def (parse|is_genuine)\\("]
    (edit,) = [step for step in steps if step.tool == "edit"]
    assert edit.arguments["path"] == "doorkeeper/addresses_in_mail.py"
    assert '    url = f"{base}/in?{query}"' in edit.arguments["edits"][-1]["newText"]
    assert "in admit (doorkeeper/door.py" in move.text


def test_the_script_takes_a_wrong_fix_back_and_says_that_it_did_not_find_the_cause(project: Path) -> None:
    """Its second idea is the wrong one that the project's tests refuse. It believes the tests."""
    change(
        project / "doorkeeper" / "links.py",
        'return f"{base}/login?address={address}&token={token}&page={page}"',
        'return base + "/login?address=" + address + "&token=" + token + "&page=" + page',
    )
    before = (project / "doorkeeper" / "links.py").read_bytes()

    steps, move = work(project)

    assert (project / "doorkeeper" / "links.py").read_bytes() == before
    assert [step.tool for step in steps].count("edit") == 2
    assert "I did not find the cause" in move.text
    assert "1 change and took everything back" in move.text
    assert "test_a_page_with_spaces" in "".join(next_move(steps[:place]).text for place in range(len(steps)))


def test_the_script_changes_nothing_when_it_cannot_reproduce(project: Path) -> None:
    """All tests pass: there is nothing to mend, whatever the report says."""
    change(project / "doorkeeper" / "links.py", "parse_qs, urlsplit", "parse_qs, urlencode, urlsplit")
    change(
        project / "doorkeeper" / "links.py",
        '?address={address}&token={token}&page={page}"',
        '?" + urlencode({"address": address, "token": token, "page": page})',
    )

    steps, move = work(project)

    assert not [step for step in steps if step.tool == "edit"]
    assert "I cannot reproduce this: all 8 tests pass" in move.text


def test_the_script_looks_for_another_report(project: Path) -> None:
    """A missing file is an answer like any other."""
    (project / "REPORT.md").rename(project / "BUG.md")

    steps, move = work(project)

    assert [(step.tool, step.arguments) for step in steps[:3]] == [
        ("read", {"path": "REPORT.md"}),
        ("glob", {"pattern": "*.md"}),
        ("read", {"path": "BUG.md"}),
    ]
    assert move.text.startswith("Fixed: Login fails")


def test_the_script_does_without_a_report_and_without_python3() -> None:
    """No report anywhere, and a machine whose interpreter is called `python`."""
    steps = [
        Step("read", {"path": "REPORT.md"}, "REPORT.md does not exist.", True),
        Step("glob", {"pattern": "*.md"}, "No file matches *.md."),
    ]
    first = next_move(steps)
    steps.append(Step("bash", first.calls[0][1], "bash: line 1: python3: command not found\n\n[Exit code 127.]", True))

    assert first.calls == (("bash", {"command": "python3 -m unittest"}),)
    assert next_move(steps).calls == (("bash", {"command": "python -m unittest"}),)


def test_the_script_says_when_no_test_runs() -> None:
    """It does not take silence for success."""
    steps = [
        Step("read", {"path": "REPORT.md"}, "# Something"),
        Step("bash", {"command": "python3 -m unittest"}, "ImportError: no module named tests\n\n[Exit code 1.]", True),
    ]

    move = next_move(steps)

    assert not move.calls
    assert "ran no test" in move.text


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("place", [1, 6, 7])
def test_a_lost_outcome_is_found_out_before_anything_is_repeated(project: Path, place: int, when: str) -> None:
    """S9: after an unknown outcome it runs the tests again, but looks into the file before it edits it again."""
    steps, move = work(project, lambda at, tool: when if at == place else "")

    assert run_of(project).passed
    assert move.text.startswith("Fixed")
    assert steps[place].is_unknown
    tools = [step.tool for step in steps[place:]]
    if place == 6:
        assert tools == ["edit", "read", *(["edit"] if when == "before" else []), "bash"]
    else:
        assert tools[:2] == ["bash", "bash"]
        assert steps[place + 1].arguments == steps[place].arguments


@pytest.mark.parametrize("when", ["before", "after"])
def test_every_lost_outcome_at_once_is_survived(project: Path, when: str) -> None:
    """Each command and each edit is lost the first time it is made; made or not, the file ends up mended once."""
    seen: set[str] = set()

    def lose(at: int, tool: str) -> str:
        first = tool not in seen and tool in ("bash", "edit")
        seen.add(tool)
        return when if first else ""

    _, move = work(project, lose)

    assert run_of(project).passed
    assert move.text.startswith("Fixed")


def test_the_script_reads_a_lost_outcome_in_the_harness_words() -> None:
    """The script knows an unknown outcome by the words the loop uses; if they change, this fails."""
    assert UNKNOWN_OUTCOME.startswith(UNKNOWN)
    assert fold([Step("bash", {"command": "x"}, UNKNOWN_OUTCOME, True)]).run is None


def test_used_names_are_the_imported_ones_of_that_function() -> None:
    source = (
        "from a import one, two\nfrom b import three\n\ndef f():\n    g(two(one()))\n    x.three()\n\ndef h():\n    three()\n"
    )

    assert used_names(source, "f") == ["two", "one"]
    assert used_names(source, "h") == ["three"]
    assert used_names(source, "missing") == []


# --- the script as a model --------------------------------------------------------------------------------------------


def said(text: str, *calls: ToolCall, interrupted: bool = False) -> AssistantMessage:
    words = (Text(text=text),) if text else ()
    return AssistantMessage(content=(*words, *calls), interrupted=interrupted)


def ask(messages: list[ContextMessage], model: ScriptedEngineer) -> tuple[str, Completed]:
    async def main() -> tuple[str, Completed]:
        text, last = "", None
        async for event in model.stream(ModelRequest(model=model.spec, system="", messages=messages)):
            if isinstance(event, TextDelta):
                text += event.text
            last = event
        assert isinstance(last, Completed)
        return text, last

    return asyncio.run(main())


QUESTION = UserMessage(content=(Text(text=MESSAGE),))


def test_the_model_says_the_same_to_whoever_asks_and_goes_on_where_it_was_cut(tmp_path: Path) -> None:
    """Another process is another object: what it says follows from the request alone."""
    whole, done = ask([QUESTION], ScriptedEngineer(pace=0))
    part = whole[:9]
    note = UserMessage(content=(Text(text='<note kind="continue">\nGo on.\n</note>'),))
    rest_of_it, again = ask([QUESTION, said(part, interrupted=True), note], ScriptedEngineer(pace=0))

    assert part + rest_of_it == whole
    assert [block for block in done.content if isinstance(block, ToolCall)] == [
        block for block in again.content if isinstance(block, ToolCall)
    ]
    assert (done.stop, again.stop) == ("tools", "tools")


def test_the_models_text_is_what_it_streamed() -> None:
    """The protocol's law: a completed response is the concatenation of its deltas."""
    text, done = ask([QUESTION], ScriptedEngineer(pace=0))

    assert "".join(block.text for block in done.content if isinstance(block, Text)) == text
    assert done.usage.output > 0


def test_the_model_witnesses_each_request(tmp_path: Path) -> None:
    witness = Witness(tmp_path / "effects.jsonl")
    call = ToolCall(id="c", name="read", arguments={"path": "REPORT.md"})
    messages: list[ContextMessage] = [
        QUESTION,
        said("a", call),
        ToolMessage(call="c", name="read", content=(Text(text="# T"),)),
    ]

    ask(messages, ScriptedEngineer(pace=0, witness=witness))
    ask([*messages, said("I w", interrupted=True)], ScriptedEngineer(pace=0, witness=witness))

    assert witness.lines() == [
        Line(kind="request", pid=os.getpid(), id="1"),
        Line(kind="request", pid=os.getpid(), id="1", characters=3),
    ]


def test_a_transcript_pairs_calls_with_their_results() -> None:
    calls = [ToolCall(id=name, name=name, arguments={}) for name in ("x", "y")]
    results = [ToolMessage(call=name, name=name, content=(Text(text=name.upper()),)) for name in ("y", "x")]

    transcript = transcript_of([QUESTION, said("", *calls), *results, said("unfin", interrupted=True)])

    assert [(step.tool, step.result) for step in transcript.steps] == [("x", "X"), ("y", "Y")]
    assert (transcript.finished, transcript.said) == (1, "unfin")
    assert rest("whole", "wh") == "ole"
    assert rest("whole", "other") == "whole"


# --- the moment -------------------------------------------------------------------------------------------------------


def test_a_seed_aims_at_one_moment_and_seeds_aim_at_all_kinds_of_them() -> None:
    """The kill point is chosen at random each run, and can be chosen again."""
    moments = [choose(seed) for seed in range(500)]

    assert moments == [choose(seed) for seed in range(500)]
    assert {moment.what for moment in moments} == {"answer", "shell", "fact"}
    assert len(set(moments)) > 250
    assert {moment.number for moment in moments if moment.what == "answer"} == set(range(2, 9))


def batch_of(standing: Standing, *records: r.Record) -> Standing:
    standing.apply(records)
    return standing


def turn(number: int) -> h.TurnStarted:
    return h.TurnStarted(submission="s", turn=f"t{number}", message=f"m{number}", epoch=1, at=0.0, model="x")


def delta(number: int, text: str) -> h.MessageDelta:
    return h.MessageDelta(message=f"m{number}", block=0, kind="text", text=text)


def completed(number: int) -> h.MessageCompleted:
    return h.MessageCompleted(
        submission="s", turn=f"t{number}", message=f"m{number}", content=(), stop="stop", at=0.0, model="x"
    )


def called(call: str, tool: str = "bash", repeat: h.Repeat = "never") -> h.ToolCalled:
    arguments = msgspec.Raw(b'{"command":"make"}')
    return h.ToolCalled(
        submission="s", turn="t1", call=call, name=tool, arguments=arguments, repeat=repeat, epoch=1, at=0.0
    )  # fmt: skip


def outcome(call: str, kind: h.CallOutcome = "ok") -> h.ToolOutcome:
    return h.ToolOutcome(submission="s", turn="t1", call=call, name="bash", outcome=kind, content=(), at=0.0)


def settled(kind: r.Outcome = "completed") -> r.FiberSettled:
    return r.FiberSettled(fiber="s", outcome=kind, at=0.0)


def claimed(epoch: int, at: float) -> r.InstanceClaimed:
    return r.InstanceClaimed(epoch=epoch, worker="w", at=at)


def test_a_moment_is_recognised_when_the_log_is_there_or_has_passed_it() -> None:
    """It is never missed: a moment that fell between two looks counts as reached."""
    standing = Standing()
    answer, shell, fact = Moment("answer", 1, 5), Moment("shell", 1, 0.04), Moment("fact", 3)

    batch_of(standing, turn(1))
    assert [reached(moment, standing) for moment in (answer, shell, fact)] == [None, None, None]
    batch_of(standing, delta(1, "abc"))
    assert reached(answer, standing) is None
    batch_of(standing, delta(1, "def"))
    assert reached(answer, standing) == 0.0
    batch_of(standing, completed(1), called("c1"))
    assert reached(answer, standing) == 0.0
    assert reached(shell, standing) == 0.04
    batch_of(standing, outcome("c1"))
    assert reached(shell, standing) == 0.0
    assert standing.facts == 3
    assert reached(fact, standing) == 0.0


def test_numbers_are_spoken() -> None:
    assert [ordinal(number) for number in (1, 2, 3, 4, 11, 12, 13, 21, 112)] == [
        "1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "112th",
    ]  # fmt: skip
    assert {str(choose(seed)).split()[0] for seed in range(50)} >= {"after", "right"}


# --- the report -------------------------------------------------------------------------------------------------------


def died_at(*batches: tuple[r.Record, ...]) -> tuple[Standing, report.Death]:
    standing = Standing()
    for records in batches:
        standing.apply(records)
    return standing, report.death(standing, 7, 100.0, 0.003, 0, 0.0)


def test_where_it_landed_is_read_from_the_log() -> None:
    """Not where it was aimed at."""
    assert died_at()[1].landed == "before its first step"
    assert died_at((turn(1),))[1].landed == "while it waited for its 1st answer"
    assert died_at((turn(1),), (delta(1, "abc"),))[1].landed == "in the middle of its 1st answer, 3 characters into it"
    assert died_at((turn(1),), (completed(1), called("c1")))[1].landed == "while `bash make` ran"
    assert died_at((turn(1),), (completed(1), settled()))[1].landed == "after the work was done"


def test_the_cost_of_a_kill_is_counted_from_log_and_witness() -> None:
    """A finished call with two lines is a repeated one, however sure the log is (S9)."""
    standing, death = died_at(
        (claimed(1, 90.0),), (turn(1),), (completed(1), called("done"), called("open"), called("safe", "read", "safe")),
        (outcome("done"),),
    )  # fmt: skip
    for records in ((claimed(2, 100.5),), (outcome("open", "unknown"), outcome("safe"), turn(2)), (completed(2), settled())):
        standing.apply(records)
    lines = [
        Line(kind="request", pid=7, id="0"),
        *(Line(kind="call", pid=7, id=id, tool="bash") for id in ("done", "open", "safe")),
        Line(kind="call", pid=8, id="safe", tool="read"),
        Line(kind="request", pid=8, id="1"),
    ]

    good = report.cost(death, standing, lines, is_scripted=True)
    again = [*lines, Line(kind="call", pid=8, id="done"), Line(kind="request", pid=8, id="0")]
    bad = report.cost(death, standing, again, is_scripted=True)

    assert (good.calls_kept, good.calls_repeated, good.answers_kept, good.answers_repeated) == (1, (), 1, ())
    assert (good.unknown, good.run_again) == (("`bash make`",), ("`read make`",))
    assert good.taken_up_seconds == 0.5
    assert good.requests == 2
    assert (bad.calls_repeated, bad.answers_repeated) == (("done",), (1,))


def a_report(standing: Standing, death: report.Death | None, **verdict: object) -> report.Report:
    fine = {"tests": Run("t", 8, 0, None, ""), "changed": ("doorkeeper/links.py",), "problems": ()}
    return report.Report(
        seed=1,
        aim="x",
        death=death,
        cost=report.cost(death, standing, [], is_scripted=True) if death else None,
        verdict=report.Verdict(**(fine | verdict)),  # type: ignore[arg-type]
        standing=standing,
        seconds=1.0,
    )


def test_a_demo_that_did_not_work_says_so() -> None:
    """Each thing it promises to have shown has a sentence for when it has not."""
    standing, death = died_at((turn(1),), (completed(1), settled()))

    assert report.failures(a_report(standing, death)) == []
    assert "8 fail" in report.failures(a_report(standing, death, tests=Run("t", 8, 8, None, "")))[0]
    assert "tests were changed" in report.failures(a_report(standing, death, changed=("tests/test_door.py",)))[0]
    assert report.failures(a_report(standing, death, problems=("log: torn",))) == ["the store: log: torn"]
    standing.apply([settled()])
    assert "2 settlements" in report.failures(a_report(standing, death))[0]


def test_kept_and_lost_characters_are_told_apart() -> None:
    standing = Standing()
    for records in ((turn(1),), (delta(1, "abcde"),)):
        standing.apply(records)
    cut = h.MessageInterrupted(submission="s", turn="t1", message="m1", reason="crash", keep=True, at=0.0)
    standing.apply([cut, turn(2)])
    standing.apply([delta(2, "fg")])
    standing.apply([msgspec.structs.replace(cut, message="m2", keep=False)])

    assert (standing.kept, standing.dropped) == (5, 2)


# --- the screen -------------------------------------------------------------------------------------------------------


def test_the_first_line_says_that_the_model_is_scripted() -> None:
    out = io.StringIO()

    Screen(out).opening(model=None, project="p", seed=3, aim="comes now")

    assert "the model is scripted" in out.getvalue().splitlines()[0]
    assert "seed 3" in out.getvalue()


def test_streamed_words_are_wrapped_and_none_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """However the text is cut into deltas, the words are the same and no line is longer than the screen."""
    monkeypatch.setenv("COLUMNS", "40")
    text = "one two three four five six seven eight nine ten eleven twelve.\nNext line; a-very-long-word " + "x" * 60
    for size in (1, 3, 7, 200):
        out = io.StringIO()
        screen = Screen(out)
        for start in range(0, len(text), size):
            screen.batch([e.MessageDelta(offset=1, message="m", kind="text", text=text[start : start + size])])
        screen.batch([e.MessageCompleted(offset=2, message="m", content=(), stop="stop")])

        lines = out.getvalue().splitlines()
        assert "".join("".join(lines).split()) == "".join(text.split())
        assert all(len(line) <= 40 for line in lines if "xxx" not in line)
        assert not [line for line in lines if line != line.rstrip()]


def test_calls_side_by_side_are_each_one_line() -> None:
    out = io.StringIO()
    screen = Screen(out)
    calls = [e.ToolStarted(offset=1, call=id, name="read", arguments={"path": f"{id}.py"}) for id in ("a", "b")]
    screen.batch(calls)
    for id, text in (("b", "1\n2"), ("a", "1")):
        content = (Text(text=text),)
        screen.batch([e.ToolCompleted(offset=2, call=id, name="read", outcome="ok", content=content)])

    assert out.getvalue() == "  → read b.py  ← 2 lines\n  → read a.py  ← 1 line\n"


def test_what_a_tool_prints_cannot_drive_the_terminal() -> None:
    out = io.StringIO()
    screen = Screen(out)
    screen.batch([e.ToolStarted(offset=1, call="c", name="bash", arguments={"command": "\x1b[2Jmake"})])
    content = (Text(text="\x1b[31mred"),)
    screen.batch([e.ToolCompleted(offset=2, call="c", name="bash", outcome="ok", content=content)])

    assert "\x1b" not in out.getvalue()


# --- the job and the verb ---------------------------------------------------------------------------------------------


def test_a_job_is_a_folder_of_its_own(tmp_path: Path) -> None:
    """The package's project is copied, never changed; removing the folder removes the demo."""
    job = prepare(tmp_path)
    (job.project / "doorkeeper" / "links.py").write_text("changed")
    (job.project / "new.py").write_text("")

    assert job.changed() == ["doorkeeper/links.py", "new.py"]
    assert prepare(tmp_path).changed() == []
    assert not list(job.project.rglob("__pycache__"))
    job.remove()
    job.remove()
    assert not job.folder.exists()


def test_the_demos_agent_is_the_examples_agent(tmp_path: Path) -> None:
    """Same name, same instructions, same tools; only the model and the witness differ. Both load offline."""
    job = prepare(tmp_path)
    example = load(ROOT / "examples" / "triage.py")
    agent = load(job.agent)

    assert agent.name == example.name == "triage"
    assert agent.instructions == example.instructions == INSTRUCTIONS
    assert agent.sandbox is not None
    assert example.sandbox is not None
    assert isinstance(example.model, str)
    assert {tool.name for tool in agent.tools} >= {"read", "edit", "bash", "grep", "glob"}


def test_the_example_is_under_twenty_five_lines() -> None:
    """A person writes an agent in under 25 lines."""
    assert len((ROOT / "examples" / "triage.py").read_text().splitlines()) < 25


def test_a_witnessed_tool_is_the_tool(tmp_path: Path) -> None:
    """Schema, repeat class and limits are the tool's own: the model and the loop see no difference."""
    from cairn.harness.sandbox.files import file_tools

    for plain, seen in zip(file_tools(), Witness(tmp_path / "e").tools(file_tools()), strict=True):
        assert (plain.spec, plain.repeat, plain.timeout_seconds) == (seen.spec, seen.repeat, seen.timeout_seconds)
        assert (plain.sequential, plain.place) == (seen.sequential, seen.place)


def test_a_model_without_a_key_is_refused_before_anything_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, exit code 2, and nothing was made."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with pytest.raises(UsageError, match="ANTHROPIC_API_KEY"):
        run(Request(model="anthropic:claude-sonnet-4-6"))

    assert main(["demo", "--model", "anthropic:claude-sonnet-4-6"]) == 2
    assert main(["demo", "--model", "nobody:x"]) == 2
    assert main(["demo", "--seed", "-1"]) == 2
    shown = capsys.readouterr()
    assert len(shown.err.splitlines()) == 3
    assert not list(tmp_path.iterdir())


def test_a_job_knows_where_things_are(tmp_path: Path) -> None:
    job = Job(tmp_path)

    assert job.store == tmp_path / ".cairn" / "cairn.db"
    assert job.witness.lines() == []
