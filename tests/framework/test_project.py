"""Finding agents in files, folders and projects: what is found, what is ignored, and how mistakes are told."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cairn.errors import AgentFileError, UsageError
from cairn.framework.config import find
from cairn.framework.project import discover, load

Write = Callable[[str, str], Path]

AGENT = "from cairn import Agent\n"


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a file of a project in an empty folder, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write_file(path: str, text: str) -> Path:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    return write_file


def refused(target: str) -> tuple[str, ...]:
    with pytest.raises(AgentFileError) as raised:
        load(target)
    assert "\n" not in str(raised.value)
    return raised.value.problems


# --- one file ---------------------------------------------------------------------------------------------------------


def test_a_file_with_one_agent_is_that_agent(write: Write) -> None:
    """Architecture §7: `cairn run agents/triage.py`."""
    write("triage.py", AGENT + "triage = Agent('triage', model='a:b')\n")

    agent = load("triage.py")

    assert agent.name == "triage"
    assert load("triage.py") is agent
    assert load(Path("triage.py")) is agent


def test_an_agent_without_a_name_is_called_as_its_file(write: Write) -> None:
    """One name less to write, and one less to keep in step."""
    write("bug_triage.py", AGENT + "it = Agent(model='a:b')\n")

    assert load("bug_triage.py").name == "bug-triage"


def test_a_file_with_two_agents_wants_to_know_which(write: Write) -> None:
    """Both are listed with their lines; a variable's and an agent's name are both understood."""
    write("two.py", AGENT + "a = Agent('one', model='a:b')\nb = Agent('other', model='a:b')\n")

    assert refused("two.py") == ("two.py: it holds 2 agents; say which, as in two.py:a (with their lines: a (2), b (3))",)
    assert load("two.py:b").name == "other"
    assert load("two.py:one").name == "one"
    assert refused("two.py:c") == ("two.py: it holds no agent 'c'; there are, with their lines: a (2), b (3)",)


def test_an_agent_that_is_only_imported_does_not_count(write: Write) -> None:
    """A file may mention another's agent."""
    write("one.py", AGENT + "one = Agent('one', model='a:b')\n")
    write("other.py", AGENT + "from one import one\nother = Agent('other', model='a:b')\n")

    assert load("other.py").name == "other"


def test_a_file_named_like_a_module_of_python_is_loaded_all_the_same(write: Write) -> None:
    """`types.py` is a fine name for a file nobody imports."""
    write("json.py", AGENT + "it = Agent('it', model='a:b')\n")
    write("my-agent.py", AGENT + "it = Agent('my-agent', model='a:b')\n")

    assert load("json.py").name == "it"
    assert load("my-agent.py").name == "my-agent"
    assert "loads" in vars(sys.modules["json"])


def test_two_projects_with_the_same_names_do_not_meet(write: Write, tmp_path: Path) -> None:
    """Tests and notebooks load many projects in one process."""
    for name in ("left", "right"):
        write(f"{name}/pyproject.toml", "[tool.cairn]\n")
        write(f"{name}/agents/same.py", AGENT + f"same = Agent('{name}', model='a:b')\n")

    assert load("left/agents/same.py").name == "left"
    assert load("right/agents/same.py").name == "right"
    assert load("left/agents/same.py").name == "left"


