"""The `grep` tool: lines of files, by regular expression.

Laws. The search runs as a command of the sandbox, with a deadline: by ripgrep where there is one, else by `search.py` in the
sandbox's Python. Both answer in the same form; that they visit the same files in the same order is tested.
"""

from __future__ import annotations

import base64
import json
import posixpath
import shlex
from pathlib import Path
from typing import Any

from cairn.errors import SandboxError, ToolError
from cairn.harness.sandbox.protocol import ExecResult, Sandbox
from cairn.harness.sandbox.text import TEXT_BYTES_MAX, decode, head, printable
from cairn.harness.sandbox.toolbox import locate, make_tool, sandbox_of, told_to_the_model
from cairn.harness.tools import Tool, ToolResult

#: Matches shown if the model does not say; more is a sign that the pattern is too wide.
MATCHES_DEFAULT = 100
MATCHES_MAX = 1_000

#: A longer line is cut: minified code would fill the result.
LINE_CHARACTERS_MAX = 500

CONTEXT_LINES_MAX = 20

#: A whole kernel tree takes ripgrep 2 s; a pattern that backtracks for ever has to stop somewhere.
SEARCH_SECONDS_MAX = 30

#: What is read of the search's answer: a thousand matches of ordinary lines, several times over.
ANSWER_BYTES_MAX = 8 * 1024 * 1024

_RIPGREP = (
    "rg --json --no-config --hidden --no-require-git --no-ignore-global --no-ignore-exclude --no-ignore-dot"
    " --no-ignore-messages --crlf --sort=path"
)


def grep_tool() -> Tool:
    """Searches in files. Repeat class `safe`: it changes nothing."""
    return make_tool(
        "grep",
        f"""Search in files, line by line. Shows path:line: text. Hidden files are searched; binary files, .git and what
        .gitignore excludes are not, unless glob names it. Lines are cut at {LINE_CHARACTERS_MAX} characters.""",
        {
            "pattern": {"type": "string", "minLength": 1, "description": "A regular expression, or plain text with literal."},
            "path": {"type": "string", "description": "A directory or one file; the working directory if not given."},
            "glob": {"type": "string", "description": "Only files like this: *.py, src/**/*.{ts,tsx}."},
            "ignoreCase": {"type": "boolean", "description": "Take upper and lower case as the same."},
            "literal": {"type": "boolean", "description": "Take the pattern as plain text."},
            "context": {
                "type": "integer",
                "minimum": 0,
                "maximum": CONTEXT_LINES_MAX,
                "description": "Lines to show before and after each match.",
            },
            "limit": {
                "type": "integer",
                "minimum": 1,
                "maximum": MATCHES_MAX,
                "description": f"The most matches; {MATCHES_DEFAULT} if not given.",
            },
        },
        _run,
        required=("pattern",),
        repeat="safe",
    )


async def _run(context: Any, arguments: dict[str, Any]) -> ToolResult:
    sandbox = sandbox_of(context)
    asked: str = arguments.get("path") or "."
    limit = arguments.get("limit") or MATCHES_DEFAULT
    with told_to_the_model(asked):
        path, info = await locate(sandbox, asked)
        is_file = info.kind == "file"
        folder, name = (posixpath.dirname(path) or ".", posixpath.basename(path)) if is_file else (path, None)
        request = {
            "pattern": arguments["pattern"],
            "file": name,
            "glob": arguments.get("glob") or None,
            "ignore_case": bool(arguments.get("ignoreCase")),
            "literal": bool(arguments.get("literal")),
            "context": arguments.get("context") or 0,
            "limit": limit + 1,
        }
        answer = await _answer(sandbox, folder, request)
    shown_below = posixpath.dirname(asked) if is_file else asked
    return _told(arguments["pattern"], answer, limit, "" if shown_below in (".", "") else shown_below)


