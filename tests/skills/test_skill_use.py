"""Skills as an agent uses them: a line in the prompt, instructions when asked, scripts in the sandbox."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from cairn import Agent, App, Turn, local, tool
from cairn.errors import AgentFileError, UsageError
from cairn.framework.cli import main
from cairn.framework.project import load
from cairn.harness.messages import Text, ToolMessage
from cairn.harness.models.protocol import ModelRequest
from cairn.harness.skill import Skill, skill
from cairn.harness.skill_files import discover
from cairn.testing.scripted import Call as C
from cairn.testing.scripted import Reply, ScriptedModel

REFUNDS = skill(
    "refunds",
    "How a refund is made.\nUse it for money.",
    "Run scripts/refund, then read references/law.md.",
    files={"scripts/refund": "#!/bin/sh\necho refunded $1\n", "references/law.md": "one\ntwo\nthree\n", "logo.bin": b"\0\1"},
    compatibility="Needs sh.",
)
RETURNS = skill("returns", "How things come back.", "Be kind.")


def talk(agent: Agent[Any], folder: Path) -> list[ModelRequest]:
    """The requests of one answered message."""

    async def main() -> None:
        async with App([agent], store=folder / "c.db") as app:
            receipt = await app.conversation(agent, "c").send("Go.")
            await receipt.reply()

    asyncio.run(main())
    model = agent.model
    assert isinstance(model, ScriptedModel)
    return model.requests


def results(request: ModelRequest) -> list[str]:
    """What the model was told by its tools."""
    return [
        block.text
        for message in request.messages
        if isinstance(message, ToolMessage)
        for block in message.content
        if isinstance(block, Text)
    ]


def scripted(*replies: Reply, **options: Any) -> Agent[Any]:
    return Agent("support", model=ScriptedModel(list(replies)), instructions="Help.", **options)


def test_the_prompt_has_one_line_a_skill_and_the_rest_is_loaded_when_asked(tmp_path: Path) -> None:
    """Progressive disclosure: names first, instructions on activation, files one by one."""
    agent = scripted(
        C("activate_skill", {"name": "refunds"}),
        C("read_skill_resource", {"name": "refunds", "path": "references/law.md", "offset": 2, "limit": 1}),
        "Done.",
        skills=[REFUNDS, RETURNS],
    )
    first, second, third = talk(agent, tmp_path)

    assert first.system.startswith("Help.")
    assert "- refunds: How a refund is made. Use it for money.\n- returns: How things come back." in first.system
    assert "scripts/refund" not in first.system
    assert [spec.name for spec in first.tools] == ["activate_skill", "read_skill_resource"]
    (loaded,) = results(second)
    assert "Run scripts/refund, then read references/law.md." in loaded and "Needs: Needs sh." in loaded
    assert "- references/law.md (14 bytes)" in loaded
    assert results(third)[-1].startswith("two") and "Lines 2–2 of 3" in results(third)[-1]
    assert first.system == second.system == third.system, "the prefix stays equal"


def test_wrong_names_and_files_are_told_to_the_model(tmp_path: Path) -> None:
    """A mistake is a result that says what there is."""
    agent = scripted(
        C("activate_skill", {"name": "refund"}),
        C("read_skill_resource", {"name": "refunds", "path": "references/laws.md"}),
        C("read_skill_resource", {"name": "refunds", "path": "../../etc/passwd"}),
        C("read_skill_resource", {"name": "refunds", "path": "logo.bin"}),
        C("read_skill_resource", {"name": "refunds", "path": "references/law.md", "offset": 9}),
        "Done.",
        skills=[REFUNDS],
    )
    told = results(talk(agent, tmp_path)[-1])
    assert "refunds" in told[0]
    assert told[1] == "Skill refunds has no file references/laws.md. Similar: references/law.md."
    assert "has no file ../../etc/passwd" in told[2]
    assert "is not text" in told[3]
    assert "offset 9 is past the end" in told[4]


def test_the_scripts_of_a_skill_run_in_the_sandbox(tmp_path: Path) -> None:
    """Its files are put there once, when it is activated; a script of a directory keeps its mode."""
    home = tmp_path / "home"
    home.mkdir()
    directory = tmp_path / "skills/refunds"
    (directory / "scripts").mkdir(parents=True)
    (directory / "SKILL.md").write_text("---\nname: refunds\ndescription: Money.\n---\nRun scripts/refund.\n")
    (directory / "scripts/refund").write_text("#!/bin/sh\necho refunded $1\n")
    (directory / "scripts/refund").chmod(0o755)
    agent = scripted(
        C("activate_skill", {"name": "refunds"}),
        C("bash", {"command": "cd .cairn/skills/refunds && ./scripts/refund 12 && cat SKILL.md"}),
        C("activate_skill", {"name": "refunds"}),
        "Done.",
        skills=[directory],
        sandbox=local(home),
    )
    told = results(talk(agent, tmp_path)[-1])
    assert "Its directory is .cairn/skills/refunds" in told[0]
    assert told[1].startswith("refunded 12\n# refunds\n\nRun scripts/refund.")
    assert told[2] == told[0]


def test_a_turn_may_unlock_a_skill() -> None:
    """`prepare` decides what the model sees; the catalogue and the tools follow."""

    def unlock(turn: Turn[None]) -> None:
        if turn.conversation == "vip":
            turn.use(RETURNS)

    agent = scripted(skills=[])
    agent.prepare(unlock)
    plain, vip = agent.render(conversation="c"), agent.render(conversation="vip")
    assert plain.tools == () and "# Skills" not in plain.instructions
    assert [each.name for each in vip.tools] == ["activate_skill"] and "- returns:" in vip.instructions
    assert agent.render(conversation="vip").tools is not None
    assert [a is b for a, b in zip(agent.render(conversation="vip").tools, vip.tools, strict=True)] == [True]


def test_conflicts_are_named() -> None:
    """Two skills of one name, and a tool in the way."""
    other = skill("refunds", "Another.", "Other.")
    with pytest.raises(UsageError, match="two skills named 'refunds'"):
        _ = scripted(skills=[REFUNDS, other]).skills

    @tool(name="activate_skill")
    def mine(name: str) -> str:
        """Mine."""
        return name

    with pytest.raises(UsageError, match=r"a tool named 'activate_skill' .* is in the way of skills"):
        scripted(skills=[REFUNDS], tools=[mine]).render()

    agent = scripted(skills=[REFUNDS])
    agent.prepare(lambda turn: turn.use(other))
    with pytest.raises(UsageError, match=r"turn\.use: there are two skills named 'refunds'"):
        agent.render()


def test_an_app_says_at_once_what_is_wrong_with_a_skill(tmp_path: Path) -> None:
    """Not at the first message: before anything is served."""

    async def main() -> None:
        async with App([scripted(skills=["nowhere"])], store=tmp_path / "c.db"):
            raise AssertionError("it was served")

    with pytest.raises(UsageError, match="nowhere: there is no such directory"):
        asyncio.run(main())


def test_skills_of_an_agent_folder_are_its_skills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`support/skills/refunds/SKILL.md`: no line of code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    folder = tmp_path / "agents/support"
    (folder / "skills/refunds").mkdir(parents=True)
    (folder / "instructions.md").write_text("---\nmodel: a:b\n---\nHelp.\n")
    (folder / "skills/README.md").write_text("not a skill")
    manifest = folder / "skills/refunds/SKILL.md"
    manifest.write_text("---\nname: refunds\ndescription: Money.\n---\nBe kind.\n")
    assert [each.name for each in load(folder).skills] == ["refunds"]
    manifest.write_text("---\nname: refund\ndescription: Money.\n---\nBe kind.\n")
    with pytest.raises(AgentFileError, match=r"agents/support/skills/refunds: SKILL\.md:2: name: 'refund' is not the name"):
        load(folder)


def test_skills_of_a_workspace_are_found_and_conflicts_named(tmp_path: Path) -> None:
    """`.agents/skills`: what is wrong is left out with a note, and the agent's own wins by name."""
    for name, text in {
        "good": "---\nname: good\ndescription: Good.\n---\nYes.\n",
        "bad": "---\nname: worse\ndescription: Bad.\n---\nNo.\n",
        "refunds": "---\nname: refunds\ndescription: Theirs.\n---\nNo.\n",
    }.items():
        (tmp_path / ".agents/skills" / name).mkdir(parents=True)
        (tmp_path / ".agents/skills" / name / "SKILL.md").write_text(text)

    async def main() -> tuple[tuple[Skill, ...], tuple[str, ...]]:
        sandbox = await local(tmp_path).open("a/b", str(tmp_path / "private"))
        try:
            found = await discover(sandbox, ["refunds"])
            return found.skills, found.notes
        finally:
            await sandbox.close()

    skills, notes = asyncio.run(main())
    assert [each.name for each in skills] == ["good"]
    assert notes == (
        "left out: .agents/skills/bad/SKILL.md:2: name: 'worse' is not the name of its directory, 'bad'; make them the same",
        ".agents/skills/refunds: the agent has a skill 'refunds' of its own, which is used; rename this one",
    )