# --- mistakes in a file -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("x = (\n", "bad.py:1: '(' was never closed"),
        ("import nowhere_at_all\n", "bad.py:1: No module named 'nowhere_at_all'; install it, or correct the name"),
        ("\nfrom cairn import Agnt\n", "bad.py:2: ImportError: cannot import name 'Agnt' from 'cairn'"),
        ("def f():\n    return 1 / 0\nf()\n", "bad.py:2: ZeroDivisionError: division by zero"),
        ("raise ValueError('a\\nb')\n", "bad.py:1: ValueError: a b"),
        ("import sys\nsys.exit(3)\n", "bad.py:2: it ends the program when imported"),
        ("x = 1\n", "bad.py: it holds no agent; write `bad = Agent('bad', model=…)`"),
        (AGENT + "\na = Agent('Not Kebab')\n", "bad.py:3: an agent cannot be named 'Not Kebab'"),
        (AGENT + "a = Agent('a', modell='x')\n", "bad.py:2: "),
        (AGENT + "a = Agent('a')\n@a.tool\ndef f(x: object): ...\n", "bad.py:3: "),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line_with_the_place(write: Write, text: str, problem: str) -> None:
    """Architecture §9: bad input never ends in a traceback at the user's terminal."""
    write("bad.py", text)

    (found,) = refused("bad.py")

    assert found.startswith(problem)
    assert "\n" not in found


def test_a_mistake_in_a_module_the_file_imports_is_told_at_its_own_line(write: Write) -> None:
    """The line to mend is not the import of it."""
    write("agents/lib/prices.py", "\nTABLE = 1 / 0\n")
    write("agents/shop.py", AGENT + "from .lib.prices import TABLE\nshop = Agent('shop', model='a:b')\n")

    assert refused("agents/shop.py")[0].startswith("agents/lib/prices.py:2: ZeroDivisionError")


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("agents/triag.py", "there is no agents/triag.py; did you mean agents/triage.py?"),
        ("nowhere/triage.py", "not even its folder nowhere"),
        ("triagee", "did you mean 'triage'?"),
        ("other", "there are: triage"),
        ("agents/triag.py:triage", "there is no agents/triag.py; did you mean"),
    ],
)
def test_a_path_or_name_that_is_not_there_is_answered_with_what_is(write: Write, target: str, said: str) -> None:
    """Architecture §9: which thing, in which state, what to do."""
    write("agents/triage.py", AGENT + "triage = Agent('triage', model='a:b')\n")

    with pytest.raises(UsageError) as raised:
        load(target)

    assert said in str(raised.value)


def test_a_file_that_is_no_python_says_what_an_agent_is(write: Write) -> None:
    """`cairn run README.md`."""
    write("README.md", "# Hello\n")

    assert "an agent's file is Python" in refused("README.md")[0]


# --- a folder ---------------------------------------------------------------------------------------------------------


def test_a_folder_is_the_same_agent_a_file_would_have_made(write: Write) -> None:
    """Architecture §7: instructions.md, tools/ and agent.py make one Agent; lib, _private and tests are not looked at."""
    write("agents/support/agent.py", AGENT + "agent = Agent(model='a:b', thinking='low')\n@agent.tool\ndef own(): ...\n")
    write("agents/support/instructions.md", "---\ndescription: 'Helps: people'\n# a comment\n---\n\nHelp.\n\nAlways.\n")
    billing = "from cairn import tool\nfrom ..lib.money import cents\n@tool\ndef refund(): ...\n@tool\ndef charge(): ...\n"
    write("agents/support/tools/billing.py", billing)
    write("agents/support/tools/answer.py", "from cairn import tool\nfrom .billing import refund\n@tool\ndef answer(): ...\n")
    write("agents/support/tools/_draft.py", "raise Exception\n")
    write("agents/support/tools/test_billing.py", "raise Exception\n")
    write("agents/support/tools/billing_test.py", "raise Exception\n")
    write("agents/support/tools/conftest.py", "raise Exception\n")
    write("agents/support/lib/money.py", "cents = 100\n")
    write("agents/support/_notes/x.py", "raise Exception\n")

    agent = load("agents/support")

    assert agent.name == "support"
    assert agent.instructions == "Help.\n\nAlways."
    assert (agent.model, agent.thinking, agent.description) == ("a:b", "low", "Helps: people")
    assert [tool.name for tool in agent.tools] == ["own", "answer", "refund", "charge"]
    assert load("agents/support") is agent
    assert load("support") is agent
    assert len(agent.tools) == 4


