"""The Agent Skills format, rule by rule: what a SKILL.md may say, and how each mistake is told."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cairn.errors import UsageError
from cairn.harness.skill import FILE_BYTES_MAX, FILES_MAX, Skill, SkillError, read_fields, skill, split_manifest
from cairn.harness.skill_files import load_skill, load_skills

GOOD = "---\nname: refunds\ndescription: How a refund is made. Use when a customer wants money back.\n---\n\nBe kind.\n"


def put(root: Path, text: str | bytes, name: str = "refunds", **files: str | bytes) -> Path:
    directory = root / name
    directory.mkdir(parents=True, exist_ok=True)
    for path, content in {"SKILL.md": text, **files}.items():
        place = directory / path.replace("__", "/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content.encode() if isinstance(content, str) else content)
    return directory


def refused(directory: Path) -> list[str]:
    """The problems, without the path of the skill."""
    with pytest.raises(SkillError) as raised:
        load_skill(directory)
    assert "\n" not in str(raised.value)
    return [str(problem).removeprefix(f"{directory}/") for problem in raised.value.problems]


def manifest(**fields: str) -> str:
    lines = {"name": "refunds", "description": "Text.", **{key.replace("_", "-"): value for key, value in fields.items()}}
    return "---\n" + "".join(f"{key}: {value}\n" for key, value in lines.items() if value != "-") + "---\nDo it.\n"


def test_a_skill_is_its_fields_its_instructions_and_its_files(tmp_path: Path) -> None:
    """Everything the format knows, read from a directory."""
    text = (
        "---\nname: refunds\ndescription: >\n  How a refund\n  is made.\nlicense: MIT\ncompatibility: Needs git.\n"
        "metadata:\n  author: ops\n  version: 1.0\nallowed-tools: Bash(git:*) Read\n---\n# Refunds\n\nBe kind.\n"
    )
    directory = put(tmp_path, text, scripts__run="#!/bin/sh\necho hi\n", references__law="§ 1")
    (directory / "scripts/run").chmod(0o755)

    found = load_skill(directory)

    assert (found.name, found.description.strip(), found.license) == ("refunds", "How a refund is made.", "MIT")
    assert (found.compatibility, found.allowed_tools) == ("Needs git.", ("Bash(git:*)", "Read"))
    assert found.metadata == {"author": "ops", "version": "1.0"}
    assert found.instructions == "# Refunds\n\nBe kind.\n"
    assert set(found.files) == {"scripts/run", "references/law"}
    assert found.executable == {"scripts/run"}
    assert found.place == str(directory)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("# Refunds\n", ["SKILL.md:1: it must begin with a front matter"]),
        ("", ["SKILL.md:1: it must begin with a front matter"]),
        ("---\nname: refunds\n", ["SKILL.md:1: the front matter has no end"]),
        ("---\nname: [\n---\nx\n", ["SKILL.md:3: the front matter is not YAML"]),
        ("---\n- name\n---\nx\n", ["SKILL.md:2: the front matter must be `field: value` lines"]),
        ("---\n---\nx\n", ["SKILL.md:2: the front matter must be `field: value` lines"]),
        ("---\nname: refunds\nname: other\ndescription: x\n---\nx\n", ["SKILL.md:3: name: it is said twice"]),
        (manifest(name="-"), ["SKILL.md: name: it is missing"]),
        (manifest(description="-"), ["SKILL.md: description: it is missing"]),
        (manifest(description='""'), ["SKILL.md:3: description: it is empty"]),
        (manifest(description='"  "'), ["SKILL.md:3: description: it is empty"]),
        (manifest(description="d" * 1025), ["SKILL.md:3: description: it has 1,025 characters; at most 1,024"]),
        (manifest(description="[a, b]"), ["SKILL.md:3: description: it must be a text"]),
        (manifest(name='""'), ["SKILL.md:2: name: it is empty"]),
        (manifest(name="n" * 65), ["SKILL.md:2: name: it has 65 characters; at most 64"]),
        (manifest(name="Refunds"), ["SKILL.md:2: name: 'Refunds': only a-z, 0-9 and single hyphens", "such as 'refunds'"]),
        (manifest(name="re_funds"), ["SKILL.md:2: name: 're_funds': only a-z, 0-9", "such as 're-funds'"]),
        (manifest(name='"-refunds"'), ["SKILL.md:2: name: '-refunds': only a-z"]),
        (manifest(name="refunds-"), ["SKILL.md:2: name: 'refunds-': only a-z"]),
        (manifest(name="re--funds"), ["SKILL.md:2: name: 're--funds': only a-z"]),
        (manifest(name="other"), ["SKILL.md:2: name: 'other' is not the name of its directory, 'refunds'"]),
        (manifest(compatibility='""'), ["SKILL.md:4: compatibility: it is empty"]),
        (manifest(compatibility="c" * 501), ["SKILL.md:4: compatibility: it has 501 characters; at most 500"]),
        (manifest(metadata="x"), ["SKILL.md:4: metadata: it must map texts to texts"]),
        (manifest(metadata="{a: [1]}"), ["SKILL.md:4: metadata: it must map texts to texts"]),
        (manifest(allowed_tools="[Read]"), ["SKILL.md:4: allowed-tools: it must be a text"]),
        (manifest(license="{a: b}"), ["SKILL.md:4: license: it must be a text"]),
        (manifest(allowed_tool="Read"), ["SKILL.md:4: allowed-tool: no such field; did you mean 'allowed-tools'?"]),
        (manifest(version="1"), ["SKILL.md:4: version: no such field; there are: name, description"]),
        ("---\nname: refunds\ndescription: x\n---\n\n", ["SKILL.md: there are no instructions"]),
        (b"---\nname: refunds\ndescription: \xff\n---\nx\n", ["SKILL.md: it cannot be read as UTF-8"]),
    ],
)
def test_each_rule_names_the_file_the_field_and_the_line(tmp_path: Path, text: str | bytes, said: list[str]) -> None:
    """One rule a case, and nothing else is said."""
    (problem,) = refused(put(tmp_path, text))
    assert all(part in problem for part in said), problem


def test_the_edges_of_every_limit_are_allowed(tmp_path: Path) -> None:
    """64, 1,024 and 500 characters are not too many."""
    name = "n" * 64
    found = load_skill(put(tmp_path, manifest(name=name, description="d" * 1024, compatibility="c" * 500), name))
    assert (len(found.name), len(found.description), len(found.compatibility)) == (64, 1024, 500)


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    """Nobody mends one mistake to be told the next."""
    text = "---\nname: Refunds\nversion: 2\n---\n"
    assert len(refused(put(tmp_path, text))) == 4


def test_texts_of_yaml_stay_texts(tmp_path: Path) -> None:
    """`yes`, `1.10` and dates mean what is written."""
    found = load_skill(put(tmp_path, manifest(description="yes", license="1.10", metadata="{since: 2024-01-01, on: off}")))
    assert (found.description, found.license, found.metadata) == ("yes", "1.10", {"since": "2024-01-01", "on": "off"})


def test_a_byte_order_mark_and_crlf_do_not_hurt(tmp_path: Path) -> None:
    """Editors on other systems write them."""
    assert load_skill(put(tmp_path, b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())).instructions == "Be kind.\n"


def test_a_directory_without_a_manifest_says_so_and_a_misnamed_one_says_how(tmp_path: Path) -> None:
    """The two mistakes a newcomer makes first."""
    (tmp_path / "empty").mkdir()
    assert "SKILL.md: it is missing" in refused(tmp_path / "empty")[0]
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    (wrong / "skill.md").write_text(GOOD)
    assert "it is called 'skill.md'; rename it to SKILL.md" in refused(wrong)[0]
    assert "there is no such directory" in refused(tmp_path / "nowhere")[0]


@pytest.mark.parametrize(
    ("path", "content", "said"),
    [
        (".env", "A=1", "a file of secrets"),
        ("config__.env.production", "A=1", "a file of secrets"),
        ("keys__server.pem", "x", "a file of secrets"),
        ("id_ed25519", "x", "a file of secrets"),
        ("notes.md", "one\n-----BEGIN RSA PRIVATE KEY-----\n", "a private key"),
        ("run.sh", "export KEY=AKIA" + "A1B2C3D4E5F6G7H8", "a key of a cloud account"),
        ("run.sh", "T=ghp_" + "a1" * 20, "a GitHub token"),
        ("run.sh", "T=xoxb-" + "1234567890-" * 3, "a Slack token"),
        ("run.py", "key = 'sk-ant-" + "a1" * 20 + "'", "a key of a model provider"),
    ],
)
def test_a_secret_is_refused_when_a_skill_is_packaged(tmp_path: Path, path: str, content: str, said: str) -> None:
    """X8: what a skill holds is shown to models and sent to providers."""
    (problem,) = refused(put(tmp_path, GOOD, **{path: content}))
    assert f"it looks like {said}" in problem
    assert problem.startswith(path.replace("__", "/"))


def test_a_secret_in_the_instructions_is_refused_too(tmp_path: Path) -> None:
    """X8."""
    assert "a GitHub token" in refused(put(tmp_path, GOOD + "ghp_" + "a1" * 20))[0]


def test_an_example_of_an_environment_file_is_no_secret(tmp_path: Path) -> None:
    """The usual way to say which variables are needed."""
    found = load_skill(put(tmp_path, GOOD, **{".env.example": "KEY="}))
    assert set(found.files) == {".env.example"}


def test_links_and_devices_are_refused_and_droppings_left_out(tmp_path: Path) -> None:
    """S13: what a link leads to would be shown to a model."""
    directory = put(tmp_path, GOOD, __pycache____x="x", **{".git__config": "x"})
    assert load_skill(directory).files == {}
    (directory / "passwd").symlink_to("/etc/passwd")
    assert "passwd: it is a link" in refused(directory)[0]


def test_sizes_and_counts_have_limits(tmp_path: Path) -> None:
    """X7: a skill is held in memory."""
    assert "bytes; at most" in refused(put(tmp_path / "a", GOOD, big=b"x" * (FILE_BYTES_MAX + 1)))[0]
    many = {f"f{n}": "x" for n in range(FILES_MAX + 2)}
    assert any("at most 500" in each for each in refused(put(tmp_path / "b", GOOD, **many)))


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", "", "a//b", "./a", "a\0b", "SKILL.md"])
def test_a_file_of_an_inline_skill_stays_inside(path: str) -> None:
    """S13."""
    with pytest.raises(SkillError):
        skill("refunds", "Text.", "Do it.", files={path: "x"})


def test_an_inline_skill_obeys_the_same_rules() -> None:
    """Wherever a skill comes from, a model sees the same."""
    made = skill("refunds", "Text.", "Do it.", files={"run.sh": "echo"}, allowed_tools=("Read",), metadata={"a": "b"})
    assert made.files == {"run.sh": b"echo"} and made.allowed_tools == ("Read",)
    with pytest.raises(SkillError, match="only a-z"):
        skill("Refunds", "Text.", "Do it.")
    with pytest.raises(SkillError, match="instructions: they are empty"):
        skill("refunds", "Text.", "  ")


# --- where skills come from ------------------------------------------------------------------------------------------


def test_a_path_is_looked_for_beside_the_file_and_then_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent's file and its skills move together; a project's skills are shared."""
    put(tmp_path / "agents/skills", GOOD)
    put(tmp_path / "skills", GOOD.replace("refunds", "returns"), "returns")
    monkeypatch.chdir(tmp_path)
    beside = str(tmp_path / "agents/support.py")
    assert [each.name for each in load_skills(["skills/refunds", "skills/returns"], beside=beside)] == ["refunds", "returns"]
    with pytest.raises(SkillError, match=r"skills/gone: there is no such directory \(looked at .*agents/skills/gone and .*\)"):
        load_skills(["skills/gone"], beside=beside)