class _Answer:
    """What a search printed, taken in as it comes: ripgrep's JSON lines; anything else is a complaint."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self.timed_out = False

    def feed(self, data: bytes) -> None:
        self._bytes += data[: ANSWER_BYTES_MAX - len(self._bytes)]

    def read(self) -> tuple[list[tuple[bool, str, int, str]], str]:
        """(is a match, path, line number, text) of every line, and the complaints."""
        lines: list[tuple[bool, str, int, str]] = []
        complaints = []
        for line in bytes(self._bytes).split(b"\n"):
            try:
                message = json.loads(line)
                kind, data = message["type"], message["data"]
                if kind in ("match", "context"):
                    text = _text(data["lines"]).rstrip("\r\n")
                    lines.append((kind == "match", _text(data["path"]).removeprefix("./"), data["line_number"], text))
            except (ValueError, KeyError, TypeError):
                if not line.startswith(b"{"):  # or the last one, cut off
                    complaints.append(decode(line))
        return lines, "\n".join(complaints).strip()


async def _answer(sandbox: Sandbox, folder: str, request: dict[str, Any]) -> _Answer:
    answer = _Answer()
    searcher: str | None = getattr(sandbox, "searcher", None)
    command = (
        f"{searcher} {shlex.quote(json.dumps(request))}"
        if searcher
        else search_command(request, getattr(sandbox, "python", "python3"))
    )
    result: ExecResult | None = None
    try:
        result = await sandbox.exec(command, cwd=folder, timeout_seconds=SEARCH_SECONDS_MAX, on_output=answer.feed)
    except SandboxError as error:
        raise ToolError(f"The search could not be run: {error}") from error
    answer.timed_out = result.timed_out
    if result.full_output is not None:
        await sandbox.remove(result.full_output)
    return answer


def search_command(request: dict[str, Any], python: str = "python3") -> str:
    """A shell command that answers the request, by whichever of the two searchers is there."""
    flags = [
        "-F" * request["literal"],
        "-i" * request["ignore_case"],
        f"-C{request['context']}",
        f"--glob={shlex.quote(request['glob'])}" if request["glob"] else "",
        "--glob='!.git'",  # the last glob that matches decides
        "-e " + shlex.quote(request["pattern"]),
        "-- " + shlex.quote("./" + (request["file"] or "")),
    ]
    source = Path(__file__).with_name("search.py").read_text(encoding="utf-8")
    program = f"{source}\nmain(sys.argv[1])\n"
    # A match costs ripgrep at most its own line, its context and the opening and closing line of its file.
    lines_max = request["limit"] * (3 + 2 * request["context"]) + 1
    return (
        "if command -v rg >/dev/null 2>&1\n"
        f"then {_RIPGREP} {' '.join(flag for flag in flags if flag)} 2>&1 | head -n {lines_max}\n"
        f"else {shlex.quote(python)} -I -S -c {shlex.quote(program)} {shlex.quote(json.dumps(request))} 2>&1\n"
        "fi"
    )


def _told(pattern: str, answer: _Answer, limit: int, prefix: str) -> ToolResult:
    lines, complaint = answer.read()
    late = f"[Stopped after {SEARCH_SECONDS_MAX} seconds; narrow the path or the pattern.]" if answer.timed_out else ""
    if not any(is_match for is_match, *_ in lines):
        if complaint:
            raise ToolError(f"The search failed: {complaint[:1000]}")
        return ToolResult(late or f"No line matches {pattern}.", is_error=bool(late))
    shown: list[str] = []
    matches = 0
    last: tuple[str, int] | None = None
    has_context = not all(is_match for is_match, *_ in lines)
    for is_match, path, number, text in lines:
        matches += is_match
        if matches > limit:
            break
        if has_context and last is not None and last != (path, number - 1):
            shown.append("--")
        last = path, number
        shown.append(_line(posixpath.join(prefix, path), number, text, is_match))
    more = matches > limit
    while more and shown and shown[-1] == "--":
        shown.pop()
    cut = head("\n".join(shown), len(shown), TEXT_BYTES_MAX)
    notes = [late] if late else []
    if cut.lines < len(shown):
        notes.append(f"[The first {TEXT_BYTES_MAX // 1024} KB; there are more matches. Narrow the path or the pattern.]")
    elif more:
        notes.append(f"[The first {limit} matches; there are more. Narrow the search or raise the limit.]")
    return ToolResult("\n\n".join([cut.text, *notes]))


def _line(path: str, number: int, text: str, is_match: bool) -> str:
    text = printable(text)
    text = text if len(text) <= LINE_CHARACTERS_MAX else text[:LINE_CHARACTERS_MAX] + "… (cut)"
    return f"{path}:{number}: {text}" if is_match else f"{path}-{number}- {text}"


def _text(field: dict[str, str]) -> str:
    """ripgrep gives what is not UTF-8 as base64."""
    return field["text"] if "text" in field else decode(base64.b64decode(field["bytes"]))