def test_instructions_alone_are_an_agent(write: Write) -> None:
    """Architecture §7: agent.py is optional when instructions.md says enough."""
    write("agents/poet/instructions.md", "---\nmodel: anthropic:some\n---\nWrite verses.\n")

    agent = load("poet")

    assert (agent.name, agent.model, agent.instructions) == ("poet", "anthropic:some", "Write verses.")


def test_every_problem_of_a_folder_is_told_at_once(write: Write) -> None:
    """Architecture §7: discovery collects all errors with file and line."""
    write("a/agent.py", AGENT + "agent = Agnt()\n")
    write("a/instructions.md", "---\nmodle: x\nplain\n---\n")
    write("a/tools/one.py", "x = (\n")
    write("a/tools/two.py", "def forgotten(): ...\n")
    write("a/tools/deep/three.py", "")
    write("a/tool/four.py", "")
    write("a/subagents/SKILL.md", "")

    problems = refused("a")

    assert [problem.partition(": ")[0] for problem in problems] == [
        "a/subagents",
        "a/tool",
        "a/agent.py:2",
        "a/instructions.md:2",
        "a/instructions.md:3",
        "a/instructions.md",
        "a/tools/deep",
        "a/tools/one.py:1",
        "a/tools/two.py",
    ]
    assert "did you mean tools/?" in problems[1]
    assert "did you mean 'model'?" in problems[3]


def test_two_tools_of_one_name_in_a_folder_are_told_with_both_places(write: Write) -> None:
    """Architecture §7: names are durable keys; duplicates are refused with both paths."""
    write("a/instructions.md", "Do.\n")
    for file in ("one", "two"):
        write(f"a/tools/{file}.py", "from cairn import tool\n@tool\ndef same(): ...\n")

    (problem,) = refused("a")

    assert "tools/one.py:2" in problem
    assert "tools/two.py:2" in problem


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"a/agent.py": "x = 1\n"}, "it holds no agent; write `agent = Agent(…)`"),
        ({"a/instruction.md": "Hi\n"}, "did you mean instructions.md?"),
        ({"a/notes.txt": "Hi\n"}, "neither agent.py nor instructions.md"),
        ({"a/instructions.md": "---\nmodel: x:y\nHi\n"}, "the front matter has no end"),
        ({"a/instructions.md": "Hi\n", "a/tools.py": ""}, "make it tools/a.py"),
        (
            {"a/instructions.md": "Hi\n", "a/agent.py": AGENT + "agent = Agent(instructions='Ho')\n"},
            "instructions is said twice",
        ),
        ({"a_b/instructions.md": "Hi\n"}, "such as 'a-b'"),
    ],
)
def test_a_folder_that_makes_no_sense_is_refused_with_what_to_do(write: Write, files: dict[str, str], said: str) -> None:
    """A file or folder that would silently have no effect is a mistake."""
    for path, text in files.items():
        write(path, text)

    assert said in "; ".join(refused(next(iter(files)).partition("/")[0]))


# --- a project --------------------------------------------------------------------------------------------------------


def test_a_project_is_all_of_its_agents_in_order_of_their_files(write: Write) -> None:
    """Architecture §7: what is discovered is what `cairn info` shows and `cairn serve` serves."""
    write("pyproject.toml", "[tool.cairn]\nagents = 'crew'\nmodel = 'anthropic:some'\n")
    write("crew/triage.py", AGENT + "a = Agent('triage')\nb = Agent('second', model='x:y')\n")
    write("crew/poet/instructions.md", "Write.\n")
    write("crew/_old.py", "raise Exception\n")
    write("crew/lib/util.py", "raise Exception\n")

    project = discover(find())

    assert project.problems == ()
    assert [(agent.name, agent.model) for agent in project.agents] == [
        ("poet", "anthropic:some"),
        ("triage", "anthropic:some"),
        ("second", "x:y"),
    ]
    assert project.agent("second") is load("second")