def test_a_directory_of_skills_stands_for_all_of_them(tmp_path: Path) -> None:
    """`skills="skills"`."""
    put(tmp_path, GOOD)
    put(tmp_path, GOOD.replace("refunds", "returns"), "returns")
    assert [each.name for each in load_skills([tmp_path])] == ["refunds", "returns"]


def test_an_installed_package_can_bring_a_skill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`package:directory`, also when neither the file nor the working directory has it."""
    package = tmp_path / "acme_skills"
    put(package / "skills", GOOD, scripts__run="x")
    (package / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    (found,) = load_skills(["acme_skills:skills/refunds"])
    assert (found.name, set(found.files)) == ("refunds", {"scripts/run"})
    with pytest.raises(SkillError, match="has no directory 'skills/gone'"):
        load_skills(["acme_skills:skills/gone"])
    with pytest.raises(SkillError, match="no package 'acme_nothing' is installed"):
        load_skills(["acme_nothing:skills"])
    sys.modules.pop("acme_skills", None)


def test_two_skills_of_one_name_are_refused_with_both_places(tmp_path: Path) -> None:
    """A conflict is named, never settled by order."""
    one, other = put(tmp_path / "a", GOOD), put(tmp_path / "b", GOOD + "More.\n")
    with pytest.raises(UsageError, match=r"two skills named 'refunds': .*a/refunds and .*b/refunds"):
        load_skills([one, other])
    assert len(load_skills([one, put(tmp_path / "c", GOOD)])) == 1, "the same content twice is one skill"


def test_the_problems_of_all_skills_are_told_at_once(tmp_path: Path) -> None:
    """A project is mended in one round."""
    put(tmp_path, "x")
    put(tmp_path, "x", "returns")
    with pytest.raises(SkillError) as raised:
        load_skills([tmp_path])
    assert len(raised.value.problems) == 2


@given(st.text(max_size=200))
def test_no_text_breaks_the_reader(text: str) -> None:
    """T19: a skill, or all its problems; never another error."""
    try:
        matter, _ = split_manifest("SKILL.md", "---\n" + text + "\n---\nx")
        read_fields("SKILL.md", matter)
    except SkillError:
        pass


def test_a_bomb_of_aliases_costs_nothing(tmp_path: Path) -> None:
    """X7: YAML's billion laughs; nothing is expanded, because only texts and one level of them are read."""
    bomb = "a: &a [x, x]\n" + "".join(
        f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefghijklmnopq", "bcdefghijklmnopqr", strict=True)
    )
    problems = refused(put(tmp_path, f"---\n{bomb}---\nx\n"))
    assert len(problems) > 3


def test_equal_content_is_an_equal_skill(tmp_path: Path) -> None:
    """The digest is of what a model can see, wherever it lies."""
    one, other = load_skill(put(tmp_path / "a", GOOD)), load_skill(put(tmp_path / "b", GOOD))
    changed = load_skill(put(tmp_path / "c", GOOD, run="x"))
    assert one == other and hash(one) == hash(other) and one.digest != changed.digest
    assert isinstance(one, Skill) and types.MappingProxyType(dict(one.files)) == {}