# --- cairn skills check ----------------------------------------------------------------------------------------------


def test_the_check_lists_every_problem_and_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """For CI: exit code 2, a line a problem, JSON for programs."""
    monkeypatch.chdir(tmp_path)
    for name, text in {
        "good": "---\nname: good\ndescription: Good.\n---\n" + "Yes.\n" * 600,
        "bad": "---\nname: bad\ncolour: red\n---\nNo.\n",
    }.items():
        (tmp_path / "skills" / name).mkdir(parents=True)
        (tmp_path / "skills" / name / "SKILL.md").write_text(text)

    assert main(["skills", "check", "skills"]) == 2
    assert capsys.readouterr().out.splitlines() == [
        "skills/bad/SKILL.md:3: colour: no such field; there are: name, description, license, compatibility, metadata, "
        "allowed-tools",
        "skills/bad/SKILL.md: description: it is missing; a skill needs a name and a description",
        "note: skills/good/SKILL.md: 600 lines of instructions, more than the 500 advised; move details into files it refers "
        "to",
        "ok: good (600 lines)",
    ]
    assert main(["skills", "check", "skills/good/SKILL.md", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["skills"][0]["name"] == "good"
    assert main(["skills", "check", "nowhere"]) == 2
    assert "there is no directory 'nowhere'" in capsys.readouterr().err


def test_a_conversation_is_told_once_which_skills_its_directory_has(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Found when it opens, a line each, recorded; what is wrong or in conflict is left out, and the server's log says so."""
    home = tmp_path / "home"
    for name, text in {
        "good": "---\nname: good\ndescription: Good.\n---\nYes.\n",
        "refunds": "---\nname: refunds\ndescription: Theirs.\n---\nNo.\n",
    }.items():
        (home / ".agents/skills" / name).mkdir(parents=True)
        (home / ".agents/skills" / name / "SKILL.md").write_text(text)
    agent = scripted(C("read", {"path": ".agents/skills/good/SKILL.md"}), "Done.", sandbox=local(home), skills=[REFUNDS])

    first, second = talk(agent, tmp_path)

    assert "- good: Good. (.agents/skills/good/SKILL.md)" in first.system and "Theirs." not in first.system
    assert first.system == second.system
    assert results(second)[0].endswith("Yes.")
    assert "the agent has a skill 'refunds' of its own" in caplog.text
