"""`cairn`: one command line, from its words to its exit code."""

from __future__ import annotations

from collections.abc import Sequence

from cairn.errors import UsageError
from cairn.framework.cli.output import guard
from cairn.framework.cli.parsing import Parser, Version, add
from cairn.framework.cli.verbs import VERBS

EPILOG = "exit codes: 0 it worked, 1 it failed, 2 something has to change first, 3 parked, 130 aborted"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code (`Exit`). Never raises, unless CAIRN_DEBUG=1 asks it to."""
    return guard(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    parser = build()
    try:
        given = parser.parse_args(arguments)
    except SystemExit as end:  # the help, or the version, was asked for and shown
        return int(end.code or 0)
    if not hasattr(given, "run"):
        raise UsageError(f"`{given.prog}` needs a verb: {', '.join(given.verbs)}. See: {given.prog} --help")
    code: int = given.run(given)
    return code


def build() -> Parser:
    """The parser of the whole command line."""
    parser = Parser(prog="cairn", description="AI agents that survive production.", epilog=EPILOG, allow_abbrev=False)
    parser.add_argument("--version", action=Version, help="show the version and exit")
    add(parser, VERBS)
    return parser
