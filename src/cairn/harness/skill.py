"""A skill: expertise a model loads when it needs it, in the open Agent Skills format. The format's rules, and nothing else.

    refunds/
      SKILL.md           front matter (name, description, …), then the instructions
      scripts/ references/ assets/ …   whatever the instructions speak of

Laws. Pure: texts in, a `Skill` or all its problems out. A problem names the file, the field and the rule. What the format does
not know is refused, not ignored: a misspelt field would have no effect, and nobody would learn of it.
"""

from __future__ import annotations

import difflib
import hashlib
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cairn.errors import UsageError

MANIFEST = "SKILL.md"

#: The format's own limits, in characters.
NAME_CHARACTERS_MAX = 64
DESCRIPTION_CHARACTERS_MAX = 1024
COMPATIBILITY_CHARACTERS_MAX = 500

#: What the format recommends at most for the instructions, which the model reads whole. Above it `cairn skills check` notes it.
INSTRUCTION_LINES_ADVISED = 500

#: Files of one skill, and bytes of one and of all of them. A skill is text with a few scripts; they are held in memory.
FILES_MAX = 500
FILE_BYTES_MAX = 5 * 1024 * 1024
SKILL_BYTES_MAX = 20 * 1024 * 1024

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_FIELDS = ("name", "description", "license", "compatibility", "metadata", "allowed-tools")


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a skill: where, with which field (empty: the file itself), against which rule."""

    file: str
    field: str
    text: str
    line: int | None = None

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.field}: {self.text}" if self.field else f"{place}: {self.text}"


class SkillError(UsageError):
    """A skill that breaks the format's rules. `problems` has all of them."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(str(problem) for problem in problems))