def test_a_project_tells_every_problem_and_still_gives_what_works(write: Write) -> None:
    """`cairn check` finds all of it in one run; one broken file does not hide the others."""
    write("agents/broken.py", "x = (\n")
    write("agents/empty.py", "x = 1\n")
    write("agents/fine.py", AGENT + "fine = Agent('fine', model='a:b')\n")
    write("agents/same.py", AGENT + "same = Agent('other', model='a:b', aliases=['fine'])\n")
    write("agents/stray/readme.txt", "")
    write("agents/prose.md", "Hi\n")

    project = discover(find())

    assert [agent.name for agent in project.agents] == ["fine", "other"]
    assert [problem.split(": ")[0] for problem in project.problems] == [
        "agents/broken.py:1",
        "agents/empty.py",
        "agents/prose.md",
        "agents/stray",
        "agents/same.py:2",
    ]
    assert load("fine").name == "fine"


def test_a_name_is_found_although_another_file_is_broken(write: Write) -> None:
    """The mistake of a neighbour is not in the way of `cairn run fine`."""
    write("agents/broken.py", "x = (\n")
    write("agents/fine.py", AGENT + "fine = Agent('fine', model='a:b')\n")

    assert load("fine").name == "fine"
    with pytest.raises(AgentFileError) as raised:
        load("elsewhere")
    assert raised.value.problems == ("agents/broken.py:1: '(' was never closed",)


def test_a_former_name_still_finds_its_agent(write: Write) -> None:
    """Architecture §7: `aliases` for a rename."""
    write("agents/helper.py", AGENT + "helper = Agent('helper', model='a:b', aliases=['support'])\n")

    assert load("support").name == "helper"


def test_the_project_is_found_from_a_folder_deep_within_it(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """As git and pytest do."""
    root = write("pyproject.toml", "[tool.cairn]\nstore = 'data/my.db'\n").parent
    write("agents/fine.py", AGENT + "fine = Agent('fine', model='a:b')\n")
    monkeypatch.chdir(write("src/deep/x.txt", "").parent)

    assert (find().root, find().store) == (root, root / "data/my.db")
    assert load("fine").name == "fine"


def test_without_a_project_the_working_directory_is_one(write: Write, tmp_path: Path) -> None:
    """`cairn run` needs no configuration."""
    config = find()

    assert (config.root, config.file, config.agents_folder) == (tmp_path, None, tmp_path / "agents")
    assert discover(config).agents == ()
    with pytest.raises(UsageError, match="holds none; give a path"):
        load("anything")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[tool.cairn]\nagent = 'x'\n", "did you mean 'agents'?"),
        ("[tool.cairn]\nstore = 3\n", "a text is needed"),
        ("[tool.cairn]\nagents = '../elsewhere'\n", "inside the project"),
        ("[tool.cairn]\nmodel = 'claude'\n", "`provider:model`"),
        ("[tool]\ncairn = 3\n", "must be a table"),
        ("[tool.cairn\n", "not valid TOML"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused_by_file_and_option(write: Write, text: str, said: str) -> None:
    """An option that is silently ignored is a mistake found in production."""
    file = write("pyproject.toml", text)

    with pytest.raises(UsageError) as raised:
        find()

    assert said in str(raised.value)
    assert str(file) in str(raised.value)


def test_a_folder_is_found_where_another_project_in_the_process_has_a_file_of_that_name(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One process, two projects (a test run, a server of many): the one's `agents/clerk.py` is not the other's folder."""
    write("agents/clerk.py", AGENT + "clerk = Agent('clerk', model='a:b')\n")
    load("agents/clerk.py")
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.chdir(other)
    write("other/agents/clerk/agent.py", AGENT + "agent = Agent(model='a:b', instructions='The folder.')\n")

    assert load("agents/clerk").instructions == "The folder."