@dataclass(frozen=True, slots=True)
class Skill:
    """One skill. The model sees `name` and `description` always, `instructions` once it activates it, `files` when it asks.

    Two of the same content are equal, wherever they came from.
    """

    name: str
    description: str
    instructions: str
    files: Mapping[str, bytes] = field(default_factory=dict)
    """By path relative to the skill's directory; without SKILL.md."""
    license: str = ""
    compatibility: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    allowed_tools: tuple[str, ...] = ()
    """What the author says it uses. Shown to people; it grants nothing."""
    executable: frozenset[str] = frozenset()
    """The files that may be run as they are."""
    place: str = field(default="", compare=False)
    """Where it was found, for messages to people."""

    digest: str = field(default="", init=False)
    """Of everything a model can see of it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", _digest(self))

    def __hash__(self) -> int:
        return hash(self.digest)

    @property
    def catalogue_line(self) -> str:
        """What the prompt says of it, in one line."""
        return f"- {self.name}: {' '.join(self.description.split())}"


def _digest(skill: Skill) -> str:
    texts = (skill.name, skill.description, skill.instructions, skill.compatibility)
    parts = [text.encode("utf-8", "replace") for text in texts]
    for path in sorted(skill.files):
        parts += [path.encode("utf-8", "replace"), skill.files[path], b"x" if path in skill.executable else b""]
    seen = hashlib.sha256()
    for part in parts:
        seen.update(len(part).to_bytes(8, "big") + part)
    return seen.hexdigest()


def skill(
    name: str,
    description: str,
    instructions: str,
    *,
    files: Mapping[str, str | bytes] | None = None,
    license: str = "",
    compatibility: str = "",
    metadata: Mapping[str, str] | None = None,
    allowed_tools: tuple[str, ...] = (),
) -> Skill:
    """A skill written in code. *Raises* SkillError, as for one in a directory."""
    place = f"skill {name!r}"
    given: dict[str, Any] = {"name": name, "description": description}
    given |= {"license": license} if license else {}
    given |= {"compatibility": compatibility} if compatibility else {}
    given |= {"metadata": dict(metadata)} if metadata else {}
    given |= {"allowed-tools": " ".join(allowed_tools)} if allowed_tools else {}
    problems = check_fields(place, given, {})
    if not instructions.strip():
        problems.append(Problem(place, "instructions", "they are empty; say what the model has to do"))
    content = {path: data.encode() if isinstance(data, str) else bytes(data) for path, data in (files or {}).items()}
    problems += check_files(place, content)
    if problems:
        raise SkillError(problems)
    return make(given, instructions.strip() + "\n", content, place)


def make(
    fields: Mapping[str, Any],
    instructions: str,
    files: Mapping[str, bytes],
    place: str,
    executable: frozenset[str] = frozenset(),
) -> Skill:
    """The skill of fields that have been checked."""
    return Skill(
        name=fields["name"],
        description=fields["description"],
        instructions=instructions,
        files=dict(files),
        license=fields.get("license", ""),
        compatibility=fields.get("compatibility", ""),
        metadata=dict(fields.get("metadata", {})),
        allowed_tools=tuple(fields.get("allowed-tools", "").split()),
        executable=executable,
        place=place,
    )


# --- SKILL.md --------------------------------------------------------------------------------------------------------


def split_manifest(file: str, text: str) -> tuple[str, str]:
    """The front matter and the instructions of a SKILL.md. *Raises* SkillError when it has no front matter."""
    lines = text.removeprefix("\ufeff").splitlines()
    if not lines or lines[0].rstrip() != "---":
        raise SkillError([Problem(file, "", "it must begin with a front matter: a line `---`, fields, a line `---`", 1)])
    end = next((number for number, line in enumerate(lines[1:], 1) if line.rstrip() == "---"), None)
    if end is None:
        raise SkillError([Problem(file, "", "the front matter has no end; close it with a line `---`", 1)])
    return "\n".join(lines[1:end]) + "\n", "\n".join(lines[end + 1 :]).strip() + "\n"


def read_fields(file: str, matter: str) -> tuple[dict[str, Any], dict[str, int]]:
    """The fields of a front matter as texts, and the line of each. *Raises* SkillError: no YAML, no mapping, said twice."""
    import yaml

    try:
        node = yaml.compose(matter, Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        what = " ".join(str(getattr(error, "problem", None) or error).split())
        raise SkillError(
            [Problem(file, "", f"the front matter is not YAML: {what}", mark.line + 2 if mark else None)]
        ) from None
    except (RecursionError, ValueError) as error:
        raise SkillError([Problem(file, "", f"the front matter cannot be read: {error}", 2)]) from None
    if not isinstance(node, yaml.MappingNode):
        raise SkillError([Problem(file, "", "the front matter must be `field: value` lines", 2)])
    fields: dict[str, Any] = {}
    lines: dict[str, int] = {}
    problems: list[Problem] = []
    for key, value in node.value:
        name, line = _text_of(key), key.start_mark.line + 2
        if name is None:
            problems.append(Problem(file, "", "a field's name must be a text", line))
        elif name in fields:
            problems.append(Problem(file, name, "it is said twice", line))
        else:
            fields[name], lines[name] = _value_of(value), line
    if problems:
        raise SkillError(problems)
    return fields, lines


def _text_of(node: Any) -> str | None:
    return node.value if isinstance(node.value, str) else None


def _value_of(node: Any) -> Any:
    """A text, a mapping of texts, or None for anything else, which no field may be."""
    if isinstance(node.value, str):
        return node.value
    pairs = [(_text_of(pair[0]), _text_of(pair[1])) for pair in node.value if isinstance(pair, tuple)]
    if len(pairs) == len(node.value) and all(key is not None and value is not None for key, value in pairs):
        return dict(pairs)
    return None


def check_fields(file: str, fields: Mapping[str, Any], lines: Mapping[str, int], *, directory: str = "") -> list[Problem]:
    """Everything the format says about the fields. `directory`: the name the skill has to have."""
    problems: list[Problem] = []

    def wrong(name: str, text: str) -> None:
        problems.append(Problem(file, name, text, lines.get(name)))

    for name in fields:
        if name not in _FIELDS:
            close = difflib.get_close_matches(name, _FIELDS, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(_FIELDS)}"
            wrong(name, f"no such field; {hint}")
    for name in ("name", "description"):
        if name not in fields:
            wrong(name, "it is missing; a skill needs a name and a description")
    for name in ("name", "description", "license", "compatibility", "allowed-tools"):
        if name in fields and not isinstance(fields[name], str):
            wrong(name, "it must be a text")
    if "metadata" in fields and not _is_text_map(fields["metadata"]):
        wrong("metadata", "it must map texts to texts")
    if isinstance(called := fields.get("name"), str):
        problems += _check_name(file, called, directory, lines.get("name"))
    for limited, most in (("description", DESCRIPTION_CHARACTERS_MAX), ("compatibility", COMPATIBILITY_CHARACTERS_MAX)):
        if isinstance(text := fields.get(limited), str):
            if not text.strip():
                wrong(limited, "it is empty")
            elif len(text) > most:
                wrong(limited, f"it has {len(text):,} characters; at most {most:,}")
    return problems


def _is_text_map(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(each, str) for pair in value.items() for each in pair)


def _check_name(file: str, name: str, directory: str, line: int | None) -> list[Problem]:
    if not name:
        return [Problem(file, "name", "it is empty", line)]
    if len(name) > NAME_CHARACTERS_MAX:
        return [Problem(file, "name", f"it has {len(name)} characters; at most {NAME_CHARACTERS_MAX}", line)]
    if not _NAME.fullmatch(name):
        wanted = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
        hint = f", such as {wanted!r}" if wanted else ""
        rule = "only a-z, 0-9 and single hyphens between them are allowed"
        return [Problem(file, "name", f"{name!r}: {rule}{hint}", line)]
    if directory and name != directory:
        return [Problem(file, "name", f"{name!r} is not the name of its directory, {directory!r}; make them the same", line)]
    return []


# --- its other files -------------------------------------------------------------------------------------------------


def check_files(place: str, files: Mapping[str, bytes]) -> list[Problem]:
    """Paths that stay inside, sizes that fit, and nothing that looks like a secret."""
    problems: list[Problem] = []
    if len(files) > FILES_MAX:
        problems.append(Problem(place, "", f"it has {len(files):,} files; at most {FILES_MAX}"))
    if (total := sum(map(len, files.values()))) > SKILL_BYTES_MAX:
        problems.append(Problem(place, "", f"its files have {total:,} bytes; at most {SKILL_BYTES_MAX:,}"))
    for path, data in files.items():
        file = f"{place}/{path}"
        if not path or path.startswith("/") or posixpath.normpath(path) != path or path.split("/")[0] == ".." or "\0" in path:
            problems.append(Problem(file, "", "a path of a skill's file is relative and stays inside the skill"))
        elif path == MANIFEST:
            problems.append(Problem(file, "", "it is written from the skill's fields; leave it out"))
        elif len(data) > FILE_BYTES_MAX:
            problems.append(Problem(file, "", f"it has {len(data):,} bytes; at most {FILE_BYTES_MAX:,}"))
        elif (secret := secret_in(path, data)) is not None:
            line, what = secret
            text = f"it looks like {what}, and all of a skill is shown to models; take it out, and pass secrets by reference"
            problems.append(Problem(file, "", text, line))
    return problems


_SECRET_NAMES = re.compile(
    r"(^|/)(\.env(\..+)?|\.netrc|\.npmrc|\.pypirc|id_(rsa|dsa|ecdsa|ed25519)|credentials\.json|.+\.(pem|p12|pfx|key))$"
)
_HARMLESS_NAMES = re.compile(r"(^|/)\.env\.(example|sample|template)$")
_SECRETS: tuple[tuple[str, re.Pattern[bytes]], ...] = (
    ("a private key", re.compile(rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----")),
    ("a key of a cloud account", re.compile(rb"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b")),
    ("a GitHub token", re.compile(rb"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{40,})")),
    ("a Slack token", re.compile(rb"\bxox[abeoprs]-[A-Za-z0-9-]{20,}")),
    ("a key of a model provider", re.compile(rb"\bsk-(?:ant-|proj-)?[A-Za-z0-9_-]{32,}")),
    ("a Google key", re.compile(rb"\bAIza[0-9A-Za-z_-]{35}\b")),
    ("a payment key", re.compile(rb"\b[rs]k_live_[0-9A-Za-z]{20,}")),
)


def secret_in(path: str, data: bytes) -> tuple[int | None, str] | None:
    """The line and the kind of the first thing in the file that looks like a secret; by its name alone, no line."""
    if _SECRET_NAMES.search(path) and not _HARMLESS_NAMES.search(path):
        return None, "a file of secrets"
    for what, pattern in _SECRETS:
        if (found := pattern.search(data)) is not None:
            return data.count(b"\n", 0, found.start()) + 1, what
    return None
